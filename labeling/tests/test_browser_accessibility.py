"""axe finds nothing on the labeler's pages, in light and dark, on a desk and on a phone."""

import uuid
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from labeling.models import Answer, Export, Project, Slot, User
from labeling.tests.rows import approved, ranking, sampled
from webapp.tests.browser import Visit

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
LOOKS: list[dict[str, Any]] = [
    {"color_scheme": "light", "viewport": {"width": 1600, "height": 1000}},
    {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}},
]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def complaints(page: Page) -> list[str]:
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:120]} {each['nodes'][0]['failureSummary']}" for each in found]


@pytest.mark.parametrize("look", LOOKS, ids=["light desk", "dark phone"])
def test_ranking(visit: Visit, project: Project, alice: User, look: dict[str, Any]) -> None:
    project.revise_instructions({"en": "# Be kind"}, None)
    sampled(approved(project))
    page = visit(alice, "/desk/", **look)
    assert complaints(page) == []
    page.get_by_role("button", name="Next task").click()
    expect(page.locator("#progress")).to_contain_text("Rated")
    assert complaints(page) == []
    for key in "54321":
        page.keyboard.press(key)
    expect(page.locator("#board-step")).to_be_visible()
    assert complaints(page) == []
    for key in ("p", "ArrowDown", "p", "d", "m"):
        page.keyboard.press(key)
    expect(page.locator("#compare mark").first).to_be_visible()
    assert complaints(page) == []
    page.keyboard.press("Control+Enter")
    expect(page.locator("#trouble")).to_be_visible()
    page.keyboard.press("?")
    expect(page.locator("#keys-dialog")).to_be_visible()
    assert complaints(page) == []


@pytest.mark.parametrize("look", LOOKS, ids=["light desk", "dark phone"])
def test_pair(visit: Visit, project: Project, alice: User, look: dict[str, Any]) -> None:
    Project.objects.filter(pk=project.pk).update(comparison=Project.Comparison.PAIRS)
    project.refresh_from_db()
    sampled(approved(project), ["Rain on the **roof**", "Rain on the old roof"])
    slot = Slot.objects.claim_next(project, alice, Slot.TaskType.RANKING)
    assert slot
    page = visit(alice, f"/task/{slot.pk}/", **look)
    expect(page.locator("#progress")).to_contain_text("Rated")
    for key in ("6", "x", "d"):
        page.keyboard.press(key)
    expect(page.locator(".pair mark").first).to_be_visible()
    assert complaints(page) == []
    page.keyboard.press("m")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#trouble")).to_be_visible()
    assert complaints(page) == []


@pytest.mark.parametrize("look", LOOKS, ids=["light desk", "dark phone"])
def test_other_pages(visit: Visit, project: Project, alice: User, look: dict[str, Any]) -> None:
    project.revise_instructions({"en": "# Be kind\n\n| a | b |\n|---|---|\n| 1 | 2 |"}, None)
    sampled(approved(project))
    approved(project, "비에 대한 시를 써 주세요.", "ko")
    slot = Slot.objects.claim_next(project, alice, Slot.TaskType.RANKING)
    assert slot
    answer = Answer.objects.submit(slot, alice, ranking([1, 2, 2, 3], note="Hard."), uuid.uuid4())
    page = visit(alice, "/desk/", **look)
    page.get_by_role("button", name="Next task").click()
    expect(page.locator("#length")).to_contain_text("characters")
    assert complaints(page) == []
    page.locator("#text").fill("**Rain**")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview strong")).to_be_visible()
    assert complaints(page) == []
    own = (f"/answers/{answer.pk}/", f"/answers/{answer.pk}/change/", "/answers/", "/desk/", "/your-work/", "/keys/")
    for path in (*own, f"/instructions/{project.slug}/"):
        page.goto(path)
        assert complaints(page) == [], path


@pytest.mark.parametrize("look", LOOKS, ids=["light desk", "dark phone"])
def test_pages_of_a_curator(
    visit: Visit, project: Project, alice: User, bob: User, carol: User, look: dict[str, Any]
) -> None:
    Project.objects.filter(pk=project.pk).update(ranking_overlap=2)
    project.refresh_from_db()
    sampled(approved(project))
    for labeler in (alice, bob):
        slot = Slot.objects.claim_next(project, labeler, Slot.TaskType.RANKING)
        assert slot
        answer = Answer.objects.submit(slot, labeler, ranking([1, 2, 2, 3]), uuid.uuid4())
    page = visit(carol, f"/projects/{project.slug}/quality/", **look)
    Export.objects.create(project=project, by=carol)
    pages = [f"/projects/{project.slug}/{name}/" for name in ("quality", "review", "exports", "settings")]
    for path in (*pages, f"/answers/{answer.pk}/"):
        page.goto(path)
        assert complaints(page) == [], path
