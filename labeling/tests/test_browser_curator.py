"""A curator's day in Chromium: import a file, approve, translate side by side, watch completions arrive."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from playwright.sync_api import Page, Route, expect

from labeling.models import Import, Project, Prompt, SamplingJob, Translation, User
from labeling.tests.rows import approved, sampled
from webapp.tests.browser import Visit

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

ROWS = """Q,A,label
Where is the sea?,Go east.,0
What is a tide?,The sea rising and falling.,0
where is the SEA?,Again.,0
,nobody asked,0
"""


def choose_file(page: Page, name: str, data: str | bytes) -> None:
    content = data.encode() if isinstance(data, str) else data
    page.locator("[name=file]").set_input_files({"name": name, "mimeType": "text/csv", "buffer": content})
    page.get_by_role("button", name="Upload prompts").click()


def test_a_file_is_uploaded_mapped_previewed_taken_and_approved(visit: Visit, project: Project, carol: User) -> None:
    page = visit(carol, f"/projects/{project.slug}/")
    page.get_by_role("button", name="Import prompts").first.click()
    choose_file(page, "sea.csv", ROWS)
    expect(page.get_by_text("4 rows were read.")).to_be_visible()
    expect(page.get_by_role("link", name="2 will be taken")).to_be_visible()
    page.get_by_role("link", name="1 refused").click()
    expect(page.get_by_text("The prompt is empty.")).to_be_visible()
    page.get_by_label("Demonstration").select_option("")
    expect(page.get_by_text("demonstrations come along")).to_have_count(0)
    page.get_by_label("Demonstration").select_option("A")
    expect(page.get_by_text("2 demonstrations come along")).to_be_visible()
    page.get_by_label("Licence").fill("MIT")
    page.get_by_label("Licence").press("Tab")
    page.wait_for_load_state("networkidle")
    page.get_by_role("button", name="Take 2 prompts").click()
    expect(page.get_by_text("2 prompts were taken.")).to_be_visible()
    assert set(project.prompts.values_list("licence", "state")) == {("MIT", "draft")}

    page.get_by_role("button", name="Look at the drafts").click()
    page.get_by_label("Tick all prompts of this page").check()
    page.get_by_role("button", name="Go").click()
    expect(page.get_by_text("2 prompts were changed.")).to_be_visible()
    assert project.prompts.approved().count() == 2
    page.get_by_role("link", name="Show all").first.click()
    page.get_by_role("link", name="What is a tide?").click()
    expect(page.get_by_text("The sea rising and falling.")).to_be_visible()
    expect(page.get_by_text("imported", exact=True)).to_be_visible()


def test_a_column_chosen_before_the_scripts_came_counts(visit: Visit, project: Project, carol: User) -> None:
    page = visit(carol, f"/projects/{project.slug}/imports/")
    held: list[Route] = []
    page.context.route("**/htmx-*.js", lambda route: held.append(route))
    choose_file(page, "sea.csv", ROWS)
    page.get_by_label("Demonstration").select_option("")
    expect(page.get_by_text("2 demonstrations come along")).to_be_visible()
    held[0].continue_()
    expect(page.get_by_text("2 demonstrations come along")).to_have_count(0)


def test_korean_windows_text_is_read_after_a_look(visit: Visit, project: Project, carol: User) -> None:
    page = visit(carol, f"/projects/{project.slug}/imports/")
    choose_file(page, "대화.csv", "Q,A\n안녕,반가워요\n".encode("cp949"))
    expect(page.get_by_text("안녕,반가워요")).to_be_visible()
    page.get_by_role("button", name="Yes, it reads well").click()
    page.get_by_role("button", name="Take 1 prompt").click()
    expect(page.get_by_text("1 prompt was taken.")).to_be_visible()
    assert project.prompts.get().text == "안녕"


def test_a_refused_file_says_why_beside_the_field(visit: Visit, project: Project, carol: User) -> None:
    page = visit(carol, f"/projects/{project.slug}/imports/")
    choose_file(page, "table.xlsx", b"PK\x03\x04")
    expect(page.locator(".field .errorlist")).to_contain_text("Only JSONL")
    assert not Import.objects.exists()


def test_one_prompt_is_translated_side_by_side(visit: Visit, project: Project, draft: Prompt, carol: User) -> None:
    page = visit(carol, f"/prompts/{draft.pk}/")
    page.get_by_role("link", name="Translate side by side").click()
    page.wait_for_load_state()
    source, target = page.locator(".pair > div").first, page.locator("textarea")
    left, right = source.bounding_box(), target.bounding_box()
    assert left and right and left["x"] + left["width"] <= right["x"]
    target.fill("비에 관한 하이쿠를")
    expect(page.get_by_text("Draft saved at")).to_be_visible()
    assert Translation.objects.get().messages[0]["content"] == "비에 관한 하이쿠를"

    page.reload()
    expect(target).to_have_value("비에 관한 하이쿠를")
    target.fill("비에 관한 하이쿠를 써 주세요.")
    page.get_by_role("button", name="Finish: hand in for review").click()
    expect(page.get_by_text("The translation is in review.")).to_be_visible()
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("Approved.", exact=True)).to_be_visible()
    korean = project.prompts.get(language="ko")
    assert (korean.text, korean.state, korean.family) == ("비에 관한 하이쿠를 써 주세요.", "approved", draft.family)


def test_what_is_typed_before_the_scripts_run_is_saved(visit: Visit, draft: Prompt, carol: User) -> None:
    page = visit(carol, f"/prompts/{draft.pk}/")
    held: list[Route] = []
    page.route("**/*.js", lambda route: held.append(route))
    page.goto(page.url + "translate/ko/", wait_until="commit")
    page.locator("textarea").fill("비")
    assert held
    for route in held:
        route.continue_()
    expect(page.get_by_text("Draft saved at")).to_be_visible()
    assert Translation.objects.get().messages[0]["content"] == "비"


def test_the_translation_stacks_on_a_phone(visit: Visit, draft: Prompt, carol: User) -> None:
    page = visit(carol, f"/prompts/{draft.pk}/translate/ko/", viewport={"width": 390, "height": 800})
    source, target = page.locator(".pair > div").first.bounding_box(), page.locator("textarea").bounding_box()
    assert source and target and source["y"] + source["height"] <= target["y"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_draft_that_cannot_be_saved_is_said_and_kept(visit: Visit, draft: Prompt, carol: User) -> None:
    page = visit(
        carol,
        f"/prompts/{draft.pk}/translate/ko/",
        tolerate=("ERR_FAILED", "htmx:sendError", "htmx:afterRequest", "401"),
    )
    page.route("**/draft/", lambda route: route.abort())
    page.locator("textarea").fill("비")
    expect(page.get_by_text("The site does not answer.")).to_be_visible()
    page.unroute("**/draft/")
    page.context.clear_cookies(name="sessionid")
    page.locator("textarea").fill("비에")
    expect(page.get_by_text("You are logged out.")).to_be_visible()
    expect(page.locator("textarea")).to_have_value("비에")


def test_completions_arrive_without_a_reload(visit: Visit, project: Project, draft: Prompt, carol: User) -> None:
    page = visit(carol, f"/prompts/{draft.pk}/")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("waiting for the sampler")).to_be_visible()
    page.evaluate("window.sameDocument = true")
    sampled(draft)
    expect(page.get_by_text("Rain on the roof tiles")).to_be_visible()
    assert page.evaluate("window.sameDocument")


def test_sampling_progress_moves_by_itself(visit: Visit, project: Project, carol: User) -> None:
    first, second = approved(project, "One"), approved(project, "Two")
    sampled(first)
    page = visit(carol, f"/projects/{project.slug}/")
    expect(page.get_by_text("1 being sampled")).to_be_visible()
    SamplingJob.objects.claim(second.completion_sets.get().job.pk).fail("The checkpoint is damaged.")
    expect(page.get_by_role("link", name="1 failed")).to_be_visible()
    page.get_by_role("link", name="1 failed").click()
    page.get_by_role("link", name="Two").click()
    expect(page.get_by_text("The checkpoint is damaged.")).to_be_visible()


@pytest.fixture
def pages(project: Project, draft: Prompt, carol: User) -> list[str]:
    """Addresses of the curator's pages, with something on each."""
    project.revise_instructions({"en": "# Be kind\n\nAlways.", "ko": "# 친절하게\n\n언제나."}, carol)
    ranked = approved(project, "Name a river.")
    sampled(ranked)
    names = ["project", "prompt_list", "prompt_new", "import_list", "instructions_edit", "project_settings"]
    found = ["/projects/", "/projects/new/", *(reverse(name, args=[project.slug]) for name in names)]
    found += [reverse("instruction_version", args=[project.slug, 1]), reverse("prompt", args=[ranked.pk])]
    return [*found, reverse("prompt_edit", args=[draft.pk]), reverse("translation", args=[draft.pk, "ko"])]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_have_no_accessibility_violations(visit: Visit, pages: list[str], carol: User, scheme: Any) -> None:
    page = visit(carol, pages[0], color_scheme=scheme)
    found = {}
    for address in pages:
        page.goto(address)
        violations = Axe().run(page).response["violations"]
        found[address] = [f"{item['id']}: {node['html'][:120]}" for item in violations for node in item["nodes"]]
    assert {address: items for address, items in found.items() if items} == {}


def test_no_page_is_wider_than_a_phone(visit: Visit, pages: list[str], carol: User) -> None:
    page = visit(carol, pages[0], viewport={"width": 390, "height": 800})
    wide = []
    for address in pages:
        page.goto(address)
        if page.evaluate("document.documentElement.scrollWidth") > 390:
            wide.append(address)
    assert wide == []


def test_an_import_is_wider_than_no_phone_either(visit: Visit, project: Project, carol: User) -> None:
    page = visit(carol, f"/projects/{project.slug}/imports/", viewport={"width": 390, "height": 800})
    choose_file(page, "sea.csv", ROWS)
    expect(page.get_by_text("4 rows were read.")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert Axe().run(page).response["violations"] == []
