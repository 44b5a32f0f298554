"""Drafts: unfinished work on a slot, kept as the page sent it. Never exported."""

import json
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from labeling.models.slot import Slot
from labeling.models.user import User
from labeling.text import is_storable

MAX_DRAFT_CHARACTERS = 200_000


class DraftConflict(Exception):
    """Another tab has saved since: `draft` is what stands there now."""

    def __init__(self, draft: "Draft") -> None:
        super().__init__(f"the draft is at version {draft.version}")
        self.draft = draft


def clean_draft(payload: Any) -> dict[str, Any]:
    """Any JSON object that can be stored and read back, or ValidationError. It need not be complete, or even right."""
    if not isinstance(payload, dict):
        raise ValidationError(_("The draft is not readable. Reload the page."))
    try:
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise ValidationError(_("The draft is not readable. Reload the page.")) from error
    if len(text) > MAX_DRAFT_CHARACTERS:
        raise ValidationError(_("The draft is too long to be kept. Shorten the text."))
    if "\\u0000" in text or not is_storable(text):
        raise ValidationError(_("The text holds characters that cannot be stored (NUL or half a surrogate pair)."))
    return payload


class DraftQuerySet(models.QuerySet["Draft"]):
    def keep(self, slot: Slot, labeler: User, payload: Any, version: int | None) -> "Draft":
        """Store `payload` over version `version` (0: the first; None: whichever is there). See Slot.save_draft.

        A payload may name the tab it comes from: a tab never conflicts with what it saved itself, such as in the
        moment before it was reloaded.
        """
        payload = clean_draft(payload)
        draft, is_first = self.model.objects.get_or_create(slot=slot, labeler=labeler, defaults={"payload": payload})
        if is_first or draft.payload == payload:
            return draft
        is_same_tab = "tab" in payload and draft.payload.get("tab") == payload["tab"]
        stands_on = draft.version if version is None or is_same_tab else version
        unchanged = self.model.objects.filter(pk=draft.pk, version=stands_on)
        is_kept = unchanged.update(payload=payload, version=F("version") + 1, saved_at=Now())
        draft.refresh_from_db()
        if not is_kept:
            raise DraftConflict(draft)
        return draft


class Draft(models.Model):
    slot = models.ForeignKey(Slot, on_delete=models.CASCADE, related_name="drafts")
    labeler = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="drafts")
    version = models.PositiveIntegerField(default=1)
    payload = models.JSONField(default=dict)
    saved_at = models.DateTimeField(auto_now_add=True)

    objects = DraftQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["slot", "labeler"], name="one_draft_per_slot_and_labeler")]

    def __str__(self) -> str:
        return f"draft {self.version} of {self.slot}"
