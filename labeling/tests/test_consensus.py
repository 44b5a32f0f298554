"""Consensus of rankings, against published examples, scipy, choix and the properties that the methods promise."""

import math
import random
from itertools import combinations, permutations

import choix
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from labeling import consensus
from labeling.agreement import kendall_tau_b
from labeling.consensus import PRIOR, bradley_terry, davidson, dispute, fit_davidson, ranked_pairs
from labeling.pairs import wins

MEMPHIS, NASHVILLE, CHATTANOOGA, KNOXVILLE = range(4)


@st.composite
def sets_of_rankings(draw: st.DrawFn, least: int = 1, sizes: tuple[int, int] = (2, 5)) -> list[list[int]]:
    k = draw(st.integers(*sizes))
    return draw(st.lists(st.lists(st.integers(1, k), min_size=k, max_size=k), min_size=least, max_size=6))


def counted(rankings: list[list[int]], prior: float) -> tuple[np.ndarray, np.ndarray]:
    """How often i was better than j, and how often they tied, with the prior and an empty diagonal."""
    above = np.array(wins(rankings, len(rankings[0])), float)
    ties = len(rankings) - above - above.T
    off = 1 - np.eye(len(above))
    return (above + prior) * off, (ties + prior) * off


def moved(rankings: list[list[int]], order: list[int]) -> list[list[int]]:
    return [[tiers[i] for i in order] for tiers in rankings]


def majorities(rankings: list[list[int]]) -> dict[tuple[int, int], tuple[int, int]]:
    """Each pair that more put one way, with by how many more and, below that, how few put it the other way."""
    above = wins(rankings, len(rankings[0]))
    pairs = permutations(range(len(above)), 2)
    return {(i, j): (above[i][j] - above[j][i], -above[j][i]) for i, j in pairs if above[i][j] > above[j][i]}


# --- Strengths -----------------------------------------------------------------------------------------------------


def test_davidsons_own_example() -> None:
    """Six brands of chocolate pudding (Davidson 1970, example 2), as fitted by the R package PlackettLuce."""
    rows = """1 2 19 22 16, 1 3 16 19 12, 2 3 19 19 10, 1 4 18 23 13, 2 4 23 19 9,
        3 4 19 20 15, 1 5 13 19 18, 2 5 16 20 12, 3 5 16 15 17, 4 5 17 14 16,
        1 6 18 21 12, 2 6 22 20 12, 3 6 13 18 10, 4 6 14 19 18, 5 6 11 21 12"""
    better, tied = np.zeros((6, 6)), np.zeros((6, 6))
    for row in rows.split(","):
        i, j, i_wins, j_wins, ties = map(int, row.split())
        better[i - 1, j - 1], better[j - 1, i - 1] = i_wins, j_wins
        tied[i - 1, j - 1] = tied[j - 1, i - 1] = ties
    strengths = fit_davidson(better.tolist(), tied.tolist())
    worths = np.exp(strengths.log_worths)
    # Published after 7 steps, hence the tolerance.
    published = [0.1388005, 0.1729985, 0.1617420, 0.1653930, 0.1586805, 0.2023855]
    assert worths / worths.sum() == pytest.approx(published, abs=3e-5)
    assert strengths.nu == pytest.approx(0.7468147, abs=3e-5)


def test_newtons_steps_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """With second derivatives that were not the true ones they would get there all the same, only late."""
    monkeypatch.setattr(consensus, "MAX_STEPS", 8)
    davidson([[1, 2, 2, 3], [1, 1, 2, 2], [2, 1, 3, 2]], 4)


@pytest.mark.parametrize("labelers", [1, 3, 50, 5000])
def test_the_strengths_of_labelers_who_all_say_the_same_are_found(labelers: int) -> None:
    """Two completions have them by hand; nine need many steps, and longer ones would overshoot."""
    two, wins_of_first = davidson([[1, 2]] * labelers, 2), labelers + PRIOR
    assert two.log_worths[0] == pytest.approx(math.log(wins_of_first / PRIOR) / 2)
    assert two.nu == pytest.approx(PRIOR / math.sqrt(wins_of_first * PRIOR))
    nine = davidson([list(range(9))] * labelers, 9).log_worths
    assert nine == sorted(nine, reverse=True)
    assert nine == pytest.approx([-log for log in reversed(nine)], abs=1e-6)


