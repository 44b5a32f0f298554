"""The API describes itself, completely, and shows it under the site's own policy against injected script."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from playwright.sync_api import expect

from webapp.tests.teams import people


def test_the_schema_has_no_gap(tmp_path: Path) -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yml"))


def test_the_documentation_is_not_for_strangers(client: Client, db: None) -> None:
    assert client.get("/api/").headers["location"].startswith("/login/")
    assert client.get("/api/schema/").status_code == 401


@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
def test_the_page_lists_operations_and_tries_one(visit: Any, transactional_db: None, data_dir: Path) -> None:
    # `visit` fails for anything that the policy refuses.
    site: SimpleNamespace = people()
    page = visit(site.curator, "/api/")
    expect(page.get_by_text("/api/prompts/{id}/approve/")).to_be_visible()
    page.locator("#operations-projects-projects_list").get_by_role("button").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response .response-col_status")).to_contain_text("200")
