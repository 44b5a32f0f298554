"""Simulated labelers are as noisy as people, and no more."""

import math
import random

import pytest

from worker.loop.labelers import AGREEMENT, agreement, calibrated_noise, judge, pairs_right
from worker.loop.outcome import LoopError


def test_without_noise_the_hidden_order_is_told() -> None:
    assert judge([0.1, 0.9, -0.5, 0.4], 1e-6, random.Random(0)).tiers == [3, 1, 4, 2]


def test_equal_scores_are_ranked_at_random() -> None:
    chance = random.Random(0)
    first = sum(judge([0.0, 0.0], 1.0, chance).tiers == [1, 2] for _ in range(2000))
    second = sum(judge([0.0, 0.0], 1.0, chance).tiers == [2, 1] for _ in range(2000))
    assert abs(first - second) < 4 * math.sqrt(2000)


def test_what_feels_alike_is_tied() -> None:
    tied = sum(judge([0.0, 0.0], 1.0, random.Random(seed)).tiers == [1, 1] for seed in range(2000))
    # The difference of two Gumbel values is logistic: P(|d| < w) = tanh(w / 2).
    assert tied / 2000 == pytest.approx(math.tanh(0.12 / 2), abs=0.02)


def test_a_pair_is_won_as_bradley_and_terry_say() -> None:
    chance = random.Random(1)
    judged = [judge([0.7, 0.0], 0.5, chance).tiers for _ in range(4000)]
    untied = [tiers for tiers in judged if tiers[0] != tiers[1]]
    expected = 1 / (1 + math.exp(-0.7 / 0.5))
    assert sum(tiers[0] < tiers[1] for tiers in untied) / len(untied) == pytest.approx(expected, abs=0.03)


def test_ratings_follow_the_tiers() -> None:
    for seed in range(50):
        judgement = judge([0.3, -0.2, 1.0, 0.0, -1.0], 0.4, random.Random(seed))
        assert all(1 <= rating <= 7 for rating in judgement.likert)
        by_tier = [rating for _, rating in sorted(zip(judgement.tiers, judgement.likert, strict=True))]
        assert sorted(by_tier, reverse=True) == [
            rating
            for _, rating in sorted(zip(judgement.tiers, judgement.likert, strict=True), key=lambda p: (p[0], -p[1]))
        ]


def test_agreement_counts_pairs_that_neither_ties() -> None:
    assert agreement([[1, 2, 3]], [[1, 2, 3]]) == 1
    assert agreement([[1, 2, 3]], [[3, 2, 1]]) == 0
    assert agreement([[1, 2, 2]], [[1, 1, 2]]) == 1  # only the pair of first and third is ordered by both


def test_calibrated_labelers_agree_as_people_do() -> None:
    chance = random.Random(5)
    sets = [[chance.gauss(0, 0.5) for _ in range(6)] for _ in range(300)]
    noise = calibrated_noise(sets, seed=9)
    others = random.Random(77), random.Random(78)  # not the numbers it was calibrated with
    first, second = ([judge(scores, noise, labeler).tiers for scores in sets] for labeler in others)
    assert agreement(first, second) == pytest.approx(AGREEMENT, abs=0.02)


def test_completions_that_are_all_alike_cannot_be_calibrated() -> None:
    with pytest.raises(LoopError, match="too alike"):
        calibrated_noise([[0.5, 0.5, 0.5, 0.5]] * 50, seed=1)


def test_pairs_right_counts_equal_scores_half() -> None:
    assert pairs_right([([3.0, 2.0, 1.0], [1, 2, 3])]) == (3.0, 3)
    assert pairs_right([([1.0, 1.0], [1, 2]), ([1.0, 2.0], [1, 2]), ([5.0, 1.0], [1, 1])]) == (0.5, 2)
