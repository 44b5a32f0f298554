"""Training runs: a stage, a snapshot, the models it starts from, and what came of it."""

import json
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from modelzoo.config import STAGES, ConfigError, TrainingConfig, build
from rlhf import audit
from rlhf.models.model_version import ModelVersion
from rlhf.models.snapshot import DatasetSnapshot
from worker.jobs import Job, JobQuerySet

LOG = "log.txt"
CORPORA = "corpora"


class TrainingRunQuerySet(JobQuerySet):
    def visible_to(self, user: Any) -> Self:
        return self if user.is_authenticated and user.has_role("ops", "admin") else self.none()

    def runnable(self) -> Self:
        """Queued runs whose predecessor, if any, has done its part."""
        return super().runnable().filter(Q(after=None) | Q(after__state=Job.State.SUCCEEDED))

    def start(self, *, key: uuid.UUID | None = None, **fields: Any) -> "TrainingRun":
        """A checked, queued run. ValidationError names each field that cannot be used.

        Starting with the same `key` again returns the run that is there: a double click starts one.
        """
        if done := self._started_with(key):
            return done
        run = TrainingRun(key=key, **fields)
        run.full_clean(exclude=["key"])
        try:
            with transaction.atomic():
                run.save()
        except IntegrityError:
            if done := self._started_with(key):
                return done
            raise
        run.enqueue()
        return run

    def retrain(
        self,
        project: Any,
        by: Any,
        *,
        policy: ModelVersion,
        reward_params: dict[str, Any] | None = None,
        ppo_params: dict[str, Any] | None = None,
        schedule: Any = None,
        key: uuid.UUID | None = None,
    ) -> "tuple[TrainingRun, TrainingRun]":
        """Freeze a snapshot, then train a reward model, then improve `policy` with it. Returns both runs.

        One retraining per project at a time: ValidationError while another is under way. The same `key` again returns
        the runs that are there. Where nothing is started, no snapshot is left behind.
        """
        if done := self._chain_under(key):
            return done
        self._require_idle(project)
        common = {"project": project, "policy": policy, "by": by, "schedule": schedule}
        reward = TrainingRun(stage=TrainingRun.Stage.REWARD, params=reward_params or {}, key=key, **common)
        ppo = TrainingRun(stage=TrainingRun.Stage.PPO, params=ppo_params or {}, after=reward, **common)
        for run in (reward, ppo):
            run.full_clean(exclude=["key", "after", "snapshot"])
        snapshot = DatasetSnapshot.objects.freeze(project, by)
        try:
            return self._start_chain(project, snapshot, reward, ppo)
        except BaseException:
            snapshot.delete()
            if done := self._chain_under(key):
                return done
            raise

    @transaction.atomic
    def _start_chain(
        self, project: Any, snapshot: DatasetSnapshot, reward: "TrainingRun", ppo: "TrainingRun"
    ) -> "tuple[TrainingRun, TrainingRun]":
        type(project)._default_manager.select_for_update().get(pk=project.pk)  # two at once: the second waits here
        self._require_idle(project)
        for run in (reward, ppo):
            run.snapshot = snapshot
            run.full_clean(exclude=["key", "after"])
            run.save()
            run.enqueue()
        return reward, ppo

    def _chain_under(self, key: uuid.UUID | None) -> "tuple[TrainingRun, TrainingRun] | None":
        """The retraining that was started with `key`."""
        reward = self._started_with(key)
        return (reward, reward.followers.get()) if reward else None

    def _started_with(self, key: uuid.UUID | None) -> "TrainingRun | None":
        run: TrainingRun | None = self.filter(key=key).first() if key else None
        return run

    def _require_idle(self, project: Any) -> None:
        if self.filter(project=project).unfinished().exists():
            raise ValidationError(_("A training run of this project is under way. Wait for it or cancel it first."))


