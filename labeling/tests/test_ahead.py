"""The next task: seen ahead by the browser, leased when it is shown, and never one that somebody else holds."""

import json
import uuid
from typing import Any

import pytest
from django.test import Client

from labeling.models import Answer, Draft, Project, Slot, User
from labeling.models.ahead import claim_ahead, peek
from labeling.tests.rows import approved, ranking, sampled


@pytest.fixture
def slots(project: Project) -> list[Slot]:
    """Three rankings to do, in the order in which they are given out."""
    Project.objects.filter(pk=project.pk).update(demonstration_overlap=0)
    for number in range(3):
        sampled(approved(project, f"Question {number}"))
    return list(Slot.objects.order_by("pk"))


@pytest.fixture
def as_alice(alice: User) -> Client:
    client = Client()
    client.force_login(alice)
    return client


def rows() -> list[Any]:
    return [*Slot.objects.order_by("pk").values(), *Draft.objects.values(), *Answer.objects.values()]


def post(client: Client, address: str, **sent: Any) -> dict[str, Any]:
    answer = client.post(address, json.dumps(sent), content_type="application/json")
    assert answer.status_code == 200, answer.content
    return dict(answer.json())


def submitted(client: Client, slot: Slot, ahead: Any) -> dict[str, Any]:
    return post(client, f"/task/{slot.pk}/submit/", key=str(uuid.uuid4()), payload=ranking([1, 2, 3, 4]), ahead=ahead)


def hold(project: Project, who: User) -> Slot:
    slot = Slot.objects.claim_next(project, who)
    assert slot
    return slot


def test_looking_ahead_leaves_everything_as_it_is(
    as_alice: Client, project: Project, alice: User, slots: list[Slot]
) -> None:
    first = hold(project, alice)
    before = rows()
    page = as_alice.get(f"/task/{first.pk}/ahead/")
    assert "Question 1" in page.content.decode() and page["X-Task"] == f"{slots[1].pk}-0"
    assert rows() == before
    assert "private" in page["Cache-Control"] and "max-age=900" in page["Cache-Control"]
    assert "Cookie" in page["Vary"]


def test_what_was_seen_is_what_comes_in_the_same_order(
    as_alice: Client, project: Project, alice: User, slots: list[Slot]
) -> None:
    first = hold(project, alice)
    seen = peek(first, alice)
    assert seen and seen.pk == slots[1].pk
    answer = submitted(as_alice, first, f"{seen.pk}-0")
    assert answer["next"] == answer["leased"]["address"] == f"/task/{seen.pk}/"
    given = Slot.objects.get(pk=seen.pk)
    assert (given.state, given.labeler, given.shown_order) == (Slot.State.LEASED, alice, seen.shown_order)
    assert answer["leased"]["page"]["submitUrl"] == f"/task/{seen.pk}/submit/"
    assert answer["leased"]["undo"]["url"] == f"/task/{first.pk}/undo/"


def test_one_that_somebody_else_got_is_not_shown(
    as_alice: Client, project: Project, alice: User, bob: User, slots: list[Slot]
) -> None:
    first = hold(project, alice)
    seen = peek(first, alice)
    assert seen and hold(project, bob).pk == seen.pk
    answer = submitted(as_alice, first, f"{seen.pk}-0")
    assert answer == {"next": f"/task/{slots[2].pk}/"}
    assert Slot.objects.get(pk=seen.pk).labeler == bob


def test_instructions_published_meanwhile_are_shown(
    as_alice: Client, project: Project, alice: User, slots: list[Slot]
) -> None:
    first = hold(project, alice)
    name = as_alice.get(f"/task/{first.pk}/ahead/")["X-Task"]
    project.revise_instructions({"en": "Be kind."}, None)
    assert submitted(as_alice, first, name) == {"next": f"/task/{slots[1].pk}/"}


@pytest.mark.parametrize("ahead", [None, 7, "", "x", "-1-0", "0-0", "1", "99999999999999999999-0", "999999-0", {}])
def test_nonsense_ahead_is_as_good_as_none(
    as_alice: Client, project: Project, alice: User, slots: list[Slot], ahead: Any
) -> None:
    assert submitted(as_alice, hold(project, alice), ahead) == {"next": f"/task/{slots[1].pk}/"}


def test_it_opens_no_other_way_to_a_task(project: Project, alice: User, charlie: User, slots: list[Slot]) -> None:
    first, client = hold(project, alice), Client()
    client.force_login(charlie)
    assert client.get(f"/task/{first.pk}/ahead/").status_code == 404
    other = Project.objects.create(name="Theirs", slug="theirs", languages=["en"])
    other.members.add(charlie)
    assert claim_ahead(slots[1].pk, Slot(pk=first.pk, project=other), charlie) is None
    assert Slot.objects.get(pk=slots[1].pk).state == Slot.State.OPEN


def test_what_is_held_already_comes_first(project: Project, alice: User, slots: list[Slot]) -> None:
    first = hold(project, alice)
    assert claim_ahead(slots[1].pk, first, alice) == first
    assert claim_ahead(slots[2].pk, first, alice) == first


def test_nothing_ahead_and_asked_too_late(as_alice: Client, project: Project, alice: User, slots: list[Slot]) -> None:
    Slot.objects.filter(pk__in=[slots[1].pk, slots[2].pk]).withdraw()
    first = hold(project, alice)
    assert as_alice.get(f"/task/{first.pk}/ahead/").status_code == 204
    assert submitted(as_alice, first, None) == {"next": "/desk/"}
    assert as_alice.get(f"/task/{first.pk}/ahead/")["Location"] == "/desk/"


def test_skipping_goes_on_the_same_way(as_alice: Client, project: Project, alice: User, slots: list[Slot]) -> None:
    first = hold(project, alice)
    answer = post(as_alice, f"/task/{first.pk}/skip/", reason="", ahead=f"{slots[1].pk}-0")
    assert answer["leased"]["address"] == f"/task/{slots[1].pk}/"
