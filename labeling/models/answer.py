"""Rankings: what a labeler said about one set of completions. Revisions are appended, never overwritten."""

import uuid
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Length
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from labeling.models.completion import Completion, CompletionSet
from labeling.models.participation import Participation
from labeling.models.project import Project
from labeling.models.prompt import Prompt
from labeling.models.slot import Slot, StaleAssignment
from labeling.models.states import Purpose
from labeling.models.user import User
from labeling.pseudonyms import pseudonym
from labeling.quality import Judgement
from labeling.rankings import LETTERS, STRENGTHS, Ranking, Verdict, clean_ranking


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
        """Imported, or handed in and not taken back."""
        return self.filter(Q(labeler__isnull=True) | Q(slot__isnull=False))

    def ranked(self) -> Self:
        """Those that say which completion is better, but for what was returned to be done better, and for imports whose
        prompt nobody has approved."""
        ranked = self.standing().filter(current__verdict=Verdict.RANKED)
        kept = ranked.exclude(slot__review_state=Slot.ReviewState.RETURNED)
        was_approved = Q(completion_set__prompt__state=Prompt.State.APPROVED) | Q(
            completion_set__prompt__state=Prompt.State.RETIRED, completion_set__prompt__approved_by__isnull=False
        )
        return kept.filter(Q(labeler__isnull=False) | was_approved)

    def counted(self) -> Self:
        """The same without those whose labeler is in quarantine."""
        return self.ranked().exclude(Participation.objects.hides("completion_set__project", "labeler"))

    def independent(self) -> Self:
        """What each labeler said of a set by themselves, the first time: what agreement is about."""
        return self.counted().filter(slot__purpose=Purpose.LABEL)

    def decisions(self) -> Self:
        """What curators decided on sets in dispute."""
        return self.counted().filter(slot__purpose=Purpose.ADJUDICATION)

    def trainable(self) -> Self:
        """What models learn from: of a set in dispute the curator's decision, of others every labeler's ranking.

        Checks of labelers are not labels: a known answer would be learnt as often as it was asked.
        """
        decided = Answer.objects.decisions().filter(completion_set=OuterRef("completion_set"))
        is_label = (Q(slot__purpose=Purpose.LABEL) | Q(labeler__isnull=True)) & ~Exists(decided)
        return self.counted().filter(is_label | Q(slot__purpose=Purpose.ADJUDICATION))

    def amendable_by(self, user: Any) -> Self:
        """Labelers change their own rankings, curators all of their projects. What was imported is its source's."""
        standing = self.filter(slot__isnull=False)
        own = standing.filter(labeler=user, completion_set__project__in=Project.objects.labeled_by(user))
        return own | standing.filter(completion_set__project__in=Project.objects.curated_by(user))

    def judgements(self, newest: int, *, with_quarantined: bool = False) -> list[Judgement]:
        """The query's `newest` rankings as rows for `labeling.quality`: two queries, however many there are.

        Not those imported: nobody knows in which order, or how long, their annotators looked.
        """
        independent = self.ranked().filter(slot__purpose=Purpose.LABEL) if with_quarantined else self.independent()
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
        independent = independent.order_by("-pk")[:newest]
        rows = list(independent.values_list(*names, *facts))
        lengths: dict[int, dict[int, int]] = defaultdict(dict)
        texts = Completion.objects.filter(completion_set__in={row[0] for row in rows}).order_by()
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

    def repeats(self, participation: Participation) -> list[tuple[list[int], list[int]]]:
        """Tiers of each set that a labeler ranked twice: the first time, and again without being told."""
        own = self.standing().filter(
            labeler=participation.labeler,
            completion_set__project=participation.project,
            current__verdict=Verdict.RANKED,
        )
        again = own.filter(slot__purpose=Purpose.REPEAT)
        first = own.filter(slot__purpose=Purpose.LABEL, completion_set__in=again.values("completion_set"))
        before = dict(first.values_list("completion_set", "current__tiers"))
        after = again.order_by("pk").values_list("completion_set", "current__tiers")
        return [(before[key], tiers) for key, tiers in after if key in before]

    def best_first(self, prompt: Prompt, labeler: User) -> list[Completion]:
        """Completions of `prompt` that `labeler` has ranked, the best first, each text once."""
        ranked = self.independent().filter(completion_set__prompt=prompt, labeler=labeler).select_related("current")
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

    def submit(self, slot: Slot, labeler: User, payload: Any, key: uuid.UUID) -> "Answer":
        """Store a ranking for a leased slot.

        `payload`: verdict, tiers and ratings by completion index, strength of preference for a pair, note,
        active_seconds, instruction_version (see clean_ranking).
        Sending the same `key` again returns the answer that is there. Raises ValidationError for an incomplete ranking
        and StaleAssignment where the slot is not (or no longer) the labeler's.
        """
        if slot.state == Slot.State.ANSWERED and (done := self._sent_before(slot, labeler, key)):
            return done
        completion_set = slot.completion_set
        if completion_set is None:
            raise ValidationError(_("This task asks for a demonstration, not for a ranking."))
        completion_set.project = slot.project  # with what is known of it already
        # Whatever only reads comes before the transaction: SQLite has one writer at a time.
        ranking = clean_ranking(
            payload,
            completion_set.texts,
            require_ratings=slot.requires_ratings,
            require_strength=completion_set.is_pair,
        )
        label = slot.clean_label(payload)
        try:
            with transaction.atomic():
                slot.take(labeler)
                answer = self._placed(slot, completion_set, labeler)
                answer.append(ranking, key=key, shown_order=slot.shown_order, **label)
                if ranking.verdict == Verdict.CANNOT_JUDGE and slot.purpose == Purpose.LABEL:
                    Slot.objects.open_places(completion_set)  # for somebody who can
                completion_set.close_or_reopen()
                if slot.purpose == Purpose.SCREENING:
                    Participation.objects.of(slot.project, labeler).finish_screening()
                answer.tell("submitted")
        except StaleAssignment:
            if done := self._sent_before(slot, labeler, key):  # the same request, twice at once
                return done
            raise
        except IntegrityError as error:
            if Revision.objects.filter(key=key).exists():
                raise ValidationError(_("This page was used for another task. Reload it.")) from error
            raise
        return answer

    def _sent_before(self, slot: Slot, labeler: User, key: uuid.UUID) -> "Answer | None":
        return self.filter(slot=slot, labeler=labeler, revisions__key=key).first()

    def _placed(self, slot: Slot, completion_set: CompletionSet, labeler: User) -> "Answer":
        """The answer to a slot just taken: a new one, or one that was taken back, with all its revisions."""
        own = {"completion_set": completion_set, "labeler": labeler, "repeat": slot.repeat}
        # Nobody else can be making it: only who holds the slot gets here, and nobody holds two of one piece.
        if self.filter(**own).update(slot=slot):
            return self.get(**own)
        return self.create(**own, slot=slot)


