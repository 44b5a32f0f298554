"""Sets of K completions of one prompt, sampled by a policy, and the job that samples them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypedDict

from django.apps import apps
from django.db import models, transaction
from django.db.models import Count, Exists, F, OuterRef, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from labeling.models.participation import Participation
from labeling.models.project import PAIR, Project
from labeling.models.prompt import BATCH, Prompt
from labeling.models.states import Purpose
from labeling.rankings import LETTERS, Verdict, first_alike
from labeling.uncertainty import drawn
from worker.jobs import Job, JobQuerySet

MOST_STAND_INS = 3  # where so many cannot judge a set, more would not help


class SampledCompletion(TypedDict):
    """What the sampler hands over for each completion."""

    text: str
    logprob_sum: float
    token_count: int
    finish_reason: str


class CompletionSetQuerySet(models.QuerySet["CompletionSet"]):
    def visible_to(self, user: Any) -> Self:
        return self.filter(project__in=Project.objects.visible_to(user))

    def live(self) -> Self:
        return self.exclude(state=CompletionSet.State.EXPIRED)

    def ranked(self) -> Self:
        """Sets that people rank or have ranked here, of prompts that are not retired."""
        return self.filter(
            state__in=(CompletionSet.State.READY, CompletionSet.State.CLOSED), prompt__state=Prompt.State.APPROVED
        ).exclude(origin=CompletionSet.Origin.LABELLED)

    def unlabelled(self) -> Self:
        """Sets nobody has answered or is at work on."""
        return self.filter(state__in=(CompletionSet.State.SAMPLING, CompletionSet.State.READY)).exclude(
            slots__state__in=("leased", "answered")
        )

    def in_work(self) -> Self:
        """Sets whose completions are on their way."""
        return self.filter(state=CompletionSet.State.SAMPLING, job__in=SamplingJob.objects.unfinished())

    def failed(self) -> Self:
        """Sets that never came and will not come by themselves."""
        return self.filter(state=CompletionSet.State.SAMPLING).exclude(job__in=SamplingJob.objects.unfinished())

    def stand_ins(self) -> dict[int, int]:
        """By set: how many labelers are asked in the stead of those who could not judge it, or whose word does not
        count while they are in quarantine. Others are not in it."""
        answers = apps.get_model("labeling", "Answer").objects.filter(
            completion_set__in=self.order_by(), slot__purpose=Purpose.LABEL
        )
        lost = answers.filter(
            Q(current__verdict=Verdict.CANNOT_JUDGE) | Participation.objects.hides("completion_set__project", "labeler")
        )
        counts = lost.order_by().values_list("completion_set").annotate(Count("pk"))
        return {pk: min(count, MOST_STAND_INS) for pk, count in counts}

    def sampled(self) -> Self:
        return self.filter(state__in=(CompletionSet.State.READY, CompletionSet.State.CLOSED))

    def open_imported(self) -> None:
        """Give out the imported sets of the query that came as work, also those that retiring their prompt withdrew."""
        work = self.filter(origin=CompletionSet.Origin.IMPORTED)
        work.filter(state=CompletionSet.State.EXPIRED).update(state=CompletionSet.State.READY)
        ready = work.filter(state=CompletionSet.State.READY).select_related("project")
        apps.get_model("labeling", "Slot").objects.open_rankings(ready, ready.stand_ins())

    @transaction.atomic
    def close_or_reopen(self) -> None:
        """See `CompletionSet.close_or_reopen`; sets whose state is right are not looked at one by one."""
        slots = apps.get_model("labeling", "Slot").objects.filter(completion_set=OuterRef("pk"), purpose=Purpose.LABEL)
        has_place_left = Exists(slots.exclude(state="answered"))
        closed = list(self.filter(state=CompletionSet.State.CLOSED).filter(has_place_left).values_list("pk", flat=True))
        for start in range(0, len(closed), BATCH):
            batch = CompletionSet.objects.filter(pk__in=closed[start : start + BATCH])
            # Locked before the places are looked at again: somebody may be filling the last of them.
            locked = list(batch.select_for_update().values_list("pk", flat=True))
            still = CompletionSet.objects.filter(pk__in=locked, state=CompletionSet.State.CLOSED)
            still.filter(has_place_left).update(state=CompletionSet.State.READY)
        full = self.filter(state=CompletionSet.State.READY).exclude(has_place_left)
        for completion_set in full.select_related("project"):  # each is told to the webhooks
            completion_set.close_or_reopen()

    @transaction.atomic
    def expire(self) -> int:
        """Withdraw the sets of the query: their open slots go, their sampling is cancelled."""
        keys = list(self.values_list("pk", flat=True))
        return sum(self._expire(keys[start : start + BATCH]) for start in range(0, len(keys), BATCH))

    def _expire(self, keys: list[int]) -> int:
        sets = CompletionSet.objects.filter(pk__in=keys)
        # The state first: a sampler that is about to open slots either sees it or has committed them before.
        count = sets.update(state=CompletionSet.State.EXPIRED)
        apps.get_model("labeling", "Slot").objects.filter(completion_set__in=keys).withdraw()
        jobs = SamplingJob.objects.filter(completion_set__in=keys)
        jobs.runnable().update(state=Job.State.CANCELLED, cancel_requested=True, finished_at=Now())
        jobs.unfinished().update(cancel_requested=True)
        return count

    @transaction.atomic
    def request(self, prompts: Sequence[Prompt]) -> int:
        """A set from the current policy, and its sampling job, for each of `prompts` without a live one.

        Returns how many there are new. At most a few hundred prompts at once.
        """
        live = set(CompletionSet.objects.live().filter(prompt__in=prompts).values_list("prompt_id", "policy_name"))
        sets = CompletionSet.objects.bulk_create(
            CompletionSet(
                project=prompt.project,
                prompt=prompt,
                k=prompt.completions_wanted,
                policy_name=prompt.project.policy_name,
                temperature=prompt.project.temperature,
                top_p=prompt.project.top_p,
                max_new_tokens=prompt.project.max_new_tokens,
            )
            for prompt in prompts
            if (prompt.pk, prompt.project.policy_name) not in live
        )
        # Distinct and reproducible without another column to keep.
        CompletionSet.objects.filter(pk__in=[made.pk for made in sets]).update(seed=F("pk") % 2**31)
        preferring = [made.pk for made in sets if made.is_drawn_for_uncertainty()]
        CompletionSet.objects.filter(pk__in=preferring).update(arm=CompletionSet.Arm.UNCERTAINTY)
        jobs = SamplingJob.objects.bulk_create(SamplingJob(completion_set=made) for made in sets)
        if jobs:  # one ring wakes the sampler, which then looks for more by itself
            jobs[0].enqueue()
        return len(sets)


class CompletionSet(models.Model):
    class State(models.TextChoices):
        SAMPLING = "sampling", _("being sampled")
        READY = "ready", _("ready")
        CLOSED = "closed", _("closed")
        EXPIRED = "expired", _("expired")

    class Origin(models.TextChoices):
        SAMPLED = "sampled", _("sampled from a policy")
        IMPORTED = "imported", _("imported to be ranked")
        LABELLED = "labelled", _("imported with its rankings")

    class Arm(models.TextChoices):
        CONTROL = "control", _("control")
        UNCERTAINTY = "uncertainty", _("by uncertainty")

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="completion_sets")
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="completion_sets")
    origin = models.CharField(max_length=8, choices=Origin, default=Origin.SAMPLED)
    source = models.CharField(max_length=200, blank=True)
    """Where an imported set comes from."""
    digest = models.CharField(max_length=64, blank=True)
    """Of an imported set: equal for the same completions, so that importing them again adds nothing."""
    k = models.PositiveSmallIntegerField()
    policy_name = models.CharField(max_length=120)
    """Empty where the set was imported; its temperature, top_p and max_new_tokens are 0 then."""
    temperature = models.FloatField()
    top_p = models.FloatField()
    max_new_tokens = models.PositiveIntegerField()
    seed = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=10, choices=State, default=State.SAMPLING)
    arm = models.CharField(max_length=11, choices=Arm, default=Arm.CONTROL)
    """Drawn once: whether reward models have a say in when the set is given out."""
    uncertainty = models.FloatField(null=True)
    """How unsure the newest reward models are of it (`labeling.uncertainty`); empty where none has scored it."""
    head_start = models.FloatField(default=0.0)
    """0 to 1: which part of `Slot.HEAD_START` it is given out earlier than its age says."""
    created_at = models.DateTimeField(auto_now_add=True)

    objects = CompletionSetQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("completion set")
        constraints = [
            models.CheckConstraint(condition=models.Q(k__gte=2, k__lte=9), name="set_k_between_2_and_9"),
            models.UniqueConstraint(
                fields=["prompt", "policy_name"],
                condition=~models.Q(state="expired") & models.Q(origin="sampled"),
                name="one_live_set_per_prompt_and_policy",
            ),
            models.UniqueConstraint(
                fields=["prompt", "digest"],
                condition=~models.Q(origin="sampled"),
                name="one_imported_set_per_prompt_and_text",
            ),
        ]
        indexes = [models.Index(fields=["project", "state"])]

    def __str__(self) -> str:
        return f"{self.k} × {self.prompt}"

    def is_drawn_for_uncertainty(self) -> bool:
        """What is held out measures models, so none of them has a say in it."""
        is_held_out = self.prompt.split == Prompt.Split.HELDOUT
        return not is_held_out and drawn("arm", self.pk) * 100 >= self.project.control_share

    @property
    def is_pair(self) -> bool:
        """Whether it is asked as a pair: which of two is better, and by how much."""
        return self.k == PAIR

    @property
    def texts(self) -> list[str]:
        """What the completions say, by index."""
        return [completion.text for completion in self.completions.all()]

    @transaction.atomic(savepoint=False)
    def close_or_reopen(self) -> None:
        """Closed is a set in which every place is filled, ready is one with a place left."""
        # The lock makes two labelers who fill the last two places look one after the other.
        state = CompletionSet.objects.select_for_update().values_list("state", flat=True).get(pk=self.pk)
        before, after = (
            (self.State.CLOSED, self.State.READY)
            if self.slots.filter(purpose=Purpose.LABEL).exclude(state="answered").exists()
            else (self.State.READY, self.State.CLOSED)
        )
        if state == before:
            CompletionSet.objects.filter(pk=self.pk).update(state=after)
            if after == self.State.CLOSED:
                self.project.webhooks.tell(
                    "set.finished", set=self.pk, prompt=self.prompt_id, answers=self._answer_count
                )

    def _answer_count(self) -> int:
        return int(self.answers.filter(slot__isnull=False).count())


class Completion(models.Model):
    """One answer, sampled or imported. Immutable: rankings and training refer to it for ever."""

    class FinishReason(models.TextChoices):
        STOP = "stop", _("ended by itself")
        LENGTH = "length", _("cut at the limit")

    completion_set = models.ForeignKey(CompletionSet, on_delete=models.CASCADE, related_name="completions")
    index = models.PositiveSmallIntegerField()
    text = models.TextField()
    model_name = models.CharField(max_length=120, blank=True)
    logprob_sum = models.FloatField(null=True)
    """Empty, as is the number of tokens, where it was imported."""
    token_count = models.PositiveIntegerField(null=True)
    finish_reason = models.CharField(max_length=8, choices=FinishReason)

    class Meta:
        ordering = ["index"]
        constraints = [models.UniqueConstraint(fields=["completion_set", "index"], name="one_completion_per_index")]

    def __str__(self) -> str:
        return self.text[:80]

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk:
            raise TypeError("A completion is never changed once it is stored.")
        super().save(*args, **kwargs)


@dataclass(frozen=True)
class ShownGroup:
    """Completions with one text, which labelers judge as one; `also` names those behind the first."""

    letter: str
    completion: Completion
    indices: list[int]
    also: str


def shown_groups(completions: Sequence[Completion]) -> list[ShownGroup]:
    """Groups of equal texts, in the order in which each is first shown."""
    alike = first_alike([completion.text for completion in completions])
    groups = []
    for first in dict.fromkeys(alike):
        members = [place for place, same in enumerate(alike) if same == first]
        groups.append(
            ShownGroup(
                letter=LETTERS[first],
                completion=completions[first],
                indices=[completions[place].index for place in members],
                also=", ".join(LETTERS[place] for place in members[1:]),
            )
        )
    return groups


class SamplingJob(Job):
    TASK = "worker.tasks.sample"
    QUEUE = "sample"

    completion_set = models.OneToOneField(CompletionSet, on_delete=models.CASCADE, related_name="job")

    objects = JobQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["state"])]

    def __str__(self) -> str:
        return f"sampling of {self.completion_set}"

    @transaction.atomic
    def finish(self, samples: Sequence[SampledCompletion]) -> None:
        """Store the completions and open the set for ranking.

        Raises LostLease where the job is no longer ours, ValueError for other than K samples.
        """
        chosen = self.completion_set
        if len(samples) != chosen.k:
            raise ValueError(f"{len(samples)} samples for a set of {chosen.k}")
        self.succeed()
        Completion.objects.bulk_create(
            Completion(
                completion_set=chosen,
                index=index,
                model_name=chosen.policy_name,
                # PostgreSQL stores no NUL, and a model may well say one.
                **{**sample, "text": sample["text"].replace("\x00", "\ufffd")},
            )
            for index, sample in enumerate(samples)
        )
        sampling = CompletionSet.objects.filter(pk=chosen.pk, state=CompletionSet.State.SAMPLING)
        if sampling.update(state=CompletionSet.State.READY):
            chosen.slots.open_places(chosen)
            apps.get_model("labeling", "ScoringJob").objects.ask(chosen.project)
