"""Headless Chromium on the live site, for tests marked `browser`. A page that logs an error fails its test."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.conf import settings
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

# Playwright's synchronous interface runs an event loop in the thread of the test, where Django then refuses queries.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
PATIENCE = 30_000  # ms; a busy machine is slow
# A container's /dev/shm may be too small for a long page.
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}

Visit = Callable[..., Page]


@pytest.fixture(scope="session")
def launch() -> Iterator[Callable[[], Browser]]:
    """A Chromium for all tests; another one where it died, so that one page's end is not that of all others."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        running: list[Browser] = []

        def ready() -> Browser:
            if not running or not running[-1].is_connected():
                path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
                running.append(playwright.chromium.launch(executable_path=path, args=ARGUMENTS))
            return running[-1]

        yield ready
        for browser in running:
            browser.close()


@pytest.fixture
def chromium(launch: Callable[[], Browser]) -> Browser:
    return launch()


@pytest.fixture
def visit(chromium: Browser, live_server: Any) -> Iterator[Visit]:
    """`visit(person, path, **options of the context)`: a page of a browser of its own, logged in; None logs nobody in.

    `tolerate` names what the console may say without failing the test, such as the status of an expected refusal.
    """
    contexts: list[BrowserContext] = []
    heard: list[str] = []

    def go(who: Any, path: str, tolerate: tuple[str, ...] = (), **options: Any) -> Page:
        context = chromium.new_context(
            base_url=live_server.url, **{"viewport": {"width": 1280, "height": 900}, **options}
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        if who:
            context.add_cookies(
                [{"name": settings.SESSION_COOKIE_NAME, "value": session_of(who), "url": live_server.url}]
            )

        def listen(page: Page) -> None:
            page.on("pageerror", lambda error: heard.append(str(error)))
            page.on(
                "console",
                lambda message: (
                    heard.append(message.text)
                    if message.type == "error" and not any(words in message.text for words in tolerate)
                    else None
                ),
            )

        context.on("page", listen)
        page = context.new_page()
        page.goto(path)
        return page

    yield go
    for context in contexts:
        context.close()
    assert heard == []


def press(page: Page, *keys: str) -> None:
    """Press keys once the page's scripts listen; what is shown may be a moment ahead of them."""
    page.wait_for_load_state()
    for key in keys:
        page.keyboard.press(key)


def complaints(page: Page) -> list[str]:
    """What axe finds wrong with the page for people who cannot see it well or use no mouse."""
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:120]} {each['nodes'][0]['failureSummary']}" for each in found]


def session_of(who: Any) -> str:
    client = Client()
    client.force_login(who)
    return client.cookies[settings.SESSION_COOKIE_NAME].value
