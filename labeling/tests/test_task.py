"""The page of a task, and what its script sends."""

import json
import re
import uuid
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from labeling.models import Answer, Demonstration, Draft, Project, Slot, User
from labeling.tests.rows import ANSWERS, approved, many_open, ranking, sampled

RANKING, DEMONSTRATION = Slot.TaskType.RANKING, Slot.TaskType.DEMONSTRATION


def held(project: Project, labeler: User, task_type: str = RANKING) -> Slot:
    slot = Slot.objects.claim_next(project, labeler, task_type)
    assert slot
    return slot


@pytest.fixture
def slot(project: Project, alice: User) -> Slot:
    """A ranking that Alice is at work on."""
    sampled(approved(project), cut=(2,))
    return held(project, alice)


def get(client: Client, who: User, slot: Slot) -> Any:
    client.force_login(who)
    return client.get(reverse("task", args=[slot.pk]))


def post(client: Client, who: User | None, action: str, slot: Slot, body: Any, query: str = "") -> Any:
    if who:
        client.force_login(who)
    data = body if isinstance(body, bytes) else json.dumps(body)
    return client.post(reverse(action, args=[slot.pk]) + query, data, content_type="application/json")


def submission(payload: Any) -> dict[str, Any]:
    return {"key": str(uuid.uuid4()), "payload": payload}


# --- The page -------------------------------------------------------------------------------------------------------
def test_ranking_page_shows_every_completion_in_full_and_in_the_labelers_order(
    client: Client, slot: Slot, alice: User
) -> None:
    page = get(client, alice, slot).content.decode()
    places = [page.index(ANSWERS[index]) for index in slot.shown_order]
    assert places == sorted(places)
    assert page.count("cut off</span>") == 1


def test_nothing_the_labeler_is_sent_names_the_model(client: Client, slot: Slot, alice: User) -> None:
    responses = [
        get(client, alice, slot),
        post(client, alice, "task_draft", slot, {"payload": {}, "version": 0}),
        client.get(reverse("desk")),
        post(client, alice, "task_submit", slot, submission(ranking([1, 2, 3, 4]))),
        client.get(reverse("answer", args=[Answer.objects.get().pk])),
        client.get(reverse("answer_list")),
    ]
    for response in responses:
        assert response.status_code == 200
        sent = response.content.decode() + str(response.headers) + str(client.cookies)
        assert "tiny-1" not in sent


def test_text_of_models_is_shown_as_text(client: Client, project: Project, alice: User) -> None:
    sampled(approved(project), ["<script>alert(1)</script>", "</div><h1>", "{{ 7|add:7 }}", ""])
    page = get(client, alice, held(project, alice)).content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "</div><h1>" not in page
    assert "(empty)" in page


def test_page_obeys_the_strict_content_security_policy(client: Client, slot: Slot, alice: User) -> None:
    response = get(client, alice, slot)
    assert "style-src 'self'" in response["Content-Security-Policy"]
    page = response.content.decode()
    assert not re.search(r"\sstyle=", page)
    assert not re.search(r"\son\w+=", page)
    scripts = re.findall(r"<script(?![^>]*(?:src=|application/json))[^>]*>", page)
    assert scripts == []


def test_page_is_never_cached(client: Client, slot: Slot, alice: User) -> None:
    assert "no-store" in get(client, alice, slot)["Cache-Control"]


def test_flags_are_offered_where_the_project_says_so(client: Client, project: Project, slot: Slot, alice: User) -> None:
    assert "Denigrates a protected class" in get(client, alice, slot).content.decode()
    Project.objects.filter(pk=project.pk).update(use_flags=False)
    assert "Denigrates a protected class" not in get(client, alice, slot).content.decode()


def test_demonstration_page_says_why_there_are_no_completions(client: Client, project: Project, alice: User) -> None:
    approved(project, "비에 대한 시를 써 주세요.", "ko")
    page = get(client, alice, held(project, alice, DEMONSTRATION)).content.decode()
    assert "does not speak Korean" in page
    assert re.search(r'<textarea id="text"[^>]* lang="ko"', page)


def test_demonstration_page_of_a_spoken_language_needs_no_reason(client: Client, project: Project, alice: User) -> None:
    approved(project)
    assert "Why no completions" not in get(client, alice, held(project, alice, DEMONSTRATION)).content.decode()


