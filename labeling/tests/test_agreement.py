"""Figures of agreement, against published examples, scipy, statsmodels and the definitions written out."""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, permutations
from statistics import correlation, mean
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare, kendalltau
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa
from statsmodels.stats.proportion import proportion_confint

from labeling.agreement import (
    MANY,
    Agreement,
    Metric,
    bootstrap_interval,
    kendall_tau_b,
    kendall_w,
    krippendorff_alpha,
    mid_ranks,
    pair_agreement,
    pair_units,
    ranking_units,
)

METRICS: tuple[Metric, ...] = ("nominal", "ordinal", "interval")


@st.composite
def sets_of_rankings(draw: st.DrawFn, least: int = 2) -> list[list[int]]:
    k = draw(st.integers(2, 6))
    return draw(st.lists(st.lists(st.integers(1, k), min_size=k, max_size=k), min_size=least, max_size=5))


def shuffled(k: int, chance: random.Random) -> list[int]:
    return chance.sample(range(1, k + 1), k)


def noisy(k: int, chance: random.Random, raters: int = 3) -> list[list[int]]:
    """Raters who see the same scores through noise of the same size; no ties."""
    scores = [chance.gauss(0, 1) for _ in range(k)]
    seen = [[score + chance.gauss(0, 1) for score in scores] for _ in range(raters)]
    return [[1 + sum(other > score for other in view) for score in view] for view in seen]


def sign(tiers: Sequence[int], i: int, j: int) -> int:
    return (tiers[i] > tiers[j]) - (tiers[i] < tiers[j])


# --- Agreement on pairs --------------------------------------------------------------------------------------------


def test_pairs_that_a_labeler_ties_are_left_out() -> None:
    assert pair_agreement([[1, 2, 3], [1, 1, 2]]) == Agreement(2, 2)
    assert pair_agreement([[1, 2, 3], [2, 1, 2]]) == Agreement(1, 2)


def test_with_ties_a_tie_must_be_met_by_a_tie() -> None:
    assert pair_agreement([[1, 2, 3], [1, 1, 2]], ties=True) == Agreement(2, 3)
    assert pair_agreement([[2, 2, 1], [1, 1, 2]], ties=True) == Agreement(1, 3)


@settings(deadline=None)
@given(sets_of_rankings(), st.booleans())
def test_every_two_labelers_are_held_side_by_side(rankings: list[list[int]], ties: bool) -> None:
    signs = [
        (sign(a, i, j), sign(b, i, j))
        for a, b in combinations(rankings, 2)
        for i, j in combinations(range(len(a)), 2)
        if ties or sign(a, i, j) and sign(b, i, j)
    ]
    assert pair_agreement(rankings, ties=ties) == Agreement(sum(x == y for x, y in signs), len(signs))


@settings(deadline=None)
@given(sets_of_rankings(), st.booleans(), st.randoms())
def test_the_order_of_labelers_and_completions_does_not_matter(
    rankings: list[list[int]], ties: bool, chance: random.Random
) -> None:
    order = chance.sample(range(len(rankings[0])), len(rankings[0]))
    moved = [[10 * tiers[i] for i in order] for tiers in chance.sample(rankings, len(rankings))]
    assert pair_agreement(moved, ties=ties) == pair_agreement(rankings, ties=ties)
    assert kendall_w(moved) == pytest.approx(kendall_w(rankings))


def test_labelers_who_say_the_same_agree_fully_and_one_alone_with_nobody() -> None:
    assert pair_agreement([[1, 2, 2, 3]] * 3).rate == pair_agreement([[1, 2, 2, 3]] * 3, ties=True).rate == 1
    assert pair_agreement([[1, 2, 3]]).rate is pair_agreement([]).rate is None


def test_random_rankings_agree_on_half_of_the_pairs() -> None:
    chance = random.Random(1)
    total = sum((pair_agreement([shuffled(6, chance) for _ in range(3)]) for _ in range(2000)), Agreement())
    assert total.pairs == 2000 * 15 * 3
    assert total.rate == pytest.approx(0.5, abs=0.01)


