"""The queue of slots: which of them a labeler may be given, in what turn, and taking one.

Slots exist before anyone asks, so giving one out is a guarded UPDATE of one row, and overlap can never be exceeded:
there are only as many rows as labelers were asked for. Such an UPDATE names only columns of the slot itself: PostgreSQL
would not look again at a joined row after waiting for somebody else's claim. There, whoever looks for a place also
passes over those that others are taking in this very moment (SELECT ... FOR UPDATE SKIP LOCKED); on SQLite writers
wait for one another anyway.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, Self

from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, connection, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now

from labeling.models.checks import CheckQuerySet
from labeling.models.completion import CompletionSet
from labeling.models.participation import Participation
from labeling.models.project import Project
from labeling.models.prompt import Prompt
from labeling.models.skip import Skip
from labeling.models.states import Purpose, ReviewState, SlotState, TaskType
from labeling.models.user import User

if TYPE_CHECKING:
    from labeling.models.slot import Slot

LEASE = timedelta(minutes=15)
UNDO = timedelta(seconds=30)
CANDIDATES = 20


@dataclass(frozen=True)
class AtHand:
    """Whether a labeler holds a place, has places reserved, and whether there are any that somebody left unfinished."""

    held: bool
    reserved: bool
    abandoned: bool


def _claiming() -> AbstractContextManager[Any]:
    """A transaction around looking for a place and taking it, where looking locks it."""
    return transaction.atomic() if connection.features.has_select_for_update_skip_locked else nullcontext()


class SlotQuerySet(CheckQuerySet):
    def abandoned(self) -> Self:
        """Leased to someone whose lease ran out."""
        return self.filter(state=SlotState.LEASED, lease_until__lt=Now())

    def claimable(self) -> Self:
        return self.open() | self.abandoned()

    def meant_for(self, labeler: User) -> Self:
        """Slots of live pieces that `labeler` has not answered, skipped or got hold of already."""
        same_piece = Q(completion_set=OuterRef("completion_set")) | Q(prompt=OuterRef("prompt"), completion_set=None)
        mine = self.model.objects.filter(
            same_piece, task_type=OuterRef("task_type"), repeat=OuterRef("repeat"), labeler=labeler
        ).exclude(state=SlotState.OPEN)
        skipped = Skip.objects.filter(labeler=labeler, prompt=OuterRef("prompt"), task_type=OuterRef("task_type"))
        return (
            self.filter(Q(reserved_for=None) | Q(reserved_for=labeler), prompt__state=Prompt.State.APPROVED)
            .exclude(purpose=Purpose.ADJUDICATION)
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
            own &= Q(pk=None) if participation.project.screens_demonstrations else Q(task_type=TaskType.DEMONSTRATION)
        return self.filter(own | Q(reserved_for=participation.labeler)) if own else self

    def offered_to(self, labeler: User) -> Self:
        return self.claimable().meant_for(labeler)

    def held_by(self, labeler: User) -> Self:
        """Leased to `labeler`, also where the lease ran out and nobody took the slot since."""
        return self.filter(state=SlotState.LEASED, labeler=labeler)

    def answered_by(self, labeler: User) -> Self:
        return self.filter(state=SlotState.ANSWERED, labeler=labeler)

    def just_answered_by(self, labeler: User) -> Self:
        """What `labeler` can still take back, the newest first."""
        fresh = self.answered_by(labeler).filter(answered_at__gte=Now() - UNDO, review_state=ReviewState.NONE)
        return fresh.order_by("-answered_at", "-pk")

    def returned_to(self, labeler: User) -> Self:
        """What reviewers want `labeler` to change."""
        return self.answered_by(labeler).filter(review_state=ReviewState.RETURNED)

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
        kinds = [task_type] if task_type else [TaskType.RANKING, TaskType.DEMONSTRATION]
        at_hand = self.at_hand(project, labeler, kinds)
        participation = Participation.objects.of(project, labeler)
        if participation.is_quarantined:
            return None
        if TaskType.RANKING in kinds and participation.is_screened:
            self.open_screening(participation)
            at_hand = replace(at_hand, reserved=True)
        while True:
            if at_hand.held:
                mine = self.filter(project=project, task_type__in=kinds).held_by(labeler)
                held = mine.order_by("-lease_until").first()
                if held and held.renew(labeler):
                    held.refresh_from_db(fields=["lease_until"])
                    return held
            with _claiming():
                candidates = self.candidates(participation, kinds, after, at_hand, locking=True)
                for pk in candidates:
                    if slot := self.claim(pk, labeler):
                        slot.project = project
                        return slot
            if not candidates:
                return None
            # Others were faster with every candidate, or another tab of this labeler with one: look again.
            at_hand = self.at_hand(project, labeler, kinds)

    def at_hand(self, project: Project, labeler: User, kinds: Iterable[str]) -> AtHand:
        """What there is before the open queue, at a glance. Raises PermissionDenied for who does not label here."""
        places = self.filter(project=OuterRef("pk"), task_type__in=kinds)
        found = (
            Project.objects.labeled_by(labeler)
            .filter(pk=project.pk)
            .order_by()
            .values_list(
                Exists(places.held_by(labeler)),
                Exists(places.open().filter(reserved_for=labeler)),
                Exists(places.abandoned()),
            )
            .first()
        )
        if found is None:
            raise PermissionDenied
        return AtHand(*found)

    def candidates(
        self,
        participation: Participation,
        kinds: Iterable[str],
        after: int | None,
        at_hand: AtHand,
        *,
        locking: bool = False,
    ) -> list[int]:
        """Keys of a few slots to try, first kind first: places for this labeler alone, what somebody left unfinished,
        then what is untouched; before that a check, where one is due.

        One query each, so that an index gives the rows in order: with many slots, sorting them would be slow.
        `locking` passes over those that others are claiming.
        """
        for kind in kinds:
            offered = self.filter(project=participation.project, task_type=kind)
            offered = offered.meant_for(participation.labeler).within(participation)
            # Mostly there are none at all.
            if at_hand.reserved and (
                keys := offered.open().filter(reserved_for=participation.labeler).first_keys(locking)
            ):
                return keys
            if at_hand.abandoned and (keys := offered.abandoned().first_keys(locking)):
                return keys
            if keys := offered.open().first_keys(locking):
                check = self.open_check(participation, after) if kind == TaskType.RANKING else None
                return [check, *keys] if check else keys
        return []

    def first_keys(self, locking: bool) -> list[int]:
        """Keys of the first few in turn. Where the database can, `locking` locks the first that nobody else has locked,
        until the transaction ends."""
        in_turn = self.order_by("priority", "pk")
        if locking and connection.features.has_select_for_update_skip_locked:
            # More than one would hide places from others that this labeler does not take. (`of` asks for rows.)
            free = in_turn.select_for_update(skip_locked=True, of=("self",)).only("pk").first()
            if free:
                return [free.pk]
            # Whoever has locked the last ones may let go of them yet: claim() waits and sees.
        return list(in_turn.values_list("pk", flat=True)[:CANDIDATES])

    def demonstrations_of(self, prompt: Prompt, labeler: User) -> Self:
        """Places for a demonstration of `prompt` that `labeler` may take, or has taken."""
        places = self.filter(prompt=prompt, task_type=TaskType.DEMONSTRATION)
        offered = places.offered_to(labeler).within(Participation.objects.of(prompt.project, labeler))
        return offered | places.held_by(labeler)

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
                    self.model.objects.claimable()
                    .filter(pk=pk)
                    .update(
                        state=SlotState.LEASED,
                        labeler=labeler,
                        lease_until=Now() + LEASE,
                        leased_at=Now(),
                        fence=F("fence") + 1,
                    )
                )
        except IntegrityError:  # a_labeler_holds_one_task_of_a_kind: another tab took one
            return None
        return self.model.objects.get(pk=pk) if won else None
