"""Translating side by side: drafts, review, what happens when the source or somebody else changes things."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client
from django.urls import reverse

from labeling.models import Project, Prompt, Role, StaleTranslation, Translation, User
from labeling.tests.rows import approved
from labeling.views.translations import lost_details

POEM = "비에 관한 하이쿠를 써 주세요."


def begun(source: Prompt, by: User) -> Translation:
    return Translation.objects.begin(source, "ko", by)


@pytest.fixture
def chris(project: Project) -> User:
    """A second curator of the project."""
    chris = User.objects.create_user("chris")
    chris.set_roles([Role.CURATOR])
    project.members.add(chris)
    return chris


def test_a_finished_translation_is_a_prompt_in_review(draft: Prompt, carol: User) -> None:
    target = begun(draft, carol).finish([f" {POEM}"], carol, 0)
    assert (target.text, target.language, target.state, target.author) == (POEM, "ko", Prompt.State.IN_REVIEW, carol)
    assert (target.family, target.split, target.tags, target.source) == (
        draft.family,
        draft.split,
        ["writing"],
        "tests",
    )
    assert target.approve(carol)


def test_drafts_are_kept_and_make_no_prompt(draft: Prompt, carol: User) -> None:
    work = begun(draft, carol)
    work.save_draft(["비에"], carol, 0)
    work.save_draft(["비에 관한"], carol, 1)
    again = begun(draft, carol)
    assert ([text for _turn, text in again.pairs()], again.version, again.status) == (["비에 관한"], 2, "draft")
    assert Prompt.objects.count() == 1


def test_nobody_overwrites_what_somebody_else_saved(draft: Prompt, carol: User, chris: User) -> None:
    mine, theirs = begun(draft, carol), begun(draft, chris)
    theirs.save_draft(["첫 번째"], chris, 0)
    with pytest.raises(StaleTranslation):
        mine.save_draft(["두 번째"], carol, 0)
    with pytest.raises(StaleTranslation):
        mine.finish(["두 번째"], carol, 0)
    assert begun(draft, carol).messages[0]["content"] == "첫 번째"


def test_ones_own_draft_on_its_way_does_not_stop_the_finish(draft: Prompt, carol: User) -> None:
    begun(draft, carol).save_draft(["비에 관한"], carol, 0)
    begun(draft, carol).finish([POEM], carol, 0)
    with pytest.raises(StaleTranslation):
        begun(draft, carol).save_draft(["비에 관한"], carol, 1)
    assert begun(draft, carol).status == Translation.Status.DONE


def test_an_empty_message_is_refused(draft: Prompt, carol: User) -> None:
    with pytest.raises(ValidationError, match="A message is empty"):
        begun(draft, carol).finish(["  "], carol, 0)
    assert begun(draft, carol).version == 0


def test_a_text_that_stands_in_the_project_is_refused(project: Project, draft: Prompt, carol: User) -> None:
    approved(project, POEM, "ko")
    with pytest.raises(ValidationError, match="already in the project"):
        begun(draft, carol).finish([POEM], carol, 0)


@pytest.mark.parametrize("language", ["en", "fr", "xx"])
def test_only_other_languages_of_the_project_are_translated_into(draft: Prompt, carol: User, language: str) -> None:
    with pytest.raises(ValidationError):
        Translation.objects.begin(draft, language, carol)


def test_a_source_that_changes_makes_its_translation_stale(draft: Prompt, carol: User) -> None:
    begun(draft, carol).finish([POEM], carol, 0)
    draft.rewrite([{"role": "user", "content": "Write two haikus about rain."}])
    assert begun(draft, carol).is_stale
    assert list(Prompt.objects.all().with_translation("stale")) == [draft]
    begun(draft, carol).finish(["하이쿠 두 편을 써 주세요."], carol, 1)
    assert not begun(draft, carol).is_stale
    assert Prompt.objects.get(language="ko").text == "하이쿠 두 편을 써 주세요."


def test_finishing_anew_after_approval_retires_the_old_prompt(draft: Prompt, carol: User) -> None:
    old = begun(draft, carol).finish([POEM], carol, 0)
    old.approve(carol)
    new = begun(draft, carol).finish(["비를 노래하는 하이쿠를 써 주세요."], carol, 1)
    old.refresh_from_db()
    assert (old.state, new.state) == (Prompt.State.RETIRED, Prompt.State.IN_REVIEW)
    assert (new.pk != old.pk, new.family) == (True, old.family)


def test_finishing_anew_without_a_change_leaves_the_prompt_alone(draft: Prompt, carol: User) -> None:
    old = begun(draft, carol).finish([POEM], carol, 0)
    old.approve(carol)
    assert begun(draft, carol).finish([POEM], carol, 1) == old
    old.refresh_from_db()
    assert old.state == Prompt.State.APPROVED


def page(client: Client, draft: Prompt, language: str = "ko") -> Any:
    return client.get(reverse("translation", args=[draft.pk, language]), follow=True)


def test_looking_at_the_page_begins_nothing(as_carol: Client, draft: Prompt) -> None:
    assert draft.text in page(as_carol, draft).content.decode()
    assert not Translation.objects.exists()


def test_the_page_keeps_drafts_and_finishes(as_carol: Client, draft: Prompt) -> None:
    address = reverse("translation_draft", args=[draft.pk, "ko"])
    saved = as_carol.post(address, {"content": "비에", "version": "0"}).content.decode()
    assert "Draft saved at" in saved and 'name="version" value="1"' in saved
    assert "비에</textarea>" in page(as_carol, draft).content.decode()
    done = as_carol.post(reverse("translation", args=[draft.pk, "ko"]), {"content": POEM, "version": "1"}, follow=True)
    assert done.redirect_chain[-1][0] == reverse("prompt", args=[Prompt.objects.get(language="ko").pk])
    assert "The translation is in review." in done.content.decode()


def test_the_page_keeps_the_text_that_it_refuses(as_carol: Client, draft: Prompt, chris: User) -> None:
    begun(draft, chris).save_draft(["첫"], chris, 0)
    text = as_carol.post(
        reverse("translation", args=[draft.pk, "ko"]), {"content": "둘", "version": "0"}
    ).content.decode()
    assert "chris saved this translation meanwhile." in text and "둘</textarea>" in text


@pytest.mark.parametrize("data", [{}, {"content": ["a", "b"], "version": "0"}, {"content": "a", "version": "x"}])
def test_a_damaged_draft_is_refused_in_words(as_carol: Client, draft: Prompt, data: dict[str, Any]) -> None:
    response = as_carol.post(reverse("translation_draft", args=[draft.pk, "ko"]), data)
    assert response.status_code == 200 and 'class="notice error"' in response.content.decode()


def test_a_language_of_no_use_leads_back_to_the_prompt(as_carol: Client, draft: Prompt) -> None:
    assert "does not translate" in page(as_carol, draft, "fr").content.decode()
    assert as_carol.post(reverse("translation_draft", args=[draft.pk, "fr"])).status_code == 404


@pytest.mark.parametrize(
    ("source", "text", "lost"),
    [
        ("Use 60 words by 10:30.", "60단어로 쓰세요.", ["10:30"]),
        ("Hello {name}, see https://example.com", "안녕 {name}", ["https://example.com"]),
        ("Use 60 words.", "", []),
        ("No numbers.", "없음", []),
    ],
)
def test_numbers_and_placeholders_left_out_are_pointed_at(source: str, text: str, lost: list[str]) -> None:
    assert lost_details(source, text) == lost