def test_agreements_of_sets_add_up() -> None:
    assert Agreement(3, 4) + Agreement(1, 6) == Agreement(4, 10)
    assert sum([Agreement(3, 4), Agreement(), Agreement(1, 6)], Agreement()).rate == 0.4


def test_rankings_of_different_sets_are_refused() -> None:
    two = [[1, 2, 3], [1, 2]]
    for figure in (pair_agreement, kendall_w, lambda rankings: kendall_tau_b(*rankings)):
        with pytest.raises(ValueError):
            figure(two)
    for units in (ranking_units, pair_units):
        with pytest.raises(ValueError):
            units([{"alice": two[0], "bob": two[1]}])


# --- Intervals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("agreed", "pairs"), [(0, 1), (0, 20), (7, 10), (20, 20), (726, 1000)])
def test_wilsons_interval_is_that_of_statsmodels(agreed: int, pairs: int) -> None:
    assert Agreement(agreed, pairs).wilson() == pytest.approx(proportion_confint(agreed, pairs, method="wilson"))


def test_nothing_held_side_by_side_has_no_interval() -> None:
    assert Agreement().wilson() is None
    assert bootstrap_interval([]) is bootstrap_interval([Agreement(1, 2)]) is None
    assert bootstrap_interval([Agreement(1, 2), Agreement(), Agreement()]) is None


def test_sets_without_a_judgement_change_nothing() -> None:
    sets = [Agreement(1, 3), Agreement(2, 3), Agreement(5, 6)]
    assert bootstrap_interval([*sets, Agreement()]) == bootstrap_interval(sets)


def test_the_same_seed_gives_the_same_interval() -> None:
    chance = random.Random(2)
    sets = [Agreement(chance.randint(0, 30), 30) for _ in range(30)]
    assert bootstrap_interval(sets, seed=4) == bootstrap_interval(sets, seed=4) != bootstrap_interval(sets, seed=5)


def test_pairs_that_go_together_count_as_one() -> None:
    """100 sets of 10 pairs, in 60 of them all agreed: the interval is that of 100 pairs, not of 1,000."""
    interval = bootstrap_interval([Agreement(10, 10)] * 60 + [Agreement(0, 10)] * 40, draws=4000)
    assert interval == pytest.approx(Agreement(60, 100).wilson(), abs=0.02)
    assert interval != pytest.approx(Agreement(600, 1000).wilson(), abs=0.05)


def test_large_sets_weigh_more() -> None:
    interval = bootstrap_interval([Agreement(0, 1), Agreement(90, 90)] * 50)
    assert interval is not None
    assert interval[0] > 0.97


def test_the_interval_of_many_sets_is_the_drawn_one() -> None:
    chance = random.Random(6)
    sets = [pair_agreement(noisy(chance.randint(4, 9), chance, raters=2)) for _ in range(MANY)]
    few, many = bootstrap_interval(sets[:-1], draws=20_000), bootstrap_interval(sets)
    assert many == pytest.approx(few, abs=0.001)
    assert bootstrap_interval([Agreement(3, 3)] * MANY) == (1.0, 1.0)
    assert bootstrap_interval([*[Agreement(3, 3)] * MANY, Agreement(2, 3)]) == pytest.approx((0.998, 1), abs=0.001)


def test_the_bootstrap_holds_the_true_rate_as_often_as_it_says() -> None:
    """Simulated labelers whose true agreement is known from 20,000 sets; 95 of 100 intervals of 50 sets, or nearly."""
    chance = random.Random(3)
    sets = [pair_agreement(noisy(chance.randint(4, 9), chance, raters=2)) for _ in range(20_000)]
    truth = sum(sets, Agreement()).rate
    assert truth is not None
    intervals = [bootstrap_interval(sets[n : n + 50], draws=200) for n in range(0, 10_000, 50)]
    assert 0.88 < mean(low <= truth <= high for low, high in filter(None, intervals)) < 0.99


# --- Whole rankings ------------------------------------------------------------------------------------------------


def test_those_tied_share_their_ranks() -> None:
    assert mid_ranks([1, 2, 2, 5]) == [1, 2.5, 2.5, 4]
    assert mid_ranks([7, 7, 7]) == [2, 2, 2]


