"""Rewards of completions, and what they do to the order in which sets are given out."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from labeling.models import (
    Completion,
    CompletionSet,
    Project,
    Prompt,
    RewardModel,
    Score,
    ScoringJob,
    Slot,
    User,
)
from labeling.models.scoring import place
from labeling.models.slot import HEAD_START
from labeling.tests.rows import approved, sampled
from labeling.uncertainty import drawn, uncertainty

Arm = CompletionSet.Arm


@pytest.fixture
def model(project: Project) -> RewardModel:
    return project.reward_models.register(project, "judge-1")


def ready(project: Project, text: str, arm: str = Arm.UNCERTAINTY) -> CompletionSet:
    made = sampled(approved(project, text))
    CompletionSet.objects.filter(pk=made.pk).update(arm=arm)
    made.refresh_from_db()
    return made


def scored(model: RewardModel, made: CompletionSet, rewards: list[float | None]) -> None:
    """As the worker does, with a job of its own."""
    job = ScoringJob.objects.create(project=model.project, state="running")
    keys = made.completions.values_list("pk", flat=True)
    job.store(model, dict(zip(keys, rewards, strict=True)))
    job.delete()


def next_set(project: Project, labeler: User) -> int | None:
    slot = Slot.objects.claim_next(project, labeler, "ranking")
    assert slot
    slot.skip(labeler)
    return slot.completion_set_id


def test_a_job_waits_once_a_reward_model_is_there_and_only_one(project: Project) -> None:
    ready(project, "Name a river.")
    assert not ScoringJob.objects.exists()
    model = project.reward_models.register(project, "judge-1", languages=["en"], train_rankings=40)
    ready(project, "Name a lake.")
    ready(project, "Name a sea.")
    assert ScoringJob.objects.get().state == "queued"
    assert (model.train_rankings, model.in_use) == (40, True)
    ScoringJob.objects.update(state="running")
    ready(project, "Name a pond.")  # the running one may have passed it by
    assert ScoringJob.objects.filter(state="queued").count() == 1


def test_an_archived_model_scores_nothing(project: Project, model: RewardModel) -> None:
    ScoringJob.objects.all().delete()
    RewardModel.objects.update(in_use=False)
    ready(project, "Name a river.")
    assert not ScoringJob.objects.exists()


def test_open_sets_are_scored_first_and_none_twice(project: Project, model: RewardModel) -> None:
    closed, old, new = (ready(project, f"Name {number} rivers.") for number in range(3))
    CompletionSet.objects.filter(pk=closed.pk).update(state="closed")
    assert list(model.unscored()) == [new, old, closed]
    scored(model, new, [None] * 4)  # nothing that it can read is no reason to try again
    assert list(model.unscored()) == [old, closed]
    RewardModel.objects.update(languages=["ko"])
    model.refresh_from_db()
    assert list(model.unscored()) == []


def test_scores_are_kept_once_and_tell_how_unsure_the_models_are(project: Project, model: RewardModel) -> None:
    made = ready(project, "Name a river.")
    first, second = [2.0, 1.0, 0.5, -1.0], [-1.0, 0.5, 1.0, 2.0]
    scored(model, made, first)
    scored(model, made, [9.0] * 4)
    assert list(Score.objects.order_by("completion__index").values_list("reward", flat=True)) == first
    made.refresh_from_db()
    assert made.uncertainty == pytest.approx(uncertainty([first], made.texts))
    other = project.reward_models.register(project, "judge-2")
    scored(other, made, second)
    made.refresh_from_db()
    assert made.uncertainty == pytest.approx(uncertainty([first, second], made.texts))


def test_what_the_model_is_unsure_of_is_given_out_first(project: Project, model: RewardModel, alice: User) -> None:
    sure, unsure, middle = (ready(project, f"Name {word}.") for word in ("a river", "a lake", "a sea"))
    scored(model, sure, [30.0, 20.0, 10.0, 0.0])
    scored(model, unsure, [0.0, 0.0, 0.0, 0.0])
    scored(model, middle, [1.5, 1.0, 0.5, 0.0])
    assert place(project) == 3
    assert [next_set(project, alice) for _ in range(3)] == [unsure.pk, middle.pk, sure.pk]
    assert place(project) == 0  # nothing moves without new scores


def test_the_control_arm_is_placed_by_chance(project: Project, model: RewardModel) -> None:
    rows = [ready(project, f"Name {number} rivers.", Arm.CONTROL) for number in range(12)]
    for number, made in enumerate(rows):
        scored(model, made, [float(number), 0.0, 0.0, 0.0])
    place(project)
    for made in rows:
        made.refresh_from_db()
        assert made.head_start == pytest.approx(drawn("head start", made.pk), abs=1 / 40)


def test_both_arms_are_spread_over_the_whole_queue(project: Project, model: RewardModel) -> None:
    """Else labelers would reach one of them only when the other is used up."""
    rows = [ready(project, f"Name {number} rivers.") for number in range(40)]
    for number, made in enumerate(rows):
        scored(model, made, [number / 10, 0.0, 0.0, 0.0])
    CompletionSet.objects.filter(pk__in=[made.pk for made in rows[::2]]).update(arm=Arm.CONTROL)
    place(project)
    order = Slot.objects.order_by("priority", "pk").values_list("completion_set__arm", flat=True)
    first = list(order)[:20]
    assert 5 <= first.count("control") <= 15


def test_nothing_starves(project: Project, model: RewardModel, alice: User) -> None:
    """A set of which the model is sure goes before all that are newer by more than the head start."""
    old, new = ready(project, "Name a river."), ready(project, "Name a lake.")
    scored(model, old, [30.0, 20.0, 10.0, 0.0])
    scored(model, new, [0.0, 0.0, 0.0, 0.0])
    CompletionSet.objects.filter(pk=old.pk).update(created_at=timezone.now() - HEAD_START - timedelta(minutes=1))
    place(project)
    assert next_set(project, alice) == old.pk


def test_first_places_come_before_second_ones_of_the_same_age(project: Project, model: RewardModel) -> None:
    Project.objects.filter(pk=project.pk).update(ranking_overlap=2)
    project.refresh_from_db()
    sure, unsure = ready(project, "Name a river."), ready(project, "Name a lake.")
    scored(model, sure, [30.0, 20.0, 10.0, 0.0])
    scored(model, unsure, [0.0, 0.0, 0.0, 0.0])
    place(project)
    order = Slot.objects.filter(task_type="ranking").order_by("priority", "pk")
    assert [(slot.completion_set_id, slot.ordinal) for slot in order] == [
        (unsure.pk, 0),
        (sure.pk, 0),
        (unsure.pk, 1),
        (sure.pk, 1),
    ]


def test_the_arm_is_drawn_when_a_set_is_asked_for(project: Project) -> None:
    Project.objects.filter(pk=project.pk).update(control_share=30)
    project.refresh_from_db()
    approved(project, "Name a river.")
    [made] = CompletionSet.objects.all()
    prompt = made.prompt
    prompt.project = project

    def share(split: str) -> float:
        prompt.split = split
        rows = (CompletionSet(pk=key, project=project, prompt=prompt) for key in range(2000))
        return sum(not row.is_drawn_for_uncertainty() for row in rows) / 2000

    assert share(Prompt.Split.TRAIN) == pytest.approx(0.3, abs=0.03)
    assert share(Prompt.Split.HELDOUT) == 1  # no model has a say in what measures models
    made = CompletionSet.objects.get()
    is_preferring = made.is_drawn_for_uncertainty()
    assert made.arm == (Arm.UNCERTAINTY if is_preferring else Arm.CONTROL)


def test_an_index_gives_slots_in_their_turn(project: Project) -> None:
    turn = Slot.objects.filter(project=project, state="open", task_type="ranking").order_by("priority", "pk")
    plan = turn[:20].explain()
    if connection.vendor == "sqlite":
        assert "slots_in_turn" in plan and "TEMP B-TREE" not in plan


def test_a_stored_completion_keeps_its_scores_apart_for_each_model(project: Project, model: RewardModel) -> None:
    made = ready(project, "Name a river.")
    other: Any = project.reward_models.register(project, "judge-2")
    scored(model, made, [1.0, 2.0, 3.0, 4.0])
    scored(other, made, [4.0, 3.0, 2.0, None])
    last = Completion.objects.get(completion_set=made, index=3)
    assert sorted(last.scores.values_list("model__name", "reward")) == [("judge-1", 4.0), ("judge-2", None)]