class TrainingRun(Job):
    TASK = "worker.tasks.train"
    QUEUE = "train"

    class Stage(models.TextChoices):
        SFT = "sft", _("supervised fine-tuning")
        REWARD = "reward", _("reward model")
        PPO = "ppo", _("PPO")
        DPO = "dpo", _("DPO")

    project = models.ForeignKey(
        "labeling.Project", on_delete=models.PROTECT, related_name="runs", verbose_name=_("project")
    )
    stage = models.CharField(_("stage"), max_length=8, choices=Stage)
    snapshot = models.ForeignKey(
        DatasetSnapshot, on_delete=models.PROTECT, related_name="runs", verbose_name=_("dataset snapshot")
    )
    policy = models.ForeignKey(
        ModelVersion,
        on_delete=models.PROTECT,
        related_name="runs_from",
        verbose_name=_("model to start from"),
    )
    reward_model = models.ForeignKey(
        ModelVersion,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="runs_scored_by",
        verbose_name=_("reward model"),
    )
    corpus = models.CharField(
        _("pretraining text"),
        max_length=200,
        blank=True,
        help_text=_("A JSONL file in the folder “corpora” of the data directory, for the pretraining mix."),
    )
    after = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="followers", editable=False
    )
    result = models.OneToOneField(ModelVersion, null=True, on_delete=models.PROTECT, related_name="run", editable=False)
    schedule = models.ForeignKey(
        "rlhf.Schedule", null=True, blank=True, on_delete=models.SET_NULL, related_name="runs", editable=False
    )
    key = models.UUIDField(null=True, blank=True, unique=True, editable=False)
    """Made by the form: the same form sent twice starts one run."""
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.PROTECT,
        related_name="+",
        editable=False,
        verbose_name=_("by"),
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
        if self.snapshot_id and self.snapshot.project_id != self.project_id:
            errors["snapshot"] = _("This snapshot is of another project.")
        elif self.snapshot_id and (shortage := self._shortage()):
            errors["snapshot"] = shortage
        if self.policy_id:
            errors |= _unusable("policy", self.policy)
            if not self.policy.is_policy:
                errors["policy"] = _("“%(name)s” is a reward model; start from a policy.") % {"name": self.policy.name}
        if self.reward_model:
            errors |= _unusable("reward_model", self.reward_model)
            if self.reward_model.kind != ModelVersion.Kind.REWARD:
                errors["reward_model"] = _("“%(name)s” is not a reward model.") % {"name": self.reward_model.name}
        elif self.stage == self.Stage.PPO and not self.after:
            errors["reward_model"] = _("PPO needs a reward model: train one first, or choose “retrain”.")
        errors |= self._clean_params()
        if errors:
            raise ValidationError(errors)

    def _clean_params(self) -> dict[str, Any]:
        try:
            config = self.config()
        except ConfigError as error:
            return {"params": [f"{name}: {message}" for name, message in error.errors.items()]}
        if getattr(config, "ptx_coef", 0) and not self.corpus:
            return {"corpus": _("The pretraining mix needs a text to mix in. Choose one, or set its weight to 0.")}
        if self.corpus and self.corpus not in corpora():
            return {"corpus": _("There is no such file in the folder “corpora” of the data directory.")}
        return {}

    def _shortage(self) -> Any:
        """What the snapshot lacks for this stage, in words, or None."""
        train = self.snapshot.counts.get("train", {})
        if self.stage == self.Stage.SFT and not train.get("demonstrations"):
            return _("The snapshot has no demonstrations to learn from. Write or import some, then freeze again.")
        if self.stage in (self.Stage.REWARD, self.Stage.DPO) and not train.get("pairs"):
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
            kind={"sft": "sft", "reward": "reward", "ppo": "policy", "dpo": "policy"}[self.stage],
            directory=directory,
            manifest_hash=manifest_hash,
            snapshot_hash=self.snapshot.hash,
            languages=languages,
            params=self.params,
            metrics=metrics,
        )
        version.parents.set([parent for parent in (policy, reward_model) if parent])
        self.succeed(result=version)
        if self.stage == self.Stage.REWARD:
            self._tell_labeling(version)
        for follower in self.followers.all():
            follower.enqueue()
        return version

    def _tell_labeling(self, version: ModelVersion) -> None:
        """What the new reward model gives completions decides which are ranked next."""
        spoken = self.policy.languages
        train, heldout = (self.snapshot.rankings(split, spoken) for split in ("train", "heldout"))
        self.project.reward_models.register(
            self.project,
            version.name,
            languages=spoken,
            train_rankings=train,
            heldout_rankings=heldout,
            heldout_accuracy=version.metrics.get("heldout_accuracy"),
        )

    @transaction.atomic
    def fail(self, error: str, **fields: Any) -> None:
        super().fail(error, **fields)
        self._cancel_followers()

    @transaction.atomic
    def end_cancelled(self, **fields: Any) -> None:
        super().end_cancelled(**fields)
        self._cancel_followers()

    @transaction.atomic
    def request_cancel(self) -> bool:
        """Cancel the run and those that wait for its result. False where it had already ended."""
        done = super().request_cancel()
        if done:
            audit.record(self, cancel_requested=(False, True))
            self._cancel_followers()
        return done

    @transaction.atomic
    def requeue(self) -> bool:
        """Resume a failed or cancelled run, and with it the runs that waited for its result.

        False where it is neither; ValidationError where it still waits for the result of another.
        """
        if self.after and self.after.state in (Job.State.FAILED, Job.State.CANCELLED):
            raise ValidationError(
                _("This run needs the result of “%(run)s”. Resume that one."), params={"run": self.after}
            )
        before = self.state
        if not super().requeue():
            return False
        audit.record(self, state=(before, Job.State.QUEUED))
        for follower in self.followers.filter(state=Job.State.CANCELLED, started_at=None):
            Job.requeue(follower)
        return True

    def _cancel_followers(self) -> None:
        for follower in self.followers.filter(state=Job.State.QUEUED):
            follower.request_cancel()

    @property
    def result_name(self) -> str:
        return f"{self.project.slug.lower().lstrip('-_') or 'project'}-{self.stage}-{self.pk}"

    @property
    def duration(self) -> timedelta | None:
        """How long the last attempt has taken so far, or took."""
        return (self.finished_at or timezone.now()) - self.started_at if self.started_at else None

    @property
    def corpus_path(self) -> Path | None:
        return Path(settings.DATA_DIR) / CORPORA / self.corpus if self.corpus else None

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

    def log_tail(self, characters: int = 8000) -> str:
        """The end of what the newest attempt printed, in whole lines."""
        for folder in self.attempt_folders():
            try:
                with (folder / LOG).open("rb") as file:
                    size = file.seek(0, 2)
                    file.seek(max(0, size - characters))
                    text = file.read().decode(errors="replace")
            except FileNotFoundError:
                continue
            return text.partition("\n")[2] if size > characters else text
        return ""

    def spec(self) -> dict[str, Any]:
        """What the newest attempt was told to do (docs/files.md); empty before the first."""
        return self._newest_json("spec.json")

    def warnings(self) -> list[str]:
        """What the trainer found worth telling whoever started it."""
        return list(self._newest_json("result.json").get("warnings", []))

    def _newest_json(self, name: str) -> dict[str, Any]:
        """A file of the newest attempt; empty where there is none, or it is being written."""
        for folder in self.attempt_folders()[:1]:
            try:
                content: dict[str, Any] = json.loads((folder / name).read_bytes())
            except (OSError, ValueError):
                break
            return content
        return {}


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


def corpora() -> list[str]:
    """Names of the texts that PPO can mix in: what stands in the folder `corpora` of the data directory."""
    return sorted(path.name for path in (Path(settings.DATA_DIR) / CORPORA).glob("*.jsonl"))


def _unusable(field: str, version: ModelVersion) -> dict[str, Any]:
    try:
        version.require_usable()
    except ValidationError as error:
        return {field: error.messages}
    return {}