def test_a_step_that_would_overshoot_is_shortened() -> None:
    """Here Newton's whole steps run away. At the maximum each completion scores what is to be expected."""
    better, tied = [[0, 1, 1], [6491, 0, 1], [1, 1, 0]], [[0, 0, 7], [0, 0, 180], [7, 180, 0]]
    strengths = fit_davidson(better, tied)
    worths = np.exp(strengths.log_worths)
    for i in range(3):
        scored = expected = 0.0
        for j in {0, 1, 2} - {i}:
            tie = strengths.nu * math.sqrt(worths[i] * worths[j])
            scored += better[i][j] + tied[i][j] / 2
            games = better[i][j] + better[j][i] + tied[i][j]
            expected += games * (worths[i] + tie / 2) / (worths[i] + worths[j] + tie)
        assert scored == pytest.approx(expected)


def test_two_completions_by_hand() -> None:
    """9 wins, 1 loss, 6 ties: worths as 9 to 1, and nu * sqrt(9 * 1) = 6."""
    strengths = fit_davidson([[0, 9], [1, 0]], [[0, 6], [6, 0]])
    assert strengths.log_worths == pytest.approx([math.log(3), -math.log(3)])
    assert strengths.nu == pytest.approx(2)


@settings(max_examples=30, deadline=None)
@given(sets_of_rankings(), st.sampled_from([PRIOR, 0.5]))
def test_no_other_strengths_are_likelier(rankings: list[list[int]], prior: float) -> None:
    k = len(rankings[0])
    better, tied = counted(rankings, prior)

    def surprise(parameters: np.ndarray) -> float:
        logs, log_nu = parameters[:k], parameters[k]
        total = 0.0
        for i, j in combinations(range(k), 2):
            outcomes = np.array([logs[i], logs[j], log_nu + (logs[i] + logs[j]) / 2])
            counts = np.array([better[i, j], better[j, i], tied[i, j]])
            total -= counts @ (outcomes - np.logaddexp.reduce(outcomes))
        return float(total + logs.mean() ** 2)

    best = minimize(surprise, np.zeros(k + 1), method="BFGS", options={"gtol": 1e-7}).x
    strengths = davidson(rankings, k, prior)
    assert strengths.log_worths == pytest.approx(best[:k] - best[:k].mean(), abs=1e-3)
    assert math.log(strengths.nu) == pytest.approx(best[k], abs=1e-3)
    assert surprise(np.array([*strengths.log_worths, math.log(strengths.nu)])) <= surprise(best) + 1e-9


@settings(deadline=None)
@given(sets_of_rankings())
def test_bradley_terry_is_that_of_choix(rankings: list[list[int]]) -> None:
    better, ties = counted(rankings, 0)
    halves = (better + ties / 2 + PRIOR) * (1 - np.eye(len(better)))
    expected = choix.ilsr_pairwise_dense(halves, max_iter=1000)
    assert bradley_terry(rankings, len(better)) == pytest.approx(expected - expected.mean(), abs=1e-5)


@settings(deadline=None)
@given(sets_of_rankings())
def test_strengths_are_in_the_order_of_wins_and_half_ties(rankings: list[list[int]]) -> None:
    k = len(rankings[0])
    above = wins(rankings, k)
    borda = [sum(above[i][j] - above[j][i] for j in range(k)) for i in range(k)]
    for logs in (davidson(rankings, k).log_worths, bradley_terry(rankings, k)):
        assert sum(logs) == pytest.approx(0, abs=1e-9)
        for i, j in permutations(range(k), 2):
            assert borda[i] <= borda[j] or logs[i] > logs[j]
            assert borda[i] != borda[j] or logs[i] == pytest.approx(logs[j], abs=1e-6)


