"""Drafts in Chromium: unfinished work outlives reloads, a server that is away, a second tab and a lost session."""

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db.models.functions import Now
from playwright.sync_api import Page, expect

from labeling.models import Answer, Demonstration, Draft, Project, Slot, User
from labeling.tests.rows import approved, ranking, sampled
from webapp.tests.browser import Visit, press, session_of

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
REFUSED = ("status of 4", "status of 5", "net::ERR")


@pytest.fixture
def slot(project: Project, alice: User) -> Slot:
    """A demonstration that Alice is at work on."""
    approved(project)
    slot = Slot.objects.claim_next(project, alice)
    assert slot
    return slot


def open_task(visit: Visit, who: User, slot: Slot) -> Page:
    page = visit(who, f"/task/{slot.pk}/", tolerate=REFUSED)
    expect(page.locator("#length")).to_contain_text("characters")
    return page


def test_draft_saves_itself_and_survives_a_reload(visit: Visit, slot: Slot, alice: User) -> None:
    page = open_task(visit, alice, slot)
    page.locator("#text").fill("Half an ans")
    expect(page.locator("#draft-state")).to_have_text("Not saved yet")
    expect(page.locator("#draft-state")).to_contain_text("Saved")
    assert Draft.objects.get().payload["text"] == "Half an ans"
    page.reload()
    expect(page.locator("#text")).to_have_value("Half an ans")
    elsewhere = open_task(visit, alice, slot)
    expect(elsewhere.locator("#text")).to_have_value("Half an ans")


def test_reload_in_the_middle_of_a_save_is_no_conflict(visit: Visit, slot: Slot, alice: User) -> None:
    page = open_task(visit, alice, slot)
    page.locator("#text").fill("One")
    expect(page.locator("#draft-state")).to_contain_text("Saved")
    page.locator("#text").fill("One two")
    page.reload()  # the page is hidden for a moment, and sends what it has
    page.locator("#text").press_sequentially(" three")
    expect(page.locator("#draft-state")).to_contain_text("Saved")
    expect(page.locator("#trouble")).to_be_hidden()
    assert Draft.objects.get().payload["text"] == page.locator("#text").input_value()


def test_ranking_draft_brings_back_marks_tiers_and_step(visit: Visit, project: Project, alice: User) -> None:
    sampled(approved(project))
    slot = Slot.objects.claim_next(project, alice, Slot.TaskType.RANKING)
    assert slot
    page = visit(alice, f"/task/{slot.pk}/")
    expect(page.locator("#progress")).to_contain_text("Rated")
    page.get_by_role("checkbox", name="Hallucination").check()
    press(page, *"654331")
    expect(page.locator("#draft-state")).to_contain_text("Saved")
    page.reload()
    expect(page.locator("#progress")).to_have_text("Rated 4/4 · In tiers 2/4")
    expect(page.locator('.tier[data-tier="3"] .completion')).to_have_attribute("data-letter", "A")
    expect(page.locator('.tier[data-tier="1"] .completion')).to_have_attribute("data-letter", "B")
    page.get_by_role("button", name="1 Rate each").click()
    expect(page.get_by_role("checkbox", name="Hallucination")).to_be_checked()


def test_text_survives_a_server_that_is_away(visit: Visit, slot: Slot, alice: User) -> None:
    page = open_task(visit, alice, slot)
    page.route("**/draft/", lambda route: route.abort())
    page.locator("#text").fill("Written on a train")
    expect(page.locator("#draft-state")).to_contain_text("Not saved, retrying")
    page.reload()
    expect(page.locator("#text")).to_have_value("Written on a train")
    page.unroute("**/draft/")
    expect(page.locator("#draft-state")).to_contain_text("Saved")
    assert Draft.objects.get().payload["text"] == "Written on a train"


def test_submit_without_an_answer_can_be_pressed_again(visit: Visit, slot: Slot, alice: User) -> None:
    page = open_task(visit, alice, slot)
    page.locator("#text").fill("Rain falls.")
    page.route("**/submit/", lambda route: route.abort())
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#trouble")).to_contain_text("the server does not answer")
    page.unroute("**/submit/")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#text")).to_have_count(0)
    assert Demonstration.objects.get().text == "Rain falls."


def test_answer_that_was_lost_on_the_way_back_is_stored_once(visit: Visit, slot: Slot, alice: User) -> None:
    page = open_task(visit, alice, slot)
    page.locator("#text").fill("Rain falls.")

    def lose(route: object) -> None:
        route.fetch()  # type: ignore[attr-defined]
        route.abort()  # type: ignore[attr-defined]

    page.route("**/submit/", lose)
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#trouble")).to_contain_text("the server does not answer")
    assert Demonstration.objects.count() == 1
    page.unroute("**/submit/")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#text")).to_have_count(0)
    assert Demonstration.objects.get().revisions.count() == 1


def test_fault_of_the_server_is_said_and_the_text_stays(visit: Visit, slot: Slot, alice: User) -> None:
    page = open_task(visit, alice, slot)
    page.locator("#text").fill("Rain falls.")
    page.route("**/submit/", lambda route: route.fulfill(status=500, body="oops"))
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#trouble")).to_contain_text("the server had a fault (500)")
    expect(page.locator("#text")).to_have_value("Rain falls.")


