"""Ranking in Chromium, read back from the database: by keys, by drag, by buttons, on a phone."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from labeling.models import Answer, CompletionSet, Project, Revision, Slot, User
from labeling.tests.rows import approved, sampled
from webapp.tests.browser import Visit, press

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
REFUSED = ("status of 4",)


@pytest.fixture
def completion_set(project: Project) -> CompletionSet:
    """One set of four, and nothing else to do."""
    Project.objects.filter(pk=project.pk).update(demonstration_overlap=0)
    project.refresh_from_db()
    return sampled(approved(project))


def open_task(visit: Visit, who: User, project: Project, **options: Any) -> tuple[Page, Slot]:
    """The page of the next ranking, reached by the button on the desk."""
    page = visit(who, "/desk/", **options)
    page.get_by_role("button", name="Next task").first.click()
    expect(page.locator("#progress")).to_contain_text("Rated")  # the script has begun
    return page, Slot.objects.get(state=Slot.State.LEASED, labeler=who, project=project)


def rate_all(page: Page, marks: str = "5421") -> None:
    press(page, *marks)
    expect(page.locator("#board-step")).to_be_visible()


def stored(slot: Slot) -> dict[str, int]:
    """Tier by letter of the one answer to `slot`."""
    revision = Revision.objects.get(answer__slot=slot)
    assert revision.shown_order == slot.shown_order
    return {letter: revision.tiers[index] for letter, index in zip("ABCDEFGHI", revision.shown_order, strict=False)}


def marks(slot: Slot) -> dict[str, int | None]:
    revision = Revision.objects.get(answer__slot=slot)
    ratings = [revision.ratings[index] for index in revision.shown_order]
    return {letter: rating and rating["overall"] for letter, rating in zip("ABCDEFGHI", ratings, strict=False)}


def submit(page: Page) -> None:
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("All done.")).to_be_visible()


def card(page: Page, letter: str) -> Any:
    return page.locator(f'.completion[data-letter="{letter}"]')


def tier(page: Page, number: int) -> Any:
    return page.locator(f'.tier[data-tier="{number}"] .cards-in-tier')


def test_ranking_by_keys(visit: Visit, project: Project, completion_set: CompletionSet, alice: User) -> None:
    page, slot = open_task(visit, alice, project)
    rate_all(page, "5421")
    press(page, *"2132")
    expect(page.locator("#announcer")).to_have_text("D moved to tier 2, tied with A")
    press(page, "Control+Enter")
    expect(page.get_by_text("All done.")).to_be_visible()
    assert stored(slot) == {"A": 2, "B": 1, "C": 3, "D": 2}
    assert marks(slot) == {"A": 5, "B": 4, "C": 2, "D": 1}


def test_ranking_by_arrows(visit: Visit, project: Project, completion_set: CompletionSet, alice: User) -> None:
    page, slot = open_task(visit, alice, project)
    rate_all(page)
    press(page, *"1234")
    for key in ("ArrowUp", "ArrowUp", "Alt+ArrowUp", "0", "4"):  # D -> B, B up into A's tier, out again, then last
        press(page, key)
    expect(card(page, "B")).to_be_focused()
    press(page, "Control+Enter")
    expect(page.get_by_text("All done.")).to_be_visible()
    assert stored(slot) == {"A": 1, "B": 3, "C": 2, "D": 3}


def test_ranking_by_drag(visit: Visit, project: Project, completion_set: CompletionSet, alice: User) -> None:
    page, slot = open_task(visit, alice, project, viewport={"width": 1600, "height": 1400})
    rate_all(page)
    for letter, number in (("C", 1), ("A", 2), ("D", 2), ("B", 4)):
        drag(page, card(page, letter).locator(".handle"), tier(page, number))
        expect(tier(page, number).locator(f'[data-letter="{letter}"]')).to_be_visible()
    submit(page)
    assert stored(slot) == {"A": 2, "B": 3, "C": 1, "D": 2}
    assert marks(slot) == {"A": 5, "B": 4, "C": 2, "D": 1}


def drag(page: Page, handle: Any, target: Any) -> None:
    start, end = handle.bounding_box(), target.bounding_box()
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(end["x"] + end["width"] / 2, end["y"] + end["height"] / 2 - 3, steps=8)
    page.mouse.move(end["x"] + end["width"] / 2, end["y"] + end["height"] / 2, steps=4)
    page.mouse.up()


def test_text_is_no_handle(visit: Visit, project: Project, completion_set: CompletionSet, alice: User) -> None:
    page, _slot = open_task(visit, alice, project, viewport={"width": 1600, "height": 1400})
    rate_all(page)
    drag(page, card(page, "A").locator(".said"), tier(page, 1))
    expect(tier(page, 1).locator(".completion")).to_have_count(0)


def test_ranking_by_buttons_with_ties(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User
) -> None:
    page, slot = open_task(visit, alice, project)
    for letter, mark in zip("ABCD", (7, 6, 6, 1), strict=True):
        page.get_by_role("button", name=f"{letter} –").click()
        page.get_by_role("radio", name=str(mark)).check()
    page.get_by_role("checkbox", name="Hallucination").check()
    page.get_by_role("button", name="On to the tiers").click()
    page.get_by_role("button", name="A to tier 1").click()
    page.get_by_role("button", name="B to tier 3").click()
    page.get_by_role("button", name="C to tier 3").click()
    page.get_by_role("button", name="D to tier 4").click()
    page.get_by_role("button", name="B: one tier up").click()
    page.get_by_role("button", name="C: one tier up").click()
    expect(page.locator("#announcer")).to_have_text("C moved to tier 2, tied with B")
    submit(page)
    assert stored(slot) == {"A": 1, "B": 2, "C": 2, "D": 3}
    revision = Revision.objects.get()
    assert revision.ratings[slot.shown_order[3]] == {"overall": 1, "flags": ["hallucination"], "note": ""}


def test_ranking_on_a_phone(visit: Visit, project: Project, completion_set: CompletionSet, alice: User) -> None:
    page, slot = open_task(visit, alice, project, **PHONE)
    for letter, mark in zip("ABCD", (7, 6, 6, 1), strict=True):
        page.get_by_role("button", name=f"{letter} –").tap()
        page.get_by_role("radio", name=str(mark)).tap()
    page.get_by_role("button", name="On to the tiers").tap()
    for letter, number in zip("ABCD", (2, 1, 1, 4), strict=True):
        page.get_by_role("button", name=f"{letter} to tier {number}").tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Submit").tap()
    expect(page.get_by_text("All done.")).to_be_visible()
    assert stored(slot) == {"A": 2, "B": 1, "C": 1, "D": 3}


def test_nine_completions_without_ratings(visit: Visit, project: Project, alice: User) -> None:
    Project.objects.filter(pk=project.pk).update(demonstration_overlap=0, require_ratings=False, k=9)
    project.refresh_from_db()
    sampled(approved(project), [f"Answer number {n}" for n in range(9)])
    page, slot = open_task(visit, alice, project)
    press(page, *"987654321", "Control+Enter")
    expect(page.get_by_text("All done.")).to_be_visible()
    assert stored(slot) == dict(zip("ABCDEFGHI", range(9, 0, -1), strict=True))
    assert set(marks(slot).values()) == {None}


def test_no_order_can_be_handed_in_untouched(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User
) -> None:
    page, _slot = open_task(visit, alice, project)
    press(page, "Control+Enter")
    expect(page.locator("#trouble")).to_have_text("Not rated yet (1 to 7): A, B, C, D")
    rate_all(page)
    press(page, "3", "Control+Enter")
    expect(page.locator("#trouble")).to_have_text("In no tier yet: B, C, D")
    assert not Answer.objects.exists()


def test_keys_rest_while_someone_writes(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User
) -> None:
    page, _slot = open_task(visit, alice, project)
    page.get_by_label("Note (optional)").first.click()
    page.keyboard.type("1 of 7? 0")
    expect(page.locator(".letters")).to_have_text("A –B –C –D –", use_inner_text=False)
    expect(page.locator("#keys-dialog")).to_be_hidden()


@pytest.mark.parametrize("composing", ["isComposing: true", "keyCode: 229"])
def test_keys_rest_while_a_syllable_is_composed(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User, composing: str
) -> None:
    page, slot = open_task(visit, alice, project)

    def composed(init: str) -> None:
        page.evaluate(f"document.body.dispatchEvent(new KeyboardEvent('keydown', {{ {init}, bubbles: true }}))")

    composed(f"key: '5', {composing}")
    expect(page.locator(".letters button").first).to_contain_text("–")
    composed("key: '5'")
    expect(page.locator(".letters button").first).to_contain_text("5")
    press(page, "4", "2", "1")
    composed(f"key: '1', {composing}")
    expect(tier(page, 1).locator(".completion")).to_have_count(0)
    press(page, *"1234")
    composed(f"key: 'Enter', ctrlKey: true, {composing}")
    page.wait_for_timeout(300)
    assert not Answer.objects.exists()
    composed("key: 'Enter', ctrlKey: true")
    expect(page.get_by_text("All done.")).to_be_visible()
    assert stored(slot) == {"A": 1, "B": 2, "C": 3, "D": 4}


def test_double_click_on_submit_stores_once(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User
) -> None:
    page, _slot = open_task(visit, alice, project)
    rate_all(page)
    press(page, *"1234")
    page.get_by_role("button", name="Submit").dblclick()
    expect(page.get_by_text("All done.")).to_be_visible()
    assert Answer.objects.get().revisions.count() == 1


def test_second_tab_is_told_and_keeps_its_work(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User
) -> None:
    first, slot = open_task(visit, alice, project, tolerate=REFUSED)
    second = first.context.new_page()
    second.goto(first.url)
    for page, digits in ((first, "1234"), (second, "4321")):
        page.bring_to_front()
        expect(page.locator("#progress")).to_contain_text("Rated")
        rate_all(page)
        press(page, *digits)
    submit(first)
    second.bring_to_front()
    second.get_by_role("button", name="Submit").click()
    expect(second.locator("#trouble")).to_contain_text("You have handed in this task already")
    expect(tier(second, 4).locator(".completion")).to_have_attribute("data-letter", "A")
    expect(second.get_by_role("button", name="Submit")).to_be_disabled()
    second.get_by_role("link", name="See what you handed in").click()
    expect(second.get_by_role("heading", name="Ranking")).to_be_visible()
    assert stored(slot) == {"A": 1, "B": 2, "C": 3, "D": 4}


def test_lost_lease_is_said_and_the_work_stays(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User, bob: User
) -> None:
    page, slot = open_task(visit, alice, project, tolerate=REFUSED)
    rate_all(page)
    press(page, *"1234")
    expect(page.locator("#draft-state")).to_contain_text("Saved")
    Slot.objects.filter(pk=slot.pk).update(labeler=bob, fence=slot.fence + 1)
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#trouble")).to_contain_text("no longer yours")
    expect(page.locator("#draft-state")).to_contain_text("stays on this page")
    expect(tier(page, 1).locator(".completion")).to_have_attribute("data-letter", "A")
    assert not Answer.objects.exists()


def test_skip_with_a_reason(visit: Visit, project: Project, completion_set: CompletionSet, alice: User) -> None:
    page, _slot = open_task(visit, alice, project)
    page.get_by_role("button", name="Skip").click()
    page.get_by_label("Why (optional)").fill("I do not know this field.")
    page.get_by_role("button", name="Skip this task").click()
    expect(page.get_by_text("All done.")).to_be_visible()
    assert alice.skips.get().reason == "I do not know this field."


def test_model_is_named_nowhere_in_the_page(
    visit: Visit, project: Project, completion_set: CompletionSet, alice: User
) -> None:
    sent: list[str] = []
    page = visit(alice, "/desk/")
    page.on("response", lambda response: sent.append(f"{response.all_headers()} {response.text()}"))
    page.get_by_role("button", name="Next task").first.click()
    expect(page.locator("#progress")).to_contain_text("Rated")
    rate_all(page)
    press(page, "1")
    expect(page.locator("#draft-state")).to_contain_text("Saved")
    assert len(sent) > 3
    assert not any("tiny-1" in text for text in sent)
