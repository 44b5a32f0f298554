"""Places opened for one labeler alone: the screening set, known answers and repeats hidden among their tasks, and a
curator's decision on a set in dispute. `reserved_for` keeps them from everybody else."""

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from labeling.checking import draw
from labeling.models.completion import CompletionSet
from labeling.models.participation import Participation
from labeling.models.places import PlaceQuerySet
from labeling.models.project import Project
from labeling.models.states import Purpose, SlotState
from labeling.models.user import User
from labeling.rankings import Verdict

if TYPE_CHECKING:
    from labeling.models.slot import Slot

AGAIN_AFTER = 20  # rankings handed in since: nobody remembers the order of the cards then
POOL = 200  # pieces among which a check is drawn
ADJUDICATION = 100  # the number of a decision among the repeats of a set: curators may have ranked it before


class CheckQuerySet(PlaceQuerySet):
    def open_screening(self, participation: Participation) -> None:
        """A place in each piece of the screening set for a labeler who must pass it; those there stay."""
        known = apps.get_model("labeling", "KnownAnswer").objects.screening(participation.project)
        pieces = known.unseen_by(participation.labeler).values_list("completion_set", "completion_set__prompt")
        self._open(
            self._place(participation, Purpose.SCREENING, completion_set_id=chosen, prompt_id=prompt)
            for chosen, prompt in pieces
        )

    def open_check(self, participation: Participation, after: int | None) -> int | None:
        """The key of a check that comes due after place `after`, which the labeler filled last: a known answer or a
        repeat of their own; None where none is due.

        It is drawn once for each such place, so that asking again, or another tab, finds the same.
        """
        project, labeler = participation.project, participation.labeler
        percent = project.gold_percent + project.repeat_percent
        if not percent or (after := after or self._last_filled(participation)) is None:
            return None
        chance = 100 * draw("check", labeler.pk, after)
        if chance >= percent or self.filter(reserved_for=labeler, due_after=after).exists():
            return None
        purpose = Purpose.GOLD if chance < project.gold_percent else Purpose.REPEAT
        pool = self._gold(participation) if purpose == Purpose.GOLD else self._done_long_ago(participation)
        if not pool:
            return None
        chosen, prompt = pool[int(draw("piece", labeler.pk, after) * len(pool))]
        place = self._place(participation, purpose, completion_set_id=chosen, prompt_id=prompt, due_after=after)
        place.repeat = int(purpose == Purpose.REPEAT)
        try:
            with transaction.atomic():
                place.save(force_insert=True)
        except IntegrityError:  # another tab opened it
            return None
        return place.pk

    def _last_filled(self, participation: Participation) -> int | None:
        filled = self.model.objects.filter(labeler=participation.labeler, state=SlotState.ANSWERED)
        keys = filled.filter(project=participation.project).order_by("-answered_at")
        return keys.values_list("pk", flat=True).first()

    def _gold(self, participation: Participation) -> list[tuple[int, int]]:
        """Known answers that this labeler has not met, as sets and prompts."""
        known = apps.get_model("labeling", "KnownAnswer").objects.gold(participation.project)
        if participation.languages:
            known = known.filter(completion_set__prompt__language__in=participation.languages)
        pieces = known.unseen_by(participation.labeler).order_by("pk")
        return list(pieces.values_list("completion_set", "completion_set__prompt")[:POOL])

    def _done_long_ago(self, participation: Participation) -> list[tuple[int, int]]:
        """Sets that this labeler ranked a while ago, and once only."""
        again = self.model.objects.filter(completion_set=OuterRef("completion_set"), repeat__gt=0)
        mine = Q(labeler=participation.labeler) | Q(reserved_for=participation.labeler)
        own = self.filter(
            project=participation.project, labeler=participation.labeler, state=SlotState.ANSWERED, task_type="ranking"
        ).order_by("-answered_at")
        last = list(own.values_list("pk", flat=True)[:AGAIN_AFTER])
        ranked = own.filter(
            purpose=Purpose.LABEL, answer__current__verdict=Verdict.RANKED, prompt__state="approved"
        ).exclude(pk__in=last)
        return list(ranked.exclude(Exists(again.filter(mine))).values_list("completion_set", "prompt")[:POOL])

    def claim_adjudication(self, completion_set: CompletionSet, curator: User) -> "Slot | None":
        """The place for the decision on a set, leased to `curator`, or the place where it was decided.

        None where another curator is at it, or `curator` holds another ranking. Raises PermissionDenied.
        """
        project = completion_set.project
        if not Project.objects.curated_by(curator).filter(pk=project.pk).exists():
            raise PermissionDenied
        slots: Any = self.model.objects
        place, _is_new = slots.get_or_create(
            completion_set=completion_set,
            purpose=Purpose.ADJUDICATION,
            defaults={
                "project": project,
                "prompt": completion_set.prompt,
                "task_type": "ranking",
                "repeat": ADJUDICATION,
                "ordinal": 0,
                "reserved_for": curator,
            },
        )
        if place.state == SlotState.ANSWERED or (place.state == SlotState.LEASED and place.renew(curator)):
            return place  # type: ignore[no-any-return]
        lapsed = Q(state=SlotState.OPEN) | Q(state=SlotState.LEASED, lease_until__lt=Now())
        slots.filter(lapsed, pk=place.pk).update(
            state=SlotState.OPEN, labeler=None, lease_until=None, reserved_for=curator
        )
        return slots.claim(place.pk, curator)  # type: ignore[no-any-return]

    def _place(self, participation: Participation, purpose: str, **about: Any) -> "Slot":
        return self.model(
            project=participation.project,
            task_type="ranking",
            ordinal=0,
            purpose=purpose,
            reserved_for=participation.labeler,
            **about,
        )
