"""Known answers: rankings that a curator holds to be right, by which labelers are screened and checked."""

from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.utils.translation import gettext_lazy as _

from labeling.agreement import Agreement
from labeling.checking import right_pairs
from labeling.models.answer import Answer
from labeling.models.completion import CompletionSet
from labeling.models.participation import Participation
from labeling.models.project import Project
from labeling.models.prompt import Prompt
from labeling.models.skip import Skip
from labeling.models.slot import Slot
from labeling.models.states import Purpose
from labeling.pairs import preferred_pairs
from labeling.rankings import Verdict

if TYPE_CHECKING:
    from labeling.models.user import User


class KnownAnswerQuerySet(models.QuerySet["KnownAnswer"]):
    def screening(self, project: Project) -> Self:
        return self._live(project).filter(kind=KnownAnswer.Kind.SCREENING)

    def gold(self, project: Project) -> Self:
        return self._live(project).filter(kind=KnownAnswer.Kind.GOLD)

    def _live(self, project: Project) -> Self:
        return self.filter(
            completion_set__project=project,
            completion_set__prompt__state=Prompt.State.APPROVED,
            answer__slot__isnull=False,
        )

    def unseen_by(self, labeler: "User") -> Self:
        """Those whose set `labeler` has neither answered nor been given, and whose answer is not their own."""
        seen = Slot.objects.filter(completion_set=OuterRef("completion_set"))
        skipped = Skip.objects.filter(labeler=labeler, prompt=OuterRef("completion_set__prompt"), task_type="ranking")
        return (
            self.exclude(answer__labeler=labeler)
            .exclude(Exists(seen.filter(Q(labeler=labeler) | Q(reserved_for=labeler))))
            .exclude(Exists(skipped))
        )

    def left_for(self, participation: Participation) -> Self:
        """Pieces of the screening set that a labeler has yet to answer or to skip."""
        labeler = participation.labeler
        answered = Slot.objects.answered_by(labeler).filter(completion_set=OuterRef("completion_set"))
        skipped = Skip.objects.filter(labeler=labeler, prompt=OuterRef("completion_set__prompt"), task_type="ranking")
        pieces = self.screening(participation.project).exclude(answer__labeler=labeler)
        return pieces.exclude(Exists(answered)).exclude(Exists(skipped))

    def screened(self, participation: Participation) -> list[Agreement]:
        """How a labeler did on each piece of the screening set. What they passed over has no pair right."""
        pieces = self.screening(participation.project).exclude(answer__labeler=participation.labeler)
        given = _given(participation, Purpose.SCREENING)
        known = pieces.values_list("completion_set", "answer__current__tiers")
        return [right_pairs(tiers, given.get(key)) for key, tiers in known]

    def checked(self, participation: Participation) -> list[Agreement]:
        """How a labeler did on each known answer that was hidden among their tasks and that they ranked."""
        given = _given(participation, Purpose.GOLD)
        known = self.filter(completion_set__in=given).values_list("completion_set", "answer__current__tiers")
        return [right_pairs(tiers, given[key]) for key, tiers in known if given[key]]

    def declare(self, answer: Answer, kind: Any, by: "User") -> "KnownAnswer":
        """Hold `answer` to be right. ValidationError where it says nothing, or another one of its set is held so."""
        if kind not in KnownAnswer.Kind.values:
            raise ValidationError(_("Say what it is for: screening, or checks among other tasks."))
        tiers = answer.current.tiers if answer.current and answer.current.verdict == Verdict.RANKED else []
        if not preferred_pairs(tiers):
            raise ValidationError(_("A known answer puts at least one completion above another."))
        known, is_new = self.get_or_create(
            completion_set=answer.completion_set, defaults={"answer": answer, "kind": kind, "by": by}
        )
        if not is_new and known.answer_id != answer.pk:
            raise ValidationError(_("Another ranking of this set is the known answer. Withdraw that one first."))
        if known.kind != kind:
            known.kind = kind
            known.save(update_fields=["kind"])
        return known


class KnownAnswer(models.Model):
    class Kind(models.TextChoices):
        SCREENING = "screening", _("screening")
        GOLD = "gold", _("checks among other tasks")

    completion_set = models.OneToOneField(CompletionSet, on_delete=models.CASCADE, related_name="known_answer")
    answer = models.OneToOneField(Answer, on_delete=models.CASCADE, related_name="known")
    kind = models.CharField(max_length=10, choices=Kind)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = KnownAnswerQuerySet.as_manager()

    class Meta:
        ordering = ["kind", "-pk"]
        verbose_name = _("known answer")
        verbose_name_plural = _("known answers")

    def __str__(self) -> str:
        return f"{self.kind}: {self.completion_set}"


def _given(participation: Participation, purpose: str) -> dict[int, list[int]]:
    """Tiers by set of what a labeler handed in at places of one purpose; empty where they gave no ranking."""
    answers = Answer.objects.standing().filter(
        labeler=participation.labeler, slot__purpose=purpose, completion_set__project=participation.project
    )
    return dict(answers.values_list("completion_set", "current__tiers"))
