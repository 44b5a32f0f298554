"""The next task is in the browser before it is asked for, and belongs to nobody until it is shown."""

from typing import Any

import pytest
from playwright.sync_api import Page, Request, expect

from labeling.models import Answer, Project, Slot, User
from labeling.tests.rows import approved, sampled
from webapp.tests.browser import Visit, press

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def slots(project: Project) -> list[Slot]:
    """Three pairs to compare."""
    Project.objects.filter(pk=project.pk).update(
        demonstration_overlap=0, require_ratings=False, comparison=Project.Comparison.PAIRS
    )
    project.refresh_from_db()
    for number in range(3):
        sampled(approved(project, f"Question {number}"), [f"First {number}", f"Second {number}"])
    return list(Slot.objects.order_by("pk"))


def open_first(visit: Visit, who: User) -> tuple[Page, list[str]]:
    """The first task with the page of the next one fetched, and the pages asked of the server since."""
    page = visit(who, "/desk/")
    with page.expect_response("**/ahead/") as fetched:
        page.get_by_role("button", name="Next task").click()
    fetched.value.finished()
    page.wait_for_function("performance.getEntriesByType('resource').some((each) => each.name.endsWith('/ahead/'))")
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(path(request)) if is_page(request) else None)
    return page, asked


def is_page(request: Request) -> bool:
    return request.resource_type == "document"


def path(request: Request) -> str:
    return "/" + request.url.split("/", 3)[3]


def hand_in(page: Page, key: str) -> None:
    press(page, key, "Control+Enter")


def prompt(page: Page) -> Any:
    return page.locator(".task-prompt .text")


def shows(page: Page, question: str) -> None:
    """Wait for the page of `question`, and until its script listens to keys."""
    expect(prompt(page)).to_have_text(question)
    expect(page.locator("#progress")).to_contain_text("no answer yet")


def test_the_next_is_shown_from_what_is_here_and_leased_then(visit: Visit, slots: list[Slot], alice: User) -> None:
    page, asked = open_first(visit, alice)
    assert Slot.objects.get(pk=slots[1].pk).state == Slot.State.OPEN
    hand_in(page, "1")
    shows(page, "Question 1")
    assert asked == [f"/task/{slots[0].pk}/ahead/"]  # which the browser had
    given = Slot.objects.get(pk=slots[1].pk)
    assert (given.state, given.labeler) == (Slot.State.LEASED, alice)
    assert page.url.endswith(f"/task/{given.pk}/")
    hand_in(page, "7")
    shows(page, "Question 2")
    answer = Answer.objects.get(slot=given)
    assert answer.current and answer.current.strength == 3
    assert answer.current.tiers[given.shown_order[1]] == 1  # B, as shown
    assert answer.current.active_seconds < 20


def test_reload_and_taking_back_find_the_right_task(visit: Visit, slots: list[Slot], alice: User) -> None:
    page, _asked = open_first(visit, alice)
    hand_in(page, "1")
    shows(page, "Question 1")
    press(page, "3")
    expect(page.locator("#draft-state")).to_contain_text("Saved")
    page.reload()
    expect(page.locator("#progress")).to_contain_text("A is slightly better")
    page.get_by_role("button", name="Take it back").click()
    expect(prompt(page)).to_have_text("Question 0")
    expect(page.locator("#progress")).to_contain_text("A is much better")


def test_what_somebody_else_took_meanwhile_is_not_shown(
    visit: Visit, project: Project, slots: list[Slot], alice: User, bob: User
) -> None:
    page, asked = open_first(visit, alice)
    assert Slot.objects.claim_next(project, bob) == slots[1]
    hand_in(page, "1")
    shows(page, "Question 2")
    assert asked == [f"/task/{slots[2].pk}/"]


def test_a_page_fetched_ahead_shows_nothing_without_its_lease(visit: Visit, slots: list[Slot], alice: User) -> None:
    page, _asked = open_first(visit, alice)
    hand_in(page, "1")
    shows(page, "Question 1")
    page.go_back()
    expect(page.get_by_role("heading", name="Ranking")).to_be_visible()  # what was handed in, not the task again
