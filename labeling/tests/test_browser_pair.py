"""Comparing two completions in Chromium, read back from the database: by keys, by touch, by screen reader's names."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from labeling.models import Answer, CompletionSet, Draft, Project, Revision, Slot, User
from labeling.tests.rows import approved, sampled
from webapp.tests.browser import Visit, press

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
ANSWERS = ["Rain falls on the **roof**.", "Rain falls on the old roof."]


@pytest.fixture
def pairs(project: Project) -> Project:
    """A project that asks for pairs and nothing else."""
    Project.objects.filter(pk=project.pk).update(
        demonstration_overlap=0, comparison=Project.Comparison.PAIRS, require_ratings=False
    )
    project.refresh_from_db()
    return project


@pytest.fixture
def completion_set(pairs: Project) -> CompletionSet:
    return sampled(approved(pairs), ANSWERS)


def open_pair(visit: Visit, who: User, project: Project, **options: Any) -> tuple[Page, Slot]:
    page = visit(who, "/desk/", **options)
    page.get_by_role("button", name="Next task").first.click()
    expect(page.locator("#progress")).to_contain_text("Rated")  # the script has begun
    return page, Slot.objects.get(state=Slot.State.LEASED, labeler=who, project=project)


def stored(slot: Slot) -> tuple[list[int], int | None]:
    """Tiers of A and B, and the strength, as the one answer to `slot` has them."""
    revision = Revision.objects.get(answer__slot=slot)
    assert revision.shown_order == slot.shown_order
    return [revision.tiers[index] for index in revision.shown_order], revision.strength


@pytest.mark.parametrize(("key", "said"), [("1", ([1, 2], 3)), ("4", ([1, 1], 0)), ("6", ([2, 1], 2))])
def test_by_one_key(
    visit: Visit, pairs: Project, completion_set: CompletionSet, alice: User, key: str, said: tuple[list[int], int]
) -> None:
    page, slot = open_pair(visit, alice, pairs)
    press(page, "Control+Enter")
    expect(page.locator("#trouble")).to_have_text("Say which is better, or that they are about the same.")
    press(page, key)
    expect(page.locator("#announcer")).not_to_be_empty()
    press(page, "Control+Enter")
    expect(page.get_by_text("All done.")).to_be_visible()
    assert stored(slot) == said


def test_by_arrows_with_ratings_flags_and_note(
    visit: Visit, pairs: Project, completion_set: CompletionSet, alice: User
) -> None:
    Project.objects.filter(pk=pairs.pk).update(require_ratings=True)
    page, slot = open_pair(visit, alice, pairs)
    press(page, "ArrowRight", "ArrowRight")
    expect(page.locator("#announcer")).to_have_text("B is better")
    press(page, "Control+Enter")
    expect(page.locator("#trouble")).to_have_text("Not rated yet (1 to 7): A, B")
    press(page, "3")  # the focus is on A's marks by now: digits rate
    press(page, "6")
    expect(page.locator("#progress")).to_have_text("Rated 2/2 · B is better")
    press(page, "x")
    press(page, "Space")  # A's first flag
    page.get_by_label("Note on this comparison").fill("4 out of 7")
    press(page, "Control+Enter")
    expect(page.get_by_text("All done.")).to_be_visible()
    assert stored(slot) == ([2, 1], 2)
    revision = Revision.objects.get()
    a, b = (revision.ratings[index] for index in slot.shown_order)
    assert (a["overall"], a["flags"], b["overall"], b["flags"]) == (3, ["fails_instruction"], 6, [])
    assert revision.note == "4 out of 7"


def test_on_a_phone(visit: Visit, pairs: Project, completion_set: CompletionSet, alice: User) -> None:
    page, slot = open_pair(visit, alice, pairs, **PHONE)
    a, b = (page.get_by_role("region", name=f"Completion {letter}").bounding_box() for letter in "AB")
    assert a and b and b["y"] >= a["y"] + a["height"]  # one below the other
    group = page.get_by_role("radiogroup", name="Which is better, and by how much?")
    group.get_by_role("radio", name="A is slightly better").tap()
    page.get_by_role("region", name="Completion B").get_by_role("radio", name="2").tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Submit").tap()
    expect(page.get_by_text("All done.")).to_be_visible()
    assert stored(slot) == ([1, 2], 1)
    assert Revision.objects.get().ratings[slot.shown_order[1]]["overall"] == 2


def test_neither_is_acceptable(visit: Visit, pairs: Project, completion_set: CompletionSet, alice: User) -> None:
    page, slot = open_pair(visit, alice, pairs)
    press(page, "n", "Control+Enter")
    expect(page.get_by_text("All done.")).to_be_visible()
    assert stored_verdict(slot) == ("none_acceptable", [], None)


def test_cannot_judge(visit: Visit, pairs: Project, completion_set: CompletionSet, alice: User) -> None:
    page, slot = open_pair(visit, alice, pairs)
    press(page, "5", "s")
    page.get_by_role("button", name="I cannot judge it").click()
    expect(page.get_by_text("All done.")).to_be_visible()
    assert stored_verdict(slot)[0] == "cannot_judge"


def stored_verdict(slot: Slot) -> tuple[str, list[int], int | None]:
    revision = Revision.objects.get(answer__slot=slot)
    return revision.verdict, revision.tiers, revision.strength


def test_two_that_say_the_same_are_tied(visit: Visit, pairs: Project, alice: User) -> None:
    sampled(approved(pairs), ["The same.", "The same. "])
    page, slot = open_pair(visit, alice, pairs)
    expect(page.get_by_text("B says the same")).to_be_visible()
    press(page, "1")  # not to be chosen
    press(page, "4")
    expect(page.locator("#progress")).to_contain_text("about the same")
    press(page, "Control+Enter")
    expect(page.get_by_text("All done.")).to_be_visible()
    assert stored(slot) == ([1, 1], 0)


def test_difference_and_markdown(visit: Visit, pairs: Project, completion_set: CompletionSet, alice: User) -> None:
    page, _slot = open_pair(visit, alice, pairs)
    press(page, "d")
    expect(page.locator(".pair mark").filter(has_text="old")).to_have_count(1)
    press(page, "m")
    expect(page.locator(".pair .rendered strong")).to_have_text("roof")
    expect(page.locator(".pair mark")).to_have_count(0)
    press(page, "m")
    expect(page.locator(".pair .said").filter(has_text="**roof**")).to_be_visible()


def test_draft_comes_back_and_is_undone(
    visit: Visit, pairs: Project, completion_set: CompletionSet, alice: User
) -> None:
    page, _slot = open_pair(visit, alice, pairs)
    press(page, "7", "2")
    expect(page.locator("#draft-state")).to_contain_text("Saved")
    assert Draft.objects.get().payload["strength"] == 2
    page.reload()
    expect(page.locator("#progress")).to_contain_text("A is better")
    press(page, "6", "Control+z")
    expect(page.locator("#progress")).to_contain_text("A is better")


def test_taken_back_and_changed_later(visit: Visit, pairs: Project, completion_set: CompletionSet, alice: User) -> None:
    page, slot = open_pair(visit, alice, pairs)
    press(page, "1", "Control+Enter")
    page.get_by_role("button", name="Take it back").click()
    expect(page.locator("#progress")).to_contain_text("A is much better")
    press(page, "Control+Enter")
    expect(page.get_by_text("All done.")).to_be_visible()
    answer = Answer.objects.get()
    page.goto(f"/answers/{answer.pk}/")
    expect(page.get_by_text("A is much better")).to_be_visible()
    page.get_by_role("button", name="Change").click()
    expect(page.locator("#progress")).to_contain_text("A is much better")
    press(page, "5", "Control+Enter")
    expect(page.locator(".preference")).to_have_text("B is slightly better")
    newest = Revision.objects.order_by("-number").first()
    assert newest and [newest.tiers[index] for index in slot.shown_order] == [2, 1] and newest.strength == 1


def test_keys_are_shown_and_may_be_others(
    visit: Visit, pairs: Project, completion_set: CompletionSet, alice: User
) -> None:
    User.objects.filter(pk=alice.pk).update(keys={"prefer_7": "j"})
    page, slot = open_pair(visit, alice, pairs)
    press(page, "?")
    row = page.locator("#keys-dialog tr").filter(has_text="B is much better")
    expect(row.locator("kbd")).to_have_text("J")
    expect(page.locator("#keys-dialog")).not_to_contain_text("tier")
    press(page, "Escape")
    press(page, "7")  # means nothing now
    press(page, "j", "Control+Enter")
    expect(page.get_by_text("All done.")).to_be_visible()
    assert stored(slot) == ([2, 1], 3)
