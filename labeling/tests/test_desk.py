"""The labeler's desk: what waits, why nothing waits, and the way to the next task."""

import uuid
from datetime import timedelta

import pytest
from django.core.exceptions import PermissionDenied
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse

from labeling.models import Answer, Demonstration, Outlook, Project, SamplingJob, Slot, User
from labeling.tests.rows import approved, ranking, sampled


def only_rankings(project: Project) -> None:
    Project.objects.filter(pk=project.pk).update(demonstration_overlap=0)
    project.refresh_from_db()


def finish(slot: Slot | None, labeler: User) -> None:
    assert slot
    if slot.task_type == Slot.TaskType.RANKING:
        Answer.objects.submit(slot, labeler, ranking([1, 2, 3, 4]), uuid.uuid4())
    else:
        Demonstration.objects.submit(slot, labeler, {"text": "Rain falls."}, uuid.uuid4())


def desk_of(client: Client, labeler: User) -> str:
    client.force_login(labeler)
    response = client.get(reverse("desk"))
    assert response.status_code == 200
    return response.content.decode()


def test_desk_counts_what_waits(client: Client, project: Project, alice: User) -> None:
    sampled(approved(project))
    approved(project, "Name three rivers.")
    page = desk_of(client, alice)
    assert "<strong>1</strong> ranking waits" in page
    assert "<strong>2</strong> demonstrations wait" in page
    assert "Next task" in page


def test_desk_is_for_labelers(client: Client, project: Project, carol: User) -> None:
    client.force_login(carol)
    assert client.get(reverse("desk")).status_code == 403


def test_desk_without_login_asks_for_it(client: Client, db: None) -> None:
    assert client.get(reverse("desk"))["Location"].startswith("/login/")


def test_labeler_without_project_is_told_who_adds_them(client: Client, charlie: User) -> None:
    assert "You label in no project yet" in desk_of(client, charlie)


def test_project_without_prompts_says_so(client: Client, project: Project, alice: User) -> None:
    assert "No prompt is approved yet" in desk_of(client, alice)


def test_sampling_is_announced_and_asked_for_again(client: Client, project: Project, alice: User) -> None:
    only_rankings(project)
    approved(project)
    page = desk_of(client, alice)
    assert "Completions are being written" in page
    assert 'hx-trigger="every 3s"' in page


def test_dead_worker_is_named_after_minutes(client: Client, project: Project, alice: User) -> None:
    only_rankings(project)
    approved(project)
    SamplingJob.objects.update(created_at=Now() - timedelta(minutes=4))
    assert "have not come for several minutes" in desk_of(client, alice)


def test_busy_worker_is_not_called_dead(client: Client, project: Project, alice: User) -> None:
    only_rankings(project)
    approved(project)
    approved(project, "Name three rivers.")
    SamplingJob.objects.update(created_at=Now() - timedelta(minutes=4))
    assert SamplingJob.objects.claim(SamplingJob.objects.earliest("pk").pk)
    assert "Completions are being written" in desk_of(client, alice)


def test_work_that_others_hold_says_when_to_come_back(client: Client, project: Project, alice: User, bob: User) -> None:
    only_rankings(project)
    sampled(approved(project))
    Slot.objects.claim_next(project, bob)
    page = desk_of(client, alice)
    assert "Others are at work" in page
    assert "14\xa0minutes" in page


def test_failed_sampling_is_said(client: Client, project: Project, alice: User) -> None:
    only_rankings(project)
    approved(project)
    SamplingJob.objects.claim(SamplingJob.objects.get().pk).fail("out of memory")
    assert "could not be written" in desk_of(client, alice)


def test_project_without_policy_says_so_once_demonstrations_are_done(
    client: Client, project: Project, alice: User
) -> None:
    Project.objects.filter(pk=project.pk).update(policy_name="", policy_languages=[])
    project.refresh_from_db()
    approved(project)
    assert "demonstration waits" in desk_of(client, alice)
    finish(Slot.objects.claim_next(project, alice), alice)
    assert "no policy has been promoted" in desk_of(client, alice)


def test_done_is_done(client: Client, project: Project, alice: User) -> None:
    only_rankings(project)
    sampled(approved(project))
    finish(Slot.objects.claim_next(project, alice), alice)
    page = desk_of(client, alice)
    assert "All done." in page
    assert "1 done by you" in page


def test_task_at_hand_is_offered_first(client: Client, project: Project, alice: User) -> None:
    sampled(approved(project))
    Slot.objects.claim_next(project, alice)
    page = desk_of(client, alice)
    assert "Continue your task" in page
    assert "in the middle of a ranking" in page


def test_fragment_shows_what_has_come(client: Client, project: Project, alice: User) -> None:
    only_rankings(project)
    prompt = approved(project)
    client.force_login(alice)
    address = reverse("desk_project", args=[project.slug])
    assert "every 3s" in client.get(address).content.decode()
    sampled(prompt)
    fragment = client.get(address).content.decode()
    assert "Next task" in fragment
    assert "hx-get" not in fragment
    assert "<html" not in fragment


