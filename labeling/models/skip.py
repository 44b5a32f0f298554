"""Skips: pieces that a labeler passed on, never to be offered to them again."""

from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models

from labeling.models.prompt import Prompt
from labeling.models.states import TaskType
from labeling.models.user import User
from labeling.text import is_storable

if TYPE_CHECKING:
    from labeling.models.slot import Slot


class SkipQuerySet(models.QuerySet["Skip"]):
    def remember(self, slot: "Slot", labeler: User, reason: str) -> None:
        """Never offer the piece to `labeler` again. A reason is optional, and no reason to refuse a skip."""
        reason = reason.strip()[:500] if is_storable(reason) else ""
        self.get_or_create(labeler=labeler, prompt=slot.prompt, task_type=slot.task_type, defaults={"reason": reason})


class Skip(models.Model):
    """A labeler passed on a piece."""

    labeler = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="skips")
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="skips")
    task_type = models.CharField(max_length=14, choices=TaskType)
    reason = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = SkipQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["labeler", "prompt", "task_type"], name="a_skip_is_for_good")]
