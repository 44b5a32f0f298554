"""Answers for those who watch the site: is the process alive, and can it do its work?"""

import logging
from datetime import datetime
from typing import Any

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, Max, Min, Q
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.http import require_safe
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from labeling.models import Project, SamplingJob
from rlhf import liveness
from rlhf.models import TrainingRun
from worker.celery import app
from worker.jobs import Job, JobQuerySet

logger = logging.getLogger(__name__)


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """The process answers. Restart it where this does not."""
    return HttpResponse("ok", content_type="text/plain")


@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """200 while pages can be served, 503 where the database is away or behind.

    The broker may be away: labels are still stored, and jobs wait in their rows. Then `status` is `degraded`.
    With `?workers` the workers are asked too, which takes a second.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        unapplied = _unapplied_migrations()
    except DatabaseError:
        logger.exception("readyz: the database is away")
        return JsonResponse({"status": "down", "database": "away"}, status=503)
    if unapplied:
        return JsonResponse({"status": "down", "database": f"{unapplied} migrations to apply"}, status=503)
    broker = _broker_answers()
    answer: dict[str, Any] = {
        "status": "ok" if broker else "degraded",
        "database": "ok",
        "broker": "ok" if broker else "away",
        "policies": {
            "projects": Project.objects.count(),
            "without_policy": Project.objects.filter(policy_name="").count(),
        },
        "sampling": _backlog(SamplingJob.objects.all()),
        "training": _backlog(TrainingRun.objects.all()),
    }
    if "workers" in request.GET:
        seen = liveness.look()
        answer["workers"] = {"sampler": seen.sampler, "trainer": seen.trainer}
    return JsonResponse(answer)


_migrated = False


def _unapplied_migrations() -> int:
    """How many are missing. Looked up until there are none: within one process they are not taken back."""
    global _migrated
    if _migrated:
        return 0
    executor = MigrationExecutor(connection)
    unapplied = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    _migrated = not unapplied
    return unapplied


def _broker_answers() -> bool:
    try:
        with app.connection_for_write(connect_timeout=1) as broker:
            broker.ensure_connection(max_retries=1, interval_start=0, timeout=1)
        return True
    except (OperationalError, RedisError, OSError):
        return False


def _backlog(jobs: JobQuerySet) -> dict[str, Any]:
    """How much waits, for how long, and when a worker last gave a sign of life while it worked."""
    waiting, running = Q(state=Job.State.QUEUED), Q(state=Job.State.RUNNING)
    counts = jobs.order_by().aggregate(
        waiting=Count("pk", filter=waiting),
        running=Count("pk", filter=running),
        oldest=Min("created_at", filter=waiting),
        seen_at=Max("heartbeat_at"),
    )
    return {
        "waiting": counts["waiting"],
        "running": counts["running"],
        "oldest_waiting_seconds": _seconds_since(counts["oldest"]),
        "worker_seen_seconds_ago": _seconds_since(counts["seen_at"]),
    }


def _seconds_since(moment: datetime | None) -> int | None:
    return None if moment is None else max(0, int((timezone.now() - moment).total_seconds()))
