"""Tasks over the REST API: leased to one labeler, handed in once, blind."""

import json
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from rest_framework.test import APIClient

from labeling.models import Answer, Slot
from labeling.tests import world


@pytest.fixture
def site(db: None) -> SimpleNamespace:
    site = SimpleNamespace(
        alice=world.person("alice", "labeler"),
        bob=world.person("bob", "labeler"),
        charlie=world.person("charlie", "labeler"),
        curator=world.person("cora", "curator"),
    )
    site.project = world.project("Ours", site.alice, site.bob, site.curator)
    site.prompt = world.approved_prompt(site.project, site.curator)
    world.sampled(site.prompt)
    return site


def api(user: Any) -> APIClient:
    client = APIClient()
    client.force_authenticate(user)
    return client


def next_task(user: Any, project: Any, task_type: str = "ranking") -> Any:
    return api(user).post("/api/tasks/next/", {"project": project.pk, "task_type": task_type}, format="json")


def ranking(**changes: Any) -> dict[str, Any]:
    return {"key": str(uuid.uuid4()), **world.RANKING, **changes}


def test_a_labeler_ranks_the_completions_they_were_given(site: SimpleNamespace) -> None:
    task = next_task(site.alice, site.project).json()
    assert task["messages"] == [{"role": "user", "content": "What is a fjord?"}]
    order = [completion["index"] for completion in task["completions"]]
    assert sorted(order) == [0, 1, 2, 3]
    answer = api(site.alice).post(f"/api/tasks/{task['id']}/ranking/", ranking(), format="json")
    assert answer.status_code == 201, answer.content
    assert answer.json()["revision"]["tiers"] == [1, 2, 2, 3]
    assert Answer.objects.get().current.shown_order == order


def test_the_order_stays_the_same_for_one_labeler_when_the_task_is_opened_again(site: SimpleNamespace) -> None:
    first, again = next_task(site.alice, site.project).json(), next_task(site.alice, site.project).json()
    assert first["completions"] == again["completions"]


def test_a_submission_sent_twice_is_stored_once(site: SimpleNamespace) -> None:
    task = next_task(site.alice, site.project).json()
    body = ranking()
    answers = [api(site.alice).post(f"/api/tasks/{task['id']}/ranking/", body, format="json") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert Answer.objects.count() == 1


def test_a_task_that_was_taken_over_is_refused_as_stale_and_then_not_found(site: SimpleNamespace) -> None:
    task = next_task(site.alice, site.project).json()
    Slot.objects.filter(pk=task["id"]).update(fence=5, state="answered")
    assert api(site.alice).post(f"/api/tasks/{task['id']}/ranking/", ranking(), format="json").status_code == 409
    Slot.objects.filter(pk=task["id"]).update(labeler=site.bob)
    assert api(site.alice).post(f"/api/tasks/{task['id']}/ranking/", ranking(), format="json").status_code == 404


def test_another_labelers_task_is_not_found(site: SimpleNamespace) -> None:
    task = next_task(site.alice, site.project).json()
    for verb in ("draft", "skip", "ranking", "demonstration"):
        assert api(site.bob).post(f"/api/tasks/{task['id']}/{verb}/", ranking(), format="json").status_code == 404
    assert api(site.bob).get(f"/api/tasks/{task['id']}/").status_code == 404


def test_tasks_of_other_teams_are_not_given_out(site: SimpleNamespace) -> None:
    response = next_task(site.charlie, site.project)
    assert response.status_code == 400
    assert "project" in response.json()


def test_nothing_left_is_an_answer_without_content(site: SimpleNamespace) -> None:
    next_task(site.alice, site.project)
    assert next_task(site.bob, site.project).status_code == 204


def test_an_incomplete_ranking_is_refused_with_what_is_missing(site: SimpleNamespace) -> None:
    task = next_task(site.alice, site.project).json()
    address = f"/api/tasks/{task['id']}/ranking/"
    short = api(site.alice).post(address, ranking(tiers=[1, 2]), format="json")
    assert short.status_code == 400
    assert "4" in json.dumps(short.json())
    unrated = api(site.alice).post(address, ranking(ratings=[None] * 4), format="json")
    assert unrated.status_code == 400
    assert not Answer.objects.exists()


def test_a_draft_is_kept_and_comes_back_with_the_task(site: SimpleNamespace) -> None:
    task = next_task(site.alice, site.project, "demonstration").json()
    draft = api(site.alice).post(f"/api/tasks/{task['id']}/draft/", {"payload": {"text": "A long"}}, format="json")
    assert draft.status_code == 200, draft.content
    assert api(site.alice).get(f"/api/tasks/{task['id']}/").json()["draft"]["payload"] == {"text": "A long"}


def test_a_skipped_task_is_not_offered_again(site: SimpleNamespace) -> None:
    task = next_task(site.alice, site.project, "demonstration").json()
    assert api(site.alice).post(f"/api/tasks/{task['id']}/skip/", {}, format="json").status_code == 204
    assert next_task(site.alice, site.project, "demonstration").status_code == 204
    assert next_task(site.bob, site.project, "demonstration").json()["id"] == task["id"]


def test_a_demonstration_is_handed_in(site: SimpleNamespace) -> None:
    task = next_task(site.alice, site.project, "demonstration").json()
    body = {"key": str(uuid.uuid4()), "text": "피오르는 좁고 긴 만이다.", "active_seconds": 3}
    given = api(site.alice).post(f"/api/tasks/{task['id']}/demonstration/", body, format="json")
    assert given.status_code == 201, given.content
    assert given.json()["text"] == "피오르는 좁고 긴 만이다."


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b'{"payload": "\\u0000"}',
        b'{"payload": {"text": "\\ud800"}}',
        b'{"payload": {"n": 1e999}}',
        b'{"payload": {"n": NaN}}',
        b'{"payload": {"n": 99999999999999999999}}',
        b"[" * 100_000,
        b'{"payload": {"\\u0000": 1}}',
        b"\xff\xfe",
    ],
)
def test_a_body_that_cannot_be_stored_is_a_bad_request(site: SimpleNamespace, body: bytes) -> None:
    task = next_task(site.alice, site.project, "demonstration").json()
    response = api(site.alice).post(f"/api/tasks/{task['id']}/draft/", body, content_type="application/json")
    assert response.status_code == 400, response.content


def test_a_body_larger_than_the_site_takes_is_refused_before_it_is_read(site: SimpleNamespace, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    task = next_task(site.alice, site.project, "demonstration").json()
    body = {"payload": {"text": "x" * 1000}}
    assert api(site.alice).post(f"/api/tasks/{task['id']}/draft/", body, format="json").status_code == 413


def test_nothing_a_labeler_can_read_names_a_model(site: SimpleNamespace) -> None:
    task = next_task(site.alice, site.project).json()
    api(site.alice).post(f"/api/tasks/{task['id']}/ranking/", ranking(), format="json")
    pages = ["/api/projects/", "/api/rankings/", "/api/demonstrations/", f"/api/tasks/{task['id']}/"]
    for page in pages:
        answer = api(site.alice).get(page)
        assert answer.status_code == 200
        for secret in ("tiny-base", "logprob", "token_count", "policy", "model_name", "-3.5"):
            assert secret not in answer.content.decode(), (page, secret)
    for page in ("/api/completion-sets/", "/api/prompts/", "/api/models/", "/api/runs/"):
        assert api(site.alice).get(page).status_code == 403
