"""Slots: the places to fill. One slot is one piece of work for one labeler, leased while it is being done.

Slots exist before anyone asks, so giving one out is a guarded UPDATE of one row, and overlap can never be exceeded:
there are only as many rows as labelers were asked for. A constraint keeps a labeler from holding two of one piece.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from labeling.models.completion import CompletionSet
from labeling.models.project import Project
from labeling.models.prompt import Prompt
from labeling.models.user import User

if TYPE_CHECKING:
    from labeling.models.answer import Draft

LEASE = timedelta(minutes=15)
CANDIDATES = 20


class StaleAssignment(Exception):
    """The slot is no longer this labeler's: the lease ran out and somebody else has it, or it was withdrawn."""


class SlotQuerySet(models.QuerySet["Slot"]):
    def open(self) -> Self:
        return self.filter(state=Slot.State.OPEN)

    def claimable(self) -> Self:
        """Open, or leased to someone whose lease ran out."""
        return self.filter(Q(state=Slot.State.OPEN) | Q(state=Slot.State.LEASED, lease_until__lt=Now()))

    def offered_to(self, labeler: User) -> Self:
        """Claimable slots of pieces that `labeler` has not answered, skipped or got hold of already."""
        same_piece = Q(prompt=OuterRef("prompt"), completion_set=None, task_type=Slot.TaskType.DEMONSTRATION) | Q(
            completion_set=OuterRef("completion_set")
        )
        mine = Slot.objects.filter(same_piece, labeler=labeler, task_type=OuterRef("task_type")).exclude(
            state=Slot.State.OPEN
        )
        skipped = Skip.objects.filter(labeler=labeler, prompt=OuterRef("prompt"), task_type=OuterRef("task_type"))
        return self.claimable().exclude(Exists(mine)).exclude(Exists(skipped))

    def held_by(self, labeler: User) -> Self:
        return self.filter(state=Slot.State.LEASED, labeler=labeler)

    def open_places(self, prompt: Prompt, count: int, completion_set: CompletionSet | None = None) -> None:
        """Create `count` slots for demonstrations of `prompt`, or for rankings of `completion_set`."""
        task_type = Slot.TaskType.RANKING if completion_set else Slot.TaskType.DEMONSTRATION
        self.model.objects.bulk_create(
            (
                Slot(
                    project=prompt.project,
                    task_type=task_type,
                    prompt=prompt,
                    completion_set=completion_set,
                    ordinal=ordinal,
                )
                for ordinal in range(count)
            ),
            ignore_conflicts=True,
        )

    def claim_next(self, project: Project, labeler: User, task_type: str | None = None) -> "Slot | None":
        """The slot `labeler` is at work on in `project`, else a fresh one, leased; None where nothing is left for them.

        Rankings come before demonstrations: they are what the current policy waits for.
        """
        wanted = Q(task_type=task_type) if task_type else Q()
        held = self.filter(wanted, project=project).held_by(labeler).order_by("-lease_until").first()
        if held and held.renew(labeler):
            return held
        offered = self.filter(wanted, project=project).offered_to(labeler).order_by("-task_type", "ordinal", "pk")
        for pk in offered.values_list("pk", flat=True)[:CANDIDATES]:
            if slot := self.claim(pk, labeler):
                return slot
        return None

    def claim(self, pk: int, labeler: User) -> "Slot | None":
        """Lease slot `pk`, or None where somebody else was faster."""
        try:
            with transaction.atomic():
                won = (
                    Slot.objects.claimable()
                    .filter(pk=pk)
                    .update(
                        state=Slot.State.LEASED,
                        labeler=labeler,
                        lease_until=Now() + LEASE,
                        leased_at=Now(),
                        fence=F("fence") + 1,
                    )
                )
        except IntegrityError:  # another tab of the same labeler took another slot of the same piece
            return None
        return Slot.objects.select_related("project", "prompt", "completion_set").get(pk=pk) if won else None


