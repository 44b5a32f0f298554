"""Handing in a ranking."""

import uuid
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from labeling.models import Answer, Project, Slot, StaleAssignment, User
from labeling.tests.rows import approved, ranking, sampled


@pytest.fixture
def slot(project: Project, alice: User) -> Slot:
    """A ranking that Alice is at work on."""
    sampled(approved(project))
    slot = Slot.objects.claim_next(project, alice, Slot.TaskType.RANKING)
    assert slot
    return slot


def test_what_was_said_is_stored_with_its_circumstances(project: Project, slot: Slot, alice: User) -> None:
    project.revise_instructions({"en": "Be kind."}, None)
    payload = ranking([2, 1, 2, 4], note=" close ")
    payload["ratings"][1]["flags"] = ["opinion"]
    revision = Answer.objects.submit(slot, alice, payload, uuid.uuid4()).current
    assert revision
    assert revision.tiers == [2, 1, 2, 3]
    assert revision.ratings[1] == {"overall": 4, "flags": ["opinion"], "note": ""}
    assert (revision.note, revision.active_seconds, revision.instruction_version) == ("close", 12.5, 1)
    assert revision.shown_order == slot.shown_order


def test_same_key_is_stored_once(slot: Slot, alice: User) -> None:
    key = uuid.uuid4()
    first = Answer.objects.submit(slot, alice, ranking([1, 2, 3, 4]), key)
    again = Answer.objects.submit(slot, alice, ranking([4, 3, 2, 1]), key)
    assert again == first
    assert first.revisions.count() == 1


def test_key_of_another_task_is_refused_and_the_task_stays_at_hand(project: Project, slot: Slot, alice: User) -> None:
    key = uuid.uuid4()
    Answer.objects.submit(slot, alice, ranking([1, 2, 3, 4]), key)
    sampled(approved(project, "Name three rivers."))
    other = Slot.objects.claim_next(project, alice, Slot.TaskType.RANKING)
    assert other
    with pytest.raises(ValidationError, match="another task"):
        Answer.objects.submit(other, alice, ranking([1, 2, 3, 4]), key)
    assert list(Slot.objects.held_by(alice)) == [other]


def test_incomplete_ranking_is_refused_and_the_task_stays_at_hand(slot: Slot, alice: User) -> None:
    with pytest.raises(ValidationError, match="in no tier"):
        Answer.objects.submit(slot, alice, ranking([1, None, 2, 3]), uuid.uuid4())
    assert list(Slot.objects.held_by(alice)) == [slot]
    assert not Answer.objects.exists()


def test_somebody_elses_task_is_refused(slot: Slot, bob: User) -> None:
    with pytest.raises(StaleAssignment):
        Answer.objects.submit(slot, bob, ranking([1, 2, 3, 4]), uuid.uuid4())
    assert not Answer.objects.exists()


@pytest.mark.parametrize("seconds", [-1, "12", True, float("nan"), float("inf"), 86_401])
def test_impossible_time_is_refused(slot: Slot, alice: User, seconds: Any) -> None:
    with pytest.raises(ValidationError, match="time spent"):
        Answer.objects.submit(slot, alice, ranking([1, 2, 3, 4], active_seconds=seconds), uuid.uuid4())


@pytest.mark.parametrize(("shown", "stored"), [(1, 1), (2, 2), (None, 2), (3, 2), (0, 2), ("1", 2), (True, 2)])
def test_label_carries_the_instructions_that_the_page_showed(
    project: Project, slot: Slot, alice: User, shown: Any, stored: int
) -> None:
    project.revise_instructions({"en": "Be kind."}, None)
    project.revise_instructions({"en": "Be kind and brief."}, None)
    payload = ranking([1, 2, 3, 4], instruction_version=shown)
    revision = Answer.objects.submit(slot, alice, payload, uuid.uuid4()).current
    assert revision and revision.instruction_version == stored


def test_labelers_see_their_own_and_curators_those_of_their_projects(
    slot: Slot, alice: User, bob: User, carol: User, charlie: User
) -> None:
    answer = Answer.objects.submit(slot, alice, ranking([1, 2, 3, 4]), uuid.uuid4())
    seen = {who.username: list(Answer.objects.all().visible_to(who)) for who in (alice, bob, carol, charlie)}
    assert seen == {"alice": [answer], "bob": [], "carol": [answer], "charlie": []}


def test_judged_completions_stand_as_they_were_shown(slot: Slot, alice: User) -> None:
    answer = Answer.objects.submit(slot, alice, ranking([1, 2, 3, 4]), uuid.uuid4())
    assert [each.letter for each in answer.judged] == ["A", "B", "C", "D"]
    assert [each.completion.index for each in answer.judged] == slot.shown_order
    assert [each.tier for each in answer.judged] == [index + 1 for index in slot.shown_order]