class Answer(models.Model):
    slot = models.OneToOneField(Slot, null=True, on_delete=models.PROTECT, related_name="answer")
    """Empty where it was imported, or where the labeler took it back and has not handed it in again."""
    completion_set = models.ForeignKey(CompletionSet, on_delete=models.PROTECT, related_name="answers")
    labeler = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="answers")
    """Empty where it was imported: its author is an annotator of the source, who is nobody here."""
    source = models.CharField(max_length=200, blank=True)
    annotator = models.CharField(max_length=200, blank=True)
    """As the source names them; empty where it does not."""
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
            ),
            models.UniqueConstraint(
                fields=["completion_set", "source", "annotator"],
                condition=Q(labeler__isnull=True),
                name="one_imported_answer_per_set_and_annotator",
            ),
            models.CheckConstraint(
                condition=Q(labeler__isnull=False, source="") | ~Q(source="") & Q(labeler__isnull=True),
                name="only_imported_answers_lack_a_labeler",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.by}: {self.completion_set}"

    def get_absolute_url(self) -> str:
        return reverse("answer", args=[self.pk])

    def append(self, ranking: Ranking, **fields: Any) -> "Revision":
        """Make `ranking` the current revision; earlier ones stay."""
        revision = self.revisions.create(
            number=self.revisions.count() + 1 if self.current_id else 1,
            tiers=ranking.tiers,
            strength=ranking.strength,
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
        required = self.slot.requires_ratings and is_ranked and any(newest.ratings)
        ranking = clean_ranking(
            payload,
            self.completion_set.texts,
            require_ratings=required,
            require_strength=self.completion_set.is_pair,
        )
        revision = self.append(
            ranking,
            key=key,
            shown_order=newest.shown_order,
            author=None if by == self.labeler else by,
            **self.slot.clean_label(payload),
        )
        self.slot.changed_by(by)
        self.tell("changed")
        return revision

    def tell(self, what: str) -> None:
        """To the project's webhooks. Labelers appear under pseudonyms."""
        assert self.current is not None and self.labeler_id  # labels of this site alone are told of
        chosen = self.completion_set
        chosen.project.webhooks.tell(
            f"answer.{what}",
            answer=self.pk,
            set=chosen.pk,
            prompt=chosen.prompt_id,
            labeler=pseudonym(self.labeler_id),
            revision=self.current.number,
            verdict=self.current.verdict,
        )

    @property
    def by(self) -> str:
        """Who said it, as people of the project may read it."""
        if self.labeler:
            return str(self.labeler.username)
        return f"{self.source}: {self.annotator}" if self.annotator else self.source

    def as_work(self) -> dict[str, Any]:
        """The current revision as the page keeps unfinished work."""
        revision = self.current
        assert revision is not None  # submit() makes both
        return {
            "verdict": revision.verdict,
            "tiers": revision.tiers or [None] * self.completion_set.k,
            "strength": revision.strength,
            "ratings": revision.ratings,
            "note": revision.note,
            "active_seconds": revision.active_seconds,
            "step": "board",
        }

    @property
    def preference(self) -> str:
        """By how much which of two is better, in words and in the letters of the page; empty where it was not asked."""
        assert self.current is not None  # submit() makes both
        if self.current.strength is None:
            return ""
        judged = sorted(self.judged, key=lambda each: each.tier or 0)
        better, worse = (each.letter for each in judged)
        return STRENGTHS[self.current.strength] % {"better": better, "worse": worse}

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
    strength = models.PositiveSmallIntegerField(
        null=True, help_text="By how much the better of two wins: 0 tied, 1 slightly, 2, 3 much; null where not asked."
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
        constraints = [
            models.UniqueConstraint(fields=["answer", "number"], name="one_revision_per_number"),
            models.CheckConstraint(
                condition=Q(strength__isnull=True) | Q(strength__lte=3), name="strength_from_0_to_3"
            ),
        ]

    def __str__(self) -> str:
        return f"rev-{self.pk}"