@settings(deadline=None)
@given(sets_of_rankings())
def test_tau_b_is_that_of_scipy(rankings: list[list[int]]) -> None:
    a, b = rankings[:2]
    tau = kendall_tau_b(a, b)
    assert tau == kendall_tau_b(b, a)
    if tau is None:
        assert len(set(a)) == 1 or len(set(b)) == 1
    else:
        assert tau == pytest.approx(kendalltau(a, b, variant="b").statistic)


def test_tau_b_of_a_ranking_and_itself_or_its_reverse() -> None:
    tiers = [3, 1, 2, 2, 4]
    assert kendall_tau_b(tiers, tiers) == 1
    assert kendall_tau_b(tiers, [-tier for tier in tiers]) == -1
    assert kendall_tau_b([1, 1, 1], [1, 2, 3]) is None


def test_kendalls_w_of_published_examples() -> None:
    """Three judges with ties, W = 0.828 (NAG library manual, G08DAF); four without, 1/16 (ProofWiki)."""
    ranks = [
        [1.0, 4.5, 2.0, 4.5, 3.0, 7.5, 6.0, 9.0, 7.5, 10.0],
        [2.5, 1.0, 2.5, 4.5, 4.5, 8.0, 9.0, 6.5, 10.0, 6.5],
        [2.0, 1.0, 4.5, 4.5, 4.5, 4.5, 8.0, 8.0, 8.0, 10.0],
    ]
    tiers = [[int(2 * rank) for rank in row] for row in ranks]
    assert [mid_ranks(row) for row in tiers] == ranks
    assert kendall_w(tiers) == pytest.approx(0.828, abs=0.0005)
    assert kendall_w([[1, 3, 2], [1, 2, 3], [2, 3, 1], [3, 1, 2]]) == 1 / 16


@settings(deadline=None)
@given(sets_of_rankings())
def test_kendalls_w_is_friedmans_statistic_over_its_largest_value(rankings: list[list[int]]) -> None:
    m, n = len(rankings), len(rankings[0])
    assume(n > 2 and any(len(set(tiers)) > 1 for tiers in rankings))
    statistic = friedmanchisquare(*zip(*rankings, strict=True)).statistic
    assert kendall_w(rankings) == pytest.approx(statistic / (m * (n - 1)))


def test_kendalls_w_is_the_mean_correlation_on_another_scale() -> None:
    rankings = noisy(7, random.Random(4), raters=4)
    spearman = mean(correlation(a, b) for a, b in combinations(rankings, 2))
    assert kendall_w(rankings) == pytest.approx((1 + 3 * spearman) / 4)


def test_kendalls_w_at_its_ends_and_where_it_is_undefined() -> None:
    assert kendall_w([[1, 2, 2, 3]] * 4) == 1
    assert kendall_w([[1, 2, 3, 4], [4, 3, 2, 1]]) == 0
    assert kendall_w([[1, 1, 1], [2, 2, 2]]) is kendall_w([[1, 2, 3]]) is kendall_w([]) is None


# --- Single values -------------------------------------------------------------------------------------------------


def four_observers() -> list[dict[str, float]]:
    """The example of Krippendorff 2011, sections C to E: 12 units, the last with one value."""
    rows = {
        "A": "1 2 3 3 2 1 4 1 2 * * *",
        "B": "1 2 3 3 2 2 4 1 2 5 * 3",
        "C": "* 3 3 3 2 3 4 2 2 5 1 *",
        "D": "1 2 3 3 2 4 4 1 2 5 1 *",
    }
    columns = zip(*(row.split() for row in rows.values()), strict=True)
    return [{rater: int(v) for rater, v in zip(rows, values, strict=True) if v != "*"} for values in columns]


@pytest.mark.parametrize(("metric", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_krippendorffs_own_example(metric: Metric, alpha: float) -> None:
    assert krippendorff_alpha(four_observers(), metric) == pytest.approx(alpha, abs=0.0005)


units = st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5)), min_size=1, max_size=8)


