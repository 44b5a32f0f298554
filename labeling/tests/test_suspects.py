"""Rankings against both the other labelers and the reward model."""

import math

import pytest

from labeling.suspects import suspects
from labeling.tests.test_quality import judged

SURE = [math.log(3), 0.0]  # the model prefers the first, with probability 3/4


def test_a_ranking_against_both_is_suspect() -> None:
    rows = [judged(1, "a", [1, 2], answer_id=7), judged(1, "b", [1, 2]), judged(1, "c", [2, 1], answer_id=9)]
    [suspect] = suspects(rows, {1: SURE})
    assert (suspect.answer_id, suspect.labeler, suspect.pairs) == (9, "c", 1)
    [pair] = suspect.contradictions
    assert (pair.better, pair.worse, pair.others, pair.alike) == (1, 0, 2, 0)
    assert pair.chance == pytest.approx(0.75)
    assert suspect.weight == pytest.approx((2 * 0.75 - 1) * 2 / 2)


def test_one_witness_is_not_enough() -> None:
    against_people = [judged(1, "a", [1, 2]), judged(1, "b", [2, 1])]
    assert [each.labeler for each in suspects(against_people, {1: SURE})] == ["b"]  # the model is with a
    assert suspects(against_people, {1: [0.0, 0.0]}) == []  # the model says nothing
    assert suspects(against_people, {}) == []
    assert suspects(against_people, {1: [None, 0.0]}) == []
    against_model = [judged(1, "a", [2, 1]), judged(1, "b", [2, 1])]
    assert suspects(against_model, {1: SURE}) == []
    assert suspects([judged(1, "a", [2, 1])], {1: SURE}) == []


def test_the_others_must_be_in_the_majority_and_ties_are_on_no_side() -> None:
    split = [judged(1, "a", [2, 1]), judged(1, "b", [1, 2]), judged(1, "c", [2, 1])]
    assert suspects(split, {1: SURE}) == []  # one other against a, one with a; b and the model agree
    tied = [judged(1, "a", [2, 1]), judged(1, "b", [1, 2]), judged(1, "c", [1, 1])]
    assert [each.labeler for each in suspects(tied, {1: SURE})] == ["a"]


def test_the_worst_comes_first_by_its_share_of_pairs() -> None:
    rows = [
        judged(1, "a", [1, 2, 3]),
        judged(1, "b", [3, 2, 1], answer_id=1),  # all three pairs
        judged(2, "a", [1, 2, 3]),
        judged(2, "b", [2, 1, 3], answer_id=2),  # one of three
    ]
    steps = [2.0, 1.0, 0.0]
    found = suspects(rows, {1: steps, 2: steps})
    assert [(each.answer_id, len(each.contradictions)) for each in found] == [(1, 3), (2, 1)]
    first = found[0].contradictions[0]
    assert (first.better, first.worse) == (2, 0)  # what the model is surest of
