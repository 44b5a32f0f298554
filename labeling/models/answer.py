"""Rankings: what a labeler said about one set of completions. Revisions are appended, never overwritten."""

import uuid
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models.functions import Length
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from labeling.models.completion import Completion, CompletionSet
from labeling.models.project import Project
from labeling.models.prompt import BATCH, Prompt
from labeling.models.slot import Slot, StaleAssignment
from labeling.models.user import User
from labeling.quality import Judgement
from labeling.rankings import LETTERS, Ranking, Verdict, clean_ranking


@dataclass(frozen=True)
class Judged:
    letter: str
    completion: Completion
    tier: int | None
    rating: dict[str, Any] | None


class AnswerQuerySet(models.QuerySet["Answer"]):
    def visible_to(self, user: Any) -> Self:
        """Labelers see their own rankings only; curators and ops those of their projects."""
        seen = self.standing().filter(completion_set__project__in=Project.objects.visible_to(user))
        return seen if user.has_role("curator", "ops", "admin") else seen.filter(labeler=user)

    def standing(self) -> Self:
        """Handed in, and not taken back."""
        return self.filter(slot__isnull=False)

    def trainable(self) -> Self:
        """Those that say which completion is better, and were not returned to be done better."""
        ranked = self.standing().filter(current__verdict=Verdict.RANKED)
        return ranked.exclude(slot__review_state=Slot.ReviewState.RETURNED)

    def amendable_by(self, user: Any) -> Self:
        """Labelers change their own rankings, curators all of their projects."""
        standing = self.standing()
        own = standing.filter(labeler=user, completion_set__project__in=Project.objects.labeled_by(user))
        return own | standing.filter(completion_set__project__in=Project.objects.curated_by(user))

    def judgements(self, newest: int) -> list[Judgement]:
        """The query's `newest` rankings as rows for `labeling.quality`: a query, and one for every few hundred sets."""
        names = ("completion_set", "labeler__username", "current__tiers", "current__shown_order")
        facts = (
            "current__active_seconds",
            "created_at",
            "completion_set__prompt__language",
            "completion_set__prompt__tags",
            "pk",
            "completion_set__prompt__split",
            "completion_set__arm",
        )
        rows = list(self.trainable().order_by("-pk").values_list(*names, *facts)[:newest])
        lengths: dict[int, dict[int, int]] = defaultdict(dict)
        sets = list({row[0] for row in rows})
        for start in range(0, len(sets), BATCH):
            texts = Completion.objects.filter(completion_set__in=sets[start : start + BATCH]).order_by()
            for chosen, index, length in texts.values_list("completion_set", "index", Length("text")):
                lengths[chosen][index] = length
        return [
            Judgement(
                set_id=chosen,
                labeler=name,
                tiers=tiers,
                shown_order=shown,
                lengths=[lengths[chosen][index] for index in range(len(tiers))],
                seconds=seconds,
                day=timezone.localdate(made),
                language=language,
                tags=tags,
                answer_id=key,
                split=split,
                arm=arm,
            )
            for chosen, name, tiers, shown, seconds, made, language, tags, key, split, arm in rows
        ]

    def best_first(self, prompt: Prompt, labeler: User) -> list[Completion]:
        """Completions of `prompt` that `labeler` has ranked, the best first, each text once."""
        ranked = self.trainable().filter(completion_set__prompt=prompt, labeler=labeler).select_related("current")
        tiered = [
            (answer.current.tiers[completion.index], completion)
            for answer in ranked.prefetch_related("completion_set__completions")
            for completion in answer.completion_set.completions.all()
            if answer.current
        ]
        best: dict[str, Completion] = {}
        for _tier, completion in sorted(tiered, key=lambda pair: pair[0]):
            best.setdefault(completion.text.strip(), completion)
        return list(best.values())

    @transaction.atomic
    def submit(self, slot: Slot, labeler: User, payload: Any, key: uuid.UUID) -> "Answer":
        """Store a ranking for a leased slot.

        `payload`: verdict, tiers and ratings by completion index, note, active_seconds, instruction_version (see
        clean_ranking).
        Sending the same `key` again returns the answer that is there. Raises ValidationError for an incomplete ranking
        and StaleAssignment where the slot is not (or no longer) the labeler's.
        """
        sent_before = self.filter(slot=slot, labeler=labeler, revisions__key=key)
        if done := sent_before.first():
            return done
        completion_set = slot.completion_set
        if completion_set is None:
            raise ValidationError(_("This task asks for a demonstration, not for a ranking."))
        ranking = clean_ranking(payload, completion_set.texts, require_ratings=slot.project.require_ratings)
        label = slot.clean_label(payload)
        try:
            slot.take(labeler)
        except StaleAssignment:
            if done := sent_before.first():  # the same request, twice at once
                return done
            raise
        if Revision.objects.filter(key=key).exists():
            raise ValidationError(_("This page was used for another task. Reload it."))
        # One that was taken back is handed in anew, with all its revisions.
        answer, _is_new = self.update_or_create(
            completion_set=completion_set, labeler=labeler, repeat=slot.repeat, defaults={"slot": slot}
        )
        answer.append(ranking, key=key, shown_order=slot.shown_order, **label)
        if ranking.verdict == Verdict.CANNOT_JUDGE:
            Slot.objects.open_places(completion_set)  # for somebody who can
        completion_set.close_or_reopen()
        return answer


