"""A curator's projects: what the overview says, what the settings refuse."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from labeling.models import CompletionSet, Project, Prompt, SamplingJob, Slot, User
from labeling.tests.rows import approved, sampled

FORM = {
    "name": "Everyday help",
    "languages": ["en", "ko"],
    "k": "4",
    "comparison": "tiers",
    "ranking_overlap": "1",
    "demonstration_overlap": "1",
    "gold_percent": "5",
    "repeat_percent": "2",
    "require_ratings": "on",
    "use_flags": "on",
    "temperature": "1.0",
    "top_p": "0.95",
    "control_share": "15",
    "max_new_tokens": "128",
}


def page(client: Client, name: str, *args: Any) -> str:
    response = client.get(reverse(name, args=args))
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def save(client: Client, project: Project, **changes: Any) -> Any:
    members = list(project.members.values_list("pk", flat=True))
    return client.post(reverse("project_settings", args=[project.slug]), {**FORM, "members": members, **changes})


def test_overview_counts_lead_to_the_rows(as_carol: Client, project: Project, draft: Prompt) -> None:
    text = page(as_carol, "project", project.slug)
    assert f'<a href="/projects/{project.slug}/prompts/?state=draft&amp;language=en">1</a>' in text
    rows = as_carol.get(f"/projects/{project.slug}/prompts/?state=draft&language=en")
    assert [prompt.pk for prompt in rows.context["prompts"]] == [draft.pk]


def test_overview_says_why_korean_prompts_are_not_sampled(as_carol: Client, project: Project) -> None:
    words = "Prompts in Korean are offered for demonstrations, not sampled, because the policy tiny-1 speaks English."
    assert words in page(as_carol, "project", project.slug)


def test_overview_without_a_policy_says_what_is_missing(as_carol: Client, carol: User) -> None:
    bare = Project.objects.start(carol, "Bare", languages=["en"])
    text = page(as_carol, "project", bare.slug)
    assert "No policy has been promoted yet" in text and "Labelers have no instructions yet." in text


def test_sampling_is_reported_as_it_goes(as_carol: Client, project: Project) -> None:
    first, second = approved(project, "One"), approved(project, "Two")
    assert "2 being sampled" in page(as_carol, "sampling", project.slug)
    sampled(first)
    SamplingJob.objects.claim(second.completion_sets.get().job.pk).fail("The checkpoint is damaged.")
    text = page(as_carol, "sampling", project.slug)
    assert "1 set is ready" in text and "1 failed" in text and "being sampled" not in text


def test_a_sampler_that_does_not_answer_is_named(as_carol: Client, project: Project) -> None:
    approved(project)
    assert "The sampler does not answer" not in page(as_carol, "sampling", project.slug)
    SamplingJob.objects.update(created_at=timezone.now() - timezone.timedelta(hours=1))
    assert "The sampler does not answer" in page(as_carol, "sampling", project.slug)


def test_overview_costs_the_same_with_more_prompts(
    as_carol: Client, project: Project, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(12):
        approved(project, f"Question {number}")
    with django_assert_max_num_queries(14):
        page(as_carol, "project", project.slug)
    with django_assert_max_num_queries(6):
        page(as_carol, "project_list")


def test_a_new_project_has_its_maker_for_a_member(as_carol: Client, carol: User) -> None:
    response = as_carol.post(reverse("project_new"), {**FORM, "name": "한국어 도우미", "members": [carol.pk]})
    made = Project.objects.get(name="한국어 도우미")
    assert response["Location"] == reverse("project", args=[made.slug])
    assert list(made.members.all()) == [carol]
    assert made.slug == "project"


@pytest.mark.parametrize("name", ["New", "new!"])
def test_no_project_hides_behind_the_page_for_new_ones(as_carol: Client, carol: User, name: str) -> None:
    as_carol.post(reverse("project_new"), {**FORM, "name": name, "members": [carol.pk]})
    assert Project.objects.get(name=name).slug == "new-2"


def test_settings_are_saved_and_slots_follow_the_overlap(as_carol: Client, project: Project) -> None:
    sampled(approved(project))
    assert save(as_carol, project, ranking_overlap="3", k="6", temperature="0.7").status_code == 302
    project.refresh_from_db()
    assert (project.k, project.ranking_overlap, project.temperature) == (6, 3, 0.7)
    assert Slot.objects.filter(task_type="ranking").count() == 3


def test_a_promotion_meanwhile_survives_the_settings(as_carol: Client, project: Project) -> None:
    stale = Project.objects.get(pk=project.pk)
    project.set_policy("tiny-2", ["en", "ko"])
    stale.k = 5
    stale.reconfigure()
    project.refresh_from_db()
    assert (project.policy_name, project.k) == ("tiny-2", 5)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("k", "3", "greater than or equal to 4"),
        ("k", "10", "less than or equal to 9"),
        ("k", "many", "whole number"),
        ("temperature", "-1", "greater than or equal to 0"),
        ("temperature", "nan", "Enter a number"),
        ("top_p", "0", "greater than or equal to 0.01"),
        ("max_new_tokens", "0", "greater than or equal to 1"),
        ("ranking_overlap", "0", "greater than or equal to 1"),
        ("languages", [], "This field is required"),
        ("languages", ["xx"], "not one of the available choices"),
        ("languages", ["ko"], "There are prompts in English. The language stays."),
        ("members", [], "You would lock yourself out."),
        ("name", "", "This field is required"),
    ],
)
def test_settings_out_of_range_are_refused_at_the_field(
    as_carol: Client, project: Project, draft: Prompt, field: str, value: Any, words: str
) -> None:
    response = save(as_carol, project, **{field: value})
    assert response.status_code == 200
    assert words in " ".join(response.context["form"].errors[field])
    project.refresh_from_db()
    assert (project.k, project.languages, project.members.count()) == (4, ["en", "ko"], 3)


def test_sets_sampled_before_keep_their_settings(as_carol: Client, project: Project) -> None:
    approved(project)
    save(as_carol, project, k="9", temperature="0.1")
    made = CompletionSet.objects.get()
    assert (made.k, made.temperature) == (4, 1.0)
