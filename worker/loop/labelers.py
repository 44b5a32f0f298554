"""Simulated labelers: they know the hidden score and judge by it as noisily as people do.

A labeler adds noise of their own to every score and sorts: Gumbel noise makes that the Plackett-Luce model, and every
pair of it Bradley-Terry, P(i before j) = sigmoid((g_i - g_j) / noise). What then lies close together is tied.
"""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labeling.pairs import preferred_pairs
from worker.loop.outcome import LoopError

AGREEMENT = 0.726
"""How often two of InstructGPT's training labelers prefer the same completion of a pair (section 5.2: 72.6 ± 1.5%)."""
TIE_WIDTH = 0.12
"""Completions whose noisy scores are nearer than this, in units of the noise, share a tier."""


@dataclass(frozen=True)
class Judgement:
    """`tiers[i]` is the tier of completion i, 1 the best; `likert[i]` its rating from 1 to 7."""

    tiers: list[int]
    likert: list[int]


def judge(scores: Sequence[float], noise: float, chance: random.Random) -> Judgement:
    """What one labeler says about completions with these hidden scores."""
    felt = [score / noise - math.log(-math.log(chance.uniform(1e-12, 1.0))) for score in scores]
    order = sorted(range(len(felt)), key=lambda i: -felt[i])
    tiers = [1] * len(felt)
    for above, below in zip(order, order[1:], strict=False):
        tiers[below] = tiers[above] + (felt[above] - felt[below] >= TIE_WIDTH)
    likert = [max(1, min(7, round(4 + 2 * noise * (value - 0.5772)))) for value in felt]  # Gumbel noise has mean 0.5772
    return Judgement(tiers, likert)


def agreement(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> float:
    """The share of pairs, tied by neither, that two labelers order alike; each argument has the tiers of every set."""
    same = total = 0
    for ours, theirs in zip(first, second, strict=True):
        for better, worse in preferred_pairs(list(ours)):
            if theirs[better] != theirs[worse]:
                same += theirs[better] < theirs[worse]
                total += 1
    return same / total


def pairs_right(rankings: Iterable[tuple[Sequence[float], Sequence[int]]]) -> tuple[float, int]:
    """How many untied pairs of the rankings these scores put in order, equal scores counting half, and of how many."""
    right, total = 0.0, 0
    for scores, tiers in rankings:
        for better, worse in preferred_pairs(list(tiers)):
            right += (scores[better] > scores[worse]) + 0.5 * (scores[better] == scores[worse])
            total += 1
    return right, total


def calibrated_noise(
    sets: Sequence[Sequence[float]],
    seed: int,
    target: float = AGREEMENT,
    *,
    others: Sequence[Sequence[float]] | None = None,
) -> float:
    """The noise at which two labelers agree on `target` of the pairs in sets with these hidden scores.

    `others` are the scores of the same sets as the second labeler feels them, where tastes differ. By bisection over
    simulated pairs of labelers, each time with the same random numbers. Raises LoopError where the scores hardly
    differ, or the tastes too much, so that no noise gives that much agreement.
    """
    low, high = 1e-3, 10.0
    views = sets, sets if others is None else others
    if _simulated_agreement(views, low, seed) < target:
        raise LoopError(f"completions are too alike for labelers to agree on {target:.1%} of their pairs")
    for _ in range(25):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _simulated_agreement(views, middle, seed) > target else (low, middle)
    return math.sqrt(low * high)


def _simulated_agreement(
    views: tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]], noise: float, seed: int
) -> float:
    first, second = (
        [judge(scores, noise, chance).tiers for scores in sets]
        for sets, chance in zip(views, (random.Random(f"{seed}/first"), random.Random(f"{seed}/second")), strict=True)
    )
    return agreement(first, second)
