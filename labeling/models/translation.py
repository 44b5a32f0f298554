"""A translation ties a prompt to the same prompt in another language; both share a family and so a split."""

from typing import Any, Self

from django.conf import settings
from django.db import models, transaction
from django.utils.translation import gettext_lazy as _

from labeling.models.prompt import Prompt, clean_messages
from labeling.models.user import User


class TranslationQuerySet(models.QuerySet["Translation"]):
    def curated_by(self, user: Any) -> Self:
        return self.filter(source__in=Prompt.objects.curated_by(user))

    @transaction.atomic
    def begin(self, source: Prompt, language: str, by: User) -> "Translation":
        """The translation of `source` into `language`, made where there is none yet."""
        translation, _created = self.get_or_create(
            source=source, language=language, defaults={"translator": by, "source_hash": source.hash}
        )
        return translation


class Translation(models.Model):
    class Status(models.TextChoices):
        DRAFT = "draft", _("draft")
        IN_REVIEW = "in_review", _("in review")
        DONE = "done", _("done")

    source = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="translations")
    target = models.OneToOneField(
        Prompt, null=True, blank=True, on_delete=models.SET_NULL, related_name="translated_from"
    )
    language = models.CharField(_("language"), max_length=8)
    messages = models.JSONField(_("messages"), default=list, blank=True)
    """The text in progress: one message for each of the source's, contents possibly empty."""
    status = models.CharField(max_length=12, choices=Status, default=Status.DRAFT)
    translator = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    source_hash = models.CharField(max_length=64)
    updated_at = models.DateTimeField(auto_now=True)

    objects = TranslationQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["source", "language"], name="one_translation_per_language"),
        ]

    def __str__(self) -> str:
        return f"{self.source} → {self.language}"

    def save_draft(self, messages: list[dict[str, str]], by: User) -> None:
        """Keep unfinished work; nothing is checked and nobody else sees it."""
        self.messages, self.translator, self.status = messages, by, self.Status.DRAFT
        self.source_hash = self.source.hash
        self.save(update_fields=["messages", "translator", "status", "source_hash", "updated_at"])

    @transaction.atomic
    def finish(self, messages: list[dict[str, str]], by: User) -> Prompt:
        """Make (or rewrite, while it is not yet approved) the translated prompt, ready for review."""
        messages = clean_messages(messages)
        if self.target and self.target.state == Prompt.State.APPROVED:
            self.target.retire()
            self.target = None
        if self.target:
            self.target.messages = messages
            self.target.full_clean()
            self.target.save()
        else:
            self.target = Prompt(
                project=self.source.project,
                messages=messages,
                language=self.language,
                source=self.source.source,
                licence=self.source.licence,
                tags=self.source.tags,
                family=self.source.family,
                split=self.source.split,
                author=by,
                state=Prompt.State.IN_REVIEW,
            )
            self.target.full_clean()
            self.target.save()
        self.messages, self.translator, self.status = messages, by, self.Status.DONE
        self.source_hash = self.source.hash
        self.save()
        return self.target

    @property
    def is_stale(self) -> bool:
        """Whether the source changed after it was translated."""
        return self.source_hash != self.source.hash
