"""Keeping hold of jobs while the work on them goes on, and letting go of them when this process shuts down."""

import logging
import threading
from collections.abc import Iterable
from typing import Any, Self

from celery.signals import worker_shutting_down
from django.db import DatabaseError, connection, transaction

from worker.jobs import LEASE, Job, LostLease

logger = logging.getLogger(__name__)

BEAT_SECONDS = min(2.0, LEASE.total_seconds() / 6)

stopping = threading.Event()
"""Set once this worker was asked to stop: jobs go back to the queue."""


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop(**signal: Any) -> None:
    stopping.set()


class Leases(threading.Thread):
    """Renews the leases of some jobs until each is released, in a thread of its own: a step of the work may be long.

    `cancelled` and `lost` hold the keys of jobs that someone asked to cancel, or that were taken from this worker.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        super().__init__(daemon=True, name="leases")
        self.cancelled: set[int] = set()
        self.lost: set[int] = set()
        self.progress: dict[str, Any] = {}
        self._held: dict[int, Job] = {job.pk: job for job in jobs}
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._over.set()
        self.join()

    def release(self, job: Job) -> None:
        """Renew no more: the job is about to end."""
        self._held.pop(job.pk, None)

    def run(self) -> None:
        try:
            while not self._over.wait(BEAT_SECONDS):
                self.renew()
        finally:
            connection.close()

    def renew(self) -> None:
        try:
            with transaction.atomic():
                for job in list(self._held.values()):
                    self._renew(job)
        except DatabaseError as error:
            # The lease is longer than several beats: the next one may still be in time.
            logger.warning("leases were not renewed: %s", error)
            connection.close()

    def _renew(self, job: Job) -> None:
        try:
            if job.heartbeat(progress=dict(self.progress)):
                self.cancelled.add(job.pk)
        except LostLease:
            if self._held.pop(job.pk, None):
                self.lost.add(job.pk)