@settings(deadline=None)
@given(sets_of_rankings(), st.randoms())
def test_strengths_follow_the_completions_and_turn_with_them(rankings: list[list[int]], chance: random.Random) -> None:
    k = len(rankings[0])
    order = chance.sample(range(k), k)
    before, after = davidson(rankings, k), davidson(moved(rankings, order), k)
    assert after.log_worths == pytest.approx([before.log_worths[i] for i in order], abs=1e-6)
    turned = davidson([[-tier for tier in tiers] for tiers in rankings], k)
    assert turned.log_worths == pytest.approx([-log for log in before.log_worths], abs=1e-6)
    assert turned.nu == pytest.approx(before.nu) == after.nu


def test_one_who_always_wins_has_a_finite_strength_that_grows_with_the_rankings() -> None:
    first, *_, last = [davidson([[1, 2, 3]] * n, 3).log_worths[0] for n in (1, 2, 5, 10)]
    assert 0 < first < last < 10
    assert davidson([[1, 2, 3]], 3, prior=1).log_worths[0] < first


def test_more_ties_raise_nu() -> None:
    assert davidson([[1, 1, 1]] * 3, 3).nu > davidson([[1, 1, 2]] * 3, 3).nu > davidson([[1, 2, 3]] * 3, 3).nu


def test_without_rankings_all_are_equal() -> None:
    assert davidson([], 4).log_worths == bradley_terry([], 4) == [0, 0, 0, 0]
    assert davidson([], 4).nu == pytest.approx(1)


def test_strengths_that_do_not_exist_are_refused() -> None:
    for strengths in (davidson, bradley_terry):
        with pytest.raises(ValueError, match="two completions"):
            strengths([[1]], 1)
        with pytest.raises(ValueError, match="a prior below"):
            strengths([[1, 2, 3]], 3, prior=0)
    with pytest.raises(ValueError, match="do not lead"):
        fit_davidson([[0, 3], [0, 0]], [[0, 0], [0, 0]])
    with pytest.raises(ValueError, match="do not lead"):  # 0 and 1 always beat 2 and 3
        fit_davidson([[0, 1, 2, 2], [1, 0, 2, 2], [0, 0, 0, 1], [0, 0, 1, 0]], [[0.0] * 4] * 4)


# --- Ranked pairs --------------------------------------------------------------------------------------------------


def test_the_capital_of_tennessee() -> None:
    """The example of Wikipedia's articles on voting: Nashville, Chattanooga, Knoxville, Memphis."""
    ballots = [[1, 2, 3, 4]] * 42 + [[4, 1, 2, 3]] * 26 + [[4, 3, 1, 2]] * 15 + [[4, 3, 2, 1]] * 17
    tiers = ranked_pairs(ballots, 4)
    assert sorted(range(4), key=tiers.__getitem__) == [NASHVILLE, CHATTANOOGA, KNOXVILLE, MEMPHIS]
    assert sorted(tiers) == [1, 2, 3, 4]


def test_the_weakest_majority_of_a_circle_gives_way() -> None:
    """A over B 68 of 100, B over C 72, C over A 52: the last is dropped (Wikipedia's example of an ambiguity)."""
    ballots = [[1, 2, 3]] * 48 + [[3, 1, 2]] * 24 + [[2, 3, 1]] * 20 + [[3, 2, 1]] * 8
    above = wins(ballots, 3)
    assert (above[0][1], above[1][2], above[2][0]) == (68, 72, 52)
    assert ranked_pairs(ballots, 3) == [1, 2, 3]


def test_strength_is_the_margin_not_the_votes_of_the_winner() -> None:
    """45 A, 6 B>A, 5 B>C, 44 C>B: by margins C, B, A; by winning votes it would be B, A, C."""
    ballots = [[1, 2, 2]] * 45 + [[2, 1, 3]] * 6 + [[3, 1, 2]] * 5 + [[3, 2, 1]] * 44
    assert ranked_pairs(ballots, 3) == [3, 2, 1]


def test_of_equal_margins_the_one_with_fewer_against_is_stronger() -> None:
    """A over B 2 to 1, B over C 3 to 2, C over A 3 to 2: the first is locked, the others drop together."""
    ballots = [[1, 1, 2]] * 2 + [[2, 3, 1]] * 2 + [[3, 1, 2]]
    above = wins(ballots, 3)
    assert [(above[i][j], above[j][i]) for i, j in ((0, 1), (1, 2), (2, 0))] == [(2, 1), (3, 2), (3, 2)]
    assert ranked_pairs(ballots, 3) == [1, 3, 2]


