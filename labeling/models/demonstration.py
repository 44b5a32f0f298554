"""Demonstrations: what a good answer to a prompt looks like, written by a labeler or imported with its source."""

import uuid
from collections.abc import Iterable
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models.functions import Length
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from labeling.models.answer import Answer
from labeling.models.completion import Completion
from labeling.models.participation import Participation
from labeling.models.project import Project
from labeling.models.prompt import BATCH, Prompt
from labeling.models.slot import Slot, StaleAssignment
from labeling.models.user import User
from labeling.pseudonyms import pseudonym
from labeling.text import is_storable

MAX_DEMONSTRATION_CHARACTERS = 16_000


def clean_demonstration(text: Any) -> str:
    """`text` without surrounding space, or ValidationError."""
    if not isinstance(text, str) or not text.strip():
        raise ValidationError(_("Write an answer before you submit."))
    if not is_storable(text):
        raise ValidationError(_("The text holds characters that cannot be stored (NUL or half a surrogate pair)."))
    if len(text) > MAX_DEMONSTRATION_CHARACTERS:
        raise ValidationError(
            _("The answer has %(length)s characters, the limit is %(limit)s. Shorten it."),
            params={"length": len(text), "limit": MAX_DEMONSTRATION_CHARACTERS},
        )
    return text.strip()


def _pasted(payload: dict[str, Any]) -> int:
    """Characters that the page saw come from the clipboard. Telemetry: what is not a number counts as none."""
    said = payload.get("pasted")
    if not isinstance(said, int) or isinstance(said, bool):
        return 0
    return max(0, min(said, MAX_DEMONSTRATION_CHARACTERS))


def _started_from(payload: dict[str, Any], prompt: Prompt, labeler: User) -> Completion | None:
    """The completion that was corrected, where the labeler says so and has ranked it."""
    said = payload.get("started_from")
    return next((each for each in Answer.objects.best_first(prompt, labeler) if each.pk == said), None)


class DemonstrationQuerySet(models.QuerySet["Demonstration"]):
    def visible_to(self, user: Any) -> Self:
        """Labelers see their own; curators and ops those of their projects."""
        seen = self.standing().filter(prompt__project__in=Project.objects.visible_to(user))
        return seen if user.has_role("curator", "ops", "admin") else seen.filter(author=user)

    def standing(self) -> Self:
        """Imported, or handed in and not taken back."""
        return self.filter(models.Q(origin=Demonstration.Origin.IMPORTED) | models.Q(slot__isnull=False))

    def amendable_by(self, user: Any) -> Self:
        """Labelers change their own demonstrations, curators all of their projects."""
        standing = self.standing()
        own = standing.filter(author=user, prompt__project__in=Project.objects.labeled_by(user))
        return own | standing.filter(prompt__project__in=Project.objects.curated_by(user))

    def usable(self) -> Self:
        """What may be trained on: all that labelers wrote, but for what was returned to them, and imports whose prompt
        somebody approved."""
        was_approved = models.Q(prompt__state=Prompt.State.APPROVED) | models.Q(
            prompt__state=Prompt.State.RETIRED, prompt__approved_by__isnull=False
        )
        returned = models.Q(slot__review_state=Slot.ReviewState.RETURNED)
        hidden = Participation.objects.hides("prompt__project", "author")
        return (
            self.standing()
            .exclude(returned)
            .exclude(hidden)
            .filter(models.Q(origin=Demonstration.Origin.LABELER) | was_approved)
        )

    def pasted_share(self) -> float | None:
        """How much of what was written came from the clipboard, 0 to 1; None where nothing was written."""
        written = self.filter(origin=Demonstration.Origin.LABELER).order_by()
        rows = written.annotate(pasted=models.Max("revisions__pasted")).values_list("pasted", Length("text"))
        counts = [(min(pasted, length), length) for pasted, length in rows]
        total = sum(length for _pasted, length in counts)
        return sum(pasted for pasted, _length in counts) / total if total else None

    @transaction.atomic
    def submit(self, slot: Slot, labeler: User, payload: Any, key: uuid.UUID) -> "Demonstration":
        """Store a demonstration for a leased slot; the same `key` again returns the one that is there.

        `payload`: text, active_seconds, instruction_version. Raises ValidationError for an empty or overlong text and
        StaleAssignment where the slot is not (or no longer) the labeler's.
        """
        sent_before = self.filter(slot=slot, author=labeler, revisions__key=key)
        if done := sent_before.first():
            return done
        if slot.task_type != Slot.TaskType.DEMONSTRATION:
            raise ValidationError(_("This task asks for a ranking, not for a demonstration."))
        if not isinstance(payload, dict):
            raise ValidationError(_("The demonstration is not readable. Reload the page."))
        text = clean_demonstration(payload.get("text"))
        label = slot.clean_label(payload) | {
            "started_from": _started_from(payload, slot.prompt, labeler),
            "pasted": _pasted(payload),
        }
        try:
            slot.take(labeler)
        except StaleAssignment:
            if done := sent_before.first():  # the same request, twice at once
                return done
            raise
        if DemonstrationRevision.objects.filter(key=key).exists():
            raise ValidationError(_("This page was used for another task. Reload it."))
        # One that was taken back is handed in anew, with all its revisions.
        demonstration, _is_new = self.update_or_create(
            prompt=slot.prompt, author=labeler, origin=Demonstration.Origin.LABELER, defaults={"slot": slot}
        )
        demonstration.append(text, key=key, **label)
        demonstration.tell("submitted")
        return demonstration

    @transaction.atomic
    def import_all(self, texts: Iterable[tuple[Prompt, str]], source: str) -> int:
        """Store clean demonstrations that came with an import: their author is the source. Returns how many."""
        made = Demonstration.objects.bulk_create(
            (
                Demonstration(prompt=prompt, origin=Demonstration.Origin.IMPORTED, source=source, text=text)
                for prompt, text in texts
            ),
            batch_size=BATCH,
        )
        DemonstrationRevision.objects.bulk_create(
            (
                DemonstrationRevision(demonstration=demonstration, number=1, key=uuid.uuid4(), text=demonstration.text)
                for demonstration in made
            ),
            batch_size=BATCH,
        )
        return len(made)


