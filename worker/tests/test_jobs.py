"""Rows are the truth: who holds a job, who may write to it, and what becomes of it when a worker dies."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from labeling.models import SamplingJob
from worker.jobs import MAX_ATTEMPTS, LostLease

Ask = Callable[..., SamplingJob]
State = SamplingJob.State


def fall_silent(job: SamplingJob) -> None:
    """As if the worker had died a minute ago."""
    SamplingJob.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(minutes=1))


def claimed(job: SamplingJob) -> SamplingJob:
    mine = SamplingJob.objects.claim(job.pk)
    assert mine is not None
    return mine


def test_only_one_claim_wins(ask: Ask) -> None:
    job = ask("Hello")
    assert SamplingJob.objects.claim(job.pk)
    assert SamplingJob.objects.claim(job.pk) is None


@pytest.mark.django_db(transaction=True)
def test_of_many_workers_at_once_one_wins(ask: Ask) -> None:
    job = ask("Hello")
    barrier, won = threading.Barrier(8), []

    def race() -> None:
        barrier.wait()
        won.append(SamplingJob.objects.claim(job.pk))
        connection.close()

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [bool(claim) for claim in won].count(True) == 1
    job.refresh_from_db()
    assert (job.attempts, job.fence) == (1, 1)


def test_a_job_of_a_dead_worker_returns_to_the_queue(ask: Ask) -> None:
    job = claimed(ask("Hello"))
    assert SamplingJob.objects.reap() == 0
    fall_silent(job)
    assert SamplingJob.objects.reap() == 1
    job.refresh_from_db()
    assert (job.state, job.attempts) == (State.QUEUED, 1)


def test_who_lost_the_job_can_no_longer_write_to_it(ask: Ask) -> None:
    zombie = claimed(ask("Hello"))
    fall_silent(zombie)
    SamplingJob.objects.reap()
    other = claimed(zombie)
    sample = {"text": "late", "logprob_sum": -1.0, "token_count": 1, "finish_reason": "stop"}
    for write in (
        lambda: zombie.heartbeat(),
        lambda: zombie.finish([sample] * 4),  # type: ignore[list-item]
        lambda: zombie.fail("late"),
        lambda: zombie.give_back(),
    ):
        with pytest.raises(LostLease):
            write()
    assert not zombie.completion_set.completions.exists()
    other.refresh_from_db()
    assert (other.state, other.error) == (State.RUNNING, "")


def test_a_worker_that_stirs_again_in_time_keeps_its_job(ask: Ask) -> None:
    job = claimed(ask("Hello"))
    fall_silent(job)
    job.heartbeat()
    assert job.take_back() is False
    job.refresh_from_db()
    assert job.state == State.RUNNING


def test_a_job_that_kills_every_worker_fails_with_a_cause(ask: Ask) -> None:
    job = ask("Hello")
    for _ in range(MAX_ATTEMPTS):
        fall_silent(claimed(job))
        SamplingJob.objects.reap()
    job.refresh_from_db()
    assert job.state == State.FAILED
    assert f"died {MAX_ATTEMPTS} times" in job.error


def test_giving_back_does_not_count_as_an_attempt(ask: Ask) -> None:
    job = claimed(ask("Hello"))
    job.give_back()
    job.refresh_from_db()
    assert (job.state, job.attempts) == (State.QUEUED, 0)


def test_a_crash_is_tried_again_until_the_last_attempt(ask: Ask) -> None:
    job = ask("Hello")
    for _ in range(MAX_ATTEMPTS):
        assert SamplingJob.objects.runnable().filter(pk=job.pk).exists()
        claimed(job).retry("It broke.")
    job.refresh_from_db()
    assert (job.state, job.error) == (State.FAILED, "It broke.")


def test_cancelling_a_queued_job_is_done_at_once(ask: Ask) -> None:
    job = ask("Hello")
    assert job.request_cancel()
    job.refresh_from_db()
    assert job.state == State.CANCELLED
    assert job.finished_at is not None
    assert SamplingJob.objects.claim(job.pk) is None
    assert job.request_cancel() is False


def test_the_holder_of_a_cancelled_job_learns_it_with_its_next_heartbeat(ask: Ask) -> None:
    job = claimed(ask("Hello"))
    assert job.heartbeat() is False
    assert job.request_cancel()
    assert job.heartbeat() is True
    job.end_cancelled()
    job.refresh_from_db()
    assert job.state == State.CANCELLED


@pytest.mark.parametrize("how", ["give_back", "retry", "reap"])
def test_a_cancelled_job_is_never_left_in_the_queue(ask: Ask, how: str) -> None:
    job = claimed(ask("Hello"))
    job.request_cancel()
    if how == "reap":
        fall_silent(job)
        SamplingJob.objects.reap()
    elif how == "retry":
        job.retry("It broke.")
    else:
        job.give_back()
    job.refresh_from_db()
    assert job.state == State.CANCELLED
    assert job.finished_at is not None


def test_a_failed_job_can_be_started_again(ask: Ask) -> None:
    job = claimed(ask("Hello"))
    job.fail("No space.")
    assert job.requeue()
    job.refresh_from_db()
    assert (job.state, job.error, job.attempts) == (State.QUEUED, "", 0)
    assert job.requeue() is False


def test_ringing_without_a_broker_leaves_the_job_queued(ask: Ask) -> None:
    job = ask("Hello")
    assert job.ring() is False
    assert SamplingJob.objects.ring() == 0
    job.refresh_from_db()
    assert job.state == State.QUEUED
