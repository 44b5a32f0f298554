"""Prompts: one or many turns, curated from draft to approved, drawn once into train or held out."""

import hashlib
import json
import unicodedata
import uuid
from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils.translation import gettext_lazy as _

from labeling.models.project import K_RANGE, Project
from labeling.models.user import User

if TYPE_CHECKING:
    from labeling.models.completion import CompletionSet

MAX_PROMPT_CHARACTERS = 16_000
HELDOUT_PERCENT = 10


def clean_messages(value: Any) -> list[dict[str, str]]:
    """`value` as a list of {role, content} ending in a user turn, or ValidationError saying what is wrong with it."""
    if not isinstance(value, list) or not value:
        raise ValidationError(_("A prompt needs at least one message."))
    messages = []
    for turn in value:
        if not isinstance(turn, dict) or turn.get("role") not in ("system", "user", "assistant"):
            raise ValidationError(_("Each message needs a role: system, user or assistant."))
        content = turn.get("content")
        if not isinstance(content, str) or not content.strip():
            raise ValidationError(_("A message is empty. Write what the person asks."))
        if "\x00" in content or any(0xD800 <= ord(c) <= 0xDFFF for c in content):
            raise ValidationError(_("The text holds characters that cannot be stored (NUL or half a surrogate pair)."))
        messages.append({"role": turn["role"], "content": unicodedata.normalize("NFC", content.strip())})
    if messages[-1]["role"] != "user":
        raise ValidationError(_("The last message must be the user's: the assistant answers it."))
    length = sum(len(turn["content"]) for turn in messages)
    if length > MAX_PROMPT_CHARACTERS:
        raise ValidationError(
            _("The prompt has %(length)s characters, the limit is %(limit)s. Shorten it or split it."),
            params={"length": length, "limit": MAX_PROMPT_CHARACTERS},
        )
    return messages


def content_hash(messages: list[dict[str, str]]) -> str:
    """Equal for prompts that differ only in case and white space."""
    folded = [[turn["role"], " ".join(turn["content"].casefold().split())] for turn in messages]
    return hashlib.sha256(json.dumps(folded, ensure_ascii=False).encode()).hexdigest()


def draw_split(family: uuid.UUID) -> str:
    """train or heldout, by the family's hash: a prompt and its translations always fall on the same side."""
    bucket = int.from_bytes(hashlib.sha256(family.bytes).digest()[:4], "big") % 100
    return Prompt.Split.HELDOUT if bucket < HELDOUT_PERCENT else Prompt.Split.TRAIN


class PromptQuerySet(models.QuerySet["Prompt"]):
    def visible_to(self, user: Any) -> Self:
        return self.filter(project__in=Project.objects.visible_to(user))

    def curated_by(self, user: Any) -> Self:
        return self.filter(project__in=Project.objects.curated_by(user))

    def approved(self) -> Self:
        return self.filter(state=Prompt.State.APPROVED)

    def awaiting_approval(self) -> Self:
        return self.filter(state__in=(Prompt.State.DRAFT, Prompt.State.IN_REVIEW))

    def approve(self, by: User) -> int:
        """Approve every prompt of the query that can be. Returns how many."""
        return sum(prompt.approve(by) for prompt in self.awaiting_approval().select_related("project"))

    def add(self, project: Project, messages: Any, *, language: str, **fields: Any) -> "Prompt":
        """A new prompt of `project`, checked. ValidationError where it is not usable or stands there already."""
        prompt = Prompt(project=project, messages=clean_messages(messages), language=language, **fields)
        prompt.split = draw_split(prompt.family)
        prompt.full_clean()
        prompt.save()
        return prompt


class Prompt(models.Model):
    class State(models.TextChoices):
        DRAFT = "draft", _("draft")
        IN_TRANSLATION = "in_translation", _("in translation")
        IN_REVIEW = "in_review", _("in review")
        APPROVED = "approved", _("approved")
        RETIRED = "retired", _("retired")

    class Split(models.TextChoices):
        TRAIN = "train", _("training")
        HELDOUT = "heldout", _("held out")

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="prompts")
    messages = models.JSONField(_("messages"))
    language = models.CharField(_("language"), max_length=8)
    source = models.CharField(_("source"), max_length=200, blank=True)
    licence = models.CharField(_("licence"), max_length=100, blank=True)
    tags = models.JSONField(_("tags"), default=list, blank=True)
    family = models.UUIDField(default=uuid.uuid4, editable=False, db_index=True)
    split = models.CharField(_("split"), max_length=8, choices=Split, editable=False)
    state = models.CharField(_("state"), max_length=16, choices=State, default=State.DRAFT, editable=False)
    k = models.PositiveSmallIntegerField(
        _("completions"), null=True, blank=True, validators=K_RANGE, help_text=_("Empty: as the project says.")
    )
    hash = models.CharField(max_length=64, editable=False)
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+", editable=False
    )
    approved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+", editable=False
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = PromptQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("prompt")
        verbose_name_plural = _("prompts")
        constraints = [
            models.UniqueConstraint(
                fields=["project", "language", "hash"],
                name="one_prompt_per_text",
                violation_error_message=_("This prompt is already in the project."),
            ),
            models.CheckConstraint(
                condition=models.Q(k__isnull=True) | models.Q(k__gte=4, k__lte=9), name="prompt_k_between_4_and_9"
            ),
        ]
        indexes = [models.Index(fields=["project", "state", "language"])]

    def __str__(self) -> str:
        return self.text[:80]

    def clean(self) -> None:
        self.messages = clean_messages(self.messages)
        self.hash = content_hash(self.messages)
        if self.language not in self.project.languages:
            raise ValidationError(
                {"language": _("The project has no prompts in “%(language)s”.") % {"language": self.language}}
            )

    @transaction.atomic
    def approve(self, by: User) -> bool:
        """Open the prompt for labeling. False where it was approved or retired meanwhile."""
        waiting = Prompt.objects.awaiting_approval().filter(pk=self.pk)
        if not waiting.update(state=self.State.APPROVED, approved_by=by):
            return False
        self.refresh_from_db(fields=["state", "approved_by"])
        self.open_demonstration_slots()
        self.request_completions()
        return True

    @transaction.atomic
    def retire(self) -> None:
        """Give the prompt to nobody any more. What was said about it stays."""
        Prompt.objects.filter(pk=self.pk).update(state=self.State.RETIRED)
        self.state = self.State.RETIRED
        self.completion_sets.unlabelled().expire()
        self.slots.open().delete()

    def open_demonstration_slots(self) -> None:
        """One slot for each labeler asked for. A prompt the policy cannot answer is asked for once in any case."""
        if self.demonstrations.exists():
            return
        wanted = self.project.demonstration_overlap or (0 if self.project.speaks(self.language) else 1)
        self.slots.open_places(self, wanted)

    def request_completions(self) -> "CompletionSet | None":
        """Queue the sampling of a set from the current policy, once; None where it does not speak the language."""
        if self.state != self.State.APPROVED or not self.project.speaks(self.language):
            return None
        return self.completion_sets.request(self)

    @property
    def text(self) -> str:
        """What the user asks last."""
        return str(self.messages[-1]["content"]) if self.messages else ""

    @property
    def completions_wanted(self) -> int:
        return self.k or self.project.k
