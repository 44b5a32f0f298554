"""How unsure reward models are of a set, by cases reckoned by hand."""

import math

import pytest

from labeling.uncertainty import drawn, preference, uncertainty

ABC = ["a", "b", "c"]


def test_a_preference_is_the_logistic_of_the_difference() -> None:
    assert preference(1.0, 1.0) == 0.5
    assert preference(math.log(3), 0.0) == pytest.approx(0.75)
    assert preference(0.0, 5000.0) == pytest.approx(0.0)


def test_one_model_is_unsure_where_it_would_toss_a_coin() -> None:
    assert uncertainty([[0.0, 0.0, 0.0]], ABC) == 1.0
    # p = 3/4, 1/2, 3/4: 4p(1-p) = 3/4, 1, 3/4
    assert uncertainty([[math.log(3), 0.0, 0.0]], ABC) == pytest.approx((0.75 + 0.75 + 1) / 3)
    assert uncertainty([[50.0, 0.0, -50.0]], ABC) == pytest.approx(0.0, abs=1e-9)


def test_several_models_are_unsure_where_they_are_sure_of_different_things() -> None:
    assert uncertainty([[50.0, 0.0], [0.0, 50.0]], ["a", "b"]) == pytest.approx(1.0)  # one bit
    assert uncertainty([[0.0, 0.0], [0.0, 0.0]], ["a", "b"]) == pytest.approx(0.0)  # all of them would toss a coin
    # p = 3/4 and 1/4: one bit less the entropy of 3/4
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert uncertainty([[math.log(3), 0.0], [0.0, math.log(3)]], ["a", "b"]) == pytest.approx(1 - entropy)


def test_nothing_is_learned_of_two_equal_texts() -> None:
    assert uncertainty([[0.0, 0.0, 0.0]], ["a", "a", "b"]) == pytest.approx(2 / 3)
    assert uncertainty([[0.0, 0.0]], ["a", "a"]) == 0.0


def test_what_no_model_can_read_is_left_out() -> None:
    assert uncertainty([[0.0, None, 0.0]], ABC) == 1.0
    assert uncertainty([[0.0, None, None]], ABC) is None
    assert uncertainty([], ABC) is None


def test_a_draw_is_the_same_for_the_same_key_and_even_over_keys() -> None:
    draws = [drawn("arm", number) for number in range(4000)]
    assert draws == [drawn("arm", number) for number in range(4000)]
    assert all(0 <= one < 1 for one in draws)
    assert sum(one < 0.15 for one in draws) / 4000 == pytest.approx(0.15, abs=0.02)
