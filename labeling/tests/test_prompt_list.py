"""The list of prompts: filtered, paged by key, changed many at once."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from labeling.models import CompletionSet, Project, Prompt, User
from labeling.models.prompt import draw_split
from labeling.views.prompts import PAGE


def write(project: Project, count: int) -> None:
    prompts = []
    for number in range(count):
        prompt = Prompt(project=project, language="en", tags=["qa"], source="tests")
        prompt.set_messages([{"role": "user", "content": f"Question {number}?"}])
        prompt.split = draw_split(prompt.family)
        prompts.append(prompt)
    Prompt.objects.bulk_create(prompts)


def listed(client: Client, project: Project, query: str = "") -> Any:
    response = client.get(f"{reverse('prompt_list', args=[project.slug])}?{query}")
    assert response.status_code == 200
    return response


def change(client: Client, project: Project, query: str = "", **data: Any) -> Any:
    address = f"{reverse('prompts_change', args=[project.slug])}?{query}"
    return client.post(address, {"scope": "selected", **data}, follow=True)


def test_pages_lead_to_every_prompt_once_and_back(as_carol: Client, project: Project) -> None:
    write(project, 2 * PAGE + 3)
    seen: list[int] = []
    page = listed(as_carol, project)
    assert page.context["newer"] is None
    while True:
        seen += [prompt.pk for prompt in page.context["prompts"]]
        if page.context["older"] is None:
            break
        page = listed(as_carol, project, f"before={page.context['older']}")
    assert seen == list(project.prompts.order_by("-pk").values_list("pk", flat=True))
    back = listed(as_carol, project, f"after={page.context['newer']}")
    assert [prompt.pk for prompt in back.context["prompts"]] == seen[PAGE : 2 * PAGE]
    assert (back.context["total"], back.context["newer"] is not None) == (2 * PAGE + 3, True)


def test_a_page_costs_the_same_however_many_rows_it_has(
    as_carol: Client, project: Project, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    write(project, 3)
    with django_assert_num_queries(8):
        listed(as_carol, project, "tag=qa")
    write_more = [Prompt(project=project, language="ko", tags=["qa"]) for _ in range(40)]
    for number, prompt in enumerate(write_more):
        prompt.set_messages([{"role": "user", "content": f"질문 {number}"}])
        prompt.split = draw_split(prompt.family)
    Prompt.objects.bulk_create(write_more)
    with django_assert_num_queries(8):
        listed(as_carol, project, "tag=qa")


@pytest.mark.parametrize(
    "query", ["state=nonsense", "before=x", "after=-1", "before=99999999999999999999", "q=%00", "tag=%22"]
)
def test_a_damaged_address_still_shows_a_list(as_carol: Client, project: Project, draft: Prompt, query: str) -> None:
    assert list(listed(as_carol, project, query).context["prompts"]) == [draft]


def test_filters_stay_while_paging(as_carol: Client, project: Project) -> None:
    write(project, PAGE + 1)
    text = listed(as_carol, project, "q=Question&state=draft").content.decode()
    assert "q=Question&amp;state=draft&amp;before=" in text


def test_an_empty_project_says_what_to_do(as_carol: Client, project: Project) -> None:
    assert "Import a JSONL or CSV file" in listed(as_carol, project).content.decode()
    assert "No prompt matches." in listed(as_carol, project, "q=unicorn").content.decode()


def test_ticked_prompts_are_approved_and_no_others(as_carol: Client, project: Project) -> None:
    write(project, 3)
    chosen = project.prompts.order_by("pk").first()
    page = change(as_carol, project, "tag=qa", action="approve", prompt=[chosen.pk])
    assert "1 prompt was changed." in page.content.decode()
    assert page.redirect_chain[-1][0].endswith("?tag=qa")
    assert [prompt.pk for prompt in project.prompts.approved()] == [chosen.pk]


def test_all_that_match_are_changed_only_after_asking(as_carol: Client, project: Project) -> None:
    write(project, PAGE + 20)
    page = change(as_carol, project, "q=Question 1", action="approve", scope="all")
    assert "Really all of them?" in page.content.decode() and not project.prompts.approved().exists()
    change(as_carol, project, "q=Question 1", action="approve", scope="all", confirmed="1")
    wanted = [number for number in range(PAGE + 20) if str(number).startswith("1")]
    assert project.prompts.approved().count() == len(wanted) == CompletionSet.objects.count()


def test_ticking_nothing_changes_nothing(as_carol: Client, project: Project, draft: Prompt) -> None:
    page = change(as_carol, project, action="approve")
    assert "Tick some prompts first." in page.content.decode()
    assert not project.prompts.approved().exists()


def test_prompts_of_other_projects_cannot_be_slipped_in(as_cleo: Client, cleo: User, draft: Prompt) -> None:
    theirs = Project.objects.get(name="Another team")
    change(as_cleo, theirs, action="approve", prompt=[draft.pk])
    draft.refresh_from_db()
    assert draft.state == Prompt.State.DRAFT


@pytest.mark.parametrize(
    ("k", "stored", "words"), [("7", 7, "changed"), ("3", None, "from 4 to 9"), ("", None, "changed")]
)
def test_completions_wanted_are_set_for_many(
    as_carol: Client, project: Project, draft: Prompt, k: str, stored: int | None, words: str
) -> None:
    page = change(as_carol, project, action="set_k", k=k, prompt=[draft.pk])
    draft.refresh_from_db()
    assert draft.k == stored and words in page.content.decode()


@pytest.mark.parametrize(
    "data", [{"action": "burn"}, {"scope": "world", "action": "approve"}, {}, {"prompt": "x", "action": "approve"}]
)
def test_a_damaged_order_changes_nothing(
    as_carol: Client, project: Project, draft: Prompt, data: dict[str, str]
) -> None:
    assert change(as_carol, project, **data).status_code == 200
    draft.refresh_from_db()
    assert draft.state == Prompt.State.DRAFT


def test_retired_prompts_become_drafts_again(as_carol: Client, project: Project, draft: Prompt) -> None:
    change(as_carol, project, action="retire", prompt=[draft.pk])
    assert project.prompts.get().state == Prompt.State.RETIRED
    change(as_carol, project, action="restore", prompt=[draft.pk])
    assert project.prompts.get().state == Prompt.State.DRAFT
