"""Prompts: one or many turns, curated from draft to approved, drawn once into train or held out."""

import hashlib
import json
import unicodedata
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models, transaction
from django.db.models import Exists, F, OuterRef
from django.utils.translation import gettext_lazy as _

from labeling.audit import record_state
from labeling.models.project import K_RANGE, MAX_K, MIN_K, PAIR, Project
from labeling.models.user import User
from labeling.text import is_storable

if TYPE_CHECKING:
    from labeling.models.completion import CompletionSet

MAX_PROMPT_CHARACTERS = 16_000
MAX_TAGS, MAX_TAG_CHARACTERS = 10, 40
HELDOUT_PERCENT = 10
BATCH = 500
COLUMNS = ("state", "language", "split", "source")


class ReadableJSON(DjangoJSONEncoder):
    """Keeps letters beyond ASCII as they are, so that the database can look for them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "ensure_ascii": False})


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
        if not is_storable(content):
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


def clean_tags(value: Any) -> list[str]:
    """Lower-case words without repetition, or ValidationError."""
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise ValidationError(_("Tags are a list of words."))
    tags = list(dict.fromkeys(" ".join(tag.casefold().split()) for tag in value if tag.strip()))
    if len(tags) > MAX_TAGS or any(len(tag) > MAX_TAG_CHARACTERS for tag in tags):
        raise ValidationError(
            _("At most %(count)s tags of at most %(length)s characters each."),
            params={"count": MAX_TAGS, "length": MAX_TAG_CHARACTERS},
        )
    if any(character in tag for tag in tags for character in '",\\\x00'):
        raise ValidationError(_("A tag holds no commas, quotes or backslashes."))
    return tags


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

    def sampled_for(self) -> Self:
        """Prompts for which completions and demonstrations are asked without anybody's wish.

        Not those that came with completions to be compared: their labels are there, or their work is.
        """
        return self.filter(came_with_completions=False)

    def awaiting_approval(self) -> Self:
        return self.filter(state__in=(Prompt.State.DRAFT, Prompt.State.IN_REVIEW))

    def matching(self, filters: dict[str, str]) -> Self:
        """Prompts that pass each of `filters`: state, language, split, source, tag, q, completions, translation."""
        found = self.filter(**{name: filters[name] for name in COLUMNS if name in filters})
        if tag := filters.get("tag"):
            found = found.tagged(tag)
        if text := filters.get("q"):
            found = found.containing(text)
        if kind := filters.get("completions"):
            found = found.with_completions(kind)
        if kind := filters.get("translation"):
            found = found.with_translation(kind)
        return found

    def tagged(self, tag: str) -> Self:
        return self.filter(tags__icontains=f'"{tag}"')

    def containing(self, text: str) -> Self:
        """Prompts with `text` in any of their turns."""
        return self.filter(searchable__icontains=unicodedata.normalize("NFC", text.replace("\x00", "")))

    def with_completions(self, kind: str) -> Self:
        """Prompts whose set from the project's current policy is `in_work`, `sampled` or `failed`."""
        sets = getattr(apps.get_model("labeling", "CompletionSet").objects, kind)()
        # The project is joined to the sets: joined to the prompts, it makes SQLite sort them all to show a page.
        return self.filter(Exists(sets.filter(prompt=OuterRef("pk"), policy_name=F("project__policy_name"))))

    def tags_and_sources(self) -> tuple[list[str], list[str]]:
        """What there is to filter by, in order."""
        tags = self.order_by().values_list("tags", flat=True).distinct()
        sources = self.order_by().exclude(source="").values_list("source", flat=True).distinct()
        return sorted({tag for row in tags for tag in row}), sorted(sources)

    def with_translation(self, kind: str) -> Self:
        """Prompts to translate (`missing-ko`), with a `draft` of a translation, or with one that is `stale`."""
        if kind.startswith("missing-"):
            return self.to_translate(kind.removeprefix("missing-"))
        rows = apps.get_model("labeling", "Translation").objects.filter(source=OuterRef("pk"))
        return self.filter(Exists(rows.stale() if kind == "stale" else rows.unfinished()))

    def to_translate(self, language: str) -> Self:
        """Approved prompts of other languages whose family has nothing in `language`, not even unfinished work."""
        siblings = Prompt.objects.filter(family=OuterRef("family"), language=language)
        begun = apps.get_model("labeling", "Translation").objects.filter(source=OuterRef("pk"), language=language)
        return self.approved().exclude(language=language).exclude(Exists(siblings)).exclude(Exists(begun))

    def add(self, project: Project, messages: Any, *, language: str, **fields: Any) -> "Prompt":
        """A new prompt of `project`, checked. ValidationError where it is not usable or stands there already."""
        prompt = Prompt(project=project, messages=clean_messages(messages), language=language, **fields)
        prompt.split = draw_split(prompt.family)
        prompt.full_clean()
        prompt.save()
        return prompt

    @transaction.atomic
    def approve(self, by: User) -> int:
        """Open every prompt of the query that waits for it, whole batches at once. Returns how many."""
        waiting = self.awaiting_approval()
        Project.objects.filter(pk__in=waiting.values("project").distinct().order_by()).lock()
        count = 0
        for batch in waiting._batches():
            record_state(batch, Prompt.State.APPROVED)
            count += batch.update(state=Prompt.State.APPROVED, approved_by=by)
            batch.sampled_for().open_demonstrations()
            batch.sampled_for().request_completions()
            apps.get_model("labeling", "CompletionSet").objects.filter(prompt__in=batch).open_imported()
        return count

    @transaction.atomic
    def retire(self) -> int:
        """Give the prompts of the query to nobody any more. What was said about them stays. Returns how many."""
        kept = self.exclude(state=Prompt.State.RETIRED)
        Project.objects.filter(pk__in=kept.values("project").distinct().order_by()).lock()
        count = 0
        for batch in kept._batches():
            record_state(batch, Prompt.State.RETIRED)
            count += batch.update(state=Prompt.State.RETIRED)
            apps.get_model("labeling", "CompletionSet").objects.filter(prompt__in=batch).unlabelled().expire()
            apps.get_model("labeling", "Slot").objects.filter(prompt__in=batch).withdraw()
        return count

    @transaction.atomic
    def restore(self) -> int:
        """Retired prompts become drafts again, for somebody to look at. Returns how many."""
        retired = self.filter(state=Prompt.State.RETIRED)
        record_state(retired, Prompt.State.DRAFT)
        return retired.update(state=Prompt.State.DRAFT, approved_by=None)

    @transaction.atomic
    def join_training(self) -> int:
        """Move the families of the query from held out to training, with all that was said about them.

        Never the other way: what a model was trained on can measure none. Returns how many prompts moved.
        """
        moved = Prompt.objects.filter(family__in=list(self.values_list("family", flat=True)))
        moved = moved.filter(split=Prompt.Split.HELDOUT)
        record_state(moved, Prompt.Split.TRAIN, "split")
        return moved.update(split=Prompt.Split.TRAIN)

    def open_demonstrations(self) -> None:
        """Slots for as many labelers as asked for; none where a demonstration stands there already."""
        bare = self.filter(demonstrations=None).select_related("project")
        apps.get_model("labeling", "Slot").objects.open_demonstrations(bare)

    def request_completions(self) -> int:
        """Queue the sampling of a set from the current policy, once, for each approved prompt that it can answer."""
        approved = self.approved().select_related("project").order_by("pk")
        spoken = [prompt for prompt in approved if prompt.project.speaks(prompt.language)]
        sets = apps.get_model("labeling", "CompletionSet").objects
        return sum(sets.request(spoken[start : start + BATCH]) for start in range(0, len(spoken), BATCH))

    def _batches(self) -> "Iterator[PromptQuerySet]":
        """The rows that match now, in parts small enough for one statement."""
        keys = list(self.order_by("pk").values_list("pk", flat=True))
        for start in range(0, len(keys), BATCH):
            yield Prompt.objects.filter(pk__in=keys[start : start + BATCH])


