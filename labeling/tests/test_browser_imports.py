"""Comparisons from a file to a labeler's answer, and webhooks, in the browser; axe finds nothing on their pages."""

import json
from typing import Any

import pytest
from playwright.sync_api import expect

from labeling.models import Answer, ComparisonImport, Project, User
from labeling.tests.test_browser_accessibility import LOOKS, complaints
from webapp.tests.browser import Visit, press
from worker.comparing import import_comparisons

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
PAIR = {"prompt": "Which is rain?", "chosen": "Water from above.", "rejected": "A long street. " * 20}


def test_an_imported_pair_is_ranked_by_keys(visit: Visit, project: Project, carol: User, alice: User) -> None:
    Project.objects.filter(pk=project.pk).update(require_ratings=False)
    page = visit(carol, f"/projects/{project.slug}/imports/")
    file = {"name": "pairs.jsonl", "mimeType": "application/json", "buffer": json.dumps(PAIR).encode()}
    page.locator("[name=comparisons-file]").set_input_files([file])
    page.get_by_role("button", name="Upload comparisons").click()
    expect(page.get_by_text("1 ranking comes along")).to_be_visible()
    page.get_by_label("as work").check()
    expect(page.get_by_text("1 ranking comes along")).to_have_count(0)
    page.get_by_label("Approve the prompts").check()
    page.get_by_role("button", name="Take 1 comparison").click()
    expect(page.get_by_text("waits for a worker")).to_be_visible()
    import_comparisons(ComparisonImport.objects.get().pk)
    expect(page.get_by_text("taken over")).to_be_visible()
    page = visit(alice, "/desk/")
    page.get_by_role("button", name="Next task").click()
    expect(page.locator("#progress")).to_contain_text("Rated")
    press(page, "2")
    expect(page.locator("#progress")).to_contain_text("A is better")
    press(page, "Control+Enter")
    page.wait_for_url("**/desk/**")
    answer = Answer.objects.get()
    assert answer.current and sorted(answer.current.tiers) == [1, 2] and answer.labeler == alice
    assert answer.current.strength == 2


@pytest.mark.parametrize("look", LOOKS, ids=["light desk", "dark phone"])
def test_nothing_bars_the_way(visit: Visit, project: Project, carol: User, look: dict[str, Any]) -> None:
    webhook = project.webhooks.create(url="https://example.com/" + "long" * 40, events=["set.finished"])
    webhook.deliver("set.finished", {"set": 1})
    page = visit(carol, f"/projects/{project.slug}/imports/", **look)
    file = {"name": "a_long_name" * 6 + ".json", "mimeType": "x/x", "buffer": json.dumps([PAIR, {"x": 1}]).encode()}
    assert complaints(page) == []
    page.locator("[name=comparisons-file]").set_input_files([file])
    page.get_by_role("button", name="Upload comparisons").click()
    expect(page.get_by_text("Take 1 comparison")).to_be_visible()
    preview = page.url
    page.get_by_role("button", name="Take 1 comparison").click()
    expect(page.get_by_text("waits for a worker")).to_be_visible()
    import_comparisons(ComparisonImport.objects.get().pk)
    expect(page.get_by_text("Record by record")).to_be_visible()
    for path in (preview, f"/projects/{project.slug}/webhooks/", f"/webhooks/{webhook.pk}/"):
        page.goto(path)
        assert complaints(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
