"""What may be said of a whole set, and completions that say the same."""

import uuid
from collections.abc import Sequence

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from labeling import export
from labeling.models import Answer, CompletionSet, Project, Slot, User
from labeling.rankings import Verdict, clean_ranking, first_alike
from labeling.tests.rows import approved, ranking, sampled

TWINS = ["Rain on the roof", "A grey sky", " Rain on the roof\n", "Rain"]


def claim(project: Project, labeler: User) -> Slot:
    slot = Slot.objects.claim_next(project, labeler, Slot.TaskType.RANKING)
    assert slot
    return slot


@given(st.lists(st.sampled_from("abc"), max_size=9))
def test_alike_are_those_with_the_same_text(texts: Sequence[str]) -> None:
    assert [texts[first] for first in first_alike(texts)] == texts
    assert first_alike(texts) == [texts.index(text) for text in texts]


def test_completions_with_the_same_text_are_tied() -> None:
    with pytest.raises(ValidationError, match="same text"):
        clean_ranking(ranking([1, 2, 3, 4]), TWINS, require_ratings=True)
    assert clean_ranking(ranking([1, 2, 1, 3]), TWINS, require_ratings=True).tiers == [1, 2, 1, 3]


def test_one_rating_holds_for_all_that_say_the_same() -> None:
    payload = ranking([1, 2, 1, 3])
    payload["ratings"][0] = None
    payload["ratings"][2]["overall"] = 6
    cleaned = clean_ranking(payload, TWINS, require_ratings=True)
    assert [rating and rating["overall"] for rating in cleaned.ratings] == [6, 4, 6, 4]


def test_they_are_one_card(project: Project, alice: User) -> None:
    completion_set = sampled(approved(project), TWINS)
    slot = claim(project, alice)
    groups = slot.shown_groups
    assert sorted(sorted(group.indices) for group in groups) == [[0, 2], [1], [3]]
    assert [group.also for group in groups if len(group.indices) == 2][0] != ""
    assert "".join(group.letter for group in groups) == "".join(sorted(group.letter for group in groups))
    assert completion_set.texts == TWINS


@pytest.mark.parametrize("verdict", ["none_acceptable", "cannot_judge"])
def test_without_a_ranking_neither_tiers_nor_ratings_are_needed(verdict: str) -> None:
    cleaned = clean_ranking({"verdict": verdict, "tiers": [1, None, None, 2]}, TWINS, require_ratings=True)
    assert (cleaned.verdict, cleaned.tiers) == (verdict, [])


def test_tiers_of_a_set_in_which_none_is_acceptable_are_kept() -> None:
    payload = ranking([1, 2, 1, 3], verdict="none_acceptable")
    assert clean_ranking(payload, TWINS, require_ratings=True).tiers == [1, 2, 1, 3]


@pytest.mark.parametrize("verdict", ["fine", None, 1, []])
def test_an_unknown_verdict_is_refused(verdict: object) -> None:
    with pytest.raises(ValidationError, match="verdict"):
        clean_ranking(ranking([1, 2, 1, 3], verdict=verdict), TWINS, require_ratings=True)


@pytest.mark.parametrize(("verdict", "trained_on"), [("ranked", 1), ("none_acceptable", 0), ("cannot_judge", 0)])
def test_models_learn_from_ranked_sets_alone(project: Project, alice: User, verdict: str, trained_on: int) -> None:
    sampled(approved(project))
    Answer.objects.submit(claim(project, alice), alice, ranking([1, 2, 3, 4], verdict=verdict), uuid.uuid4())
    assert len(list(export.rankings(project))) == export.ranking_count(project) == trained_on


def test_for_each_who_cannot_judge_somebody_else_is_asked_up_to_three(project: Project, alice: User) -> None:
    completion_set = sampled(approved(project))
    people = [alice, *(User.objects.create_user(f"labeler-{number}") for number in range(5))]
    asked = 0
    for person in people:
        person.set_roles(["labeler"])
        project.members.add(person)
        if slot := Slot.objects.claim_next(project, person, Slot.TaskType.RANKING):
            Answer.objects.submit(slot, person, {"verdict": Verdict.CANNOT_JUDGE}, uuid.uuid4())
            asked += 1
    assert asked == 4
    completion_set.refresh_from_db()
    assert completion_set.state == CompletionSet.State.CLOSED


def test_a_change_of_overlap_leaves_who_is_asked_in_somebodys_stead(project: Project, alice: User) -> None:
    completion_set = sampled(approved(project))
    Answer.objects.submit(claim(project, alice), alice, {"verdict": "cannot_judge"}, uuid.uuid4())
    other = sampled(approved(project, "Name three rivers."))
    for overlap, places in ((3, 4), (1, 2)):
        project.ranking_overlap = overlap
        project.reconfigure()
        assert (completion_set.slots.count(), other.slots.count()) == (places, overlap)