def alpha_as_written(units: list[dict[str, int]], metric: Metric) -> float | None:
    """The paper's steps: coincidence matrix, its margins, metric differences, observed over expected."""
    coincidences: Counter[tuple[int, int]] = Counter()
    for unit in units:
        for a, b in permutations(unit.values(), 2):
            coincidences[a, b] += 1 / (len(unit) - 1)  # type: ignore[assignment]
    n: Any = Counter()
    for (a, _), count in coincidences.items():
        n[a] += count
    total = sum(n.values())

    def delta(a: int, b: int) -> float:
        low, high = min(a, b), max(a, b)
        between = sum(count for value, count in n.items() if low <= value <= high) - (n[a] + n[b]) / 2
        return {"nominal": a != b, "ordinal": between**2, "interval": (a - b) ** 2}[metric]

    observed = sum(count * delta(a, b) for (a, b), count in coincidences.items())
    expected = sum(n[a] * n[b] * delta(a, b) for a in n for b in n)
    return 1 - (total - 1) * observed / expected if expected > 1e-9 else None


@settings(deadline=None)
@given(units, st.sampled_from(METRICS))
def test_alpha_is_the_papers_formula(units: list[dict[str, int]], metric: Metric) -> None:
    assert krippendorff_alpha(units, metric) == pytest.approx(alpha_as_written(units, metric))


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 4), min_size=3, max_size=3), min_size=2, max_size=10))
def test_nominal_alpha_is_fleiss_kappa_corrected_for_few_values(rows: list[list[int]]) -> None:
    assume(len({value for row in rows for value in row}) > 1)
    kappa = fleiss_kappa(aggregate_raters(np.array(rows))[0], method="fleiss")
    alpha = krippendorff_alpha([dict(enumerate(row)) for row in rows], "nominal")
    assert alpha == pytest.approx(1 - (1 - kappa) * (1 - 1 / (3 * len(rows))))


@settings(deadline=None)
@given(units)
def test_alpha_knows_only_what_its_metric_means(units: list[dict[str, int]]) -> None:
    renamed = [{rater: (0, 4, 2, 5, 1, 3)[value] for rater, value in unit.items()} for unit in units]
    stretched = [{rater: value**3 for rater, value in unit.items()} for unit in units]
    scaled = [{rater: 10 - 2 * value for rater, value in unit.items()} for unit in units]
    assert krippendorff_alpha(renamed, "nominal") == pytest.approx(krippendorff_alpha(units, "nominal"))
    assert krippendorff_alpha(stretched, "ordinal") == pytest.approx(krippendorff_alpha(units, "ordinal"))
    assert krippendorff_alpha(scaled, "interval") == pytest.approx(krippendorff_alpha(units, "interval"))


@pytest.mark.parametrize("metric", METRICS)
def test_alpha_at_its_marks(metric: Metric) -> None:
    chance = random.Random(5)
    guesses = [{rater: chance.randint(1, 5) for rater in "abc"} for _ in range(4000)]
    assert krippendorff_alpha(guesses, metric) == pytest.approx(0, abs=0.03)
    assert krippendorff_alpha([{"a": 1, "b": 1}, {"a": 4, "b": 4}, {"a": 2}], metric) == 1
    assert krippendorff_alpha([{"a": 1, "b": 2}, {"a": 2, "b": 1}], metric) == -0.5


@pytest.mark.parametrize("units", [[], [{}], [{"a": 1}, {"b": 2}], [{"a": 3, "b": 3}] * 4])
def test_alpha_of_nothing_to_compare_or_of_one_value_is_undefined(units: list[dict[str, float]]) -> None:
    assert all(krippendorff_alpha(units, metric) is None for metric in METRICS)


# --- Rankings as units ---------------------------------------------------------------------------------------------


def random_sets(count: int, chance: random.Random) -> list[dict[str, list[int]]]:
    return [{rater: shuffled(k, chance) for rater in "abc"} for k in (4, 9) for _ in range(count)]


