"""A job is a row. Celery only says "look at row 17"; the message may be lost, doubled or late without harm.

    queued --claim--> running --succeed, fail, end_cancelled--> succeeded | failed | cancelled
       ^                 |
       +---- reap -------+        (its lease ran out: the worker died)
       +-- give_back ----+        (the worker shuts down)
       +---- retry ------+        (the work crashed; it may go better next time)

Claiming is a guarded UPDATE that raises the fence. Every later write carries the fence, so that a worker which was
frozen past its lease and taken for dead can no longer change the row.
"""

import logging
import time
from datetime import timedelta
from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models, transaction
from django.db.models import Case, F, Value, When
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from kombu.exceptions import ChannelError, OperationalError
from redis.exceptions import RedisError

from worker.celery import app

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=settings.JOB_LEASE_SECONDS)
MAX_ATTEMPTS = 3
PATIENCE = timedelta(minutes=3)  # that people have before they wonder whether there is a worker
MOST_WAITING = 100  # messages in a queue: a worker that is behind learns nothing from more of them
BROKER_PAUSE = 5.0  # seconds in which a broker that did not answer is not asked again, so that pages stay quick


class LostLease(Exception):
    """This worker no longer holds the job: it was taken back, cancelled or finished elsewhere. Stop working on it."""


class JobQuerySet(models.QuerySet["Any"]):
    def runnable(self) -> Self:
        return self.filter(state=Job.State.QUEUED, cancel_requested=False)

    def unfinished(self) -> Self:
        return self.filter(state__in=(Job.State.QUEUED, Job.State.RUNNING))

    def is_stalled(self) -> bool:
        """Whether jobs have been waiting for minutes while none is being worked on: likely no worker is there."""
        patience = Now() - PATIENCE
        waiting = self.runnable().filter(created_at__lt=patience).exists()
        return waiting and not self.filter(heartbeat_at__gte=patience).exists()

    def claim(self, pk: int) -> Any | None:
        """The job, now ours, or None where another worker was faster or there is nothing to do."""
        if not self.runnable().filter(pk=pk).exists():
            return None
        # Only columns of the row itself: a subquery would not be looked at again after waiting for another's claim.
        won = self.filter(pk=pk, state=Job.State.QUEUED, cancel_requested=False).update(
            state=Job.State.RUNNING,
            fence=F("fence") + 1,
            attempts=F("attempts") + 1,
            lease_until=Now() + LEASE,
            heartbeat_at=Now(),
            started_at=Now(),
            finished_at=None,
            error="",
        )
        return self.get(pk=pk) if won else None

    def reap(self) -> int:
        """Take back jobs whose worker fell silent. Returns how many."""
        lost = self.filter(state=Job.State.RUNNING, lease_until__lt=Now())
        return sum(job.take_back() for job in lost)

    def ring(self) -> int:
        """Send messages for runnable jobs, oldest first: the net under lost ones. Returns how many were sent."""
        room = MOST_WAITING - messages_waiting(self.model.QUEUE)
        sent = 0
        for job in self.runnable().order_by("pk")[: max(0, room)]:
            if not job.ring():
                break
            sent += 1
        return sent

    def ring_next(self) -> None:
        """Ring for the oldest runnable job: a worker that has room again need not wait for the beat."""
        if job := self.runnable().order_by("pk").first():
            job.ring()


