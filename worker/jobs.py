"""A job is a row. Celery only says "look at row 17"; the message may be lost, doubled or late without harm.

    queued --claim--> running --succeed/fail--> succeeded | failed
       ^                 |
       +---- reap -------+        (its lease ran out: the worker died)

Claiming is a guarded UPDATE that raises the fence. Every later write carries the fence, so that a worker which was
frozen past its lease and taken for dead can no longer change the row.
"""

import logging
from datetime import timedelta
from typing import Any, ClassVar, Self

from django.db import models, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from kombu.exceptions import OperationalError

from worker.celery import app

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
MAX_ATTEMPTS = 3


class LostLease(Exception):
    """This worker no longer holds the job: it was taken back, cancelled or finished elsewhere. Stop working on it."""


class JobQuerySet(models.QuerySet["Any"]):
    def runnable(self) -> Self:
        return self.filter(state=Job.State.QUEUED, cancel_requested=False)

    def unfinished(self) -> Self:
        return self.filter(state__in=(Job.State.QUEUED, Job.State.RUNNING))

    def claim(self, pk: int) -> Any | None:
        """The job, now ours, or None where another worker was faster or there is nothing to do."""
        won = (
            self.runnable()
            .filter(pk=pk)
            .update(
                state=Job.State.RUNNING,
                fence=F("fence") + 1,
                attempts=F("attempts") + 1,
                lease_until=Now() + LEASE,
                heartbeat_at=Now(),
                started_at=Now(),
                finished_at=None,
                error="",
            )
        )
        return self.get(pk=pk) if won else None

    def reap(self) -> int:
        """Take back jobs whose worker fell silent. Returns how many."""
        lost = self.filter(state=Job.State.RUNNING, lease_until__lt=Now())
        hopeless = lost.filter(Q(attempts__gte=MAX_ATTEMPTS) & Q(cancel_requested=False)).update(
            state=Job.State.FAILED,
            fence=F("fence") + 1,
            finished_at=Now(),
            error=f"The worker died {MAX_ATTEMPTS} times on this job. Look at its log, then start it again.",
        )
        cancelled = lost.filter(cancel_requested=True).update(
            state=Job.State.CANCELLED, fence=F("fence") + 1, finished_at=Now()
        )
        queued = lost.update(state=Job.State.QUEUED, fence=F("fence") + 1, lease_until=None)
        return hopeless + cancelled + queued

    def ring(self) -> int:
        """Send a message for every runnable job: the net under lost messages. Returns how many were sent."""
        return sum(job.ring() for job in self.runnable().order_by("pk")[:1000])


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

    objects = JobQuerySet.as_manager()

    class Meta:
        abstract = True

    def enqueue(self) -> None:
        """Ring once the row is committed. The beat rings again for as long as nobody comes."""
        transaction.on_commit(self.ring)

    def ring(self) -> bool:
        """Send "look at this row". False where the broker is away; the row waits and is rung for later."""
        try:
            app.send_task(self.TASK, [self.pk], queue=self.QUEUE, retry=False, ignore_result=True)
        except (OperationalError, OSError) as error:
            logger.warning("%s %s stays queued, the broker is away: %s", type(self).__name__, self.pk, error)
            return False
        return True

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
        self.write(state=self.State.QUEUED, lease_until=None, attempts=F("attempts") - 1, **fields)

    def request_cancel(self) -> bool:
        """Cancel: at once while queued, else as soon as the worker sees it. False where it had already ended."""
        rows = type(self)._default_manager.filter(pk=self.pk)
        if rows.filter(state=self.State.QUEUED).update(
            state=self.State.CANCELLED, cancel_requested=True, finished_at=Now()
        ):
            return True
        return bool(rows.filter(state=self.State.RUNNING).update(cancel_requested=True))

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