@pytest.mark.parametrize(("way", "kept"), [("Keep what is here", "second tab"), ("Load the other", "first tab")])
def test_two_tabs_do_not_overwrite_each_other(visit: Visit, slot: Slot, alice: User, way: str, kept: str) -> None:
    first, second = open_task(visit, alice, slot), open_task(visit, alice, slot)
    first.locator("#text").fill("first tab")
    expect(first.locator("#draft-state")).to_contain_text("Saved")
    second.locator("#text").fill("second tab")
    expect(second.locator("#trouble")).to_contain_text("changed in another tab")
    assert Draft.objects.get().payload["text"] == "first tab"
    second.get_by_role("button", name=way).click()
    expect(second.locator("#text")).to_have_value(kept)
    expect(second.locator("#draft-state")).to_contain_text("Saved")
    expect(second.locator("#trouble")).to_be_hidden()
    assert Draft.objects.get().payload["text"] == kept


def test_lost_session_is_said_and_a_new_one_goes_on(visit: Visit, slot: Slot, alice: User) -> None:
    page = open_task(visit, alice, slot)
    Session.objects.all().delete()
    page.locator("#text").fill("Rain falls.")
    expect(page.locator("#trouble")).to_contain_text("You were logged out")
    expect(page.get_by_role("link", name="Log in in a new tab")).to_have_attribute("href", "/login/")
    address = page.url.split("/task/")[0]
    page.context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session_of(alice), "url": address}])
    expect(page.locator("#draft-state")).to_contain_text("Saved")
    expect(page.locator("#trouble")).to_be_hidden()
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#text")).to_have_count(0)
    assert Demonstration.objects.get().author == alice


def test_time_at_work_stands_still_when_nobody_stirs(visit: Visit, project: Project, alice: User) -> None:
    Project.objects.filter(pk=project.pk).update(demonstration_overlap=0, require_ratings=False)
    project.refresh_from_db()
    sampled(approved(project))
    slot = Slot.objects.claim_next(project, alice, Slot.TaskType.RANKING)
    assert slot
    page = visit(alice, "/desk/")
    page.clock.install()
    page.goto(f"/task/{slot.pk}/")
    page.clock.run_for(30_000)
    press(page, *"1234")
    page.clock.run_for(600_000)
    press(page, "Control+Enter")
    expect(page.locator("#progress")).to_have_count(0)
    revision = Answer.objects.get().current
    assert revision and 85 <= revision.active_seconds <= 95


def test_reading_for_long_keeps_the_lease(visit: Visit, slot: Slot, alice: User) -> None:
    page = visit(alice, "/desk/")
    page.clock.install()
    page.goto(f"/task/{slot.pk}/")
    expect(page.locator("#length")).to_contain_text("characters")
    Slot.objects.filter(pk=slot.pk).update(lease_until=Now())
    page.mouse.move(300, 300)
    page.clock.run_for(250_000)
    expect(page.locator("#draft-state")).to_contain_text("Saved")
    assert Slot.objects.filter(pk=slot.pk, lease_until__gt=Now()).exists()


def test_page_that_nobody_looks_at_lets_the_lease_go(visit: Visit, slot: Slot, alice: User) -> None:
    page = visit(alice, "/desk/")
    page.clock.install()
    page.goto(f"/task/{slot.pk}/")
    expect(page.locator("#length")).to_contain_text("characters")
    page.clock.run_for(700_000)
    page.wait_for_load_state("networkidle")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.clock.run_for(1_200_000)
    page.wait_for_timeout(500)
    assert sent == []


def test_lost_task_still_shows_text_that_only_this_browser_has(
    visit: Visit, slot: Slot, alice: User, bob: User
) -> None:
    page = open_task(visit, alice, slot)
    page.route("**/draft/", lambda route: route.abort())
    page.locator("#text").fill("Written on a train")
    expect(page.locator("#draft-state")).to_contain_text("retrying")
    Slot.objects.filter(pk=slot.pk).update(labeler=bob, fence=slot.fence + 1)
    page.reload()
    expect(page.get_by_text("Written on a train")).to_be_visible()


def test_unsent_text_is_not_shown_to_the_next_person_at_this_browser(
    visit: Visit, project: Project, slot: Slot, alice: User, bob: User
) -> None:
    page = open_task(visit, alice, slot)
    page.route("**/draft/", lambda route: route.abort())
    page.locator("#text").fill("Alice's thoughts")
    expect(page.locator("#draft-state")).to_contain_text("retrying")
    Slot.objects.filter(pk=slot.pk).update(labeler=bob, fence=slot.fence + 1)
    address = page.url.split("/task/")[0]
    page.context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session_of(bob), "url": address}])
    page.reload()
    expect(page.locator("#length")).to_have_text("0 of 16,000 characters")


def test_going_back_shows_what_was_handed_in(visit: Visit, project: Project, alice: User) -> None:
    Project.objects.filter(pk=project.pk).update(demonstration_overlap=0, require_ratings=False)
    project.refresh_from_db()
    sampled(approved(project))
    slot = Slot.objects.claim_next(project, alice)
    assert slot
    page = visit(alice, f"/task/{slot.pk}/")
    press(page, *"1234", "Control+Enter")
    expect(page.get_by_text("All done.")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Ranking")).to_be_visible()
    assert ranking([1, 2, 3, 4])["tiers"] == sorted(Answer.objects.get().current.tiers)  # type: ignore[union-attr]
