"""What several rankings of one set come to: strengths, one ranking, how disputed the set is. Pure functions: no ORM.

A ranking is its tiers: entry i is completion i's tier, 1 the best, equal tiers tied; gaps between tiers mean nothing.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby, permutations

from labeling.pairs import wins

PRIOR = 0.1
LEAST_PRIOR = 1e-6
TOLERANCE = 1e-9
MAX_STEPS = 300

Table = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Strengths:
    """Log-worths with mean 0, and the tie parameter nu: two of equal worth tie with probability nu / (2 + nu)."""

    log_worths: list[float]
    nu: float


def davidson(rankings: Sequence[Sequence[int]], k: int, prior: float = PRIOR) -> Strengths:
    """Strengths of `k` completions by Bradley and Terry's model with ties (Davidson 1970), two completions or more.

    Completion i is better than j, worse, or tied in proportion to worth_i, worth_j and nu * sqrt(worth_i * worth_j).
    Every pair is counted `prior` times more each way and as a tie; without that, a completion that always wins or
    rankings without a tie have no finite estimate. With it there is exactly one.

    As every ranking holds all completions, the order is that of wins and half ties (Borda's count); the strengths add
    how far apart. The pairs of a ranking count as independent, which they are not: do not read certainty off them.
    """
    above = _counts(rankings, k, prior)
    better = [[above[i][j] + prior for j in range(k)] for i in range(k)]
    tied = [[len(rankings) - above[i][j] - above[j][i] + prior for j in range(k)] for i in range(k)]
    return fit_davidson(better, tied)


def bradley_terry(rankings: Sequence[Sequence[int]], k: int, prior: float = PRIOR) -> list[float]:
    """Log-worths with mean 0 of `k` completions, a tie being half a win for each; `prior` wins more each way."""
    above = _counts(rankings, k, prior)
    halves = [[(len(rankings) + above[i][j] - above[j][i]) / 2 + prior for j in range(k)] for i in range(k)]
    return fit_davidson(halves, [[0.0] * k] * k).log_worths


def _counts(rankings: Iterable[Sequence[int]], k: int, prior: float) -> list[list[int]]:
    if k < 2:
        raise ValueError("strengths are of two completions or more")
    if prior < LEAST_PRIOR:
        raise ValueError(f"with a prior below {LEAST_PRIOR} the strengths may not be finite")
    return wins(rankings, k)


def fit_davidson(better: Table, tied: Table) -> Strengths:
    """The likeliest strengths where i beat j `better[i][j]` times and tied `tied[i][j]`, which equals `tied[j][i]`.

    Without a tie nu is 0, which is Bradley and Terry's model. ValueError where wins do not lead from every completion
    to every other: where they do, the likelihood has one maximum (Ford 1957), and its logarithm is concave in the
    log-worths and log nu. Newton's steps find it: shortened so that no log-odds moves by more than 1, each one climbs.
    """
    k = len(better)
    if len(_reached(((i, j) for i in range(k) for j in range(k) if i != j and better[i][j] > 0), k)) < k * k:
        raise ValueError("wins do not lead from every completion to every other")
    ties = any(tied[i][j] for i, j in combinations(range(k), 2))
    logs, log_nu = [0.0] * k, 0.0 if ties else -math.inf
    for _ in range(MAX_STEPS):
        *steps, nu_step = _solve(*_derivatives(better, tied, logs, log_nu))
        spread = max(steps) - min(steps)
        longest = max(spread, abs(nu_step) + spread / 2)
        part = 1 / max(1, longest)
        logs = [log + part * step for log, step in zip(logs, steps, strict=True)]
        log_nu += part * nu_step
        if longest < TOLERANCE:
            return Strengths([log - sum(logs) / k for log in logs], math.exp(log_nu))
    raise ValueError("the counts are too far apart in size")


def _derivatives(better: Table, tied: Table, logs: list[float], log_nu: float) -> tuple[list[list[float]], list[float]]:
    """Of the log-likelihood by log-worths and log nu: the second ones with their sign turned, and the first ones.

    A pair scores 1, 1/2 or 0 for i, the rest for j: the first derivatives are scores and ties less those expected, the
    second ones their variances and covariances.
    """
    k = len(logs)
    curve, slope = [[0.0] * (k + 1) for _ in range(k + 1)], [0.0] * (k + 1)
    # Only differences of log-worths matter: the first completion is held where it is. So is nu where nothing ties.
    curve[0][0] = 1.0
    curve[k][k] = 0.0 if log_nu > -math.inf else 1.0
    for i, j in combinations(range(k), 2):
        games = better[i][j] + better[j][i] + tied[i][j]
        odds, tie_odds = math.exp(logs[i] - logs[j]), math.exp(log_nu + (logs[i] - logs[j]) / 2)
        win, tie = odds / (odds + tie_odds + 1), tie_odds / (odds + tie_odds + 1)
        score = win + tie / 2
        variance = games * (win + tie / 4 - score * score)
        covariance = games * tie * (1 / 2 - score)
        excess = better[i][j] + tied[i][j] / 2 - games * score
        for own, other, sign in ((i, j, 1), (j, i, -1)):
            slope[own] += sign * excess
            curve[own][own] += variance
            curve[own][other] -= variance
            curve[own][k] += sign * covariance
            curve[k][own] += sign * covariance
        slope[k] += tied[i][j] - games * tie
        curve[k][k] += games * tie * (1 - tie)
    return curve, slope


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """x with matrix @ x = right, by elimination; a positive definite matrix needs no exchange of rows."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for pivot, row in enumerate(rows):
        for other in rows:
            if other is not row:
                factor = other[pivot] / row[pivot]
                other[pivot:] = [a - factor * b for a, b in zip(other[pivot:], row[pivot:], strict=True)]
    return [row[-1] / row[i] for i, row in enumerate(rows)]


def ranked_pairs(rankings: Sequence[Sequence[int]], k: int) -> list[int]:
    """Tiers of one ranking for all, by Tideman's ranked pairs (1987): majorities are locked, the strongest first.

    A majority is a pair that more rankings put one way than the other; its strength is by how many more, then by how
    few put it the other way (a ranking that ties the pair is on neither side). One that closes a circle with stronger
    ones is dropped. Equally strong ones are judged together and dropped if they close a circle among themselves too:
    nothing depends on the numbers of the completions, and three labelers who rank in a circle give one tier.

    The tier follows from how many completions are locked below less how many are locked above, directly or through
    others. So whoever is locked above is in a better tier, and one on which the rankings are split is in the middle.
    """
    above = wins(rankings, k)

    def strength(pair: tuple[int, int]) -> tuple[int, int]:
        i, j = pair
        return above[i][j] - above[j][i], -above[j][i]

    majorities = [(i, j) for i, j in permutations(range(k), 2) if above[i][j] > above[j][i]]
    locked: set[tuple[int, int]] = set()
    for _, group in groupby(sorted(majorities, key=strength, reverse=True), key=strength):
        equals = set(group)
        reached = _reached(locked | equals, k)
        locked |= {(i, j) for i, j in equals if (j, i) not in reached}
    over = _reached(locked, k)
    balance = [sum(((i, j) in over) - ((j, i) in over) for j in range(k)) for i in range(k)]
    tiers = {value: tier for tier, value in enumerate(sorted(set(balance), reverse=True), start=1)}
    return [tiers[value] for value in balance]


def _reached(arrows: Iterable[tuple[int, int]], k: int) -> set[tuple[int, int]]:
    """Every (i, j) with a path of arrows from i to j (Warshall 1962)."""
    paths = set(arrows)
    for middle in range(k):
        sources = [i for i in range(k) if (i, middle) in paths]
        targets = [j for j in range(k) if (middle, j) in paths]
        paths |= {(i, j) for i in sources for j in targets}
    return paths


def dispute(rankings: Sequence[Sequence[int]]) -> float:
    """How disputed a set is, 0 (all rankings are the same) to 1 (two that are each other's reverse).

    The mean, over every two rankings and every two completions, of 1 where they put the pair in opposite orders and
    1/2 where one of them ties it: Kemeny and Snell's distance (1962) as a share of the largest there is. It estimates
    how far two labelers differ, so sets with few rankings and with many are comparable; more than two cannot all be
    each other's reverse, and three reach 2/3. Fewer than two rankings dispute nothing: 0.
    """
    count, k = len(rankings), len(rankings[0]) if rankings else 0
    above = wins(rankings, k)
    differing = 0.0
    for i, j in combinations(range(k), 2):
        better, worse = above[i][j], above[j][i]
        differing += better * worse + (better + worse) * (count - better - worse) / 2
    compared = math.comb(count, 2) * math.comb(k, 2)
    return differing / compared if compared else 0.0
