"""How many tokens a text has for a policy: asked of the sampler, which has the tokenizer, and kept."""

import hashlib
from datetime import timedelta
from typing import Self

from django.db import models
from django.db.models import Sum
from django.db.models.functions import Length, Now
from django.utils.translation import gettext_lazy as _

from labeling.models.completion import Completion
from worker.jobs import Job, JobQuerySet

KEPT = timedelta(days=7)
SAMPLE = 200  # completions from which an estimate is drawn
BYTES_PER_TOKEN = 3.5  # of a policy of which nothing is known yet


class TokenCountQuerySet(JobQuerySet):
    def ask(self, policy_name: str, text: str) -> int | None:
        """The number of tokens; None while the sampler has not said it yet, which this call makes it do."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        asked, is_new = self.get_or_create(policy_name=policy_name, digest=digest, defaults={"text": text})
        if is_new:
            asked.enqueue()
        count: int | None = asked.count
        return count

    def old(self) -> Self:
        return self.filter(created_at__lt=Now() - KEPT)


def estimate(policy_name: str, language: str, text: str) -> int:
    """About how many tokens, from what the policy's last completions in the language had for their length."""
    newest = Completion.objects.filter(
        model_name=policy_name, completion_set__prompt__language=language, token_count__gt=0
    )
    keys = newest.order_by("-pk").values("pk")[:SAMPLE]
    seen = Completion.objects.filter(pk__in=list(keys.values_list("pk", flat=True))).aggregate(
        tokens=Sum("token_count"), characters=Sum(Length("text"))
    )
    if seen["characters"]:
        return round(len(text) * float(seen["tokens"]) / float(seen["characters"]))
    return round(len(text.encode()) / BYTES_PER_TOKEN)


class TokenCount(Job):
    TASK = "worker.tasks.count_tokens"
    QUEUE = "sample"

    policy_name = models.CharField(max_length=120)
    digest = models.CharField(max_length=64)
    text = models.TextField()
    """What is to be counted; emptied when it is."""
    count = models.PositiveIntegerField(null=True)

    objects = TokenCountQuerySet.as_manager()

    class Meta:
        verbose_name = _("token count")
        verbose_name_plural = _("token counts")
        constraints = [
            models.UniqueConstraint(fields=["policy_name", "digest"], name="one_token_count_per_policy_and_text")
        ]
        indexes = [models.Index(fields=["state"], name="token_counts_by_state")]

    def __str__(self) -> str:
        return f"tokens of {self.digest[:8]} for {self.policy_name}"

    def counted(self, count: int) -> None:
        """Store the answer; the text is needed no more. Raises LostLease."""
        self.succeed(count=count, text="")
