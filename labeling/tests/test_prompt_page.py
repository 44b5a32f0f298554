"""One prompt: written, looked at, changed, approved, sampled again."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from labeling.models import CompletionSet, Demonstration, Project, Prompt, SamplingJob, User
from labeling.tests.rows import ANSWERS, approved, sampled


def shown(client: Client, prompt: Prompt, name: str = "prompt") -> str:
    return client.get(reverse(name, args=[prompt.pk])).content.decode()


def form(*turns: tuple[str, str], **changes: str) -> dict[str, str]:
    data = {"language": "en", "tags": "", "source": "", "licence": "", "k": ""}
    data |= {"turn-TOTAL_FORMS": str(len(turns)), "turn-INITIAL_FORMS": "0"}
    for number, (role, content) in enumerate(turns):
        data |= {f"turn-{number}-role": role, f"turn-{number}-content": content}
    return data | changes


def test_a_prompt_is_written_as_a_draft(as_carol: Client, project: Project, carol: User) -> None:
    response = as_carol.post(
        reverse("prompt_new", args=[project.slug]), form(("user", "Why?"), tags="QA, short", k="5")
    )
    prompt = project.prompts.get()
    assert response["Location"] == reverse("prompt", args=[prompt.pk])
    assert (prompt.state, prompt.tags, prompt.k, prompt.author) == (Prompt.State.DRAFT, ["qa", "short"], 5, carol)


def test_a_dialogue_is_written_turn_by_turn(as_carol: Client, project: Project) -> None:
    address = reverse("prompt_new", args=[project.slug])
    page = as_carol.post(address, form(("user", "Hi"), add_turns="1"))
    turns = page.context["turns"]
    assert [turn["role"].value() for turn in turns] == ["user", "assistant", "user"]
    assert turns[0]["content"].value() == "Hi" and not project.prompts.exists()
    as_carol.post(
        address, form(("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", ""), ("user", " "))
    )
    assert [turn["content"] for turn in project.prompts.get().messages] == ["Hi", "Hello", "Bye"]


@pytest.mark.parametrize(
    ("turns", "changes", "words"),
    [
        ([("user", "")], {}, "A message is empty."),
        ([("user", "x" * 16_001)], {}, "the limit is 16000"),
        ([("user", "a\0b")], {}, "Null characters are not allowed"),
        ([("assistant", "Hi")], {}, "The last message must be the user&#x27;s"),
        ([("user", "Hi")], {"k": "12"}, "less than or equal to 9"),
        ([("user", "Hi")], {"k": "3"}, "greater than or equal to 4"),
        ([("user", "Hi")], {"language": "fr"}, "Select a valid choice"),
        ([("user", "Hi")], {"tags": "x" * 41}, "At most 10 tags"),
        ([("user", "write a  HAIKU about rain.")], {}, "already in the project"),
        ([("villain", "Hi")], {}, "Select a valid choice"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_the_text_still_there(
    as_carol: Client, project: Project, draft: Prompt, turns: list[Any], changes: dict[str, str], words: str
) -> None:
    page = as_carol.post(reverse("prompt_new", args=[project.slug]), form(*turns, **changes))
    assert page.status_code == 200 and words in page.content.decode()
    assert turns[0][1].strip()[:50].replace("\0", "\0") in page.content.decode()
    assert project.prompts.count() == 1


def test_a_draft_is_changed(as_carol: Client, draft: Prompt) -> None:
    as_carol.post(reverse("prompt_edit", args=[draft.pk]), form(("user", "Write a sonnet."), source="me"))
    draft.refresh_from_db()
    assert (draft.text, draft.source, draft.state) == ("Write a sonnet.", "me", Prompt.State.DRAFT)


def test_an_approved_prompt_is_not_changed(as_carol: Client, project: Project) -> None:
    prompt = approved(project)
    page = as_carol.post(reverse("prompt_edit", args=[prompt.pk]), form(("user", "Other")), follow=True)
    assert "can no longer be changed" in page.content.decode()
    prompt.refresh_from_db()
    assert prompt.text != "Other"


def test_a_prompt_shows_its_completions_with_names_and_settings(as_carol: Client, project: Project) -> None:
    prompt = approved(project)
    sampled(prompt, cut=(2,))
    text = shown(as_carol, prompt)
    for part in (*ANSWERS, "tiny-1", "K = 4", "temperature 1.0", "top-p 0.95", "at most 128 tokens", "cut off"):
        assert part in text, part


def test_completions_are_asked_for_until_they_are_there(as_carol: Client, project: Project) -> None:
    prompt = approved(project)
    assert 'hx-trigger="every 2s"' in shown(as_carol, prompt, "prompt_sets")
    sampled(prompt)
    text = shown(as_carol, prompt, "prompt_sets")
    assert "hx-trigger" not in text and ANSWERS[0] in text


def test_a_failed_sampling_says_why_and_can_be_tried_again(as_carol: Client, project: Project) -> None:
    prompt = approved(project)
    SamplingJob.objects.claim(CompletionSet.objects.get().job.pk).fail("The checkpoint <b>is</b> damaged.")
    text = shown(as_carol, prompt)
    assert "The checkpoint &lt;b&gt;is&lt;/b&gt; damaged." in text and "Sample again" in text
    page = as_carol.post(reverse("prompt_sample", args=[prompt.pk]), follow=True)
    assert "A new set is on its way." in page.content.decode()
    assert CompletionSet.objects.live().get().job.state == SamplingJob.State.QUEUED


def test_what_models_and_people_wrote_is_shown_as_text(as_carol: Client, project: Project) -> None:
    prompt = approved(project, "<script>alert(1)</script>")
    sampled(prompt, ["<img src=x onerror=alert(1)>", "b", "c", "d"])
    text = shown(as_carol, prompt)
    assert "<script>alert" not in text and "<img" not in text


def test_a_korean_prompt_says_why_it_has_no_completions(as_carol: Client, project: Project) -> None:
    prompt = approved(project, "안녕하세요", "ko")
    assert "Prompts in Korean are offered for demonstrations, not sampled" in shown(as_carol, prompt)


def test_imported_demonstrations_are_marked(as_carol: Client, draft: Prompt) -> None:
    Demonstration.objects.import_all([(draft, "Rain falls.")], "an old book")
    text = shown(as_carol, draft)
    assert "imported" in text and "an old book" in text and "Rain falls." in text


def test_a_page_costs_the_same_however_much_was_said(
    as_carol: Client, project: Project, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    prompt = approved(project)
    sampled(prompt)
    for name in ("tiny-2", "tiny-3", "tiny-4"):
        project.set_policy(name, ["en"])
        sampled(prompt)
    with django_assert_max_num_queries(16):
        shown(as_carol, prompt)


@pytest.mark.parametrize(("verb", "state"), [("approve", "approved"), ("retire", "retired"), ("restore", "draft")])
def test_buttons_do_what_they_say(as_carol: Client, draft: Prompt, verb: str, state: str) -> None:
    page = as_carol.post(reverse(f"prompt_{verb}", args=[draft.pk]), follow=True)
    draft.refresh_from_db()
    assert draft.state == state and page.status_code == 200


def test_k_out_of_range_is_refused_where_it_was_typed(as_carol: Client, draft: Prompt) -> None:
    page = as_carol.post(reverse("prompt_k", args=[draft.pk]), {"k": "12"}, follow=True)
    assert "The number of completions is from 4 to 9." in page.content.decode()
