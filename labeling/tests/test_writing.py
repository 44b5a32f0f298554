"""Help with writing a demonstration: how it looks, how many tokens it has, a completion to start from."""

import json
import uuid
from typing import Any

import pytest
from django.test import Client

from labeling.models import Answer, Demonstration, Project, Slot, TokenCount, User
from labeling.models.counting import estimate
from labeling.tests.rows import ANSWERS, approved, ranking, sampled


@pytest.fixture
def client(alice: User) -> Client:
    client = Client()
    client.force_login(alice)
    return client


def post(client: Client, address: str, body: Any) -> Any:
    return client.post(address, json.dumps(body), content_type="application/json")


def claim(project: Project, labeler: User, kind: str) -> Slot:
    slot = Slot.objects.claim_next(project, labeler, kind)
    assert slot
    return slot


def test_markdown_is_shown_and_does_no_harm(client: Client) -> None:
    text = "**bold** <script>alert(1)</script> [x](javascript:alert(1)) ![i](http://x/y.png)"
    html = post(client, "/preview/", {"text": text}).json()["html"]
    assert "<strong>bold</strong>" in html
    assert "<script" not in html and 'href="javascript' not in html and "<img" not in html


@pytest.mark.parametrize("text", [None, 7, ["a"], "a\x00", "\ud800", "x" * 100_000])
def test_what_is_no_text_is_refused(client: Client, project: Project, alice: User, text: Any) -> None:
    approved(project)
    slot = claim(project, alice, "demonstration")
    for address in ("/preview/", f"/task/{slot.pk}/tokens/"):
        assert post(client, address, {"text": text}).status_code == 422


def test_tokens_are_estimated_until_the_sampler_has_counted(client: Client, project: Project, alice: User) -> None:
    approved(project)
    slot = claim(project, alice, "demonstration")
    address = f"/task/{slot.pk}/tokens/"
    assert post(client, address, {"text": "a" * 35}).json() == {"count": 10, "is_exact": False}
    asked = TokenCount.objects.get()
    assert (asked.policy_name, asked.state) == ("tiny-1", "queued")
    TokenCount.objects.claim(asked.pk).counted(12)
    assert post(client, address, {"text": "a" * 35}).json() == {"count": 12, "is_exact": True}
    assert TokenCount.objects.get().text == ""


def test_the_estimate_follows_what_the_policy_has_said(project: Project) -> None:
    sampled(approved(project))  # eight tokens each
    characters = sum(map(len, ANSWERS))
    assert estimate("tiny-1", "en", "x" * characters) == 8 * len(ANSWERS)
    assert estimate("tiny-1", "ko", "가" * 7) == 6  # nothing is known of Korean: by bytes


def test_tokens_of_somebody_elses_task_are_not_counted(client: Client, project: Project, bob: User) -> None:
    approved(project)
    slot = claim(project, bob, "demonstration")
    assert post(client, f"/task/{slot.pk}/tokens/", {"text": "a"}).status_code == 404


def test_the_best_completion_is_corrected_into_a_demonstration(client: Client, project: Project, alice: User) -> None:
    completion_set = sampled(approved(project))
    slot = claim(project, alice, "ranking")
    answer = Answer.objects.submit(slot, alice, ranking([3, 1, 2, 4]), uuid.uuid4())
    assert "from the best one" in client.get(answer.get_absolute_url()).content.decode()
    taken = client.post(f"/answers/{answer.pk}/demonstrate/")
    held = Slot.objects.held_by(alice).get()
    assert taken.headers["location"] == f"/task/{held.pk}/"
    page = client.get(f"/task/{held.pk}/").content.decode()
    assert page.index(ANSWERS[1]) < page.index(ANSWERS[2]) < page.index(ANSWERS[0])
    best = completion_set.completions.get(index=1)
    payload = {"text": "Grey sky, empty street", "started_from": best.pk}
    demonstration = Demonstration.objects.submit(held, alice, payload, uuid.uuid4())
    assert demonstration.newest.started_from == best
    assert demonstration.as_work()["started_from"] == best.pk


def test_nobody_starts_from_what_they_have_not_ranked(project: Project, alice: User, bob: User) -> None:
    completion_set = sampled(approved(project))
    Answer.objects.submit(claim(project, bob, "ranking"), bob, ranking([1, 2, 3, 4]), uuid.uuid4())
    slot = claim(project, alice, "demonstration")
    payload = {"text": "Rain", "started_from": completion_set.completions.get(index=0).pk}
    assert Demonstration.objects.submit(slot, alice, payload, uuid.uuid4()).newest.started_from is None


def test_without_a_place_one_is_told_so(client: Client, project: Project, alice: User, bob: User) -> None:
    sampled(approved(project))
    answer = Answer.objects.submit(claim(project, alice, "ranking"), alice, ranking([1, 2, 3, 4]), uuid.uuid4())
    claim(project, bob, "demonstration")
    told = client.post(f"/answers/{answer.pk}/demonstrate/", follow=True).content.decode()
    assert "No more demonstrations of this prompt" in told
    assert "from the best one" not in told
