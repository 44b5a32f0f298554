"""Training runs: a stage, a snapshot, the models it starts from, and what came of it."""

from pathlib import Path
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from modelzoo.config import STAGES, ConfigError, TrainingConfig, build
from rlhf.models.model_version import ModelVersion
from rlhf.models.snapshot import DatasetSnapshot
from worker.jobs import Job, JobQuerySet


class TrainingRunQuerySet(JobQuerySet):
    def visible_to(self, user: Any) -> Self:
        return self if user.is_authenticated and user.has_role("ops", "admin") else self.none()

    def runnable(self) -> Self:
        """Queued runs whose predecessor, if any, has done its part."""
        return super().runnable().filter(Q(after=None) | Q(after__state=Job.State.SUCCEEDED))

    def start(self, **fields: Any) -> "TrainingRun":
        """A checked, queued run. ValidationError names each field that cannot be used."""
        run = TrainingRun(**fields)
        run.full_clean()
        run.save()
        run.enqueue()
        return run

    @transaction.atomic
    def retrain(
        self,
        project: Any,
        by: Any,
        *,
        policy: ModelVersion,
        reward_params: dict[str, Any] | None = None,
        ppo_params: dict[str, Any] | None = None,
        schedule: Any = None,
    ) -> "tuple[TrainingRun, TrainingRun]":
        """Freeze a snapshot, then train a reward model, then improve `policy` with it. Returns both runs.

        One retraining per project at a time: ValidationError while another is under way.
        """
        if self.filter(project=project).unfinished().exists():
            raise ValidationError(_("A training run of this project is under way. Wait for it or cancel it first."))
        snapshot = DatasetSnapshot.objects.freeze(project, by)
        common = {"project": project, "snapshot": snapshot, "policy": policy, "by": by, "schedule": schedule}
        reward = self.start(stage="reward", params=reward_params or {}, **common)
        return reward, self.start(stage="ppo", params=ppo_params or {}, after=reward, **common)


class TrainingRun(Job):
    TASK = "worker.tasks.train"
    QUEUE = "train"

    class Stage(models.TextChoices):
        SFT = "sft", _("supervised fine-tuning")
        REWARD = "reward", _("reward model")
        PPO = "ppo", _("PPO")

    project = models.ForeignKey("labeling.Project", on_delete=models.PROTECT, related_name="runs")
    stage = models.CharField(_("stage"), max_length=8, choices=Stage)
    snapshot = models.ForeignKey(DatasetSnapshot, on_delete=models.PROTECT, related_name="runs")
    policy = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, related_name="+", verbose_name=_("model to start from")
    )
    reward_model = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="+", verbose_name=_("reward model")
    )
    after = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="followers", editable=False
    )
    result = models.OneToOneField(ModelVersion, null=True, on_delete=models.PROTECT, related_name="run", editable=False)
    schedule = models.ForeignKey(
        "rlhf.Schedule", null=True, blank=True, on_delete=models.SET_NULL, related_name="runs", editable=False
    )
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+", editable=False
    )

    objects = TrainingRunQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("training run")
        verbose_name_plural = _("training runs")
        indexes = [models.Index(fields=["state"])]

    def __str__(self) -> str:
        return f"{self.get_stage_display()} #{self.pk}"

    def clean(self) -> None:
        errors: dict[str, Any] = {}
        try:
            self.config()
        except ConfigError as error:
            errors["params"] = [f"{name}: {message}" for name, message in error.errors.items()]
        if self.stage == self.Stage.PPO and not self.reward_model and not self.after:
            errors["reward_model"] = _("PPO needs a reward model: train one first, or choose “retrain”.")
        if self.reward_model and self.reward_model.kind != ModelVersion.Kind.REWARD:
            errors["reward_model"] = _("“%(name)s” is not a reward model.") % {"name": self.reward_model.name}
        if self.policy_id and not self.policy.is_policy:
            errors["policy"] = _("“%(name)s” is a reward model; start from a policy.") % {"name": self.policy.name}
        if self.snapshot_id and (shortage := self._shortage()):
            errors["snapshot"] = shortage
        if errors:
            raise ValidationError(errors)

    def _shortage(self) -> Any:
        """What the snapshot lacks for this stage, in words, or None."""
        train = self.snapshot.counts.get("train", {})
        if self.stage == self.Stage.SFT and not train.get("demonstrations"):
            return _("The snapshot has no demonstrations to learn from. Write or import some, then freeze again.")
        if self.stage == self.Stage.REWARD and not train.get("pairs"):
            return _("The snapshot has no ranking that prefers one completion. Rank more sets, then freeze again.")
        if self.stage == self.Stage.PPO and not train.get("prompts"):
            return _("The snapshot has no approved prompts to practise on. Approve some, then freeze again.")
        return None

    def config(self) -> TrainingConfig:
        """The run's full parameters. ConfigError where an override is unknown or out of range."""
        return build(STAGES[self.stage], self.params)

    def inputs(self) -> tuple[ModelVersion, ModelVersion | None]:
        """The policy to start from and the reward model, which a chained run takes from its predecessor."""
        return self.policy, self.reward_model or (self.after.result if self.after else None)

    @transaction.atomic
    def finish(
        self, *, directory: str, manifest_hash: str, languages: list[str], metrics: dict[str, Any]
    ) -> ModelVersion:
        """End the run with a new model version. Raises LostLease where the run is no longer ours."""
        policy, reward_model = self.inputs()
        version = ModelVersion.objects.create(
            name=self.result_name,
            kind={"sft": "sft", "reward": "reward", "ppo": "policy"}[self.stage],
            directory=directory,
            manifest_hash=manifest_hash,
            snapshot_hash=self.snapshot.hash,
            languages=languages,
            params=self.params,
            metrics=metrics,
        )
        version.parents.set([parent for parent in (policy, reward_model) if parent])
        self.succeed(result=version)
        for follower in self.followers.all():
            follower.enqueue()
        return version

    def fail(self, error: str, **fields: Any) -> None:
        super().fail(error, **fields)
        self._cancel_followers()

    def end_cancelled(self, **fields: Any) -> None:
        super().end_cancelled(**fields)
        self._cancel_followers()

    def request_cancel(self) -> bool:
        if done := super().request_cancel():
            self._cancel_followers()
        return done

    def _cancel_followers(self) -> None:
        for follower in self.followers.filter(state=Job.State.QUEUED):
            follower.request_cancel()

    @property
    def result_name(self) -> str:
        return f"{self.project.slug}-{self.stage}-{self.pk}"

    @property
    def folder(self) -> Path:
        """Holds one folder for each attempt, named by its fence."""
        return Path(settings.DATA_DIR) / "runs" / str(self.pk)

    @property
    def attempt_folder(self) -> Path:
        return self.folder / str(self.fence)

    def attempt_folders(self) -> list[Path]:
        """Folders of all attempts so far, newest first."""
        found = [path for path in self.folder.glob("*") if path.name.isdigit()]
        return sorted(found, key=lambda path: int(path.name), reverse=True)


class Metric(models.Model):
    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="metrics")
    step = models.PositiveIntegerField()
    name = models.CharField(max_length=40)
    value = models.FloatField()

    class Meta:
        ordering = ["step"]
        constraints = [models.UniqueConstraint(fields=["run", "name", "step"], name="one_value_per_metric_and_step")]

    def __str__(self) -> str:
        return f"{self.name}[{self.step}] = {self.value}"
