"""Slots: the places to fill. One slot is one piece of work for one labeler, leased while it is being done.

How slots are given out: `labeling/models/queue.py`. Constraints keep a labeler from holding two of one piece, or two
pieces of one kind at once.
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext as translate
from django.utils.translation import gettext_lazy as _

from labeling.models.completion import Completion, CompletionSet, ShownGroup, shown_groups
from labeling.models.participation import Participation
from labeling.models.project import Project
from labeling.models.prompt import Prompt
from labeling.models.queue import LEASE, SlotQuerySet
from labeling.models.skip import Skip
from labeling.models.states import Purpose, ReviewState, SlotState, TaskType
from labeling.models.user import User
from labeling.rankings import shown_order

if TYPE_CHECKING:
    from labeling.models.answer import Answer
    from labeling.models.demonstration import Demonstration
    from labeling.models.draft import Draft, DraftQuerySet

HEAD_START = timedelta(days=7)


class StaleAssignment(Exception):
    """The slot is not this labeler's (any more). `str()` says why and what to do."""

    def __init__(self, message: str, *, is_answered: bool = False) -> None:
        super().__init__(message)
        self.is_answered = is_answered
        """Whether the labeler has handed in this very task before."""


class Slot(models.Model):
    TaskType = TaskType
    State = SlotState
    Purpose = Purpose
    ReviewState = ReviewState

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="slots")
    task_type = models.CharField(max_length=14, choices=TaskType)
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="slots")
    completion_set = models.ForeignKey(CompletionSet, null=True, on_delete=models.PROTECT, related_name="slots")
    repeat = models.PositiveSmallIntegerField(default=0)
    ordinal = models.PositiveSmallIntegerField()
    priority = models.DateTimeField(default=timezone.now)
    """Since when it counts as waiting: the earliest is given out first (see `turn`)."""
    state = models.CharField(max_length=8, choices=State, default=State.OPEN)
    labeler = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="slots")
    lease_until = models.DateTimeField(null=True)
    leased_at = models.DateTimeField(null=True)
    answered_at = models.DateTimeField(null=True)
    review_state = models.CharField(max_length=8, choices=ReviewState, default=ReviewState.NONE, blank=True)
    fence = models.PositiveIntegerField(default=0)
    purpose = models.CharField(max_length=12, choices=Purpose, default=Purpose.LABEL)
    reserved_for = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    """The only person who may take it; empty for anybody."""
    due_after = models.PositiveBigIntegerField(null=True)
    """Of a hidden check: the key of the place after which it came due."""

    objects = SlotQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(task_type="ranking", completion_set__isnull=False)
                | Q(task_type="demonstration", completion_set__isnull=True),
                name="rankings_have_a_set",
            ),
            models.CheckConstraint(
                condition=Q(state="open", labeler__isnull=True) | ~Q(state="open") & Q(labeler__isnull=False),
                name="slots_have_a_labeler_unless_open",
            ),
            models.UniqueConstraint(
                fields=["completion_set", "repeat", "ordinal"],
                condition=Q(completion_set__isnull=False, purpose="label"),
                name="one_ranking_slot_per_ordinal",
            ),
            models.UniqueConstraint(
                fields=["completion_set", "repeat", "reserved_for"],
                condition=Q(reserved_for__isnull=False),
                name="one_reserved_slot_per_set_and_repeat",
            ),
            models.UniqueConstraint(
                fields=["reserved_for", "due_after"],
                condition=Q(due_after__isnull=False),
                name="one_check_after_a_slot",
            ),
            models.UniqueConstraint(
                fields=["completion_set"], condition=Q(purpose="adjudication"), name="one_decision_per_set"
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
            models.UniqueConstraint(
                fields=["project", "labeler", "task_type"],
                condition=Q(state="leased"),
                name="a_labeler_holds_one_task_of_a_kind",
            ),
        ]
        indexes = [
            models.Index(fields=["project", "state", "task_type", "priority", "id"], name="slots_in_turn"),
            models.Index(fields=["labeler", "state", "answered_at"]),
            # Few among many: an index over all would be passed over for one that reads the whole queue.
            models.Index(
                fields=["reserved_for", "state"], condition=Q(reserved_for__isnull=False), name="slots_reserved"
            ),
            models.Index(fields=["project", "lease_until"], condition=Q(state="leased"), name="slots_leased"),
            models.Index(fields=["project", "state", "review_state", "answered_at"], name="slots_to_review"),
        ]

    def __str__(self) -> str:
        return f"{self.task_type} of {self.prompt}"

    @staticmethod
    def turn(made: datetime, head_start: float, ordinal: int) -> datetime:
        """The `priority` of a place: its age, less a head start, and later for each further labeler of the piece.

        It never changes by itself and nothing newer by more than HEAD_START overtakes it: what is old gets its turn.
        """
        return made + (ordinal - head_start) * HEAD_START

    def renew(self, labeler: User) -> bool:
        """Extend the lease while it is still this labeler's, even where it ran out and nobody took the slot."""
        return bool(self._held(labeler).filter(self._where_at_work(labeler)).update(lease_until=Now() + LEASE))

    def skip(self, labeler: User, reason: str = "") -> None:
        """Hand the piece back, never to be offered to this labeler again. Raises StaleAssignment."""
        with transaction.atomic():
            if not self._held(labeler).update(state=self.State.OPEN, labeler=None, lease_until=None, leased_at=None):
                raise self.stale(labeler)
            self._drafts(labeler).delete()
            Skip.objects.remember(self, labeler, reason)
            if self.purpose == self.Purpose.SCREENING:
                Participation.objects.of(self.project, labeler).finish_screening()

    def save_draft(self, labeler: User, payload: Any, version: int | None = None) -> "Draft":
        """Keep unfinished work and renew the lease.

        `version` is the version that the work stands on, 0 for none; DraftConflict where another tab has saved since.
        None overwrites. Raises StaleAssignment where the slot is no longer the labeler's.
        """
        with transaction.atomic():
            if not self.renew(labeler):
                raise self.stale(labeler)
            return self.drafts.keep(self, labeler, payload, version)

    def take(self, labeler: User) -> None:
        """Turn the lease into an answer, once. Call inside the transaction that stores the answer."""
        held = self._held(labeler).filter(self._where_at_work(labeler))
        if not held.update(state=self.State.ANSWERED, lease_until=None, answered_at=Now()):
            raise self.stale(labeler)
        self.state = self.State.ANSWERED
        self._drafts(labeler).delete()

    @transaction.atomic
    def take_back(self, labeler: User) -> None:
        """Make what `labeler` handed in a moment ago unfinished work again: a draft, in a task that they hold.

        The task of this kind that they were given since goes back, its draft stays. Raises StaleAssignment after UNDO.
        """
        since = Slot.objects.filter(project=self.project_id, task_type=self.task_type).held_by(labeler)
        since.update(state=self.State.OPEN, labeler=None, lease_until=None, leased_at=None)
        if not Slot.objects.filter(pk__in=Slot.objects.just_answered_by(labeler).values("pk"), pk=self.pk).update(
            state=self.State.LEASED,
            answered_at=None,
            leased_at=Now(),
            lease_until=Now() + LEASE,
            fence=F("fence") + 1,
        ):
            raise StaleAssignment(translate("It is too late to take this back. Open it and change it instead."))
        label = self.label
        type(label).objects.filter(pk=label.pk).update(slot=None)
        self.drafts.keep(self, labeler, label.as_work(), None)
        label.tell("taken_back")
        if self.completion_set:
            self.completion_set.close_or_reopen()
        if self.purpose == self.Purpose.SCREENING:
            Participation.objects.of(self.project, labeler).reopen_screening()

    def changed_by(self, person: User) -> None:
        """What a returned task needs is a new look, once its labeler has changed it."""
        returned = Slot.objects.filter(pk=self.pk, labeler=person, review_state=self.ReviewState.RETURNED)
        returned.update(review_state=self.ReviewState.CHANGED)

    def stale(self, labeler: User) -> StaleAssignment:
        """Why this slot is not `labeler`'s to work on."""
        now = Slot.objects.filter(pk=self.pk).first()
        if now and now.labeler_id == labeler.pk and now.state == self.State.ANSWERED:
            return StaleAssignment(
                translate("You have handed in this task already, perhaps in another tab."), is_answered=True
            )
        if not Slot.objects.filter(self._where_at_work(labeler), pk=self.pk).exists():
            return StaleAssignment(
                translate("You are no longer a member of this project, so this task is not yours. Ask its curator.")
            )
        return StaleAssignment(
            translate("This task is no longer yours: its time ran out, or it was withdrawn. Take the next one.")
        )

    def _where_at_work(self, labeler: User) -> Q:
        """Whether `labeler` still does such work in the project."""
        is_decision = self.purpose == self.Purpose.ADJUDICATION
        return Q(
            project__in=Project.objects.curated_by(labeler) if is_decision else Project.objects.labeled_by(labeler)
        )

    def _held(self, labeler: User) -> SlotQuerySet:
        """This slot as a query that matches only while this very lease stands."""
        return Slot.objects.held_by(labeler).filter(pk=self.pk, fence=self.fence)

    def _drafts(self, labeler: User | int) -> "DraftQuerySet":
        """Unfinished work of `labeler` on this piece, also from an earlier lease of another place in it."""
        drafts: DraftQuerySet = self.drafts.model.objects.filter(
            slot__prompt=self.prompt_id,
            slot__completion_set=self.completion_set_id,
            slot__task_type=self.task_type,
            slot__repeat=self.repeat,
            labeler=labeler,
        )
        return drafts

    @property
    def draft(self) -> "Draft | None":
        """What its labeler left unfinished."""
        return self._drafts(self.labeler_id).order_by("-saved_at", "-pk").first() if self.labeler_id else None

    @property
    def shown_order(self) -> list[int]:
        """Indices of the completions in the order this labeler sees them: the same on every reload."""
        assert self.completion_set is not None  # rankings_have_a_set
        return shown_order(
            self.completion_set.k, f"labeler {self.labeler_id} set {self.completion_set_id} repeat {self.repeat}"
        )

    @property
    def shown_completions(self) -> list[Completion]:
        """The completions in the order this labeler sees them."""
        assert self.completion_set is not None  # rankings_have_a_set
        completions = list(self.completion_set.completions.all())
        return [completions[index] for index in self.shown_order]

    @property
    def shown_groups(self) -> list[ShownGroup]:
        """The same, with completions that say the same text together, as one card."""
        return shown_groups(self.shown_completions)

    @property
    def label(self) -> "Answer | Demonstration":
        """What was handed in, once it is answered."""
        return self.answer if self.task_type == self.TaskType.RANKING else self.demonstration

    @property
    def requires_ratings(self) -> bool:
        """Whether every completion is rated before it is ranked. Who decides a dispute has read what others said."""
        return self.project.require_ratings and self.purpose != self.Purpose.ADJUDICATION

    @property
    def policy_speaks_language(self) -> bool:
        return self.project.speaks(self.prompt.language)

    @property
    def instruction_version(self) -> int | None:
        instructions = self.project.instructions
        return instructions.number if instructions else None

    def clean_label(self, payload: dict[str, Any]) -> dict[str, Any]:
        """What is stored with every label: the time spent, and the instructions it was made under.

        The page says which version it showed; without that, the newest counts.
        """
        seconds = payload.get("active_seconds", 0)
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds <= 86_400:
            raise ValidationError(_("The time spent is not a number of seconds."))
        shown, newest = payload.get("instruction_version"), self.instruction_version
        is_known = isinstance(shown, int) and not isinstance(shown, bool) and newest and 1 <= shown <= newest
        return {"active_seconds": float(seconds), "instruction_version": shown if is_known else newest}