def test_draft_comes_back_with_the_page(client: Client, slot: Slot, alice: User) -> None:
    slot.save_draft(alice, {"note": "</script><b>half done"})
    page = get(client, alice, slot).content.decode()
    data = json.loads(re.search(r'<script id="task-data"[^>]*>(.*?)</script>', page)[1])  # type: ignore[index]
    assert data["draft"] == {"note": "</script><b>half done"}
    assert data["version"] == 1


def test_somebody_elses_task_is_not_shown(client: Client, slot: Slot, bob: User, charlie: User) -> None:
    for other in (bob, charlie):
        response = get(client, other, slot)
        assert response.status_code == 404
        assert "not yours" in response.content.decode()
        assert ANSWERS[0] not in response.content.decode()


def test_lost_task_shows_what_one_had_written_to_oneself_alone(
    client: Client, project: Project, alice: User, bob: User, charlie: User
) -> None:
    approved(project)
    slot = held(project, alice, DEMONSTRATION)
    slot.save_draft(alice, {"text": "Half <b>done</b>"})
    Slot.objects.filter(pk=slot.pk).update(labeler=bob, fence=slot.fence + 1)
    assert "Half &lt;b&gt;done&lt;/b&gt;" in get(client, alice, slot).content.decode()
    assert "Half" not in get(client, charlie, slot).content.decode()


def test_task_handed_in_leads_to_what_was_said(client: Client, slot: Slot, alice: User) -> None:
    answer = Answer.objects.submit(slot, alice, ranking([1, 2, 3, 4]), uuid.uuid4())
    assert get(client, alice, slot)["Location"] == reverse("answer", args=[answer.pk])


def test_unknown_task_is_not_found(client: Client, alice: User) -> None:
    client.force_login(alice)
    assert client.get(reverse("task", args=[10**9])).status_code == 404


# --- Drafts ---------------------------------------------------------------------------------------------------------
def test_draft_is_kept(client: Client, slot: Slot, alice: User) -> None:
    response = post(client, alice, "task_draft", slot, {"payload": {"note": "half"}, "version": 0})
    assert (response.status_code, response.json()) == (200, {"version": 1})
    assert Draft.objects.get().payload == {"note": "half"}


def test_draft_of_two_tabs_conflicts_and_shows_the_other(client: Client, slot: Slot, alice: User) -> None:
    post(client, alice, "task_draft", slot, {"payload": {"note": "first"}, "version": 0})
    response = post(client, alice, "task_draft", slot, {"payload": {"note": "second"}, "version": 0})
    assert response.status_code == 409
    assert response.json()["code"] == "conflict"
    assert response.json()["payload"] == {"note": "first"}


def test_draft_of_somebody_elses_task_is_refused(client: Client, slot: Slot, bob: User) -> None:
    response = post(client, bob, "task_draft", slot, {"payload": {"note": "mine now"}})
    assert (response.status_code, response.json()["code"]) == (404, "stale")
    assert not Draft.objects.exists()


def test_draft_after_logout_says_so_and_where_to_log_in(client: Client, slot: Slot) -> None:
    response = post(client, None, "task_draft", slot, {"payload": {}})
    assert response.status_code == 401
    assert response.json()["url"] == reverse("login")
    assert "your work stays" in response.json()["error"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"payload": NaN}', {"payload": [], "version": "1"}]
)
def test_garbage_is_refused_in_words(client: Client, slot: Slot, alice: User, body: Any) -> None:
    for action in ("task_draft", "task_submit"):
        response = post(client, alice, action, slot, body)
        assert response.status_code == 422
        assert "Reload the page" in response.json()["error"]


# --- Submit ---------------------------------------------------------------------------------------------------------
def test_submit_brings_the_next_task_at_once(client: Client, project: Project, slot: Slot, alice: User) -> None:
    response = post(client, alice, "task_submit", slot, submission(ranking([1, 2, 2, 3])))
    following = Slot.objects.held_by(alice).get()
    assert response.json() == {"next": reverse("task", args=[following.pk])}
    assert following.task_type == DEMONSTRATION


def test_one_kind_only_ends_at_the_desk(client: Client, slot: Slot, alice: User) -> None:
    response = post(client, alice, "task_submit", slot, submission(ranking([1, 2, 2, 3])), "?only=ranking")
    assert response.json() == {"next": reverse("desk")}


