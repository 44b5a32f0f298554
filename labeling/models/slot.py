"""Slots: the places to fill. One slot is one piece of work for one labeler, leased while it is being done.

Slots exist before anyone asks, so giving one out is a guarded UPDATE of one row, and overlap can never be exceeded:
there are only as many rows as labelers were asked for. Constraints keep a labeler from holding two of one piece, or
two pieces of one kind at once.

A guarded UPDATE names only columns of the slot itself: PostgreSQL would not look again at a joined row after waiting
for somebody else's claim.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, models, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext as translate
from django.utils.translation import gettext_lazy as _

from labeling.models.checks import CheckQuerySet
from labeling.models.completion import Completion, CompletionSet, ShownGroup, shown_groups
from labeling.models.participation import Participation
from labeling.models.project import Project
from labeling.models.prompt import Prompt
from labeling.models.skip import Skip
from labeling.models.states import Purpose, ReviewState, SlotState, TaskType
from labeling.models.user import User
from labeling.rankings import shown_order

if TYPE_CHECKING:
    from labeling.models.answer import Answer
    from labeling.models.demonstration import Demonstration
    from labeling.models.draft import Draft, DraftQuerySet

HEAD_START = timedelta(days=7)
LEASE = timedelta(minutes=15)
UNDO = timedelta(seconds=30)
CANDIDATES = 20


class StaleAssignment(Exception):
    """The slot is not this labeler's (any more). `str()` says why and what to do."""

    def __init__(self, message: str, *, is_answered: bool = False) -> None:
        super().__init__(message)
        self.is_answered = is_answered
        """Whether the labeler has handed in this very task before."""


