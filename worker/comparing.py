"""Imports of comparisons: a file into rows, batch by batch, in memory that does not grow with the file."""

import logging
import threading
from contextlib import suppress

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import close_old_connections
from django.utils import translation

from labeling.models import ComparisonImport
from worker.jobs import LostLease
from worker.leases import Leases, stopping

logger = logging.getLogger(__name__)

slot = threading.Lock()
"""One import at a time in this process, so that its other threads are there for short jobs."""


class Interrupted(Exception):
    """The job is not to be gone on with here: cancelled, or this worker shuts down."""


def import_comparisons(import_id: int) -> None:
    """Carry import `import_id` to its end; do nothing where it is not to be done."""
    if stopping.is_set() or not slot.acquire(blocking=False):
        return  # the row stays queued and is rung for again
    try:
        job = ComparisonImport.objects.claim(import_id)
        if job is not None:
            # Why a record is refused is stored in words: those of the person who reads them.
            with translation.override(job.taken_by.language or settings.LANGUAGE_CODE), Leases([job]) as leases:
                Attempt(job, leases).run()
    finally:
        slot.release()
    ComparisonImport.objects.ring_next()


class Attempt:
    def __init__(self, job: ComparisonImport, leases: Leases) -> None:
        self.job = job
        self.leases = leases

    def run(self) -> None:
        try:
            with suppress(Interrupted):
                self._take()
        except LostLease as error:
            logger.warning("%s", error)
        except ValidationError as error:
            self._end("fail", error.messages[0])
        except Exception as error:
            logger.exception("%s", self.job)
            close_old_connections()  # it may have been the database
            self._end("retry", f"The import broke ({type(error).__name__}: {error}). Look at the worker's log.")

    def _take(self) -> None:
        for batch in self.job.batches():
            self._heed()
            self.job.take_batch(batch)
            self.leases.progress = {"step": self.job.bytes_read, "total": self.job.file.size}
        self._end("succeed")

    def _heed(self) -> None:
        """Stop between two batches where somebody wants it; what was taken stays, and the rest can be taken later."""
        if self.job.pk in self.leases.lost:
            raise LostLease(f"{self.job} was taken by another worker")
        if self.job.pk in self.leases.cancelled:
            self._end("end_cancelled")
            raise Interrupted
        if stopping.is_set():
            self._end("give_back")
            raise Interrupted

    def _end(self, verb: str, *words: str) -> None:
        self.leases.release(self.job)
        try:
            getattr(self.job, verb)(*words)
        except LostLease as error:
            logger.warning("%s", error)