def test_double_submit_is_stored_once_and_answered_alike(client: Client, slot: Slot, alice: User) -> None:
    body = submission(ranking([1, 2, 2, 3]))
    responses = [post(client, alice, "task_submit", slot, body) for _ in range(2)]
    assert [response.status_code for response in responses] == [200, 200]
    assert responses[0].json() == responses[1].json()
    assert Answer.objects.get().revisions.count() == 1


def test_second_tab_learns_that_it_came_late(client: Client, slot: Slot, alice: User) -> None:
    post(client, alice, "task_submit", slot, submission(ranking([1, 2, 2, 3])))
    response = post(client, alice, "task_submit", slot, submission(ranking([4, 3, 2, 1])))
    assert (response.status_code, response.json()["code"]) == (409, "answered")


def test_incomplete_ranking_says_what_is_missing(client: Client, slot: Slot, alice: User) -> None:
    response = post(client, alice, "task_submit", slot, submission(ranking([1, None, 2, 3])))
    assert response.status_code == 422
    assert response.json()["error"] == "1 of 4 completions are in no tier yet."


@pytest.mark.parametrize("key", [None, "", "not a key", 7])
def test_submit_without_a_key_is_refused(client: Client, slot: Slot, alice: User, key: Any) -> None:
    response = post(client, alice, "task_submit", slot, {"key": key, "payload": ranking([1, 2, 3, 4])})
    assert response.status_code == 422
    assert not Answer.objects.exists()


def test_lost_lease_is_refused_in_words(client: Client, slot: Slot, alice: User, bob: User) -> None:
    Slot.objects.filter(pk=slot.pk).update(labeler=bob, fence=slot.fence + 1)
    response = post(client, alice, "task_submit", slot, submission(ranking([1, 2, 3, 4])))
    assert (response.status_code, response.json()["code"]) == (404, "stale")
    assert "time ran out" in response.json()["error"]


def test_former_member_is_refused_in_words(client: Client, project: Project, slot: Slot, alice: User) -> None:
    project.members.remove(alice)
    response = post(client, alice, "task_submit", slot, submission(ranking([1, 2, 3, 4])))
    assert response.status_code == 409
    assert "no longer a member" in response.json()["error"]


def test_person_without_the_role_is_refused(client: Client, slot: Slot, carol: User) -> None:
    assert post(client, carol, "task_submit", slot, submission({})).status_code == 404  # a curator decides on others
    carol.set_roles(["ops"])
    assert post(client, carol, "task_submit", slot, submission({})).status_code == 403


def test_demonstration_is_handed_in(client: Client, project: Project, alice: User) -> None:
    approved(project)
    slot = held(project, alice, DEMONSTRATION)
    response = post(client, alice, "task_submit", slot, submission({"text": "Rain falls.", "active_seconds": 3}))
    assert response.json() == {"next": reverse("desk")}
    assert Demonstration.objects.get().text == "Rain falls."


def test_submit_needs_the_token_against_forgery(slot: Slot, alice: User) -> None:
    client = Client(enforce_csrf_checks=True)
    assert post(client, alice, "task_submit", slot, submission(ranking([1, 2, 3, 4]))).status_code == 403
    assert not Answer.objects.exists()


# --- Skip -----------------------------------------------------------------------------------------------------------
def test_skip_leads_on_and_never_back(client: Client, project: Project, slot: Slot, alice: User) -> None:
    response = post(client, alice, "task_skip", slot, {"reason": "not my field"}, "?only=ranking")
    assert response.json() == {"next": reverse("desk")}
    assert Slot.objects.claim_next(project, alice, RANKING) is None


def test_former_member_who_skips_is_led_to_the_desk(client: Client, project: Project, slot: Slot, alice: User) -> None:
    project.members.remove(alice)
    assert post(client, alice, "task_skip", slot, {}).json() == {"next": reverse("desk")}


def test_skip_needs_no_reason(client: Client, slot: Slot, alice: User) -> None:
    assert post(client, alice, "task_skip", slot, {}).status_code == 200


def test_page_and_submit_cost_the_same_however_many_wait(
    client: Client, project: Project, slot: Slot, alice: User, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    many_open(project, 600)
    client.force_login(alice)
    with django_assert_max_num_queries(9):
        client.get(reverse("task", args=[slot.pk]))
    body = json.dumps(submission(ranking([1, 2, 3, 4])))
    with django_assert_max_num_queries(34):
        sent = client.post(reverse("task_submit", args=[slot.pk]), body, content_type="application/json")
    assert sent.json()["next"] != reverse("desk")