class Answer(models.Model):
    slot = models.OneToOneField(Slot, null=True, on_delete=models.PROTECT, related_name="answer")
    """Empty where the labeler took the answer back and has not handed it in again."""
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
            verdict=ranking.verdict,
            **fields,
        )
        Answer.objects.filter(pk=self.pk).update(current=revision)
        self.current = revision
        return revision

    @transaction.atomic
    def amend(self, by: User, payload: Any, key: uuid.UUID, stands_on: Any) -> "Revision":
        """A new revision over revision number `stands_on`; the same `key` again returns the one that is there.

        Raises ValidationError for an incomplete ranking, or where somebody else was faster.
        """
        if done := self.revisions.filter(key=key).first():
            return done
        assert self.slot is not None  # amendable_by() gives no others
        newest = Answer.objects.select_for_update(of=("self",)).select_related("current").get(pk=self.pk).current
        if newest is None or newest.number != stands_on or Revision.objects.filter(key=key).exists():
            raise ValidationError(_("This was changed in the meantime. Reload the page to see how it stands."))
        is_ranked = newest.verdict == Verdict.RANKED
        required = self.slot.project.require_ratings and is_ranked and any(newest.ratings)
        ranking = clean_ranking(payload, self.completion_set.texts, require_ratings=required)
        revision = self.append(
            ranking,
            key=key,
            shown_order=newest.shown_order,
            author=None if by == self.labeler else by,
            **self.slot.clean_label(payload),
        )
        self.slot.changed_by(by)
        return revision

    def as_work(self) -> dict[str, Any]:
        """The current revision as the page keeps unfinished work."""
        revision = self.current
        assert revision is not None  # submit() makes both
        return {
            "verdict": revision.verdict,
            "tiers": revision.tiers or [None] * self.completion_set.k,
            "ratings": revision.ratings,
            "note": revision.note,
            "active_seconds": revision.active_seconds,
            "step": "board",
        }

    @property
    def judged(self) -> "list[Judged]":
        """The completions as the labeler saw and judged them, in the order shown."""
        assert self.current is not None  # submit() makes both
        completions = list(self.completion_set.completions.all())
        tiers = self.current.tiers or [None] * len(completions)
        return [
            Judged(letter, completions[index], tiers[index], self.current.ratings[index])
            for letter, index in zip(LETTERS, self.current.shown_order, strict=False)
        ]


class Revision(models.Model):
    answer = models.ForeignKey(Answer, on_delete=models.PROTECT, related_name="revisions")
    number = models.PositiveSmallIntegerField()
    key = models.UUIDField(unique=True, help_text="Made by the page: the same submit sent twice is stored once.")
    verdict = models.CharField(max_length=16, choices=Verdict, default=Verdict.RANKED)
    tiers = models.JSONField(
        help_text="tiers[i] is the tier of completion i; 1 is best, equal numbers are tied. Empty where none was given."
    )
    ratings = models.JSONField(help_text="ratings[i] is {overall, flags, note} of completion i, or null.")
    shown_order = models.JSONField(help_text="Completion indices in the order they were shown.")
    note = models.TextField(blank=True)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    """Who amended it; empty where it was its labeler."""
    active_seconds = models.FloatField(default=0)
    instruction_version = models.PositiveIntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["answer", "number"], name="one_revision_per_number")]

    def __str__(self) -> str:
        return f"rev-{self.pk}"