def test_a_completion_is_a_unit_with_its_place_in_the_set() -> None:
    units = ranking_units([{"alice": [1, 2, 2, 9], "bob": [4, 3, 2, 1]}, {"alice": [5, 5]}, {"bob": [1]}])
    assert units[:4] == [
        {"alice": 0, "bob": 1},
        {"alice": 0.5, "bob": 2 / 3},
        {"alice": 0.5, "bob": 1 / 3},
        {"alice": 1, "bob": 0},
    ]
    assert units[4:] == [{"alice": 0.5}, {"alice": 0.5}]


def test_a_pair_is_a_unit_in_each_order() -> None:
    units = pair_units([{"alice": [1, 2, 2], "bob": [3, 3, 1]}, {"bob": [1]}, {}])
    assert [unit["alice"] for unit in units] == [1, 1, -1, 0, -1, 0]  # 01 02 10 12 20 21
    assert [unit["bob"] for unit in units] == [0, -1, 0, -1, 1, 1]


def test_random_rankings_of_small_and_large_sets_have_alpha_zero() -> None:
    sets = random_sets(1500, random.Random(6))
    assert krippendorff_alpha(ranking_units(sets), "interval") == pytest.approx(0, abs=0.02)
    assert krippendorff_alpha(ranking_units(sets), "ordinal") == pytest.approx(0, abs=0.02)
    assert krippendorff_alpha(pair_units(sets), "nominal") == pytest.approx(0, abs=0.02)
    plain = [dict(zip(one, ranks, strict=True)) for one in sets for ranks in zip(*one.values(), strict=True)]
    alpha = krippendorff_alpha(plain, "interval")
    assert alpha is not None and alpha > 0.2  # what plain ranks would have made of it


def test_alpha_of_places_is_about_the_mean_spearman_correlation() -> None:
    chance = random.Random(7)
    rankings = [noisy(7, chance) for _ in range(300)]
    spearman = mean(correlation(a, b) for one in rankings for a, b in combinations(one, 2))
    alpha = krippendorff_alpha(ranking_units(dict(enumerate(one)) for one in rankings), "interval")
    assert alpha == pytest.approx(spearman, abs=0.001)
    assert 0.3 < spearman < 0.6


def test_alpha_of_pairs_is_about_twice_the_agreement_less_one() -> None:
    chance = random.Random(8)
    rankings = [noisy(5, chance) for _ in range(300)]
    rate = sum(map(pair_agreement, rankings), Agreement()).rate
    alpha = krippendorff_alpha(pair_units(dict(enumerate(one)) for one in rankings), "nominal")
    assert rate is not None
    assert alpha == pytest.approx(2 * rate - 1, abs=0.001)


@settings(deadline=None)
@given(sets_of_rankings(), st.randoms())
def test_alpha_of_rankings_does_not_see_numbering(rankings: list[list[int]], chance: random.Random) -> None:
    order = chance.sample(range(len(rankings[0])), len(rankings[0]))
    sets = [dict(enumerate(rankings))]
    moved = [{rater: [3 * tiers[i] + 1 for i in order] for rater, tiers in sets[0].items()}]
    for units_of, metric in ((ranking_units, "interval"), (ranking_units, "ordinal"), (pair_units, "nominal")):
        before, after = krippendorff_alpha(units_of(sets), metric), krippendorff_alpha(units_of(moved), metric)
        assert before == pytest.approx(after)
        assert before is None or before <= 1


def test_rankings_that_are_the_same_have_alpha_one() -> None:
    sets = [{"a": [1, 2, 2], "b": [1, 2, 2]}, {"a": [2, 1], "c": [2, 1]}]
    assert krippendorff_alpha(ranking_units(sets), "interval") == 1
    assert krippendorff_alpha(pair_units(sets), "nominal") == 1


def test_chance_agreement_grows_with_ties() -> None:
    """Both raters tie nearly everything, not the same pairs: they agree on most of them, and alpha is about zero."""
    chance = random.Random(9)
    sets = [{rater: [1 + (chance.random() < 0.1) for _ in range(5)] for rater in "ab"} for _ in range(1500)]
    agreed = sum((pair_agreement([*one.values()], ties=True) for one in sets), Agreement()).rate
    assert agreed is not None and agreed > 0.65
    assert krippendorff_alpha(pair_units(sets), "nominal") == pytest.approx(0, abs=0.03)
