"""The arithmetic of the third proof."""

import math
from itertools import combinations

import pytest
import torch

from benchmarks.proofs.overoptimisation import (
    FEW,
    KL_COEFS,
    MANY,
    Arm,
    Fit,
    Outcome,
    Point,
    best_of_n,
    best_of_n_curve,
    best_of_n_kl,
    claims,
)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_best_of_n_is_the_mean_over_every_subset(n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    proxy, gold = torch.randn(3, 6, generator=generator), torch.randn(3, 6, generator=generator)
    expected = [
        gold[row, max(subset, key=lambda i: proxy[row, i])].item()
        for row in range(3)
        for subset in combinations(range(6), n)
    ]
    assert best_of_n(proxy, gold, n) == pytest.approx(sum(expected) / len(expected))


def test_best_of_n_kl_is_that_of_the_ordered_statistic() -> None:
    """Best-of-n has density n u^(n - 1) over the quantile u, so KL is the integral of it times its logarithm."""
    u = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    for n in (2, 9, 64):
        log_density = math.log(n) + (n - 1) * u.log()
        assert best_of_n_kl(n) == pytest.approx((log_density.exp() * log_density).mean().item(), abs=1e-4)
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(9) == pytest.approx(1.308, abs=5e-4)


def test_best_of_n_by_the_gold_score_itself_only_gains() -> None:
    gold = torch.randn(4, 512, generator=torch.Generator().manual_seed(1))
    points = best_of_n_curve(gold, gold)
    assert points[0].gold == pytest.approx(0, abs=1e-6)
    assert [point.gold for point in points] == sorted(point.gold for point in points)


@pytest.mark.parametrize("kl_coef", [None, 0.0])
def test_fit_finds_the_coefficients_of_its_law(kl_coef: float | None) -> None:
    def law(d: float) -> float:
        return d * (1.3 - 0.4 * (d if kl_coef is None else math.log(d)))

    points = [Point(d * d, 0.0, law(d) - 0.01, law(d) + 0.01) for d in (0.3, 0.8, 1.5, 2.5, 4.0)]
    fit = Fit.of([Arm(32, kl_coef, [Point(0.0, 0.0, 0.0, 0.0), *points])])
    assert (fit.alpha, fit.beta, fit.explained) == (pytest.approx(1.3), pytest.approx(0.4), pytest.approx(1))


def course(*gold: float, end_kl: float = 9.0, proxy: float = 2.0) -> list[Point]:
    last = len(gold) - 1
    return [Point(end_kl * i / last, proxy * i / last, value, value - 0.1) for i, value in enumerate(gold)]


def test_what_was_lost_is_measured_on_answers_that_did_not_choose_the_peak() -> None:
    points = [Point(0, 0, 0.0, 0.0), Point(1, 1, 0.9, 0.5), Point(2, 2, 0.6, 0.7), Point(3, 3, 0.2, 0.3)]
    arm = Arm(32, 0.0, points)
    assert arm.peak is points[1]
    assert arm.lost == pytest.approx(0.2)


def outcome(seed: int, fallen: float) -> Outcome:
    jitter = 0.01 * seed
    free, held = course(0, 1 + jitter, 1 - fallen), course(0, 0.9, 0.9 + jitter, end_kl=2.0)
    few, many = course(0, 0.5, 0.6 + jitter), course(0, 0.5, 0.6 + fallen)
    arms = [Arm(FEW, min(KL_COEFS), free), Arm(FEW, max(KL_COEFS), held), Arm(FEW, None, few), Arm(MANY, None, many)]
    return Outcome(seed, arms)


def test_claims_hold_where_gold_falls_and_the_penalty_holds_it() -> None:
    assert [claim.holds for claim in claims([outcome(seed, 0.6) for seed in range(5)])] == [True] * 5


def test_claims_fail_where_gold_does_not_fall() -> None:
    rises, falls, nearer, saved, better = claims([outcome(seed, -0.5) for seed in range(5)])
    assert not falls.holds and not saved.holds and not better.holds
