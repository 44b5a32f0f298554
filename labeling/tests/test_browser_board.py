"""The finer ways of the tier board in Chromium: ties, pins, undo, verdicts, one's own keys, taking back, changing."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from labeling.models import Answer, CompletionSet, Project, Review, Revision, Slot, User
from labeling.tests.rows import approved, sampled
from labeling.tests.test_browser_ranking import PHONE, card, open_task, rate_all, stored, submit, tier
from webapp.tests.browser import Visit, press

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
TWINS = ["Rain on the roof tiles", "Grey sky, quiet street", "Rain on the roof tiles", "Rain on the **roof** slates"]


@pytest.fixture
def completion_set(project: Project) -> CompletionSet:
    Project.objects.filter(pk=project.pk).update(demonstration_overlap=0)
    project.refresh_from_db()
    return sampled(approved(project), TWINS)


def letters(page: Page) -> list[str]:
    return [each.get_attribute("data-letter") or "" for each in page.locator(".completion").all()]


def finished(page: Page) -> None:
    expect(page.get_by_text("All done.")).to_be_visible()


def test_tie_and_split_by_keys(visit: Visit, project: Project, alice: User) -> None:
    Project.objects.filter(pk=project.pk).update(demonstration_overlap=0)
    project.refresh_from_db()
    sampled(approved(project))
    page, slot = open_task(visit, alice, project)
    rate_all(page)
    press(page, "1", "2", "3", "4")  # the focus stays on D
    press(page, "=")
    expect(page.locator("#announcer")).to_have_text("D moved to tier 3, tied with C")
    press(page, "=", "=")
    expect(page.locator("#announcer")).to_have_text("D moved to tier 1, tied with A")
    press(page, "-")
    expect(page.locator("#announcer")).to_have_text("D moved to tier 2")
    press(page, "Control+Enter")
    finished(page)
    assert stored(slot) == {"A": 1, "D": 2, "B": 3, "C": 4}


def test_undo_goes_back_step_by_step(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User
) -> None:
    page, _slot = open_task(visit, alice, project)
    rate_all(page, "541")
    press(page, "1", "2")
    expect(page.locator("#progress")).to_contain_text("In tiers 2/3")
    press(page, "Control+z")
    expect(page.locator("#progress")).to_contain_text("In tiers 1/3")
    press(page, "Control+z")
    expect(page.locator("#progress")).to_contain_text("In tiers 0/3")
    press(page, "Control+z")
    expect(page.locator("#progress")).to_contain_text("Rated 2/3")


def test_the_same_text_is_one_card_and_one_tier(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User
) -> None:
    page, slot = open_task(visit, alice, project)
    expect(page.locator(".letters button")).to_have_count(3)
    rate_all(page, "541")
    expect(page.locator(".completion", has_text="says the same")).to_have_count(1)
    for place, letter in enumerate(letters(page), start=1):
        page.get_by_role("button", name=f"{letter} to tier {place}", exact=True).click()
    submit(page)
    revision = Revision.objects.get(answer__slot=slot)
    assert revision.tiers[0] == revision.tiers[2]
    assert sorted(revision.tiers) in ([1, 1, 2, 3], [1, 2, 2, 3], [1, 2, 3, 3])
    assert revision.ratings[0] == revision.ratings[2] and all(revision.ratings)


def test_two_pinned_stand_side_by_side_with_what_differs(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User
) -> None:
    page, slot = open_task(visit, alice, project)
    rate_all(page, "541")
    by_text = {card(page, letter).locator(".said").text_content(): letter for letter in letters(page)}
    for text in (TWINS[0], TWINS[3]):
        card(page, by_text[text]).focus()
        press(page, "p")
    expect(page.locator("#compare h3")).to_have_count(2)
    press(page, "d")
    expect(page.locator("#compare mark")).to_have_text(["tiles", "**", "**", "slates"])
    press(page, "d", "p")
    expect(page.locator("#compare h3")).to_have_count(1)
    press(page, "m")
    expect(page.locator(".rendered strong")).to_have_text("roof")
    expect(page.locator(".said").first).to_be_hidden()


def test_none_acceptable_needs_no_tiers(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User
) -> None:
    page, slot = open_task(visit, alice, project)
    press(page, "n")
    expect(page.get_by_label("None of these is acceptable")).to_be_checked()
    press(page, "Control+Enter")
    finished(page)
    revision = Revision.objects.get(answer__slot=slot)
    assert (revision.verdict, revision.tiers) == ("none_acceptable", [])


def test_cannot_judge_is_an_answer(visit: Visit, project: Project, completion_set: CompletionSet, alice: User) -> None:
    page, slot = open_task(visit, alice, project)
    press(page, "s")
    page.get_by_label("Why (optional)").fill("I know nothing of rain.")
    page.get_by_role("button", name="I cannot judge it").click()
    finished(page)
    revision = Revision.objects.get(answer__slot=slot)
    assert (revision.verdict, revision.note) == ("cannot_judge", "I know nothing of rain.")
    page.goto(f"/answers/{revision.answer_id}/")
    expect(page.get_by_text("cannot judge")).to_be_visible()


def test_ones_own_keys_and_the_hangul_layout(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User
) -> None:
    page = visit(alice, "/keys/")
    page.get_by_label("pin it to compare").focus()
    press(page, "g")
    page.get_by_label("rate it 1, or send it to tier 1").focus()
    press(page, "q")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    expect(page.get_by_label("pin it to compare")).to_have_value("g")
    page, _slot = open_task(visit, alice, project)
    press(page, "p")
    expect(page.locator("#compare")).to_be_hidden()
    # What a Korean keyboard sends for G while Hangul is on.
    page.evaluate("document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'ㅎ', code: 'KeyG', bubbles: true}))")
    expect(page.locator("#compare h3")).to_have_count(1)
    press(page, "q")
    expect(page.locator(".letters button").first).to_contain_text("1")
    press(page, "?")
    expect(page.locator("#keys-dialog tr", has_text="pin it to compare").locator("kbd")).to_have_text("G")


def test_single_keys_can_be_switched_off(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User
) -> None:
    User.objects.filter(pk=alice.pk).update(single_keys=False)
    page, _slot = open_task(visit, alice, project)
    press(page, "5", "p", "?")
    expect(page.locator(".letters button").first).to_contain_text("–")
    expect(page.locator("#compare")).to_be_hidden()
    press(page, "Control+Enter")
    expect(page.locator("#trouble")).to_contain_text("Not rated yet")


@pytest.mark.parametrize("way", ["key", "button on a phone"])
def test_what_was_handed_in_is_taken_back(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User, way: str
) -> None:
    page, slot = open_task(visit, alice, project, **(PHONE if way != "key" else {}))
    rate_all(page, "541")
    press(page, "1", "2", "3", "Control+Enter")
    finished(page)
    assert Answer.objects.standing().count() == 1
    if way == "key":
        expect(page.get_by_role("button", name="Take it back")).to_be_visible()  # the script has begun
        press(page, "Control+z")
    else:
        page.get_by_role("button", name="Take it back").tap()
    expect(page.locator("#progress")).to_contain_text("In tiers 3/3")
    assert not Answer.objects.standing().exists()
    press(page, "Control+Enter")
    finished(page)
    assert [revision.number for revision in Revision.objects.order_by("number")] == [1, 2]
    assert stored_now(slot) == [1, 2, 3]


def stored_now(slot: Slot) -> list[int]:
    current = Answer.objects.get(slot=slot).current
    assert current
    return sorted(set(current.tiers))


def test_the_offer_to_take_back_goes_away(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User
) -> None:
    page, slot = open_task(visit, alice, project)
    rate_all(page, "541")
    press(page, "1", "2", "3", "Control+Enter")
    finished(page)
    Slot.objects.filter(pk=slot.pk).update(answered_at=timezone.now() - timedelta(seconds=25))
    page.reload()
    expect(page.get_by_role("button", name="Take it back")).to_be_visible()
    expect(page.get_by_role("button", name="Take it back")).to_be_hidden(timeout=10_000)
    press(page, "Control+z")
    assert Answer.objects.standing().count() == 1


def test_a_returned_ranking_is_changed(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User, carol: User
) -> None:
    page, slot = open_task(visit, alice, project)
    rate_all(page, "541")
    press(page, "1", "2", "3", "Control+Enter")
    finished(page)
    slot.refresh_from_db()
    curator = visit(carol, f"/projects/{project.slug}/review/")
    curator.get_by_role("link", name="Write a haiku").click()
    curator.get_by_label("Comment").fill("Is the last one really worse?")
    curator.get_by_role("button", name="Return").click()
    expect(curator.get_by_text("Returned to its labeler.")).to_be_visible()
    page.goto("/desk/")
    expect(page.get_by_text("Is the last one really worse?")).to_be_visible()
    page.locator("section", has=page.get_by_role("heading", name="Returned to you")).get_by_role("link").click()
    expect(page.locator("#progress")).to_contain_text("In tiers 3/3")
    press(page, "ArrowDown", "ArrowDown", "=")
    expect(page.locator("#draft-state")).to_contain_text("Kept in this browser")
    page.reload()
    expect(tier(page, 3).locator(".completion")).to_have_count(0)
    page.get_by_role("button", name="Submit the change").click()
    expect(page.get_by_text("changed after its return")).to_be_visible()
    answer = Answer.objects.get()
    assert answer.revisions.count() == 2 and answer.current and max(answer.current.tiers) == 2
    assert Review.objects.get().comment == "Is the last one really worse?"


def test_a_demonstration_is_changed(visit: Visit, project: Project, alice: User) -> None:
    Project.objects.filter(pk=project.pk).update(policy_languages=[])
    approved(project)
    page: Any = visit(alice, "/desk/")
    page.get_by_role("button", name="Next task").first.click()
    page.locator("#text").fill("Rain on the roof")
    press(page, "Control+Enter")
    finished(page)
    page.get_by_role("link", name="Write a haiku").click()
    page.get_by_role("button", name="Change", exact=True).click()
    expect(page.locator("#text")).to_have_value("Rain on the roof")
    page.locator("#text").fill("Rain on the slates")
    page.get_by_role("button", name="Submit the change").click()
    expect(page.get_by_role("heading", name="History")).to_be_visible()
    expect(page.locator(".completion .text")).to_have_text("Rain on the slates")
