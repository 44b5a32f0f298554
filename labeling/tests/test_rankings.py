"""What counts as a ranking."""

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from labeling.pairs import preferred_pairs, tied_pairs
from labeling.rankings import FLAGS, clean_ranking, shown_order
from labeling.tests.rows import ranking

TEXTS = [f"completion {number}" for number in range(9)]


def refusal(payload: object, k: int = 4, require_ratings: bool = True) -> str:
    with pytest.raises(ValidationError) as refused:
        clean_ranking(payload, TEXTS[:k], require_ratings=require_ratings)
    return str(refused.value.messages[0])


def test_gaps_between_tiers_are_closed() -> None:
    assert clean_ranking(ranking([4, 2, 4, 2]), TEXTS[:4], require_ratings=True).tiers == [2, 1, 2, 1]


@given(st.lists(st.integers(1, 9), min_size=9, max_size=9))
def test_closing_gaps_keeps_every_comparison(tiers: list[int]) -> None:
    cleaned = clean_ranking(ranking(list(tiers)), TEXTS[:9], require_ratings=True).tiers
    assert preferred_pairs(cleaned) == preferred_pairs(tiers)
    assert sorted(set(cleaned)) == list(range(1, len(set(tiers)) + 1))


@given(st.lists(st.integers(1, 9), min_size=4, max_size=9))
def test_every_pair_is_either_preferred_or_tied(tiers: list[int]) -> None:
    k = len(tiers)
    assert len(preferred_pairs(tiers)) + len(tied_pairs(tiers)) == k * (k - 1) // 2
    assert all(tiers[better] < tiers[worse] for better, worse in preferred_pairs(tiers))


def test_all_in_one_tier_is_a_ranking_without_pairs() -> None:
    assert preferred_pairs(clean_ranking(ranking([3, 3, 3, 3]), TEXTS[:4], require_ratings=True).tiers) == []


def test_incomplete_ranking_says_how_many_are_missing() -> None:
    assert refusal(ranking([1, None, 2, None])) == "2 of 4 completions are in no tier yet."


@pytest.mark.parametrize("tiers", [None, [], [1, 2, 3], [1, 2, 3, 4, 4], "1234", {"0": 1}])
def test_every_completion_needs_a_tier(tiers: object) -> None:
    assert "Put all 4" in refusal({"tiers": tiers})


@pytest.mark.parametrize("tier", [0, 5, -1, "1", 1.0, True, [1]])
def test_tier_is_a_whole_number_up_to_k(tier: object) -> None:
    assert "from 1 to 4" in refusal(ranking([1, 2, 3, tier]))  # type: ignore[list-item]


@pytest.mark.parametrize("payload", [None, [], "tiers", 7])
def test_garbage_is_refused_in_words(payload: object) -> None:
    assert "Reload the page" in refusal(payload)


def test_unrated_completions_are_counted() -> None:
    payload = ranking([1, 2, 3, 4])
    payload["ratings"][1] = None
    payload["ratings"][2]["overall"] = None
    assert refusal(payload).startswith("2 of 4 completions are not rated")


def test_ratings_may_be_left_out_where_the_project_says_so() -> None:
    cleaned = clean_ranking({"tiers": [1, 2, 3, 4]}, TEXTS[:4], require_ratings=False)
    assert cleaned.ratings == [None] * 4


@pytest.mark.parametrize("overall", [0, 8, 4.5, "4", True, [4]])
def test_rating_is_a_whole_number_from_1_to_7(overall: object) -> None:
    assert "1 to 7" in refusal(ranking([1, 2, 3, 4], overall=overall))  # type: ignore[arg-type]


@pytest.mark.parametrize("flags", [["spam"], "opinion", [1], [["opinion"]], None])
def test_unknown_flags_are_refused(flags: object) -> None:
    payload = ranking([1, 2, 3, 4])
    payload["ratings"][0]["flags"] = flags
    assert "flag" in refusal(payload)


def test_flags_are_stored_once_and_in_the_papers_order() -> None:
    payload = ranking([1, 2, 3, 4])
    payload["ratings"][0]["flags"] = ["opinion", "hallucination", "opinion"]
    cleaned = clean_ranking(payload, TEXTS[:4], require_ratings=True)
    assert cleaned.ratings[0] is not None
    assert cleaned.ratings[0]["flags"] == ["hallucination", "opinion"]
    assert len(FLAGS) == 11


@pytest.mark.parametrize("note", ["x" * 4001, "a\x00b", "\ud800", 7, None])
def test_notes_that_cannot_be_stored_are_refused(note: object) -> None:
    assert refusal(ranking([1, 2, 3, 4], note=note))


def test_shown_order_is_the_same_on_every_reload() -> None:
    assert shown_order(9, "alice 1") == shown_order(9, "alice 1")


def test_shown_order_differs_between_labelers_and_favours_no_place() -> None:
    first = [shown_order(4, f"labeler {n}")[0] for n in range(4000)]
    assert all(900 < first.count(index) < 1100 for index in range(4))
