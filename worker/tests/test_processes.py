"""Real workers on a real broker, killed, frozen and cut off: nothing is lost and nothing is done twice."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from labeling.models import CompletionSet, SamplingJob
from rlhf.models import TrainingRun
from worker import jobs, tasks
from worker.attempts import read_result
from worker.tests.conftest import Broker, Worker, until
from worker.tests.test_training import Start, start, trainer_of

__all__ = ["start"]

Ask = Callable[..., SamplingJob]
StartWorker = Callable[..., Worker]
State = SamplingJob.State

SAMPLER = ("sampler", "-Q", "sample", "-P", "solo")
TRAINER = ("trainer", "-Q", "default,train", "-P", "threads", "-c", "2")
LONG = {"temperature": 0, "max_new_tokens": 1500}

pytestmark = pytest.mark.django_db(transaction=True)


def fresh(job: SamplingJob) -> SamplingJob:
    return SamplingJob.objects.get(pk=job.pk)


def is_under_way(job: SamplingJob) -> bool:
    return fresh(job).state == State.RUNNING and fresh(job).progress.get("step", 0) > 0


def is_done(job: SamplingJob) -> bool:
    return fresh(job).state == State.SUCCEEDED


def is_done_at_last(job: SamplingJob) -> bool:
    tasks.mend()  # what the beat sends
    return is_done(job)


def test_approving_a_prompt_brings_a_set_and_five_messages_run_it_once(ask: Ask, start_worker: StartWorker) -> None:
    start_worker(*SAMPLER)
    job = ask("the cat")
    for _ in range(5):
        assert job.ring()
    until(lambda: is_done(job))
    assert CompletionSet.objects.get(job=job).state == CompletionSet.State.READY
    after = ask("the dogs")  # behind the five
    until(lambda: is_done(after))
    assert (fresh(job).attempts, fresh(job).fence) == (1, 1)
    assert job.completion_set.completions.count() == 4


def test_a_job_of_a_killed_worker_is_done_by_the_next_one(ask: Ask, start_worker: StartWorker) -> None:
    worker = start_worker(*SAMPLER)
    job = ask("the cat", **LONG)
    until(lambda: is_under_way(job))
    worker.kill()
    assert fresh(job).state == State.RUNNING
    start_worker(*SAMPLER)
    until(lambda: is_done_at_last(job))
    assert fresh(job).attempts == 2
    assert job.completion_set.completions.count() == 4


def test_a_frozen_worker_that_wakes_up_too_late_changes_nothing(ask: Ask, start_worker: StartWorker) -> None:
    worker = start_worker(*SAMPLER)
    job = ask("the cat", **LONG)
    until(lambda: is_under_way(job))
    os.kill(worker.pid, signal.SIGSTOP)
    until(SamplingJob.objects.reap)
    other = SamplingJob.objects.claim(job.pk)
    assert other is not None
    os.kill(worker.pid, signal.SIGCONT)
    until(lambda: "was taken by another worker" in worker.said())
    assert fresh(job).fence == other.fence
    assert not job.completion_set.completions.exists()


def test_a_worker_that_is_stopped_gives_its_job_back_at_once(ask: Ask, start_worker: StartWorker) -> None:
    worker = start_worker(*SAMPLER)
    job = ask("the cat", **LONG)
    until(lambda: is_under_way(job))
    assert worker.stop() == 0
    assert (fresh(job).state, fresh(job).attempts) == (State.QUEUED, 0)


def test_work_that_came_while_the_broker_was_away_is_done_when_it_is_back(
    ask: Ask, broker: Broker, start_worker: StartWorker
) -> None:
    start_worker(*SAMPLER)
    running = ask("the cat", **LONG)
    until(lambda: is_under_way(running))
    broker.kill()
    queued = ask("the dogs", max_new_tokens=6)
    until(lambda: is_done(running))
    assert fresh(queued).state == State.QUEUED
    broker.start()
    until(lambda: is_done_at_last(queued))
    assert (fresh(running).attempts, fresh(queued).attempts) == (1, 1)


def test_a_queue_that_nobody_reads_does_not_grow_for_ever(
    ask: Ask, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MOST_WAITING", 5)
    ask("the cat"), ask("the dogs"), ask("a mat")
    assert jobs.messages_waiting("sample") == 3
    assert [SamplingJob.objects.ring() for _ in range(3)] == [2, 0, 0]
    assert jobs.messages_waiting("sample") == 5


def test_the_trainer_of_a_killed_worker_ends_by_itself(start: Start, start_worker: StartWorker) -> None:
    worker = start_worker(*TRAINER)
    run = start(epochs=1000, checkpoint_every=1000)
    until(lambda: run.metrics.exists())
    assert "libtorch" not in Path(f"/proc/{worker.pid}/maps").read_text()  # only the trainer holds its memory
    worker.kill()
    run = TrainingRun.objects.get(pk=run.pk)
    assert run.state == State.RUNNING  # until its lease runs out
    until(lambda: trainer_of(run) is None)
    assert read_result(run.attempt_folder)["status"] == "stopped"
    assert [path.name for path in (run.attempt_folder / "checkpoints").iterdir()]
