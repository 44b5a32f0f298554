"""The supervisor of a training run: starts the trainer in a process of its own and carries its words into rows.

The trainer knows nothing of Django; what it reads and writes is described in `docs/files.md`.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection, transaction

from rlhf.models import GpuSlot, Metric, TrainingRun
from worker.attempts import (
    MetricsTail,
    finite,
    free_space_needed,
    identity,
    log_tail,
    metrics_of,
    read_result,
    same_work,
)
from worker.gpu import cards
from worker.jobs import LEASE, MAX_ATTEMPTS, LostLease
from worker.leases import BEAT_SECONDS, stopping

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
GRACE_SECONDS = 60.0  # a trainer that was asked to stop writes a checkpoint first
PRIVATE = ("SECRET_KEY", "DATABASE_URL", "REDIS_URL")

slot = threading.Lock()
"""One run at a time in this process, so that its other threads are there for short jobs."""


def train(run_id: int) -> None:
    """Carry run `run_id` to its end; do nothing where it is not to be done, or another run is under way here."""
    if stopping.is_set() or not slot.acquire(blocking=False):
        return  # the row stays queued and is rung for again
    try:
        run = TrainingRun.objects.claim(run_id)
        if run is not None:
            Supervisor(run).supervise()
    finally:
        slot.release()
    TrainingRun.objects.ring_next()


def trainer_environment() -> dict[str, str]:
    """A trainer reads files; it has no business with the database or the broker."""
    return {name: value for name, value in os.environ.items() if name not in PRIVATE}


def trainer_command(stage: str, spec: Path, out: Path) -> list[str]:
    """A process for each card, which torchrun starts where there are several; the run is the same either way."""
    processes = settings.TRAINING_PROCESSES or max(1, cards())
    launcher = [sys.executable, "-m", "modelzoo"]
    if processes > 1:
        one_machine = ["--standalone", "--local-addr", "localhost", "--nproc-per-node", str(processes)]
        launcher = [sys.executable, "-m", "torch.distributed.run", *one_machine, "-m", "modelzoo"]
    return [*launcher, stage, "--spec", str(spec), "--out", str(out), "--supervised"]


class Supervisor:
    def __init__(self, run: TrainingRun) -> None:
        self.run = run
        self.folder = run.attempt_folder
        self.holder = f"run {run.pk}, attempt {run.fence}"
        self.spec = self._spec()
        self.tail = MetricsTail(self.folder / "metrics.jsonl")
        self.child: subprocess.Popen[bytes] | None = None
        self.asked_at: float | None = None
        self._next_beat = 0.0
        self._renewed_at = time.monotonic()

    def supervise(self) -> None:
        try:
            if not self._adopt_finished_attempt() and self._has_room() and self._has_card():
                self._start()
                self._watch()
                self._settle()
        except LostLease as error:
            logger.warning("%s", error)
        except Exception as error:
            logger.exception("%s", self.run)
            with suppress(LostLease):
                self.run.fail(
                    f"The run could not be supervised ({type(error).__name__}: {error}). See the worker's log."
                )
        finally:
            self._kill()
            if settings.SHARED_GPU:
                GpuSlot.objects.release(settings.SHARED_GPU, self.holder)

    def _adopt_finished_attempt(self) -> bool:
        """A worker may die after its trainer was done. Nothing is trained again then."""
        for attempt in map(Path, self.spec["resume_from"]):
            result = read_result(attempt)
            if result.get("status") == "succeeded" and (attempt / "model").is_dir():
                self.tail = MetricsTail(attempt / "metrics.jsonl")
                self._drain()
                self._finish(attempt, result)
                return True
        return False

    def _has_room(self) -> bool:
        needed = free_space_needed(self.run)
        free = shutil.disk_usage(settings.DATA_DIR).free
        if free >= needed:
            return True
        self.run.fail(
            f"There is not enough disk space: the run needs about {needed / 1e9:.1f} GB in {settings.DATA_DIR} and "
            f"{free / 1e9:.1f} GB are free. Free some, then resume."
        )
        return False

    def _has_card(self) -> bool:
        """Wait until the sampler let go of a shared card. False where the run ended meanwhile."""
        device = settings.SHARED_GPU
        while device and not GpuSlot.objects.claim(device, self.holder):
            GpuSlot.objects.ask_for(device, self.holder)
            if self.run.heartbeat(progress={"message": f"waiting for {device}"}):
                self.run.end_cancelled()
                return False
            if stopping.wait(1):
                self.run.give_back()
                return False
        return True

    def _start(self) -> None:
        if self.folder.exists():  # of a run in a database since deleted
            self.folder.rename(self.folder.with_name(f"{self.folder.name}.{time.time_ns()}"))
        self.folder.mkdir(parents=True)
        spec = self.folder / "spec.json"
        spec.write_text(json.dumps(self.spec, ensure_ascii=False, indent=1), encoding="utf-8")
        with (self.folder / "log.txt").open("ab") as log:
            # The end of its standard input, which comes with our own death too, tells the trainer to stop.
            self.child = subprocess.Popen(
                trainer_command(self.run.stage, spec, self.folder),
                cwd=settings.BASE_DIR,
                env=trainer_environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        logger.info("%s: trainer %d writes to %s", self.run, self.child.pid, self.folder)

    def _spec(self) -> dict[str, Any]:
        policy, reward_model = self.run.inputs()
        spec = {
            "stage": self.run.stage,
            "snapshot": str(self.run.snapshot.path),
            "policy": str(policy.path),
            "reward_model": str(reward_model.path) if reward_model else None,
            "reference": None,
            "corpus": str(self.run.corpus_path) if self.run.corpus_path else None,
            "languages": policy.languages or None,
            "params": self.run.params,
        }
        earlier = [path for path in self.run.attempt_folders() if path != self.folder and same_work(path, spec)]
        return {**spec, "resume_from": [str(path) for path in earlier]}

    def _watch(self) -> None:
        """Until the trainer has ended."""
        assert self.child is not None
        while self.child.poll() is None:
            if time.monotonic() >= self._next_beat:
                self._beat()
            if stopping.is_set():
                self._ask_to_stop()
            if self.asked_at is not None and time.monotonic() - self.asked_at > GRACE_SECONDS:
                logger.warning("%s: the trainer did not stop in %d s", self.run, GRACE_SECONDS)
                self._kill()
            time.sleep(POLL_SECONDS)
        self._drain()

    def _drain(self) -> None:
        """Store the metrics that are left."""
        while self._beat():
            pass

    def _beat(self) -> bool:
        """Renew the lease and store new metrics, or neither. Returns whether there were any.

        Raises LostLease, also where it must be feared.
        """
        self._next_beat = time.monotonic() + BEAT_SECONDS
        try:
            with transaction.atomic():
                rows = self.tail.read()
                last = {"step": rows[-1]["step"], "total": rows[-1]["total"]} if rows else self.run.progress
                cancel = self.run.heartbeat(progress=last)
                Metric.objects.bulk_create(metrics_of(self.run, rows), ignore_conflicts=True, batch_size=500)
            stored = self.tail.keep()
            if settings.SHARED_GPU:
                GpuSlot.objects.claim(settings.SHARED_GPU, self.holder)
        except DatabaseError as error:
            connection.close()
            logger.warning("%s: no heartbeat: %s", self.run, error)
            if time.monotonic() - self._renewed_at > LEASE.total_seconds():
                raise LostLease("the database was away for longer than the lease") from error
            return False
        self._renewed_at = time.monotonic()
        if cancel:
            self._ask_to_stop()
        return stored

    def _ask_to_stop(self) -> None:
        if self.asked_at is None and self.child is not None:
            self.asked_at = time.monotonic()
            assert self.child.stdin is not None
            self.child.stdin.close()  # no signal: torchrun kills its processes half a minute after one

    def _kill(self) -> None:
        """End the trainer and whatever it started, at once, if it still runs. torchrun's processes die with it."""
        if self.child is None or self.child.poll() is not None:
            return
        os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    def _settle(self) -> None:
        """End the run, or hand it back, by what the trainer left behind."""
        assert self.child is not None
        result = read_result(self.folder)
        if result.get("status") == "succeeded" and (self.folder / "model").is_dir():
            self._finish(self.folder, result)
        elif self.run.cancel_requested:
            self.run.end_cancelled()
        elif stopping.is_set():
            self.run.give_back()
        elif result.get("status") == "failed":
            self.run.fail(result["error"]["message"])
        else:
            self.run.retry(self._why_it_died(self.child.returncode))

    def _why_it_died(self, code: int) -> str:
        """For a trainer that left no result and is not tried again."""
        times = f"{MAX_ATTEMPTS} times"
        if code == -signal.SIGKILL:
            return (
                f"The trainer was killed {times} from outside, most likely because the machine ran out of memory. "
                "Lower micro_batch_size or max_length, or stop what else runs there, then start a new run."
            )
        if code < 0:
            return f"The trainer was ended {times} by {signal.Signals(-code).name}. Look at the log, then resume."
        last = log_tail(self.folder / "log.txt", lines=1)
        return f"The trainer ended {times} with exit code {code} and no result. Its last words: {last or 'none'}"

    def _finish(self, attempt: Path, result: dict[str, Any]) -> None:
        """Register the model and move it to its place, both or neither; then free what resuming would have needed."""
        directory = f"models/{self.run.result_name}"
        target = settings.DATA_DIR / directory
        with transaction.atomic():
            self.run.finish(
                directory=directory,
                manifest_hash=identity(attempt / "model"),
                languages=self.run.policy.languages,
                metrics=finite(result.get("metrics", {})),
            )
            # Only now, when the row is locked and ours: nobody else moves a model of this run.
            if target.exists():  # an attempt died between here and the commit
                shutil.rmtree(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            (attempt / "model").rename(target)
        for folder in self.run.attempt_folders():
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
