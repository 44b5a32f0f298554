"""`make screenshots`: every page in Chromium, in both languages, light and dark, narrow and wide, as who may see it.

Not part of the tests: it is run by its name. Besides the pictures it fails for pages that are wider than the window,
that say an error to the console or that axe finds something on.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.urls import reverse
from playwright.sync_api import Browser, ConsoleMessage, Page

from webapp.tests.browser import complaints, session_of
from webapp.tests.teams import populate
from webapp.tests.test_roles import ALL, Address, arguments, rows_for

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.timeout(3600)]

FOLDER = Path(settings.BASE_DIR) / "screenshots"
SIZES = {"narrow": {"width": 390, "height": 844}, "wide": {"width": 1600, "height": 1000}}
# Answers for programs and parts of pages, not pages.
NOT_PAGES = (
    "api-",
    "schema",
    "healthz",
    "readyz",
    "javascript-catalog",
    "admin:jsi18n",
    "admin:autocomplete",
    "admin:rlhf_datasetsnapshot_file",
    "export_file",
    "task_ahead",
    "readiness_progress",
)


def pages() -> list[tuple[Address, str]]:
    """Every page with the role of fewest rights that sees it."""
    found = []
    for address in ALL:
        for row in rows_for(address.name):
            role = next((role for role, allowed in row.allowed.items() if allowed in ("all", "own")), None)
            if row.method == "GET" and role and not address.name.startswith(NOT_PAGES):
                found.append((address, role))
    return found


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_fits_its_window(
    chromium: Browser, live_server: Any, transactional_db: None, data_dir: Path, language: str, size: str, theme: Any
) -> None:
    site = populate()
    folder = FOLDER / f"{language}-{theme}-{size}"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    heard: list[str] = []
    for role in ("anonymous", "labeler", "curator", "ops", "admin"):
        context = chromium.new_context(
            base_url=live_server.url, viewport=SIZES[size], color_scheme=theme, locale=language, reduced_motion="reduce"
        )
        if role != "anonymous":
            person = getattr(site, role)
            person.language, person.theme = language, theme
            person.save()
            session = {"name": settings.SESSION_COOKIE_NAME, "value": session_of(person), "url": live_server.url}
            context.add_cookies([session])
        page = listened_to(context.new_page(), heard)
        for address, seen_by in pages():
            if seen_by == role:
                heard += shoot(page, reverse(address.name, kwargs=arguments(site, address, "own")), folder, address)
        context.close()
    assert not heard, "\n".join(heard)


def listened_to(page: Page, heard: list[str]) -> Page:
    def hear(message: ConsoleMessage) -> None:
        if message.type == "error":
            heard.append(f"{page.url}: {message.text} {message.location['url']}")

    page.on("console", hear)
    page.on("pageerror", lambda error: heard.append(f"{page.url}: {error}"))
    return page


def shoot(page: Page, path: str, folder: Path, address: Address) -> list[str]:
    answer = page.goto(path)
    page.wait_for_load_state("networkidle")
    name = re.sub("[^a-z_]+", "-", address.name)
    page.screenshot(path=folder / f"{name}.png", full_page=True)
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    found = [f"{path}: {wide} px wider than the window"] if wide > 0 else []
    found += [f"{path}: {complaint}" for complaint in complaints(page)]
    if answer and answer.status >= 400:
        found.append(f"{path}: {answer.status}")
    return found
