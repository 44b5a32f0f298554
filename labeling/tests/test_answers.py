"""What was handed in, to read again."""

import uuid

import pytest
from django.test import Client
from django.urls import reverse

from labeling.models import Answer, Demonstration, Project, Slot, User
from labeling.tests.rows import ANSWERS, HAIKU, approved, ranking, sampled


@pytest.fixture
def answer(project: Project, alice: User) -> Answer:
    sampled(approved(project))
    slot = Slot.objects.claim_next(project, alice, Slot.TaskType.RANKING)
    assert slot
    payload = ranking([1, 2, 2, 3], note="A hard one.")
    payload["ratings"][0] = {"overall": 7, "flags": ["opinion"], "note": "Lovely."}
    return Answer.objects.submit(slot, alice, payload, uuid.uuid4())


@pytest.fixture
def demonstration(project: Project, alice: User) -> Demonstration:
    approved(project, "Name three rivers.")
    slot = Slot.objects.claim_next(project, alice, Slot.TaskType.DEMONSTRATION)
    assert slot
    return Demonstration.objects.submit(slot, alice, {"text": "Rhine, Nile, <b>Han</b>."}, uuid.uuid4())


def test_ranking_is_shown_as_it_was_handed_in(client: Client, answer: Answer, alice: User) -> None:
    client.force_login(alice)
    page = client.get(reverse("answer", args=[answer.pk])).content.decode()
    assert page.index("Tier 1") < page.index(ANSWERS[0]) < page.index("Tier 2") < page.index("Tier 3")
    for said in ("7 / 7", "Expresses opinion", "Lovely.", "A hard one.", "tied", HAIKU):
        assert said in page


def test_demonstration_is_shown_as_text(client: Client, demonstration: Demonstration, alice: User) -> None:
    client.force_login(alice)
    page = client.get(reverse("demonstration", args=[demonstration.pk])).content.decode()
    assert "Rhine, Nile, &lt;b&gt;Han&lt;/b&gt;." in page


def test_list_shows_ones_own_work_only(
    client: Client, answer: Answer, demonstration: Demonstration, alice: User, bob: User
) -> None:
    client.force_login(alice)
    page = client.get(reverse("answer_list")).content.decode()
    assert reverse("answer", args=[answer.pk]) in page
    assert reverse("demonstration", args=[demonstration.pk]) in page
    client.force_login(bob)
    assert "Nothing yet." in client.get(reverse("answer_list")).content.decode()


def test_other_labelers_do_not_see_it(
    client: Client, answer: Answer, demonstration: Demonstration, bob: User, charlie: User
) -> None:
    for other in (bob, charlie):
        client.force_login(other)
        assert client.get(reverse("answer", args=[answer.pk])).status_code == 404
        assert client.get(reverse("demonstration", args=[demonstration.pk])).status_code == 404


def test_curators_of_the_project_do(client: Client, answer: Answer, demonstration: Demonstration, carol: User) -> None:
    client.force_login(carol)
    page = client.get(reverse("answer", args=[answer.pk])).content.decode()
    assert "alice" in page
    assert client.get(reverse("demonstration", args=[demonstration.pk])).status_code == 200


def test_list_costs_the_same_for_one_and_for_many(
    client: Client, answer: Answer, demonstration: Demonstration, alice: User, django_assert_max_num_queries: object
) -> None:
    client.force_login(alice)
    with django_assert_max_num_queries(8):  # type: ignore[operator]
        client.get(reverse("answer_list"))
