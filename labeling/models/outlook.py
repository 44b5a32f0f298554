"""What a labeler finds in a project right now and, where that is nothing, why."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from django.db.models import Count, Min
from django.db.models.functions import Now

from labeling.models.completion import CompletionSet, CompletionSetQuerySet, SamplingJob
from labeling.models.known_answer import KnownAnswer
from labeling.models.participation import Participation
from labeling.models.project import Project
from labeling.models.prompt import Prompt
from labeling.models.slot import Slot
from labeling.models.user import User

WhyNothing = Literal[
    "no_prompts", "stalled", "sampling", "taken", "failed", "no_policy", "paused", "not_passed", "done"
]


@dataclass(frozen=True)
class Outlook:
    project: Project
    held: Slot | None
    """The task that the labeler is at work on."""
    rankings: int
    demonstrations: int
    sampling: int
    """Sets that the policy has yet to finish."""
    answered: int
    why_nothing: WhyNothing | None
    back_at: datetime | None
    """When the first lease of somebody else ends on a piece that this labeler could do."""

    @property
    def waiting(self) -> int:
        return self.rankings + self.demonstrations

    @property
    def has_work(self) -> bool:
        return bool(self.held or self.waiting)

    @property
    def poll_seconds(self) -> int | None:
        """How often a page should look again by itself; None where nothing is being waited for."""
        return 3 if self.sampling else None if self.has_work else 15

    @classmethod
    def of(cls, project: Project, labeler: User) -> Self:
        participation = Participation.objects.of(project, labeler)
        slots = Slot.objects.filter(project=project)
        held = slots.held_by(labeler).order_by("-lease_until").first()
        offered = slots.offered_to(labeler).within(participation).order_by().values_list("task_type")
        waiting = dict(offered.annotate(number=Count("pk")))
        taken = slots.filter(state=Slot.State.LEASED, lease_until__gte=Now()).meant_for(labeler).within(participation)
        back_at = taken.aggregate(first=Min("lease_until"))["first"]
        if participation.is_screened and not participation.is_quarantined:
            waiting[Slot.TaskType.RANKING] = KnownAnswer.objects.left_for(participation).count() - bool(
                held and held.task_type == Slot.TaskType.RANKING
            )
        sampling = _unsampled(project).filter(job__in=SamplingJob.objects.unfinished()).count()
        return cls(
            project=project,
            held=held,
            rankings=waiting.get(Slot.TaskType.RANKING, 0),
            demonstrations=waiting.get(Slot.TaskType.DEMONSTRATION, 0),
            sampling=sampling,
            answered=slots.answered_by(labeler).count(),
            why_nothing=None if any(waiting.values()) or held else _why_nothing(participation, sampling, back_at),
            back_at=back_at,
        )


def _why_nothing(participation: Participation, sampling: int, back_at: datetime | None) -> WhyNothing:
    project = participation.project
    if participation.is_quarantined:
        return "paused"
    if participation.is_screened:
        return "not_passed"
    if not project.prompts.approved().exists():
        return "no_prompts"
    if sampling:
        return "stalled" if SamplingJob.objects.is_stalled() else "sampling"
    if back_at:
        return "taken"
    if _unsampled(project).filter(job__state=SamplingJob.State.FAILED).exists():
        return "failed"
    return "done" if project.policy_name else "no_policy"


def _unsampled(project: Project) -> CompletionSetQuerySet:
    return project.completion_sets.filter(state=CompletionSet.State.SAMPLING, prompt__state=Prompt.State.APPROVED)
