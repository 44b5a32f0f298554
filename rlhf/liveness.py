"""Who is there to do the work: the broker, a worker that samples, a worker that trains."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Max
from django.utils import timezone
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from labeling import export
from rlhf.models import TrainingRun
from worker.celery import app
from worker.jobs import LEASE

TIMEOUT = 1.0
SAMPLE_QUEUE = "sample"


@dataclass(frozen=True)
class Liveness:
    broker: bool
    sampler: bool
    trainer: bool


def look() -> Liveness:
    """Takes about a second: workers have that long to answer.

    A worker in the middle of a job may be too busy to answer; the job's heartbeat then speaks for it.
    """
    queues = _answering_queues()
    trained_at = TrainingRun.objects.aggregate(seen=Max("heartbeat_at"))["seen"]
    return Liveness(
        broker=queues is not None,
        sampler=SAMPLE_QUEUE in (queues or ()) or _is_fresh(export.sampler_seen_at()),
        trainer=TrainingRun.QUEUE in (queues or ()) or _is_fresh(trained_at),
    )


def _answering_queues() -> set[str] | None:
    """The queues that workers listen to; None where the broker is away."""
    try:
        with app.connection_for_write(connect_timeout=TIMEOUT) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=TIMEOUT)
            answers: dict[str, list[dict[str, Any]]] = (
                app.control.inspect(timeout=TIMEOUT, connection=connection).active_queues() or {}
            )
    except (OperationalError, RedisError, OSError):
        return None
    return {queue["name"] for queues in answers.values() for queue in queues}


def _is_fresh(heartbeat: datetime | None) -> bool:
    return heartbeat is not None and timezone.now() - heartbeat < LEASE