@settings(deadline=None)
@given(st.integers(1, 4), st.permutations(range(3)))
def test_labelers_in_a_circle_leave_one_tier(times: int, order: list[int]) -> None:
    circle = [[1, 2, 3], [3, 1, 2], [2, 3, 1]] * times
    assert ranked_pairs(moved(circle, order), 3) == [1, 1, 1]


def test_a_completion_on_which_labelers_are_split_is_in_the_middle() -> None:
    assert ranked_pairs([[2, 3, 4, 1], [1, 2, 3, 4]], 4) == [1, 2, 3, 2]


def test_no_rankings_make_one_tier() -> None:
    assert ranked_pairs([], 3) == [1, 1, 1]
    assert ranked_pairs([[5]], 1) == [1]


@settings(deadline=None)
@given(sets_of_rankings(sizes=(1, 6)), st.integers(1, 4))
def test_rankings_that_are_the_same_are_the_consensus(rankings: list[list[int]], times: int) -> None:
    tiers = rankings[0]
    dense = [sorted(set(tiers)).index(tier) + 1 for tier in tiers]
    assert ranked_pairs([tiers] * times, len(tiers)) == dense


@settings(deadline=None)
@given(sets_of_rankings(), st.randoms())
def test_numbers_of_completions_and_order_of_rankings_do_not_matter(
    rankings: list[list[int]], chance: random.Random
) -> None:
    k = len(rankings[0])
    tiers = ranked_pairs(rankings, k)
    order = chance.sample(range(k), k)
    mixed = chance.sample(rankings, len(rankings))
    assert ranked_pairs(moved(mixed, order), k) == [tiers[i] for i in order]
    assert ranked_pairs(rankings * 3, k) == tiers


@settings(deadline=None)
@given(sets_of_rankings())
def test_rankings_turned_upside_down_turn_the_consensus(rankings: list[list[int]]) -> None:
    tiers = ranked_pairs(rankings, len(rankings[0]))
    turned = ranked_pairs([[-tier for tier in ranking] for ranking in rankings], len(tiers))
    assert turned == [max(tiers) + 1 - tier for tier in tiers]


@settings(deadline=None)
@given(sets_of_rankings(sizes=(3, 6)))
def test_whoever_beats_all_outside_the_group_is_above_them(rankings: list[list[int]]) -> None:
    """For groups of one this is the Condorcet winner, for the smallest group the Smith set."""
    k = len(rankings[0])
    tiers, beats = ranked_pairs(rankings, k), majorities(rankings)
    for size in range(1, k):
        for group in combinations(range(k), size):
            outside = set(range(k)) - set(group)
            if all((i, j) in beats for i in group for j in outside):
                assert max(tiers[i] for i in group) < min(tiers[j] for j in outside)


@settings(deadline=None)
@given(sets_of_rankings())
def test_what_all_agree_on_stands(rankings: list[list[int]]) -> None:
    tiers = ranked_pairs(rankings, len(rankings[0]))
    for i, j in permutations(range(len(tiers)), 2):
        if all(ranking[i] < ranking[j] for ranking in rankings):
            assert tiers[i] < tiers[j]


@settings(deadline=None)
@given(sets_of_rankings(sizes=(3, 6)))
def test_a_majority_is_overruled_only_by_a_chain_as_strong(rankings: list[list[int]]) -> None:
    tiers, beats = ranked_pairs(rankings, len(rankings[0])), majorities(rankings)
    for (i, j), strength in beats.items():
        if tiers[i] >= tiers[j]:
            reached, grown = {j}, True
            while grown:
                more = {b for (a, b), other in beats.items() if a in reached and other >= strength} - reached
                reached, grown = reached | more, bool(more)
            assert i in reached


