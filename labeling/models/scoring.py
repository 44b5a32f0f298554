"""Rewards of completions, the job in which the sampler reckons them between its sets, and the turns that follow."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Self

from django.apps import apps
from django.db import models, transaction
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from labeling.models.completion import Completion, CompletionSet
from labeling.models.project import Project
from labeling.models.prompt import BATCH
from labeling.models.slot import Slot
from labeling.uncertainty import drawn, uncertainty
from worker.jobs import Job, JobQuerySet

JUDGES = 3
STEPS = 20  # of a head start: finer ones would move places for nothing


class RewardModelQuerySet(models.QuerySet["RewardModel"]):
    def judges(self) -> Self:
        """The newest few that are in use."""
        return self.filter(in_use=True).order_by("-pk")[:JUDGES]

    @transaction.atomic
    def register(self, project: Project, name: str, **facts: Any) -> "RewardModel":
        """Make a reward model known that has just been trained; what is there to score is scored soon."""
        made, _is_new = self.update_or_create(name=name, defaults={"project": project, **facts})
        ScoringJob.objects.ask(project)
        return made


class RewardModel(models.Model):
    """What labeling must know of a reward model. Written by rlhf when a run has made one, or archives it."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="reward_models")
    name = models.CharField(max_length=120, unique=True)
    """Of the model version."""
    languages = models.JSONField(default=list)
    """Those it was trained in; empty: any."""
    in_use = models.BooleanField(default=True)
    train_rankings = models.PositiveIntegerField(default=0)
    heldout_rankings = models.PositiveIntegerField(default=0)
    heldout_accuracy = models.FloatField(null=True)
    """As it was when training ended, over the rankings held out then."""
    created_at = models.DateTimeField(auto_now_add=True)

    objects = RewardModelQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("reward model")
        verbose_name_plural = _("reward models")

    def __str__(self) -> str:
        return self.name

    def unscored(self) -> "models.QuerySet[CompletionSet]":
        """Sets of its project without its scores: those still to be ranked first, then the newest."""
        scored = Score.objects.filter(model=self, completion__completion_set=models.OuterRef("pk"), completion__index=0)
        sets = CompletionSet.objects.sampled().filter(project=self.project_id).exclude(models.Exists(scored))
        if self.languages:
            sets = sets.filter(prompt__language__in=self.languages)
        return sets.order_by("-state", "-pk")  # ready comes before closed


class Score(models.Model):
    completion = models.ForeignKey(Completion, on_delete=models.CASCADE, related_name="scores")
    model = models.ForeignKey(RewardModel, on_delete=models.CASCADE, related_name="scores")
    reward = models.FloatField(null=True)
    """Empty where the model cannot read the completion: too long for it, or without a word."""

    class Meta:
        verbose_name = _("score")
        verbose_name_plural = _("scores")
        constraints = [
            models.UniqueConstraint(fields=["model", "completion"], name="one_score_per_model_and_completion")
        ]

    def __str__(self) -> str:
        return f"{self.model}: {self.reward}"


class ScoringJobQuerySet(JobQuerySet):
    def ask(self, project: Project) -> None:
        """Have what is new in `project` scored, if there is a reward model. One job waits for each project at most."""
        jobs = self.filter(project=project)
        if jobs.filter(state=Job.State.QUEUED).exists() or not project.reward_models.filter(in_use=True).exists():
            return
        jobs.exclude(state=Job.State.RUNNING).delete()  # how they ended is of no interest once there is another
        self.create(project=project).enqueue()


class ScoringJob(Job):
    TASK = "worker.tasks.score"
    QUEUE = "sample"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="scoring_jobs")

    objects = ScoringJobQuerySet.as_manager()

    class Meta:
        verbose_name = _("scoring of completions")
        verbose_name_plural = _("scoring of completions")
        indexes = [models.Index(fields=["project", "state"], name="scoring_by_project_and_state")]

    def __str__(self) -> str:
        return f"scoring in {self.project}"

    @transaction.atomic
    def store(self, model: RewardModel, rewards: Mapping[int, float | None]) -> None:
        """Keep what `model` gives some completions, by their keys, and how unsure all models now are of their sets.

        Raises LostLease.
        """
        self.write(heartbeat_at=Now())
        Score.objects.bulk_create(
            (Score(completion_id=key, model=model, reward=reward) for key, reward in rewards.items()),
            ignore_conflicts=True,
            batch_size=BATCH,
        )
        touched = CompletionSet.objects.filter(completions__in=list(rewards)).distinct()
        sets = list(touched.prefetch_related("completions__scores"))
        judges = {judge.pk for judge in self.project.reward_models.judges()}
        for chosen in sets:
            chosen.uncertainty = _uncertainty(list(chosen.completions.all()), judges)
        CompletionSet.objects.bulk_update(sets, ["uncertainty"], batch_size=BATCH)

    def finish(self) -> None:
        """Give every open set its turn. Raises LostLease."""
        place(self.project)
        self.succeed()
        apps.get_model("labeling", "Readiness").objects.ask(self.project)


def _uncertainty(completions: Sequence[Completion], judges: set[int]) -> float | None:
    given: dict[int, dict[int, float | None]] = {}
    for completion in completions:
        for score in completion.scores.all():
            if score.model_id in judges:
                given.setdefault(score.model_id, {})[completion.index] = score.reward
    rewards = [[one.get(completion.index) for completion in completions] for one in given.values()]
    return uncertainty(rewards, [completion.text.strip() for completion in completions])


def place(project: Project) -> int:
    """Give the open, scored sets of `project` their head starts, and their open places their turns.

    In the uncertainty arm the head start is the share of sets that the models are surer of; in the control arm it is
    drawn by chance. So both arms are given out evenly mixed, and the control arm is a fair sample of all sets at any
    time. Returns how many sets moved.
    """
    names = ("pk", "arm", "uncertainty", "head_start", "created_at")
    open_sets = CompletionSet.objects.filter(project=project, state=CompletionSet.State.READY)
    rows = list(open_sets.exclude(uncertainty=None).order_by().values_list(*names))
    ranked = sorted(row[2] for row in rows)
    moved = {}
    for key, arm, unsure, before, made in rows:
        share = (
            drawn("head start", key)
            if arm == CompletionSet.Arm.CONTROL
            else (bisect_left(ranked, unsure) + bisect_right(ranked, unsure)) / 2 / len(ranked)
        )
        after = round(share * STEPS) / STEPS
        if after != before:
            moved[key] = (made, after)
    keys = list(moved)
    for start in range(0, len(keys), BATCH):
        _move({key: moved[key] for key in keys[start : start + BATCH]})
    return len(moved)


@transaction.atomic
def _move(starts: Mapping[int, tuple[Any, float]]) -> None:
    for step in {after for _made, after in starts.values()}:
        keys = [key for key, (_made, after) in starts.items() if after == step]
        CompletionSet.objects.filter(pk__in=keys).update(head_start=step)
    slots = list(Slot.objects.filter(completion_set__in=list(starts)).exclude(state=Slot.State.ANSWERED))
    for slot in slots:
        assert slot.completion_set_id is not None  # the query asks for it
        made, after = starts[slot.completion_set_id]
        slot.priority = Slot.turn(made, after, slot.ordinal)
    Slot.objects.bulk_update(slots, ["priority"], batch_size=BATCH)