class Demonstration(models.Model):
    class Origin(models.TextChoices):
        LABELER = "labeler", _("labeler")
        IMPORTED = "imported", _("imported")

    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="demonstrations")
    slot = models.OneToOneField(Slot, null=True, on_delete=models.PROTECT, related_name="demonstration")
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="demonstrations"
    )
    origin = models.CharField(max_length=10, choices=Origin)
    source = models.CharField(max_length=200, blank=True)
    text = models.TextField()
    """Text of the newest revision."""
    created_at = models.DateTimeField(auto_now_add=True)

    objects = DemonstrationQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("demonstration")
        verbose_name_plural = _("demonstrations")
        constraints = [
            models.UniqueConstraint(
                fields=["prompt", "author"],
                condition=models.Q(author__isnull=False),
                name="one_demonstration_per_prompt_and_author",
            ),
            models.CheckConstraint(
                condition=models.Q(origin="imported", author__isnull=True)
                | models.Q(origin="labeler", author__isnull=False),
                name="only_imports_lack_an_author",
            ),
        ]

    def __str__(self) -> str:
        return self.text[:80]

    def get_absolute_url(self) -> str:
        return reverse("demonstration", args=[self.pk])

    def append(self, text: str, **fields: Any) -> "DemonstrationRevision":
        """Make `text` the current revision; earlier ones stay."""
        revision = self.revisions.create(number=self.revisions.count() + 1, text=text, **fields)
        Demonstration.objects.filter(pk=self.pk).update(text=text)
        self.text = text
        return revision

    @transaction.atomic
    def amend(self, by: User, payload: Any, key: uuid.UUID, stands_on: Any) -> "DemonstrationRevision":
        """A new revision over revision number `stands_on`; the same `key` again returns the one that is there.

        Raises ValidationError for an empty or overlong text, or where somebody else was faster.
        """
        if done := self.revisions.filter(key=key).first():
            return done
        text = clean_demonstration(payload.get("text") if isinstance(payload, dict) else None)
        Demonstration.objects.select_for_update(of=("self",)).get(pk=self.pk)
        if self.newest.number != stands_on or DemonstrationRevision.objects.filter(key=key).exists():
            raise ValidationError(_("This was changed in the meantime. Reload the page to see how it stands."))
        label = self.slot.clean_label(payload) if self.slot else {}
        label |= {"started_from": self.newest.started_from, "pasted": _pasted(payload)}
        revision = self.append(text, key=key, editor=None if by == self.author else by, **label)
        if self.slot:
            self.slot.changed_by(by)
            self.tell("changed")
        return revision

    def tell(self, what: str) -> None:
        """To the project's webhooks. Labelers appear under pseudonyms."""
        assert self.author_id is not None  # labels of this site alone are told of
        self.prompt.project.webhooks.tell(
            f"demonstration.{what}",
            demonstration=self.pk,
            prompt=self.prompt_id,
            labeler=pseudonym(self.author_id),
            revision=self.revisions.count(),
        )

    def as_work(self) -> dict[str, Any]:
        """The current revision as the page keeps unfinished work."""
        newest = self.newest
        return {
            "text": self.text,
            "active_seconds": newest.active_seconds,
            "started_from": newest.started_from_id,
            "pasted": newest.pasted,
        }

    @property
    def newest(self) -> "DemonstrationRevision":
        return self.revisions.order_by("number").last()  # type: ignore[return-value]


class DemonstrationRevision(models.Model):
    demonstration = models.ForeignKey(Demonstration, on_delete=models.PROTECT, related_name="revisions")
    number = models.PositiveSmallIntegerField()
    key = models.UUIDField(unique=True)
    text = models.TextField()
    started_from = models.ForeignKey(Completion, null=True, on_delete=models.PROTECT, related_name="+")
    """The completion that its author corrected; empty where it was written from nothing."""
    editor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    """Who amended it; empty where it was its author."""
    pasted = models.PositiveIntegerField(default=0)
    """Characters that came from the clipboard, as far as the page saw."""
    active_seconds = models.FloatField(default=0)
    instruction_version = models.PositiveIntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["demonstration", "number"], name="one_demonstration_revision_per_number")
        ]
