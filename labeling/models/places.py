"""The places of a piece of work: as many slots as labelers are asked for, opened and withdrawn."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Self

from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from labeling.models.completion import CompletionSet
from labeling.models.project import Project
from labeling.models.prompt import BATCH, Prompt

if TYPE_CHECKING:
    from labeling.models.slot import Slot


class PlaceQuerySet(models.QuerySet["Slot"]):
    def open(self) -> Self:
        return self.filter(state="open")

    def open_places(self, completion_set: CompletionSet) -> None:
        """As many slots for rankings of a set as the project asks for, and one for each who cannot judge it.

        Those there stay.
        """
        self.open_rankings([completion_set], CompletionSet.objects.filter(pk=completion_set.pk).stand_ins())

    def open_rankings(self, sets: Iterable[CompletionSet], stand_ins: Mapping[int, int]) -> None:
        """As many slots for rankings of each of `sets` as its project asks for, and `stand_ins` more by set.

        Those there stay.
        """
        self._open(
            self.model(
                project=each.project,
                task_type="ranking",
                prompt_id=each.prompt_id,
                completion_set=each,
                ordinal=ordinal,
                priority=self.model.turn(each.created_at, each.head_start, ordinal),
            )
            for each in sets
            for ordinal in range(each.project.ranking_overlap + stand_ins.get(each.pk, 0))
        )

    def open_demonstrations(self, prompts: Iterable[Prompt]) -> None:
        """As many slots for demonstrations of each of `prompts` as are wanted; those there stay."""
        now = timezone.now()
        self._open(
            self.model(
                project=prompt.project,
                task_type="demonstration",
                prompt=prompt,
                ordinal=ordinal,
                priority=self.model.turn(now, 0.0, ordinal),
            )
            for prompt in prompts
            for ordinal in range(prompt.demonstrations_wanted)
        )

    def _open(self, slots: "Iterable[Slot]") -> None:
        waiting = iter(slots)
        while batch := list(islice(waiting, BATCH)):  # bulk_create would hold all of them in memory
            self.model.objects.bulk_create(batch, ignore_conflicts=True)

    @transaction.atomic
    def withdraw(self) -> None:
        """Delete the open slots of the query. One leased in this very moment stays: somebody has it."""
        keys = list(self.open().values_list("pk", flat=True))
        for start in range(0, len(keys), BATCH):
            batch = self.model.objects.open().filter(pk__in=keys[start : start + BATCH])
            locked = list(batch.select_for_update().values_list("pk", flat=True))
            self.model.objects.filter(pk__in=locked).delete()

    @transaction.atomic
    def match_overlap(self, project: Project) -> None:
        """After a change of the project's overlap: open the places that are missing, withdraw open ones too many."""
        project = Project.objects.filter(pk=project.pk).lock().get()
        ranked = project.completion_sets.ranked()
        stand_ins = ranked.stand_ins()
        self.open_rankings(ranked.select_related("project").iterator(), stand_ins)
        prompts = project.prompts.approved().select_related("project")
        self.open_demonstrations(prompts.sampled_for().exclude(demonstrations__origin="imported"))
        too_many = Q(task_type="ranking", ordinal__gte=project.ranking_overlap) & ~Q(completion_set__in=stand_ins)
        for count in set(stand_ins.values()):
            keys = [key for key, asked in stand_ins.items() if asked == count]
            too_many |= Q(completion_set__in=keys, ordinal__gte=project.ranking_overlap + count)
        if project.demonstration_overlap:
            too_many |= Q(task_type="demonstration", ordinal__gte=project.demonstration_overlap)
        self.model.objects.filter(too_many, project=project).withdraw()
        ranked.close_or_reopen()
