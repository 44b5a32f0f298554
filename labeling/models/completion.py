"""Sets of K completions of one prompt, sampled by a policy, and the job that samples them."""

from collections.abc import Sequence
from typing import Any, Self, TypedDict

from django.db import models, transaction
from django.utils.translation import gettext_lazy as _

from labeling.models.project import Project
from labeling.models.prompt import Prompt
from worker.jobs import Job, JobQuerySet


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

    def unlabelled(self) -> Self:
        """Sets nobody has answered or is at work on."""
        return self.filter(state__in=(CompletionSet.State.SAMPLING, CompletionSet.State.READY)).exclude(
            slots__state__in=("leased", "answered")
        )

    def expire(self) -> int:
        """Withdraw the sets of the query: their open slots go, their sampling is cancelled."""
        keys = list(self.values_list("pk", flat=True))
        from_open = CompletionSet.objects.filter(pk__in=keys)
        for job in SamplingJob.objects.unfinished().filter(completion_set__in=keys):
            job.request_cancel()
        for completion_set in from_open:
            completion_set.slots.open().delete()
        return from_open.update(state=CompletionSet.State.EXPIRED)

    @transaction.atomic
    def request(self, prompt: Prompt) -> "CompletionSet":
        """The live set of `prompt` from the current policy; where there is none, a new one and its sampling job."""
        project = prompt.project
        live = CompletionSet.objects.live().filter(prompt=prompt, policy_name=project.policy_name).first()
        if live:
            return live
        completion_set = CompletionSet.objects.create(
            project=project,
            prompt=prompt,
            k=prompt.completions_wanted,
            policy_name=project.policy_name,
            temperature=project.temperature,
            top_p=project.top_p,
            max_new_tokens=project.max_new_tokens,
        )
        # Distinct and reproducible without another column to keep.
        CompletionSet.objects.filter(pk=completion_set.pk).update(seed=completion_set.pk % 2**31)
        SamplingJob.objects.create(completion_set=completion_set).enqueue()
        return completion_set


class CompletionSet(models.Model):
    class State(models.TextChoices):
        SAMPLING = "sampling", _("being sampled")
        READY = "ready", _("ready")
        CLOSED = "closed", _("closed")
        EXPIRED = "expired", _("expired")

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="completion_sets")
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="completion_sets")
    k = models.PositiveSmallIntegerField()
    policy_name = models.CharField(max_length=120)
    temperature = models.FloatField()
    top_p = models.FloatField()
    max_new_tokens = models.PositiveIntegerField()
    seed = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=10, choices=State, default=State.SAMPLING)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = CompletionSetQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("completion set")
        constraints = [
            models.CheckConstraint(condition=models.Q(k__gte=4, k__lte=9), name="set_k_between_4_and_9"),
            models.UniqueConstraint(
                fields=["prompt", "policy_name"],
                condition=~models.Q(state="expired"),
                name="one_live_set_per_prompt_and_policy",
            ),
        ]
        indexes = [models.Index(fields=["project", "state"])]

    def __str__(self) -> str:
        return f"{self.k} × {self.prompt}"

    def close_if_answered(self) -> None:
        """Close the set once every place in it is filled."""
        if not self.slots.exclude(state="answered").exists():
            type(self).objects.filter(pk=self.pk, state=self.State.READY).update(state=self.State.CLOSED)


class Completion(models.Model):
    """One sampled answer. Immutable: rankings and training refer to it for ever."""

    class FinishReason(models.TextChoices):
        STOP = "stop", _("ended by itself")
        LENGTH = "length", _("cut at the limit")

    completion_set = models.ForeignKey(CompletionSet, on_delete=models.CASCADE, related_name="completions")
    index = models.PositiveSmallIntegerField()
    text = models.TextField()
    model_name = models.CharField(max_length=120)
    logprob_sum = models.FloatField()
    token_count = models.PositiveIntegerField()
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
        """Store the completions and open the set for ranking. Raises LostLease where the job is no longer ours."""
        self.succeed()
        chosen = self.completion_set
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
        if CompletionSet.objects.filter(pk=chosen.pk, state=CompletionSet.State.SAMPLING).update(
            state=CompletionSet.State.READY
        ):
            chosen.prompt.slots.open_places(chosen.prompt, chosen.project.ranking_overlap, chosen)