@st.composite
def distinct_majorities(draw: st.DrawFn, k: int = 4) -> list[list[int]]:
    """Rankings in which each pair has a majority, none as strong as another (McGarvey's construction)."""
    ballots = []
    pairs = [draw(st.permutations(pair)) for pair in combinations(range(k), 2)]
    for times, (i, j) in enumerate(draw(st.permutations(pairs)), start=1):
        rest = [c for c in range(k) if c not in (i, j)]
        for order in ([i, j, *rest], [*reversed(rest), i, j]):
            ballots += [[order.index(c) + 1 for c in range(k)]] * times
    return ballots


@settings(max_examples=50, deadline=None)
@given(distinct_majorities())
def test_of_all_orders_it_keeps_the_strongest_majorities(ballots: list[list[int]]) -> None:
    """Locking from the strongest finds the order whose kept majorities, strongest first, come first."""
    beats = majorities(ballots)
    strongest = sorted(beats, key=lambda pair: beats[pair], reverse=True)
    assert len(set(beats.values())) == 6
    best = max(permutations(range(1, 5)), key=lambda tiers: [tiers[i] < tiers[j] for i, j in strongest])
    assert ranked_pairs(ballots, 4) == list(best)


@settings(max_examples=50, deadline=None)
@given(distinct_majorities(), st.integers(0, 3), st.randoms())
def test_a_clone_changes_nothing_for_the_others(ballots: list[list[int]], cloned: int, chance: random.Random) -> None:
    """The clone stands beside its twin on every ballot: just above, just below, or tied with it."""
    tiers = ranked_pairs(ballots, 4)
    beside = [[2 * tier for tier in ballot] for ballot in ballots]
    with_clone = ranked_pairs([[*ballot, ballot[cloned] + chance.choice([-1, 0, 1])] for ballot in beside], 5)
    for i, j in permutations(range(4), 2):
        assert (tiers[i] < tiers[j]) == (with_clone[i] < with_clone[j])
        if i == cloned:
            assert (tiers[i] < tiers[j]) == (with_clone[4] < with_clone[j])


# --- Dispute -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rankings", "expected"),
    [
        ([[1, 2, 3]] * 3, 0),
        ([[1, 1, 1]] * 2, 0),
        ([[1, 2, 3], [3, 2, 1]], 1),
        ([[1, 2], [1, 1]], 1 / 2),
        ([[1, 2, 3], [1, 3, 2]], 1 / 3),
        ([[1, 2], [1, 2], [2, 1]], 2 / 3),
        ([[1, 2], [2, 1], [1, 1]], (1 + 1 / 2 + 1 / 2) / 3),
        ([[1, 2, 3]], 0),
        ([[1], [1]], 0),
        ([], 0),
    ],
)
def test_dispute_by_hand(rankings: list[list[int]], expected: float) -> None:
    assert dispute(rankings) == pytest.approx(expected)


@settings(deadline=None)
@given(sets_of_rankings(least=2), st.randoms())
def test_dispute_is_the_mean_distance_of_two_rankings(rankings: list[list[int]], chance: random.Random) -> None:
    def sign(tiers: list[int], i: int, j: int) -> int:
        return (tiers[i] > tiers[j]) - (tiers[i] < tiers[j])

    k = len(rankings[0])
    pairs = list(combinations(range(k), 2))
    distances = [
        sum(abs(sign(a, i, j) - sign(b, i, j)) / 2 for i, j in pairs) / len(pairs) for a, b in combinations(rankings, 2)
    ]
    assert dispute(rankings) == pytest.approx(sum(distances) / len(distances))
    order = chance.sample(range(k), k)
    assert dispute(moved(rankings, order)[::-1]) == pytest.approx(dispute(rankings))
    assert 0 <= dispute(rankings) <= 1


@settings(deadline=None)
@given(st.permutations(range(6)), st.permutations(range(6)))
def test_dispute_of_two_orders_is_kendalls_tau_on_another_scale(a: list[int], b: list[int]) -> None:
    assert 1 - 2 * dispute([a, b]) == pytest.approx(kendall_tau_b(a, b))


def test_rankings_of_different_sets_are_refused() -> None:
    for refuses in (dispute, lambda rankings: ranked_pairs(rankings, 2), lambda rankings: davidson(rankings, 2)):
        with pytest.raises(ValueError):
            refuses([[1, 2], [1, 2, 3]])
