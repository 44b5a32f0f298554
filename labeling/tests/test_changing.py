"""Taking back, changing and reviewing what was handed in: nothing that was said is ever overwritten."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.test import Client
from django.utils import timezone

from labeling import export
from labeling.models import Answer, Demonstration, Project, Review, Slot, StaleAssignment, User
from labeling.tests.rows import approved, ranking, sampled

KINDS = ("ranking", "demonstration")


def hand_in(project: Project, labeler: User, kind: str, words: str = "Rain falls.") -> Answer | Demonstration:
    slot = Slot.objects.claim_next(project, labeler, kind)
    assert slot
    if kind == "ranking":
        return Answer.objects.submit(slot, labeler, ranking([1, 2, 3, 4]), uuid.uuid4())
    return Demonstration.objects.submit(slot, labeler, {"text": words, "active_seconds": 30}, uuid.uuid4())


def learned_from(project: Project) -> int:
    return len([*export.rankings(project), *export.demonstrations(project)])


def work(kind: str) -> dict[str, Any]:
    return ranking([4, 3, 2, 1]) if kind == "ranking" else {"text": "It pours."}


@pytest.fixture
def ready(project: Project) -> Project:
    """Two prompts, each with a set to rank and an answer to write."""
    sampled(approved(project))
    sampled(approved(project, "Name three rivers."))
    return project


@pytest.mark.parametrize("kind", KINDS)
def test_taken_back_it_is_a_draft_again_and_nobody_learns_from_it(ready: Project, alice: User, kind: str) -> None:
    label = hand_in(ready, alice, kind)
    following = Slot.objects.claim_next(ready, alice, kind)
    slot = label.slot
    assert slot and following
    slot.take_back(alice)
    assert learned_from(ready) == 0
    [held] = Slot.objects.held_by(alice)
    assert held == slot and held.draft
    assert (
        held.draft.payload.items()
        >= ({"tiers": [1, 2, 3, 4]} if kind == "ranking" else {"text": "Rain falls."}).items()
    )
    following.refresh_from_db()
    assert following.state == Slot.State.OPEN


@pytest.mark.parametrize("kind", KINDS)
def test_handed_in_again_it_is_a_second_revision(ready: Project, alice: User, kind: str) -> None:
    label = hand_in(ready, alice, kind)
    assert label.slot
    label.slot.take_back(alice)
    again = Slot.objects.claim_next(ready, alice, kind)
    assert again
    manager: Any = type(label).objects
    second = manager.submit(again, alice, work(kind), uuid.uuid4())
    assert second.pk == label.pk
    assert [revision.number for revision in second.revisions.order_by("number")] == [1, 2]
    assert learned_from(ready) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_taken_back_and_passed_on_somebody_else_may_do_it(ready: Project, alice: User, bob: User, kind: str) -> None:
    label = hand_in(ready, alice, kind)
    slot = label.slot
    assert slot
    slot.take_back(alice)
    held = Slot.objects.held_by(alice).get()
    held.skip(alice)
    while (taken := Slot.objects.claim_next(ready, bob, kind)) and taken.pk != slot.pk:
        taken.skip(bob)
    assert taken
    manager: Any = type(label).objects
    assert manager.submit(taken, bob, work(kind), uuid.uuid4()).pk != label.pk
    assert learned_from(ready) == 1


def test_after_half_a_minute_it_is_too_late(ready: Project, alice: User) -> None:
    label = hand_in(ready, alice, "ranking")
    following = Slot.objects.claim_next(ready, alice, "ranking")
    Slot.objects.filter(pk=label.slot_id).update(answered_at=timezone.now() - timedelta(seconds=31))
    assert label.slot
    with pytest.raises(StaleAssignment, match="too late"):
        label.slot.take_back(alice)
    assert learned_from(ready) == 1
    assert list(Slot.objects.held_by(alice)) == [following]


def test_nobody_takes_back_what_others_said(ready: Project, alice: User, bob: User) -> None:
    slot = hand_in(ready, alice, "ranking").slot
    assert slot
    with pytest.raises(StaleAssignment):
        slot.take_back(bob)
    assert learned_from(ready) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_a_new_revision_with_its_author(ready: Project, alice: User, carol: User, kind: str) -> None:
    label = hand_in(ready, alice, kind)
    key = uuid.uuid4()
    label.amend(alice, work(kind), key, 1)
    label.amend(alice, work(kind), key, 1)  # the same request again
    label.amend(carol, work(kind), uuid.uuid4(), 2)
    authors = [
        getattr(revision, "author" if kind == "ranking" else "editor")
        for revision in label.revisions.order_by("number")
    ]
    assert authors == [None, None, carol]
    assert label.revisions.order_by("number").first().pk != label.revisions.order_by("number").last().pk
    assert learned_from(ready) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_of_what_somebody_changed_meanwhile_is_refused(
    ready: Project, alice: User, carol: User, kind: str
) -> None:
    label = hand_in(ready, alice, kind)
    label.amend(carol, work(kind), uuid.uuid4(), 1)
    with pytest.raises(ValidationError, match="in the meantime"):
        label.amend(alice, work(kind), uuid.uuid4(), 1)
    assert label.revisions.count() == 2


@pytest.mark.parametrize("kind", KINDS)
def test_strangers_change_nothing(
    ready: Project, alice: User, bob: User, carol: User, charlie: User, kind: str
) -> None:
    label = hand_in(ready, alice, kind)
    manager: Any = type(label).objects
    assert [manager.amendable_by(who).filter(pk=label.pk).exists() for who in (alice, carol, bob, charlie)] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_returned_teaches_nothing_until_it_was_changed(
    ready: Project, alice: User, carol: User, kind: str
) -> None:
    label = hand_in(ready, alice, kind)
    assert label.slot
    Review.objects.add(label.slot, carol, "returned", "Look at the second one again.")
    assert learned_from(ready) == 0
    assert list(Slot.objects.returned_to(alice)) == [label.slot]
    label.slot.refresh_from_db()
    label.amend(alice, work(kind), uuid.uuid4(), 1)
    assert learned_from(ready) == 1
    label.slot.refresh_from_db()
    assert label.slot.review_state == Slot.ReviewState.CHANGED
    Review.objects.add(label.slot, carol, "accepted")
    label.slot.refresh_from_db()
    assert label.slot.review_state == Slot.ReviewState.ACCEPTED


def test_a_return_says_why(ready: Project, alice: User, carol: User) -> None:
    slot = hand_in(ready, alice, "ranking").slot
    assert slot
    for verdict, comment in (("returned", "  "), ("fine", "x"), ("returned", "a\x00"), ("returned", "x" * 2001)):
        with pytest.raises(ValidationError):
            Review.objects.add(slot, carol, verdict, comment)
    assert not Review.objects.exists()


def test_only_curators_of_the_project_review_and_nobody_their_own(
    ready: Project, alice: User, bob: User, carol: User
) -> None:
    carol.set_roles(["curator", "labeler"])
    slots = [hand_in(ready, who, "ranking").slot for who in (alice, carol)]
    for reviewer, slot in ((bob, slots[0]), (carol, slots[1])):
        assert slot
        with pytest.raises(PermissionDenied):
            Review.objects.add(slot, reviewer, "accepted")


def test_reviewed_it_is_no_longer_taken_back(ready: Project, alice: User, carol: User) -> None:
    slot = hand_in(ready, alice, "ranking").slot
    assert slot
    Review.objects.add(slot, carol, "accepted")
    with pytest.raises(StaleAssignment):
        slot.take_back(alice)


def test_review_goes_from_one_to_the_next(ready: Project, alice: User, carol: User) -> None:
    first, second = hand_in(ready, alice, "ranking"), hand_in(ready, alice, "demonstration")
    client = Client()
    client.force_login(carol)
    listed = client.get(f"/projects/{ready.slug}/review/").content.decode()
    assert first.get_absolute_url() in listed and second.get_absolute_url() in listed
    assert "Accept" in client.get(first.get_absolute_url()).content.decode()
    answer = client.post(f"/reviews/{first.slot_id}/", {"verdict": "returned", "comment": ""}, follow=True)
    assert "Say in a comment" in answer.content.decode()
    answer = client.post(f"/reviews/{first.slot_id}/", {"verdict": "accepted"})
    assert answer.headers["location"] == second.get_absolute_url()
    answer = client.post(f"/reviews/{second.slot_id}/", {"verdict": "returned", "comment": "Shorter."})
    assert answer.headers["location"] == f"/projects/{ready.slug}/review/"
    client.force_login(alice)
    assert "Shorter." in client.get("/desk/").content.decode()
    assert "Shorter." in client.get(f"{second.get_absolute_url()}change/").content.decode()


@pytest.mark.parametrize("kind", KINDS)
def test_labelers_find_the_way_to_change_on_the_page(ready: Project, alice: User, kind: str) -> None:
    label = hand_in(ready, alice, kind)
    client = Client()
    client.force_login(alice)
    assert f'href="{label.get_absolute_url()}change/"' in client.get(label.get_absolute_url()).content.decode()
