"""Looking over a project's labels, for the page that says whether to train on them. No torch."""

import logging
import threading
from contextlib import suppress

from django.db import close_old_connections

from labeling import readiness
from labeling.models import Readiness
from worker.jobs import LostLease
from worker.leases import Leases, stopping

logger = logging.getLogger(__name__)

slot = threading.Lock()
"""One look at a time in this process, so that its other threads are there for other jobs."""


def look_over(job_id: int) -> None:
    """Carry look `job_id` to its end; do nothing where it is not to be done."""
    if stopping.is_set() or not slot.acquire(blocking=False):
        return  # the row stays queued and is rung for again
    try:
        job = Readiness.objects.claim(job_id)
        if job is not None:
            with Leases([job]) as leases:
                _look(job, leases)
    finally:
        slot.release()
    Readiness.objects.ring_next()


def _look(job: Readiness, leases: Leases) -> None:
    def on_progress(step: int, total: int) -> None:
        leases.progress = {"step": step, "total": total}

    try:
        report = readiness.look_over(job.project, on_progress)
        leases.release(job)
        job.finish(report)
    except LostLease as error:
        logger.warning("%s", error)
    except Exception as error:
        logger.exception("%s", job)
        close_old_connections()  # it may have been the database
        leases.release(job)
        with suppress(LostLease):
            job.retry(f"The labels could not be looked over ({type(error).__name__}: {error}). See the worker's log.")