class SlotQuerySet(CheckQuerySet):
    def abandoned(self) -> Self:
        """Leased to someone whose lease ran out."""
        return self.filter(state=Slot.State.LEASED, lease_until__lt=Now())

    def claimable(self) -> Self:
        return self.open() | self.abandoned()

    def meant_for(self, labeler: User) -> Self:
        """Slots of live pieces that `labeler` has not answered, skipped or got hold of already."""
        same_piece = Q(completion_set=OuterRef("completion_set")) | Q(prompt=OuterRef("prompt"), completion_set=None)
        mine = Slot.objects.filter(
            same_piece, task_type=OuterRef("task_type"), repeat=OuterRef("repeat"), labeler=labeler
        ).exclude(state=Slot.State.OPEN)
        skipped = Skip.objects.filter(labeler=labeler, prompt=OuterRef("prompt"), task_type=OuterRef("task_type"))
        return (
            self.filter(Q(reserved_for=None) | Q(reserved_for=labeler), prompt__state=Prompt.State.APPROVED)
            .exclude(purpose=Slot.Purpose.ADJUDICATION)
            .exclude(completion_set__state=CompletionSet.State.EXPIRED)
            .exclude(Exists(mine))
            .exclude(Exists(skipped))
        )

    def within(self, participation: Participation) -> Self:
        """Slots of the queue that a labeler works in: their languages and tags, and the screening set before others."""
        if participation.is_quarantined:
            return self.none()
        own = Q()
        if participation.languages:
            own &= Q(prompt__language__in=participation.languages)
        if participation.tags:
            own &= reduce(or_, (Q(prompt__tags__icontains=f'"{tag}"') for tag in participation.tags))
        if participation.is_screened:
            own &= Q(task_type=Slot.TaskType.DEMONSTRATION)
        return self.filter(own | Q(reserved_for=participation.labeler)) if own else self

    def offered_to(self, labeler: User) -> Self:
        return self.claimable().meant_for(labeler)

    def held_by(self, labeler: User) -> Self:
        """Leased to `labeler`, also where the lease ran out and nobody took the slot since."""
        return self.filter(state=Slot.State.LEASED, labeler=labeler)

    def answered_by(self, labeler: User) -> Self:
        return self.filter(state=Slot.State.ANSWERED, labeler=labeler)

    def just_answered_by(self, labeler: User) -> Self:
        """What `labeler` can still take back, the newest first."""
        fresh = self.answered_by(labeler).filter(answered_at__gte=Now() - UNDO, review_state=Slot.ReviewState.NONE)
        return fresh.order_by("-answered_at", "-pk")

    def returned_to(self, labeler: User) -> Self:
        """What reviewers want `labeler` to change."""
        return self.answered_by(labeler).filter(review_state=Slot.ReviewState.RETURNED)

    def with_labels(self) -> Self:
        """Answered slots with what was said in them, newest first."""
        labels = self.select_related("project", "prompt", "answer__current", "demonstration")
        return labels.order_by("-answered_at", "-pk")

    def claim_next(
        self, project: Project, labeler: User, task_type: str | None = None, *, after: int | None = None
    ) -> "Slot | None":
        """The slot `labeler` is at work on in `project`, else a fresh one, leased; None where nothing is left for them.

        Rankings come before demonstrations: they are what the current policy waits for. `after` is the key of what
        they handed in last, where the caller knows it. Raises PermissionDenied for someone who does not label in the
        project.
        """
        if not Project.objects.labeled_by(labeler).filter(pk=project.pk).exists():
            raise PermissionDenied
        kinds = [task_type] if task_type else [Slot.TaskType.RANKING, Slot.TaskType.DEMONSTRATION]
        participation = Participation.objects.of(project, labeler)
        if participation.is_quarantined:
            return None
        if Slot.TaskType.RANKING in kinds and participation.is_screened:
            self.open_screening(participation)
        while True:
            held = self.filter(project=project, task_type__in=kinds).held_by(labeler).order_by("-lease_until").first()
            if held and held.renew(labeler):
                held.refresh_from_db(fields=["lease_until"])
                return held
            candidates = self._candidates(participation, kinds, after)
            if not candidates:
                return None
            for pk in candidates:
                if slot := self.claim(pk, labeler):
                    return slot
            # Others were faster with every candidate, or another tab of this labeler with one: look again.

    def _candidates(self, participation: Participation, kinds: Iterable[str], after: int | None) -> list[int]:
        """Keys of a few slots to try, first kind first: places for this labeler alone, what somebody left unfinished,
        then what is untouched; before that a check, where one is due.

        One query each, so that an index gives the rows in order: with many slots, sorting them would be slow.
        """
        own = Q(state=Slot.State.OPEN, reserved_for=participation.labeler)
        abandoned = Q(state=Slot.State.LEASED, lease_until__lt=Now())
        for kind in kinds:
            places = self.filter(project=participation.project, task_type=kind)
            offered = places.meant_for(participation.labeler).within(participation)
            for pool in (own, abandoned):
                # Mostly there are none at all, which is quickly seen.
                if places.filter(pool).exists():
                    first = offered.filter(pool).order_by("priority", "pk")
                    if keys := list(first.values_list("pk", flat=True)[:CANDIDATES]):
                        return keys
            if keys := list(offered.open().order_by("priority", "pk").values_list("pk", flat=True)[:CANDIDATES]):
                check = self.open_check(participation, after) if kind == Slot.TaskType.RANKING else None
                return [check, *keys] if check else keys
        return []

    def demonstrations_of(self, prompt: Prompt, labeler: User) -> Self:
        """Places for a demonstration of `prompt` that `labeler` may take, or has taken."""
        places = self.filter(prompt=prompt, task_type=Slot.TaskType.DEMONSTRATION)
        return places.offered_to(labeler) | places.held_by(labeler)

    def claim_demonstration(self, prompt: Prompt, labeler: User) -> "Slot | None":
        """A demonstration of `prompt` leased to `labeler`; None where none is asked for, or they hold another one."""
        if not Project.objects.labeled_by(labeler).filter(pk=prompt.project_id).exists():
            raise PermissionDenied
        places = list(self.demonstrations_of(prompt, labeler).order_by("ordinal"))
        held = next((slot for slot in places if slot.labeler_id == labeler.pk and slot.renew(labeler)), None)
        return held or next(filter(None, (self.claim(slot.pk, labeler) for slot in places)), None)

    def claim(self, pk: int, labeler: User) -> "Slot | None":
        """Lease slot `pk`, or None where somebody else was faster, or the labeler holds a piece of this kind."""
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
        except IntegrityError:  # a_labeler_holds_one_task_of_a_kind: another tab took one
            return None
        return Slot.objects.select_related("project", "prompt", "completion_set").get(pk=pk) if won else None


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
        return self._is_member(labeler) and bool(self._held(labeler).update(lease_until=Now() + LEASE))

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
        held = self._is_member(labeler) and self._held(labeler).update(
            state=self.State.ANSWERED, lease_until=None, answered_at=Now()
        )
        if not held:
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
        if not self._is_member(labeler):
            return StaleAssignment(
                translate("You are no longer a member of this project, so this task is not yours. Ask its curator.")
            )
        return StaleAssignment(
            translate("This task is no longer yours: its time ran out, or it was withdrawn. Take the next one.")
        )

    def _is_member(self, labeler: User) -> bool:
        is_decision = self.purpose == self.Purpose.ADJUDICATION
        projects = Project.objects.curated_by(labeler) if is_decision else Project.objects.labeled_by(labeler)
        return projects.filter(pk=self.project_id).exists()

    def _held(self, labeler: User) -> SlotQuerySet:
        """This slot as a query that matches only while this very lease stands."""
        return Slot.objects.held_by(labeler).filter(pk=self.pk, fence=self.fence)

    def _drafts(self, labeler: User) -> "DraftQuerySet":
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
        return self._drafts(self.labeler).order_by("-saved_at", "-pk").first() if self.labeler else None

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
