"""Watching runs in the console, cancelling and resuming them."""

import json
from typing import Any

from django.test import Client

from labeling.models import Project, User
from rlhf.models import DatasetSnapshot, Metric, ModelVersion, TrainingRun
from rlhf.tests.conftest import carried_out
from rlhf.tests.console import recorded, said, url

State = TrainingRun.State

# --- Watching ---


def live(ops: Client, run: TrainingRun, **query: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(ops.get(url("trainingrun_live", run.pk, **query)).content)
    return answer


def test_live_answer_follows_the_run(ops: Client, start: Any) -> None:
    run = start()
    assert "queued" in live(ops, run)["fragments"]["standing"]
    held = TrainingRun.objects.claim(run.pk)
    held.heartbeat(progress={"step": 2, "total": 8})
    Metric.objects.create(run=held, step=2, name="loss", value=1.5)
    first = live(ops, run)
    assert "step 2 of 8" in first["fragments"]["standing"]
    assert first["curves"][0]["series"][0]["values"] == [1.5]
    assert not first["finished"]
    again = live(ops, run, step=first["step"])
    assert again["curves"] is None  # nothing new to draw
    held.fail("The disk is full; free some space and resume.")
    last = live(ops, run)
    assert last["finished"]
    assert "The disk is full" in last["fragments"]["outcome"]
    assert url("trainingrun_resume", run.pk) in last["fragments"]["verbs"]


def test_what_a_trainer_prints_is_never_markup(ops: Client, start: Any) -> None:
    run = start()
    held = TrainingRun.objects.claim(run.pk)
    held.attempt_folder.mkdir(parents=True)
    (held.attempt_folder / "log.txt").write_text("<script>alert(1)</script>")
    held.fail("<img src=x onerror=alert(1)>")
    page = ops.get(url("trainingrun_change", run.pk)).content.decode()
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "<img" not in live(ops, run)["fragments"]["outcome"]


def test_waiting_run_says_what_it_waits_for(
    ops: Client, project: Project, policy: ModelVersion, oscar: User, snapshot: DatasetSnapshot
) -> None:
    reward, ppo = TrainingRun.objects.retrain(project, oscar, policy=policy)
    assert url("trainingrun_change", reward.pk) in live(ops, ppo)["fragments"]["standing"]


def test_run_whose_worker_fell_silent_says_so(ops: Client, start: Any) -> None:
    run = start()
    TrainingRun.objects.claim(run.pk)
    assert "silent" not in live(ops, run)["fragments"]["standing"]
    TrainingRun.objects.filter(pk=run.pk).update(lease_until="2020-01-01T00:00Z")
    assert "the worker is silent" in live(ops, run)["fragments"]["standing"]


def test_finished_run_offers_its_policy_for_promotion(ops: Client, start: Any, project: Project) -> None:
    run = start()
    version = carried_out(run)
    assert url("modelversion_promote", version.pk) in live(ops, run)["fragments"]["verbs"]


def test_reward_model_is_not_offered_for_promotion(ops: Client, start: Any) -> None:
    run = start("reward")
    version = carried_out(run)
    assert url("modelversion_promote", version.pk) not in live(ops, run)["fragments"]["verbs"]


# --- Cancel and resume ---


def test_cancel_button_cancels_and_is_recorded(ops: Client, start: Any) -> None:
    run = start()
    ops.post(url("trainingrun_cancel", run.pk))
    run.refresh_from_db()
    assert run.state == State.CANCELLED
    assert recorded(run) == ["cancelled"]
    assert "already ended" in said(ops.post(url("trainingrun_cancel", run.pk)))


def test_resume_button_queues_again(ops: Client, start: Any) -> None:
    run = start()
    assert "Only a failed or cancelled run" in said(ops.post(url("trainingrun_resume", run.pk)))
    TrainingRun.objects.claim(run.pk).fail("The disk is full.")
    ops.post(url("trainingrun_resume", run.pk))
    run.refresh_from_db()
    assert run.state == State.QUEUED
