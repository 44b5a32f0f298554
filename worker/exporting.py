"""Exports: a project's labels into one file, whole or not at all, in memory that does not grow with the labels."""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from django.db import close_old_connections

from labeling import exporting
from labeling.models import Export
from worker.formats import Row, writer
from worker.jobs import LostLease
from worker.leases import Leases, stopping

logger = logging.getLogger(__name__)

slot = threading.Lock()
"""One export at a time in this process, so that its other threads are there for short jobs."""

BATCH = 1000  # rows at a time: a row group of Parquet


@dataclass(frozen=True)
class Written:
    rows: int
    size: int
    sha256: str


class Interrupted(Exception):
    """The job is not to be gone on with here: cancelled, lost, or this worker shuts down."""


def write_export(export: Export, path: Path, on_progress: Callable[[int, int], None]) -> Written:
    """Write what `export` asks for to `path`. OSError, and whatever `on_progress` raises, leave nothing behind.

    `on_progress(labels done, labels in all)` is called before the first and after every BATCH of rows.
    """
    temporary = path.with_name(f".{path.name}.writing")
    try:
        with temporary.open("w+b") as file:
            rows = 0
            with writer(export.format, file, exporting.columns(export)) as written:
                for batch in _batches(export, on_progress):
                    written.write(batch)
                    rows += len(batch)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            result = Written(rows, os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())
        os.rename(temporary, path)
        _sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return result


def _batches(export: Export, on_progress: Callable[[int, int], None]) -> Iterator[Sequence[Row]]:
    total, batch, done = exporting.count(export), [], 0
    on_progress(0, total)
    for rows in exporting.labels(export):
        batch += rows
        done += 1
        if len(batch) >= BATCH:
            yield batch
            batch = []
            on_progress(done, max(done, total))
    if batch:
        yield batch
    on_progress(done, max(done, total))


def _sync(directory: Path) -> None:
    """Make names in `directory` survive power loss."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def export(export_id: int) -> None:
    """Carry export `export_id` to its end; do nothing where it is not to be done."""
    if stopping.is_set() or not slot.acquire(blocking=False):
        return  # the row stays queued and is rung for again
    try:
        job = Export.objects.claim(export_id)
        if job is not None:
            with Leases([job]) as leases:
                Attempt(job, leases).run()
    finally:
        slot.release()
    Export.objects.ring_next()


class Attempt:
    def __init__(self, job: Export, leases: Leases) -> None:
        self.job = job
        self.leases = leases

    def run(self) -> None:
        try:
            with suppress(Interrupted):
                self._write()
        except LostLease as error:
            logger.warning("%s", error)
        except OSError as error:
            self._end(
                "fail", f"The file could not be written ({error.strerror or error}). Free space, then start anew."
            )
        except Exception as error:
            logger.exception("%s", self.job)
            close_old_connections()  # it may have been the database
            self._end("retry", f"The export broke ({type(error).__name__}: {error}). Look at the worker's log.")

    def _write(self) -> None:
        path = self.job.attempt_path
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in self.job.earlier_attempts():
            left.unlink(missing_ok=True)
        written = write_export(self.job, path, self._on_progress)
        self.leases.release(self.job)
        try:
            self.job.finish(path, rows=written.rows, size=written.size, sha256=written.sha256)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _on_progress(self, step: int, total: int) -> None:
        self.leases.progress = {"step": step, "total": total}
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