class Prompt(models.Model):
    class State(models.TextChoices):
        DRAFT = "draft", _("draft")
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
    tags = models.JSONField(_("tags"), default=list, blank=True, encoder=ReadableJSON)
    family = models.UUIDField(default=uuid.uuid4, editable=False, db_index=True)
    split = models.CharField(_("split"), max_length=8, choices=Split, editable=False)
    state = models.CharField(_("state"), max_length=16, choices=State, default=State.DRAFT, editable=False)
    k = models.PositiveSmallIntegerField(
        _("completions"), null=True, blank=True, validators=K_RANGE, help_text=_("Empty: as the project says.")
    )
    came_with_completions = models.BooleanField(default=False, editable=False)
    """Whether an import brought it, together with completions to compare."""
    hash = models.CharField(max_length=64, editable=False)
    searchable = models.TextField(editable=False)
    """Every turn's text: what a search looks into."""
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
        indexes = [
            models.Index(fields=["project", "state", "language"]),
            models.Index(fields=["project", "-id"]),
            # What a list is filtered by is read from an index alone: the rows are long.
            models.Index(fields=["project", "source"]),
            models.Index(fields=["project", "tags"]),
        ]

    def __str__(self) -> str:
        return self.text[:80]

    def clean(self) -> None:
        self.set_messages(clean_messages(self.messages))
        self.tags = clean_tags(self.tags)
        if self.language not in self.project.languages:
            raise ValidationError(
                {"language": _("The project has no prompts in “%(language)s”.") % {"language": self.language}}
            )

    def set_messages(self, messages: list[dict[str, str]]) -> None:
        """Put clean messages in place, with what is stored of them besides."""
        self.messages = messages
        self.hash = content_hash(messages)
        self.searchable = "\n".join(turn["content"] for turn in messages)

    @transaction.atomic
    def rewrite(self, messages: Any, **fields: Any) -> None:
        """Change a prompt that nobody has worked on yet. ValidationError where someone has, or the text is unusable."""
        Project.objects.filter(pk=self.project_id).lock()
        self.refresh_from_db(fields=["state"])
        if not self.is_editable:
            raise ValidationError(
                _("This prompt can no longer be changed: it was approved. Retire it, then add it anew.")
            )
        self.messages = messages
        for name, value in fields.items():
            setattr(self, name, value)
        self.full_clean()
        self.save()

    def approve(self, by: User) -> bool:
        """Open the prompt for labeling. False where it was approved or retired meanwhile."""
        done = Prompt.objects.filter(pk=self.pk).approve(by)
        self.refresh_from_db(fields=["state", "approved_by"])
        return bool(done)

    def retire(self) -> None:
        """Give the prompt to nobody any more. What was said about it stays."""
        Prompt.objects.filter(pk=self.pk).retire()
        self.state = self.State.RETIRED

    def request_completions(self) -> "CompletionSet | None":
        """The live set from the current policy, new where there is none; None where it does not speak the language."""
        Prompt.objects.filter(pk=self.pk).request_completions()
        return self.completion_sets.live().filter(policy_name=self.project.policy_name).first()

    @transaction.atomic
    def sample_again(self) -> "CompletionSet | None":
        """Withdraw the set that nobody has worked on and ask for another, with the settings of now.

        ValidationError where a labeler is at work on it or has answered, or where the policy cannot be asked.
        """
        project = Project.objects.filter(pk=self.project_id).lock().get()
        self.refresh_from_db(fields=["state"])
        if self.state != self.State.APPROVED or not project.speaks(self.language):
            raise ValidationError(_("Only approved prompts in a language of the current policy are sampled."))
        current = self.completion_sets.live().filter(policy_name=project.policy_name)
        if current.exclude(pk__in=current.unlabelled().values("pk")).exists():
            raise ValidationError(_("A labeler is at work on this set or has ranked it. It stays as it is."))
        current.expire()
        return self.request_completions()

    def choose_k(self, value: str) -> None:
        """Ask for `value` completions from the next set on; empty asks for as many as the project does."""
        if value and not (value.isdecimal() and MIN_K <= int(value) <= MAX_K):
            raise ValidationError(_("The number of completions is from 4 to 9."))
        self.k = int(value) if value else None
        self.save(update_fields=["k"])

    @property
    def is_editable(self) -> bool:
        """Whether nobody has been given this text: what people and models answered must stay what it was."""
        waiting = self.state in (self.State.DRAFT, self.State.IN_REVIEW)
        return waiting and not self.completion_sets.exists() and not self.slots.exists()

    @property
    def demonstrations_wanted(self) -> int:
        """How many labelers are asked for one. A prompt the policy cannot answer is asked for once in any case."""
        return self.project.demonstration_overlap or (0 if self.project.speaks(self.language) else 1)

    @property
    def text(self) -> str:
        """What the user asks last."""
        return str(self.messages[-1]["content"]) if self.messages else ""

    @property
    def completions_wanted(self) -> int:
        """What the next set holds: in a project that asks for pairs, two."""
        is_pair = self.project.comparison == Project.Comparison.PAIRS
        return PAIR if is_pair else self.k or self.project.k