class Slot(models.Model):
    class TaskType(models.TextChoices):
        DEMONSTRATION = "demonstration", _("demonstration")
        RANKING = "ranking", _("ranking")

    class State(models.TextChoices):
        OPEN = "open", _("open")
        LEASED = "leased", _("in work")
        ANSWERED = "answered", _("answered")

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="slots")
    task_type = models.CharField(max_length=14, choices=TaskType)
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="slots")
    completion_set = models.ForeignKey(CompletionSet, null=True, on_delete=models.PROTECT, related_name="slots")
    repeat = models.PositiveSmallIntegerField(default=0)
    ordinal = models.PositiveSmallIntegerField()
    state = models.CharField(max_length=8, choices=State, default=State.OPEN)
    labeler = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="slots")
    lease_until = models.DateTimeField(null=True)
    leased_at = models.DateTimeField(null=True)
    fence = models.PositiveIntegerField(default=0)

    objects = SlotQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(task_type="ranking", completion_set__isnull=False)
                | Q(task_type="demonstration", completion_set__isnull=True),
                name="rankings_have_a_set",
            ),
            models.CheckConstraint(
                condition=Q(state="open") | Q(labeler__isnull=False), name="a_taken_slot_has_a_labeler"
            ),
            models.UniqueConstraint(
                fields=["completion_set", "repeat", "ordinal"],
                condition=Q(completion_set__isnull=False),
                name="one_ranking_slot_per_ordinal",
            ),
            models.UniqueConstraint(
                fields=["prompt", "repeat", "ordinal"],
                condition=Q(completion_set__isnull=True),
                name="one_demonstration_slot_per_ordinal",
            ),
            models.UniqueConstraint(
                fields=["completion_set", "repeat", "labeler"],
                condition=Q(completion_set__isnull=False),
                name="a_labeler_ranks_a_set_once",
            ),
            models.UniqueConstraint(
                fields=["prompt", "repeat", "labeler"],
                condition=Q(completion_set__isnull=True),
                name="a_labeler_demonstrates_a_prompt_once",
            ),
        ]
        indexes = [
            models.Index(fields=["project", "state", "task_type"]),
            models.Index(fields=["labeler", "state"]),
        ]

    def __str__(self) -> str:
        return f"{self.task_type} of {self.prompt}"

    def renew(self, labeler: User) -> bool:
        """Extend the lease while it is still this labeler's, even where it ran out and nobody took the slot."""
        return bool(self._held(labeler).update(lease_until=Now() + LEASE))

    def skip(self, labeler: User, reason: str = "") -> None:
        """Hand the piece back, never to be offered to this labeler again. Raises StaleAssignment."""
        with transaction.atomic():
            self._let_go(labeler)
            Skip.objects.get_or_create(
                labeler=labeler, prompt=self.prompt, task_type=self.task_type, defaults={"reason": reason[:500]}
            )

    def save_draft(self, labeler: User, payload: dict[str, Any]) -> "Draft":
        """Keep unfinished work and renew the lease. Raises StaleAssignment; the caller still has the text."""
        with transaction.atomic():
            if not self.renew(labeler):
                raise StaleAssignment
            draft, created = self.drafts.get_or_create(labeler=labeler, defaults={"payload": payload})
            if not created:
                self.drafts.filter(pk=draft.pk).update(payload=payload, version=F("version") + 1, saved_at=Now())
                draft.refresh_from_db()
            return draft

    def take(self, labeler: User) -> None:
        """Turn the lease into an answer, once. Call inside the transaction that stores the answer."""
        if not self._held(labeler).update(state=self.State.ANSWERED, lease_until=None):
            raise StaleAssignment
        self.state = self.State.ANSWERED
        self.drafts.filter(labeler=labeler).delete()

    def _let_go(self, labeler: User) -> None:
        if not self._held(labeler).update(state=self.State.OPEN, labeler=None, lease_until=None, leased_at=None):
            raise StaleAssignment
        self.drafts.filter(labeler=labeler).delete()

    def _held(self, labeler: User) -> SlotQuerySet:
        """This slot as a query that matches only while this very lease stands."""
        return Slot.objects.held_by(labeler).filter(pk=self.pk, fence=self.fence)

    @property
    def instruction_version(self) -> int | None:
        instructions = self.project.instructions
        return instructions.number if instructions else None

    def clean_active_seconds(self, value: Any) -> float:
        """Time the labeler was at work, as the page measured it: never negative, a day at most."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 86_400:
            raise ValidationError(_("The time spent is not a number of seconds."))
        return float(value)


class Skip(models.Model):
    """A labeler passed on a piece; it is never offered to them again."""

    labeler = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="skips")
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="skips")
    task_type = models.CharField(max_length=14, choices=Slot.TaskType)
    reason = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["labeler", "prompt", "task_type"], name="a_skip_is_for_good")]
