"""Can I train on this: what a look over the labels finds, and what the page says of it."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from labeling import readiness
from labeling.models import (
    Answer,
    CompletionSet,
    Project,
    Prompt,
    Readiness,
    RewardModel,
    Role,
    ScoringJob,
    Slot,
    User,
)
from labeling.tests.rows import approved, ranking, sampled

GOOD, BAD = [1, 2, 3, 4], [4, 3, 2, 1]


@pytest.fixture
def shared(project: Project) -> Project:
    Project.objects.filter(pk=project.pk).update(ranking_overlap=2)
    project.refresh_from_db()
    return project


def rank(project: Project, text: str, split: str, rankings: dict[User, list[int]]) -> CompletionSet:
    """A set ranked by each, in that order."""
    prompt = approved(project, text)
    Prompt.objects.filter(pk=prompt.pk).update(split=split)
    made = sampled(prompt)
    for labeler, tiers in rankings.items():
        slot = Slot.objects.claim(made.slots.filter(state="open").order_by("ordinal")[0].pk, labeler)
        assert slot
        Answer.objects.submit(slot, labeler, ranking(list(tiers)), uuid.uuid4())
    return made


def score(model: RewardModel, made: CompletionSet, rewards: list[float]) -> None:
    job = ScoringJob.objects.create(project=model.project, state="running")
    keys = made.completions.values_list("pk", flat=True)
    job.store(model, dict(zip(keys, rewards, strict=True)))
    job.delete()


def look(project: Project) -> Readiness:
    """As the worker does."""
    job = Readiness.objects.create(project=project)
    held = Readiness.objects.claim(job.pk)
    held.finish(readiness.look_over(project))
    return Readiness.objects.get(pk=job.pk)


@pytest.fixture
def judged(shared: Project, alice: User, bob: User) -> RewardModel:
    """Alice and Bob agree on three sets of four; the model is with Alice, but for one pair of the held-out set."""
    sets = [
        rank(shared, "Name a river of Asia.", "train", {alice: GOOD, bob: GOOD}),
        rank(shared, "Name the longest lake.", "train", {alice: GOOD, bob: BAD}),
        rank(shared, "Which sea is the saltiest?", "heldout", {alice: GOOD, bob: GOOD}),
        rank(shared, "How deep is a fjord, usually?", "heldout", {alice: GOOD, bob: GOOD}),
    ]
    model = shared.reward_models.register(shared, "judge-1", train_rankings=4, heldout_rankings=4)
    for made in sets[:3]:
        score(model, made, [4.0, 3.0, 2.0, 1.0])
    score(model, sets[3], [3.0, 4.0, 2.0, 1.0])
    return model


def test_volume_is_counted_by_part_language_and_tag(judged: RewardModel, shared: Project) -> None:
    Prompt.objects.filter(split="heldout").update(tags=["geo"])
    counts = readiness.volume(shared)
    assert counts["splits"]["train"] == {"prompts": 2, "sets": 2, "rankings": 4, "pairs": 24, "demonstrations": 0}
    assert counts["splits"]["heldout"]["pairs"] == 24
    assert counts["languages"] == {"en": {"prompts": 4, "sets": 4, "rankings": 8, "pairs": 48, "demonstrations": 0}}
    assert counts["tags"]["geo"]["rankings"] == 4


def test_accuracy_is_reckoned_on_held_out_rankings_alone(judged: RewardModel, shared: Project) -> None:
    report = look(shared).report
    assert report["model"] == "judge-1"
    assert report["accuracy"]["rate"] == pytest.approx((12 + 10) / 24)
    assert (report["accuracy"]["pairs"], report["accuracy"]["sets"]) == (24, 2)
    assert report["accuracy"]["interval"] == [pytest.approx(10 / 12), 1.0]
    assert report["train_accuracy"]["rate"] == pytest.approx(18 / 24)  # Bob's reversed ranking is wrong throughout
    assert report["agreement"]["rate"] == pytest.approx(18 / 24)


def test_equal_rewards_count_half(judged: RewardModel, shared: Project, alice: User) -> None:
    [judgement] = Answer.objects.filter(labeler=alice, completion_set__prompt__split="heldout").judgements(1)
    figure = readiness.accuracy([judgement], {judgement.set_id: [1.0, 1.0, 0.0, None]})
    assert (figure["rate"], figure["pairs"]) == (2.5 / 3, 3)


def test_a_ranking_against_both_is_named_until_somebody_looks(
    judged: RewardModel, shared: Project, bob: User, carol: User
) -> None:
    report = look(shared).report
    wrong = Answer.objects.get(labeler=bob, completion_set__prompt__searchable__contains="longest lake")
    assert [row["answer"] for row in report["suspects"]] == [wrong.pk]
    assert (report["suspects_total"], report["suspects"][0]["contradictions"]) == (1, 6)
    client = Client()
    client.force_login(carol)
    address = f"/projects/{shared.slug}/readiness/"
    assert f'href="/answers/{wrong.pk}/"' in client.get(address).content.decode()
    client.post(f"/reviews/{wrong.slot_id}/", {"verdict": "returned", "comment": "The other way round?"})
    assert f'href="/answers/{wrong.pk}/"' not in client.get(address).content.decode()


def test_a_leak_is_shown_side_by_side_and_mended(shared: Project, carol: User, bob: User) -> None:
    text = "Explain in two sentences what a fjord is and how it forms."
    for words, split in ((text, "heldout"), (text.replace("two", "three"), "train")):
        prompt = approved(shared, words)
        Prompt.objects.filter(pk=prompt.pk).update(split=split)
    assert look(shared).report["leaks_total"] == 1
    client = Client()
    client.force_login(carol)
    page = client.get(f"/projects/{shared.slug}/readiness/").content.decode()
    assert "in two sentences" in page and "in three sentences" in page
    heldout = Prompt.objects.get(split="heldout")
    client.post(f"/prompts/{heldout.pk}/join-training/", follow=True)
    assert not Prompt.objects.filter(split="heldout").exists()
    page = client.get(f"/projects/{shared.slug}/readiness/").content.decode()
    assert "in three sentences" not in page


def test_translations_go_along_to_training_and_nothing_comes_back(shared: Project, carol: User) -> None:
    source = approved(shared, "Name a river.")
    other = approved(shared, "강 하나를 말해 주세요.", "ko")
    Prompt.objects.filter(pk__in=(source.pk, other.pk)).update(split="heldout", family=source.family)
    assert Prompt.objects.filter(pk=source.pk).join_training() == 2
    assert Prompt.objects.filter(pk=source.pk).join_training() == 0
    assert set(Prompt.objects.values_list("split", flat=True)) == {"train"}


def test_a_curve_is_drawn_through_three_sizes(shared: Project, carol: User) -> None:
    for size, accuracy in ((100, 0.55), (200, 0.6), (400, 0.64)):
        shared.reward_models.register(
            shared, f"judge-{size}", train_rankings=size, heldout_rankings=200, heldout_accuracy=accuracy
        )
    report = look(shared).report
    assert [run["rankings"] for run in report["runs"]] == [100, 200, 400]
    curve = report["curve"]
    assert curve["line"][0]["rankings"] == pytest.approx(100) and curve["line"][-1]["rankings"] == pytest.approx(1600)
    assert curve["double"]["interval"][0] <= curve["double"]["accuracy"] <= curve["double"]["interval"][1]
    client = Client()
    client.force_login(carol)
    assert '<polyline class="line"' in client.get(f"/projects/{shared.slug}/readiness/").content.decode()
    shared.reward_models.filter(train_rankings=200).delete()
    assert look(shared).report["curve"] is None


def test_a_new_look_takes_the_place_of_the_old_one(shared: Project) -> None:
    old, new = look(shared), look(shared)
    assert list(Readiness.objects.all()) == [new]
    assert Readiness.objects.newest(shared) == new and old.pk != new.pk
    Readiness.objects.ask(shared)
    Readiness.objects.ask(shared)
    assert Readiness.objects.filter(state="queued").count() == 1
    assert Readiness.objects.newest(shared) == new


def test_the_page_asks_for_a_look_and_shows_how_far_it_is(judged: RewardModel, shared: Project, carol: User) -> None:
    client = Client()
    client.force_login(carol)
    address = f"/projects/{shared.slug}/readiness/"
    ScoringJob.objects.all().delete()
    assert "Nobody has looked yet." in client.get(address).content.decode()
    client.post(f"{address}reckon/")
    assert Readiness.objects.get().state == "queued"
    assert "as soon as a worker is free" in client.get(address).content.decode()
    assert "as soon as" in client.get(f"{address}progress/").content.decode()
    assert "every worker is busy" not in client.get(f"{address}progress/").content.decode()
    Readiness.objects.update(created_at=timezone.now() - timedelta(minutes=4))
    assert "every worker is busy" in client.get(f"{address}progress/").content.decode()
    ScoringJob.objects.all().delete()
    job = Readiness.objects.claim(Readiness.objects.get().pk)
    job.fail("The disk is full.")
    assert "The disk is full." in client.get(address).content.decode()
    look(shared)
    assert client.get(f"{address}progress/").headers["HX-Refresh"] == "true"
    page = client.get(address).content.decode()
    assert "Enough to try, not enough to rely on." in page and "judge-1" in page


def test_ops_see_every_project_and_mend_nothing(judged: RewardModel, shared: Project, db: None) -> None:
    oscar = User.objects.create_user("oscar", is_staff=True)
    oscar.set_roles([Role.OPS])
    client = Client()
    client.force_login(oscar)
    look(shared)
    assert client.get(f"/projects/{shared.slug}/readiness/").status_code == 200
    prompt = Prompt.objects.filter(split="heldout")[0]
    assert client.post(f"/prompts/{prompt.pk}/join-training/").status_code == 403


def test_the_page_is_read_from_what_is_kept(judged: RewardModel, shared: Project, alice: User, carol: User) -> None:
    client = Client()
    client.force_login(carol)
    counts: list[Any] = []
    for number in range(3):
        rank(shared, f"Name {number} rivers of note.", "train", {alice: GOOD})
        look(shared)
        with CaptureQueriesContext(connection) as seen:
            client.get(f"/projects/{shared.slug}/readiness/")
        counts.append(len(seen))
    assert len(set(counts)) == 1 and counts[0] < 25
