"""What more labels would buy, by cases whose answer is known."""

import random

import pytest

from labeling.learning import Curve, Point, ceiling, fit, fits, forecast, majority, narrowed, wilson

TRUE = Curve(limit=0.8, scale=1.5, exponent=0.5)
SIZES = (100, 200, 400, 800, 1600)


def test_points_on_a_power_law_give_it_back() -> None:
    fitted = fit([Point(size, TRUE.at(size), 500) for size in SIZES])
    assert (fitted.limit, fitted.scale, fitted.exponent) == pytest.approx((0.8, 1.5, 0.5))


def test_more_data_never_harm_and_at_best_all_is_right() -> None:
    falling = fit([Point(100, 0.8, 100), Point(200, 0.7, 100), Point(400, 0.6, 100)])
    assert falling.scale == 0 and falling.at(10_000) == pytest.approx(0.7)
    steep = fit([Point(100, 0.5, 100), Point(200, 0.7, 100), Point(400, 0.95, 100)])
    assert steep.at(10**9) <= 1


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(40):
        chance = random.Random(seed)
        points = [Point(size, sum(chance.random() < TRUE.at(size) for _ in range(400)) / 400, 400) for size in SIZES]
        low, high = forecast(points, draws=60, seed=seed).interval(3200)
        held += low <= TRUE.at(3200) <= high
    assert held >= 32  # 95% of 40 are 38


def test_three_sizes_and_a_factor_of_two_are_needed() -> None:
    def of(*sizes: int) -> list[Point]:
        return [Point(size, 0.6, 50) for size in sizes]

    assert not fits([]) and not fits(of(100, 800)) and not fits(of(100, 110, 120))
    assert fits(of(100, 150, 200))


def test_the_best_possible_model_lies_between_agreement_and_the_majority() -> None:
    assert ceiling(0.5) == (0.5, 0.5)
    assert ceiling(1.0) == (1.0, 1.0)
    # labelers of whom 3/4 prefer one completion agree with probability 9/16 + 1/16
    assert ceiling(10 / 16) == (10 / 16, pytest.approx(3 / 4))
    assert ceiling(0.3) == (0.5, 0.5)


def test_three_are_right_more_often_than_one() -> None:
    assert majority(0.8, 1) == pytest.approx(0.8)
    assert majority(0.8, 3) == pytest.approx(0.8**3 + 3 * 0.8**2 * 0.2)
    assert majority(0.5, 5) == pytest.approx(0.5)


def test_an_interval_shrinks_with_the_square_root() -> None:
    assert narrowed((0.6, 0.8), 1) == pytest.approx(0.1)
    assert narrowed((0.6, 0.8), 4) == pytest.approx(0.05)
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
