"""axe finds nothing on the labeler's pages, in light and dark, on a desk and on a phone."""

import uuid
from typing import Any

import pytest
from playwright.sync_api import expect

from labeling import readiness
from labeling.models import Answer, Export, KnownAnswer, Project, Prompt, Readiness, ScoringJob, Slot, User
from labeling.tests.rows import approved, ranking, sampled
from webapp.tests.browser import Visit, complaints, press

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
LOOKS: list[dict[str, Any]] = [
    # Without motion: colours are judged as they end up.
    {"color_scheme": "light", "viewport": {"width": 1600, "height": 1000}, "reduced_motion": "reduce"},
    {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}, "reduced_motion": "reduce"},
]


@pytest.mark.parametrize("look", LOOKS, ids=["light desk", "dark phone"])
def test_ranking(visit: Visit, project: Project, alice: User, look: dict[str, Any]) -> None:
    project.revise_instructions({"en": "# Be kind"}, None)
    sampled(approved(project))
    page = visit(alice, "/desk/", **look)
    assert complaints(page) == []
    page.get_by_role("button", name="Next task").click()
    expect(page.locator("#progress")).to_contain_text("Rated")
    assert complaints(page) == []
    press(page, *"54321")
    expect(page.locator("#board-step")).to_be_visible()
    assert complaints(page) == []
    press(page, "p", "ArrowDown", "p", "d", "m")
    expect(page.locator("#compare mark").first).to_be_visible()
    assert complaints(page) == []
    press(page, "Control+Enter")
    expect(page.locator("#trouble")).to_be_visible()
    press(page, "?")
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
    press(page, "6", "x", "d")
    expect(page.locator(".pair mark").first).to_be_visible()
    assert complaints(page) == []
    press(page, "m", "Control+Enter")
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
        tiers: list[int | None] = [1, 2, 2, 3] if labeler == alice else [3, 2, 2, 1]
        answer = Answer.objects.submit(slot, labeler, ranking(tiers), uuid.uuid4())
    KnownAnswer.objects.declare(answer, "gold", carol)
    page = visit(carol, f"/projects/{project.slug}/quality/", **look)
    Export.objects.create(project=project, by=carol)
    pages = [
        f"/projects/{project.slug}/{name}/"
        for name in ("quality", "review", "exports", "settings", "people", "adjudication")
    ]
    pages += [f"/projects/{project.slug}/people/{alice.pk}/", f"/sets/{answer.completion_set_id}/"]
    for path in (*pages, f"/answers/{answer.pk}/"):
        page.goto(path)
        assert complaints(page) == [], path


@pytest.mark.parametrize("look", LOOKS, ids=["light desk", "dark phone"])
def test_ready_to_train(
    visit: Visit, project: Project, alice: User, bob: User, carol: User, look: dict[str, Any]
) -> None:
    address = f"/projects/{project.slug}/readiness/"
    page = visit(carol, address, **look)
    assert complaints(page) == []
    page.get_by_role("button", name="Look over the labels").click()
    expect(page.locator("#readiness-progress progress")).to_be_visible()
    assert complaints(page) == []
    told_all(project, alice, bob)
    expect(page.get_by_role("heading", name="Enough to try")).to_be_visible()  # the page comes by itself
    expect(page.locator("svg.plot")).to_be_visible()
    expect(page.get_by_role("link", name="bob")).to_be_visible()
    assert complaints(page) == []
    page.get_by_role("button", name="Both in training").focus()
    press(page, "Enter")
    expect(page.get_by_text("are in training now")).to_be_visible()
    assert page.get_by_role("button", name="Both in training").count() == 0


def told_all(project: Project, alice: User, bob: User) -> None:
    """The look that waits finds something for every part of the page."""
    Project.objects.filter(pk=project.pk).update(ranking_overlap=2)
    project.refresh_from_db()
    for words, split in (("two", "heldout"), ("three", "train")):
        prompt = approved(project, f"Explain in {words} sentences what a fjord is and how it forms.")
        Prompt.objects.filter(pk=prompt.pk).update(split=split)
        made = sampled(prompt)
        for labeler, tiers in ((alice, [1, 2, 3, 4]), (bob, [1, 2, 3, 4] if split == "heldout" else [2, 1, 3, 4])):
            slot = Slot.objects.claim(made.slots.filter(state="open").order_by("ordinal")[0].pk, labeler)
            assert slot
            Answer.objects.submit(slot, labeler, ranking(list(tiers)), uuid.uuid4())
    for size in (100, 200, 400):
        facts = {"train_rankings": size, "heldout_rankings": 100, "heldout_accuracy": 0.5 + size / 4000}
        model = project.reward_models.register(project, f"judge-{size}", **facts)
    job = ScoringJob.objects.claim(ScoringJob.objects.get().pk)
    for completion_set in project.completion_sets.all():
        keys = completion_set.completions.values_list("pk", flat=True)
        job.store(model, dict(zip(keys, [4.0, 3.0, 2.0, 1.0], strict=True)))
    job.succeed()
    look = Readiness.objects.claim(Readiness.objects.get().pk)
    look.finish(readiness.look_over(project))
