"""Rankings: what a labeler said about one set of completions. Revisions are appended, never overwritten."""

import uuid
from dataclasses import dataclass
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from labeling.models.completion import Completion, CompletionSet
from labeling.models.project import Project
from labeling.models.slot import Slot, StaleAssignment
from labeling.models.user import User
from labeling.rankings import LETTERS, Ranking, clean_ranking


@dataclass(frozen=True)
class Judged:
    letter: str
    completion: Completion
    tier: int
    rating: dict[str, Any] | None


class AnswerQuerySet(models.QuerySet["Answer"]):
    def visible_to(self, user: Any) -> Self:
        """Labelers see their own rankings only; curators and ops those of their projects."""
        seen = self.filter(completion_set__project__in=Project.objects.visible_to(user))
        return seen if user.has_role("curator", "ops", "admin") else seen.filter(labeler=user)

    @transaction.atomic
    def submit(self, slot: Slot, labeler: User, payload: Any, key: uuid.UUID) -> "Answer":
        """Store a ranking for a leased slot.

        `payload`: tiers and ratings by completion index, note, active_seconds, instruction_version (see clean_ranking).
        Sending the same `key` again returns the answer that is there. Raises ValidationError for an incomplete ranking
        and StaleAssignment where the slot is not (or no longer) the labeler's.
        """
        sent_before = self.filter(slot=slot, labeler=labeler, revisions__key=key)
        if done := sent_before.first():
            return done
        completion_set = slot.completion_set
        if completion_set is None:
            raise ValidationError(_("This task asks for a demonstration, not for a ranking."))
        ranking = clean_ranking(payload, completion_set.k, require_ratings=slot.project.require_ratings)
        label = slot.clean_label(payload)
        try:
            slot.take(labeler)
        except StaleAssignment:
            if done := sent_before.first():  # the same request, twice at once
                return done
            raise
        if Revision.objects.filter(key=key).exists():
            raise ValidationError(_("This page was used for another task. Reload it."))
        answer = self.create(slot=slot, completion_set=completion_set, labeler=labeler, repeat=slot.repeat)
        answer.append(ranking, key=key, shown_order=slot.shown_order, **label)
        completion_set.close_or_reopen()
        return answer


class Answer(models.Model):
    slot = models.OneToOneField(Slot, on_delete=models.PROTECT, related_name="answer")
    completion_set = models.ForeignKey(CompletionSet, on_delete=models.PROTECT, related_name="answers")
    labeler = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="answers")
    repeat = models.PositiveSmallIntegerField(default=0)
    current = models.OneToOneField("Revision", null=True, on_delete=models.PROTECT, related_name="current_of")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = AnswerQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("ranking")
        verbose_name_plural = _("rankings")
        constraints = [
            models.UniqueConstraint(
                fields=["completion_set", "labeler", "repeat"], name="one_answer_per_set_labeler_and_repeat"
            )
        ]

    def __str__(self) -> str:
        return f"{self.labeler}: {self.completion_set}"

    def get_absolute_url(self) -> str:
        return reverse("answer", args=[self.pk])

    def append(self, ranking: Ranking, **fields: Any) -> "Revision":
        """Make `ranking` the current revision; earlier ones stay."""
        revision = self.revisions.create(
            number=self.revisions.count() + 1,
            tiers=ranking.tiers,
            ratings=ranking.ratings,
            note=ranking.note,
            **fields,
        )
        Answer.objects.filter(pk=self.pk).update(current=revision)
        self.current = revision
        return revision

    @property
    def judged(self) -> "list[Judged]":
        """The completions as the labeler saw and judged them, in the order shown."""
        assert self.current is not None  # submit() makes both
        completions = list(self.completion_set.completions.all())
        return [
            Judged(letter, completions[index], self.current.tiers[index], self.current.ratings[index])
            for letter, index in zip(LETTERS, self.current.shown_order, strict=False)
        ]


class Revision(models.Model):
    answer = models.ForeignKey(Answer, on_delete=models.PROTECT, related_name="revisions")
    number = models.PositiveSmallIntegerField()
    key = models.UUIDField(unique=True, help_text="Made by the page: the same submit sent twice is stored once.")
    tiers = models.JSONField(help_text="tiers[i] is the tier of completion i; 1 is best, equal numbers are tied.")
    ratings = models.JSONField(help_text="ratings[i] is {overall, flags, note} of completion i, or null.")
    shown_order = models.JSONField(help_text="Completion indices in the order they were shown.")
    note = models.TextField(blank=True)
    active_seconds = models.FloatField(default=0)
    instruction_version = models.PositiveIntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["answer", "number"], name="one_revision_per_number")]

    def __str__(self) -> str:
        return f"rev-{self.pk}"