class Job(models.Model):
    class State(models.TextChoices):
        QUEUED = "queued", _("queued")
        RUNNING = "running", _("running")
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")
        CANCELLED = "cancelled", _("cancelled")

    TASK: ClassVar[str]
    """Name of the Celery task that looks at rows of this class."""
    QUEUE: ClassVar[str]

    state = models.CharField(_("state"), max_length=12, choices=State, default=State.QUEUED, editable=False)
    attempts = models.PositiveSmallIntegerField(default=0, editable=False)
    fence = models.PositiveIntegerField(default=0, editable=False)
    lease_until = models.DateTimeField(null=True, editable=False)
    heartbeat_at = models.DateTimeField(null=True, editable=False)
    cancel_requested = models.BooleanField(default=False, editable=False)
    params = models.JSONField(_("parameters"), default=dict, blank=True)
    progress = models.JSONField(default=dict, editable=False)
    """`{"step": 3, "total": 40, "message": "..."}`, any of them."""
    error = models.TextField(_("error"), blank=True, editable=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    started_at = models.DateTimeField(null=True, editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        abstract = True

    def enqueue(self) -> None:
        """Ring once the row is committed. The beat rings again for as long as nobody comes."""
        transaction.on_commit(self.ring)

    def ring(self) -> bool:
        """Send "look at this row". False where the broker is away; the row waits and is rung for later."""
        return send(self.TASK, self.QUEUE, self.pk)

    def write(self, **fields: Any) -> None:
        """Change the row as its holder. Raises LostLease where we hold it no longer."""
        rows = type(self)._default_manager.filter(pk=self.pk, fence=self.fence, state=self.State.RUNNING)
        if not rows.update(**fields):
            raise LostLease(f"{type(self).__name__} {self.pk} is no longer held under fence {self.fence}")
        for name, value in fields.items():
            if not hasattr(value, "resolve_expression"):
                setattr(self, name, value)

    def heartbeat(self, **fields: Any) -> bool:
        """Renew the lease (and write `fields`). Returns whether someone asked to cancel. Raises LostLease."""
        self.write(heartbeat_at=Now(), lease_until=Now() + LEASE, **fields)
        self.refresh_from_db(fields=["cancel_requested"])
        return self.cancel_requested

    def succeed(self, **fields: Any) -> None:
        self.write(state=self.State.SUCCEEDED, finished_at=Now(), lease_until=None, **fields)

    def fail(self, error: str, **fields: Any) -> None:
        """End with a cause that a person understands."""
        self.write(state=self.State.FAILED, finished_at=Now(), lease_until=None, error=error, **fields)

    def end_cancelled(self, **fields: Any) -> None:
        self.write(state=self.State.CANCELLED, finished_at=Now(), lease_until=None, **fields)

    def give_back(self, **fields: Any) -> None:
        """Return the job to the queue unharmed (the worker is shutting down); this attempt does not count."""
        self.write(**BACK_IN_QUEUE, attempts=F("attempts") - 1, **fields)

    def retry(self, error: str, **fields: Any) -> None:
        """The work crashed: back to the queue, or failed with `error` where this was the last attempt."""
        if self.attempts >= MAX_ATTEMPTS:
            self.fail(error, **fields)
        else:
            self.write(**BACK_IN_QUEUE, **fields)

    def take_back(self) -> bool:
        """End what a silent worker held. False where it stirred, or another reaper was faster."""
        lost = type(self)._default_manager.filter(pk=self.pk, fence=self.fence, state=self.State.RUNNING)
        # The fence first: from here on the silent one can write no more.
        if not lost.filter(lease_until__lt=Now()).update(fence=F("fence") + 1, lease_until=Now() + LEASE):
            return False
        self.refresh_from_db()
        if self.cancel_requested:
            self.end_cancelled()
        else:
            self.retry(
                f"The worker died {self.attempts} times on this job. Look at the worker's log, then start it again."
            )
        return True

    def request_cancel(self) -> bool:
        """Cancel: at once while queued, else as soon as the worker sees it. False where it had already ended."""
        rows = type(self)._default_manager.filter(pk=self.pk, state__in=(self.State.QUEUED, self.State.RUNNING))
        queued = When(state=self.State.QUEUED, then=Value(self.State.CANCELLED))
        return bool(
            rows.update(
                cancel_requested=True,
                state=Case(queued, default=F("state")),
                finished_at=Case(When(state=self.State.QUEUED, then=Now()), default=F("finished_at")),
            )
        )

    def requeue(self) -> bool:
        """Start a failed or cancelled job again; a trainer resumes from its last checkpoint. False where it is not."""
        ended = type(self)._default_manager.filter(pk=self.pk, state__in=(self.State.FAILED, self.State.CANCELLED))
        if not ended.update(state=self.State.QUEUED, cancel_requested=False, attempts=0, error="", finished_at=None):
            return False
        self.enqueue()
        return True

    @property
    def is_unfinished(self) -> bool:
        return self.state in (self.State.QUEUED, self.State.RUNNING)

    @property
    def percent(self) -> int | None:
        """How far it is, 0 to 100, or None while unknown."""
        total = self.progress.get("total")
        return min(100, int(100 * self.progress.get("step", 0) / total)) if total else None


# Who is asked to cancel while a worker hands the job back must not be left in the queue, where nobody looks.
BACK_IN_QUEUE = {
    "state": Case(When(cancel_requested=True, then=Value(Job.State.CANCELLED)), default=Value(Job.State.QUEUED)),
    "finished_at": Case(When(cancel_requested=True, then=Now()), default=None, output_field=models.DateTimeField()),
    "lease_until": None,
}

_silent_until = 0.0


def send(task: str, queue: str, *args: Any) -> bool:
    """Send a message, or log that the broker is away. Never raises for that, and never blocks for long."""
    global _silent_until
    if time.monotonic() < _silent_until:
        return False
    try:
        app.send_task(task, args, queue=queue, retry=False, ignore_result=True)
    except (OperationalError, RedisError, OSError) as error:
        _silent_until = time.monotonic() + BROKER_PAUSE
        logger.warning("%s%s stays queued, the broker is away: %s", task, args, error)
        return False
    return True


def messages_waiting(queue: str) -> int:
    """How many messages nobody has fetched yet; 0 where the queue is not there, or the broker is away."""
    try:
        with app.connection_for_write() as connection:
            return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
    except (OperationalError, ChannelError, RedisError, OSError):
        return 0