def test_fragment_of_a_strange_project_is_not_found(client: Client, project: Project, charlie: User) -> None:
    client.force_login(charlie)
    assert client.get(reverse("desk_project", args=[project.slug])).status_code == 404


def test_fragment_after_logout_is_401_and_no_login_page(client: Client, project: Project) -> None:
    response = client.get(reverse("desk_project", args=[project.slug]), headers={"HX-Request": "true"})
    assert response.status_code == 401


def test_desk_costs_the_same_however_much_was_done(
    client: Client, project: Project, alice: User, django_assert_max_num_queries: object
) -> None:
    for n in range(6):
        sampled(approved(project, f"Write a haiku about the number {n}."))
        finish(Slot.objects.claim_next(project, alice), alice)
    client.force_login(alice)
    with django_assert_max_num_queries(25):  # type: ignore[operator]
        client.get(reverse("desk"))


# --- Next task ------------------------------------------------------------------------------------------------------
def next_task(client: Client, labeler: User, project: Project, **data: str) -> str:
    client.force_login(labeler)
    response = client.post(reverse("next_task", args=[project.slug]), data)
    assert response.status_code == 302, response.status_code
    return str(response["Location"])


def test_next_task_leases_and_leads_there(client: Client, project: Project, alice: User) -> None:
    sampled(approved(project))
    location = next_task(client, alice, project)
    slot = Slot.objects.held_by(alice).get()
    assert location == reverse("task", args=[slot.pk])


def test_one_kind_only_stays_one_kind(client: Client, project: Project, alice: User) -> None:
    sampled(approved(project))
    location = next_task(client, alice, project, only="demonstration")
    slot = Slot.objects.held_by(alice).get()
    assert slot.task_type == Slot.TaskType.DEMONSTRATION
    assert location.endswith("?only=demonstration")


def test_unknown_kind_means_any(client: Client, project: Project, alice: User) -> None:
    sampled(approved(project))
    assert "only" not in next_task(client, alice, project, only="nonsense")


def test_next_task_with_nothing_left_leads_back_to_the_desk(client: Client, project: Project, alice: User) -> None:
    assert next_task(client, alice, project) == reverse("desk")
    assert "Nothing is left for you" in client.get(reverse("desk")).content.decode()


def test_next_task_is_no_link(client: Client, project: Project, alice: User) -> None:
    client.force_login(alice)
    assert client.get(reverse("next_task", args=[project.slug])).status_code == 405


def test_next_task_of_a_strange_project_is_not_found(client: Client, project: Project, charlie: User) -> None:
    client.force_login(charlie)
    assert client.post(reverse("next_task", args=[project.slug])).status_code == 404
    with pytest.raises(PermissionDenied):
        Slot.objects.claim_next(project, charlie)


# --- Instructions ---------------------------------------------------------------------------------------------------
def test_instructions_are_read_in_the_language_of_the_page(client: Client, project: Project, alice: User) -> None:
    project.revise_instructions({"en": "# Be *kind*", "ko": "**친절하게**"}, None)
    client.force_login(alice)
    address = reverse("instructions", args=[project.slug])
    assert "<em>kind</em>" in client.get(address).content.decode()
    client.cookies["django_language"] = "ko"
    assert "<strong>친절하게</strong>" in client.get(address).content.decode()


def test_old_instructions_say_that_they_are_old(client: Client, project: Project, alice: User) -> None:
    project.revise_instructions({"en": "Be kind."}, None)
    project.revise_instructions({"en": "Be kind and brief."}, None)
    client.force_login(alice)
    page = client.get(reverse("instructions_version", args=[project.slug, 1])).content.decode()
    assert "no longer in force" in page
    assert "Be kind." in page


def test_instructions_cannot_carry_a_script(client: Client, project: Project, alice: User) -> None:
    project.revise_instructions({"en": "<script>alert(1)</script> [x](javascript:alert(2)) <b onclick=x>"}, None)
    client.force_login(alice)
    page = client.get(reverse("instructions", args=[project.slug])).content.decode()
    assert "<script>alert" not in page
    assert 'href="javascript' not in page
    assert "<b onclick" not in page


def test_missing_instructions_are_no_error(client: Client, project: Project, alice: User) -> None:
    client.force_login(alice)
    page = client.get(reverse("instructions", args=[project.slug])).content.decode()
    assert "no instructions yet" in page
    assert client.get(reverse("instructions_version", args=[project.slug, 1])).status_code == 404


def test_instructions_of_a_strange_project_are_not_found(client: Client, project: Project, charlie: User) -> None:
    client.force_login(charlie)
    assert client.get(reverse("instructions", args=[project.slug])).status_code == 404


def test_outlook_counts_only_ones_own_answers(project: Project, alice: User, bob: User) -> None:
    sampled(approved(project))
    finish(Slot.objects.claim_next(project, alice), alice)
    assert Outlook.of(project, alice).answered == 1
    assert Outlook.of(project, bob).answered == 0
