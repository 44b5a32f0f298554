"""A translation ties a prompt to the same prompt in another language; both share a family and so a split."""

from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import F
from django.utils.translation import gettext_lazy as _

from labeling.models.prompt import Prompt, clean_messages, content_hash
from labeling.models.user import User


class StaleTranslation(Exception):
    """Somebody else saved this translation meanwhile. The caller still has the text."""


class TranslationQuerySet(models.QuerySet["Translation"]):
    def curated_by(self, user: Any) -> Self:
        return self.filter(source__in=Prompt.objects.curated_by(user))

    def unfinished(self) -> Self:
        return self.filter(status=Translation.Status.DRAFT)

    def stale(self) -> Self:
        """Finished translations whose source changed afterwards."""
        return self.filter(status=Translation.Status.DONE).exclude(source_hash=F("source__hash"))

    def look_up(self, source: Prompt, language: str) -> "Translation":
        """The translation of `source` into `language`; where nobody began it, an empty one that is not stored.

        ValidationError where the project does not want it in that language.
        """
        if language == source.language or language not in source.project.languages:
            raise ValidationError(_("The project does not translate this prompt into that language."))
        begun = self.filter(source=source, language=language).select_related("target", "translator").first()
        return begun or Translation(source=source, language=language, source_hash=source.hash)

    def begin(self, source: Prompt, language: str, by: User) -> "Translation":
        """As `look_up`, but stored: somebody begins to write."""
        translation = self.look_up(source, language)
        if translation.pk:
            return translation
        begun, _is_new = self.get_or_create(
            source=source, language=language, defaults={"translator": by, "source_hash": source.hash}
        )
        return begun


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
    """The source's hash when it was last translated to the end (at first: when work began)."""
    version = models.PositiveIntegerField(default=0)
    updated_at = models.DateTimeField(auto_now=True)

    objects = TranslationQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["source", "language"], name="one_translation_per_language"),
        ]

    def __str__(self) -> str:
        return f"{self.source} → {self.language}"

    @transaction.atomic
    def save_draft(self, contents: list[str], by: User, version: int) -> None:
        """Keep unfinished work, one text for each message of the source; nothing is checked.

        StaleTranslation where `version` is not the newest: then somebody else saved meanwhile.
        """
        self._claim_version(models.Q(version=version))
        self.messages = self._beside_the_source(contents)
        self.translator, self.status = by, self.Status.DRAFT
        self.save(update_fields=["messages", "translator", "status", "updated_at"])

    @transaction.atomic
    def finish(self, contents: list[str], by: User, version: int) -> Prompt:
        """Make (or rewrite, while nobody has worked on it) the translated prompt, ready for review.

        ValidationError where a message is empty or the text stands in the project already; StaleTranslation as above.
        """
        # A draft of one's own may still be on its way while one presses the button.
        self._claim_version(models.Q(version=version) | models.Q(translator=by))
        messages = clean_messages(self._beside_the_source(contents))
        target = self.target
        if target and target.hash != content_hash(messages) and not target.is_editable:
            target.retire()
            target = None
        if not target:
            target = Prompt.objects.add(
                self.source.project,
                messages,
                language=self.language,
                source=self.source.source,
                licence=self.source.licence,
                tags=self.source.tags,
                family=self.source.family,
                author=by,
                state=Prompt.State.IN_REVIEW,
            )
        elif target.is_editable:
            target.rewrite(messages)
        self.target, self.messages, self.translator, self.status = target, messages, by, self.Status.DONE
        self.source_hash = self.source.hash
        self.save()
        return target

    def _claim_version(self, mine: models.Q) -> None:
        if not Translation.objects.filter(mine, pk=self.pk).update(version=F("version") + 1):
            raise StaleTranslation
        self.refresh_from_db(fields=["version"])

    def _beside_the_source(self, contents: list[str]) -> list[dict[str, str]]:
        """`contents` with the roles of the source's messages. ValidationError where the number of messages differs."""
        if len(contents) != len(self.source.messages):
            raise ValidationError(_("The source has another number of messages by now. Copy your text, then reload."))
        return [
            {"role": turn["role"], "content": text.replace("\x00", "")}
            for turn, text in zip(self.source.messages, contents, strict=True)
        ]

    def pairs(self) -> list[tuple[dict[str, str], str]]:
        """Each message of the source with the text so far."""
        so_far = [turn["content"] for turn in self.messages]
        missing = len(self.source.messages) - len(so_far)
        return list(zip(self.source.messages, so_far + [""] * missing, strict=False))

    @property
    def is_stale(self) -> bool:
        """Whether the source changed after it was translated."""
        return self.source_hash != self.source.hash
