"""Writing a demonstration in Chromium."""

import pytest
from playwright.sync_api import Page, Route, expect

from labeling.models import Demonstration, Project, TokenCount, User
from labeling.tests.rows import ANSWERS, approved, sampled
from webapp.tests.browser import Visit, press

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def open_task(visit: Visit, who: User) -> Page:
    page = visit(who, "/desk/")
    page.get_by_role("button", name="Next task").click()
    expect(page.locator("#length")).to_contain_text("characters")  # the script has begun
    return page


def test_writing_an_answer_brings_the_next_prompt(visit: Visit, project: Project, alice: User) -> None:
    first, _second = approved(project, "Name a river."), approved(project, "Name a mountain.")
    page = open_task(visit, alice)
    page.locator("#text").fill("The Han.")
    expect(page.locator("#length")).to_have_text("8 of 16,000 characters")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("Name a mountain.")).to_be_visible()
    expect(page.locator("#text")).to_have_value("")
    demonstration = Demonstration.objects.get()
    assert (demonstration.text, demonstration.prompt, demonstration.author) == ("The Han.", first, alice)


def test_what_was_written_before_the_script_came_is_kept(visit: Visit, project: Project, alice: User) -> None:
    approved(project)
    page = visit(alice, "/desk/")
    held: list[Route] = []
    page.context.route("**/demonstration_page*.js", lambda route: held.append(route))
    page.get_by_role("button", name="Next task").click()
    page.locator("#text").fill("The Han.")
    held[0].continue_()
    expect(page.locator("#draft-state")).to_contain_text("Saved")
    page.context.unroute_all()
    page.reload()
    expect(page.locator("#text")).to_have_value("The Han.")


def test_korean_prompt_says_why_nobody_answered_it(visit: Visit, project: Project, alice: User) -> None:
    approved(project, "한강에 대해 한 문장으로 알려 주세요.", "ko")
    page = open_task(visit, alice)
    expect(page.get_by_text("does not speak Korean")).to_be_visible()
    expect(page.locator("#text")).to_have_attribute("lang", "ko")
    page.locator("#text").fill("한강은 서울을 지나는 강입니다. 🌊")
    expect(page.locator("#length")).to_have_text("19 of 16,000 characters")
    press(page, "Control+Enter")
    expect(page.get_by_text("Completions are being written").or_(page.get_by_text("All done."))).to_be_visible()
    assert Demonstration.objects.get().text == "한강은 서울을 지나는 강입니다. 🌊"


def test_empty_and_overlong_answers_are_refused_where_one_writes(visit: Visit, project: Project, alice: User) -> None:
    approved(project)
    page = open_task(visit, alice)
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#trouble")).to_have_text("Write an answer before you submit.")
    page.locator("#text").fill("x" * 16_003)
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#trouble")).to_have_text("The answer is 3 characters too long. Shorten it.")
    assert not Demonstration.objects.exists()


@pytest.mark.parametrize("composing", ["isComposing: true", "keyCode: 229"])
def test_enter_that_ends_a_syllable_submits_nothing(
    visit: Visit, project: Project, alice: User, composing: str
) -> None:
    approved(project)
    page = open_task(visit, alice)
    page.locator("#text").fill("비가 온")
    press = "event => document.getElementById('text').dispatchEvent(event)"
    init = "key: 'Enter', ctrlKey: true, bubbles: true"
    page.evaluate(f"({press})(new KeyboardEvent('keydown', {{ {init}, {composing} }}))")
    page.wait_for_timeout(300)
    assert not Demonstration.objects.exists()
    page.evaluate(f"({press})(new KeyboardEvent('keydown', {{ {init} }}))")
    expect(page.locator("#text")).to_have_count(0)
    assert Demonstration.objects.get().text == "비가 온"


def test_question_mark_is_a_letter_in_the_text_and_help_outside(visit: Visit, project: Project, alice: User) -> None:
    approved(project)
    page = open_task(visit, alice)
    page.locator("#text").click()
    page.keyboard.type("Why?")
    expect(page.locator("#keys-dialog")).to_be_hidden()
    expect(page.locator("#text")).to_have_value("Why?")
    page.locator("h1").click()
    press(page, "?")
    expect(page.locator("#keys-dialog")).to_be_visible()
    press(page, "Escape")
    expect(page.locator("#keys-dialog")).to_be_hidden()


def test_preview_and_the_number_of_tokens(visit: Visit, project: Project, alice: User) -> None:
    approved(project)
    page = open_task(visit, alice)
    page.locator("#text").fill("Rain on **the roof** <b>tiles</b>")
    expect(page.locator("#tokens")).to_have_text("about 9 tokens (estimated)")
    TokenCount.objects.claim(TokenCount.objects.get().pk).counted(11)  # as the sampler does
    expect(page.locator("#tokens")).to_have_text("11 tokens")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview strong")).to_have_text("the roof")
    expect(page.locator("#preview b")).to_have_count(0)
    expect(page.locator("#text")).to_be_hidden()
    press(page, "Control+Enter")
    expect(page.get_by_text("Handed in.")).to_be_visible()
    assert Demonstration.objects.get().text == "Rain on **the roof** <b>tiles</b>"


def test_from_a_ranking_to_a_demonstration(visit: Visit, project: Project, alice: User) -> None:
    completion_set = sampled(approved(project))
    page = visit(alice, "/desk/")
    page.get_by_role("button", name="Next task").click()
    expect(page.locator("#progress")).to_contain_text("Rated")
    press(page, *"7654", *"1234")
    best = page.locator('.completion[data-letter="A"] .said').text_content() or ""
    press(page, "Control+Enter")
    expect(page.locator("#length")).to_be_visible()  # the demonstration of the same prompt comes next
    page.get_by_text("Start from a completion that you ranked").click()
    page.get_by_role("button", name="Use this text").first.click()
    expect(page.locator("#text")).to_have_value(best)
    page.locator("#text").press("End")
    page.keyboard.type("!")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("All done.")).to_be_visible()
    demonstration = Demonstration.objects.get()
    assert demonstration.text == best + "!"
    assert demonstration.newest.started_from == completion_set.completions.get(index=ANSWERS.index(best))
