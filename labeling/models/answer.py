"""Rankings: what a labeler said about one set of completions. Revisions are appended, never overwritten."""

import uuid
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils.translation import gettext_lazy as _

from labeling.models.completion import CompletionSet
from labeling.models.project import Project
from labeling.models.slot import Slot
from labeling.models.user import User
from labeling.rankings import Ranking, clean_ranking


class AnswerQuerySet(models.QuerySet["Answer"]):
    def visible_to(self, user: Any) -> Self:
        """Labelers see their own rankings only; curators and ops those of their projects."""
        seen = self.filter(completion_set__project__in=Project.objects.visible_to(user))
        return seen if user.has_role("curator", "ops", "admin") else seen.filter(labeler=user)

    @transaction.atomic
    def submit(self, slot: Slot, labeler: User, payload: dict[str, Any], key: uuid.UUID) -> "Answer":
        """Store a ranking for a leased slot.

        Sending the same `key` again returns the answer that is there. Raises ValidationError for an incomplete ranking
        and StaleAssignment where the slot is no longer the labeler's.
        """
        done = self.filter(labeler=labeler, revisions__key=key).first()
        if done:
            return done
        completion_set = slot.completion_set
        if completion_set is None:
            raise ValidationError(_("This task asks for a demonstration, not for a ranking."))
        ranking = clean_ranking(payload, completion_set.k, require_ratings=slot.project.require_ratings)
        active_seconds = slot.clean_active_seconds(payload.get("active_seconds", 0))
        slot.take(labeler)
        answer = self.create(slot=slot, completion_set=completion_set, labeler=labeler, repeat=slot.repeat)
        answer.append(ranking, key=key, active_seconds=active_seconds, instruction_version=slot.instruction_version)
        completion_set.close_if_answered()
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

    def append(
        self, ranking: Ranking, *, key: uuid.UUID, active_seconds: float, instruction_version: int | None
    ) -> "Revision":
        """Make `ranking` the current revision; earlier ones stay."""
        revision = self.revisions.create(
            number=self.revisions.count() + 1,
            key=key,
            tiers=ranking.tiers,
            ratings=ranking.ratings,
            shown_order=ranking.shown_order,
            note=ranking.note,
            active_seconds=active_seconds,
            instruction_version=instruction_version,
        )
        Answer.objects.filter(pk=self.pk).update(current=revision)
        self.current = revision
        return revision


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


class Draft(models.Model):
    """Unfinished work on a slot. Never exported."""

    slot = models.ForeignKey(Slot, on_delete=models.CASCADE, related_name="drafts")
    labeler = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="drafts")
    version = models.PositiveIntegerField(default=1)
    payload = models.JSONField(default=dict)
    saved_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["slot", "labeler"], name="one_draft_per_slot_and_labeler")]
