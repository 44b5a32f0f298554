"""The desk in Chromium: completions arrive without a reload."""

import pytest
from django.contrib.sessions.models import Session
from playwright.sync_api import expect

from labeling.models import Project, User
from labeling.tests.rows import approved, sampled
from webapp.tests.browser import Visit

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_completions_arrive_without_a_reload(visit: Visit, project: Project, alice: User) -> None:
    Project.objects.filter(pk=project.pk).update(demonstration_overlap=0)
    project.refresh_from_db()
    prompt = approved(project)
    page = visit(alice, "/desk/")
    expect(page.get_by_text("Completions are being written")).to_be_visible()
    page.evaluate("window.isTheSamePage = true")
    sampled(prompt)
    expect(page.get_by_role("button", name="Next task")).to_be_visible()
    expect(page.locator("#announcer")).to_have_text("1 task waits for you")
    assert page.evaluate("window.isTheSamePage")


def test_waiting_page_whose_session_ended_goes_to_the_login_form(visit: Visit, project: Project, alice: User) -> None:
    Project.objects.filter(pk=project.pk).update(demonstration_overlap=0)
    project.refresh_from_db()
    approved(project)
    page = visit(alice, "/desk/", tolerate=("401",))
    expect(page.get_by_text("Completions are being written")).to_be_visible()
    Session.objects.all().delete()
    expect(page.get_by_label("Username")).to_be_visible()
