"""Handing in a demonstration."""

import uuid
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from labeling.models import Demonstration, Project, Slot, StaleAssignment, User
from labeling.tests.rows import approved, sampled


@pytest.fixture
def slot(project: Project, alice: User) -> Slot:
    """A demonstration that Alice is at work on."""
    approved(project)
    slot = Slot.objects.claim_next(project, alice, Slot.TaskType.DEMONSTRATION)
    assert slot
    return slot


def test_text_is_stored_with_its_circumstances(slot: Slot, alice: User) -> None:
    payload = {"text": "\n Rain falls. ", "active_seconds": 7}
    demonstration = Demonstration.objects.submit(slot, alice, payload, uuid.uuid4())
    assert (demonstration.text, demonstration.author, demonstration.origin) == ("Rain falls.", alice, "labeler")
    assert demonstration.revisions.get().active_seconds == 7
    slot.refresh_from_db()
    assert slot.state == Slot.State.ANSWERED
    assert slot.answered_at


def test_same_key_is_stored_once(slot: Slot, alice: User) -> None:
    key = uuid.uuid4()
    first = Demonstration.objects.submit(slot, alice, {"text": "Rain falls."}, key)
    assert Demonstration.objects.submit(slot, alice, {"text": "Snow falls."}, key) == first
    assert Demonstration.objects.get().text == "Rain falls."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Write an answer"),
        (" \n\t", "Write an answer"),
        (None, "Write an answer"),
        (["a"], "Write an answer"),
        ("a\x00b", "cannot be stored"),
        ("\udc00", "cannot be stored"),
        ("글" * 16_001, "16001"),
    ],
)
def test_unusable_text_is_refused_in_words(slot: Slot, alice: User, text: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Demonstration.objects.submit(slot, alice, {"text": text}, uuid.uuid4())
    assert list(Slot.objects.held_by(alice)) == [slot]


@pytest.mark.parametrize("payload", [None, [], "text"])
def test_garbage_is_refused_in_words(slot: Slot, alice: User, payload: Any) -> None:
    with pytest.raises(ValidationError, match="Reload"):
        Demonstration.objects.submit(slot, alice, payload, uuid.uuid4())


def test_somebody_elses_task_is_refused(slot: Slot, bob: User) -> None:
    with pytest.raises(StaleAssignment):
        Demonstration.objects.submit(slot, bob, {"text": "Rain falls."}, uuid.uuid4())


def test_ranking_slot_takes_no_demonstration(project: Project, slot: Slot, alice: User) -> None:
    sampled(slot.prompt)
    other = Slot.objects.claim_next(project, alice, Slot.TaskType.RANKING)
    assert other
    with pytest.raises(ValidationError, match="ranking"):
        Demonstration.objects.submit(other, alice, {"text": "Rain falls."}, uuid.uuid4())
