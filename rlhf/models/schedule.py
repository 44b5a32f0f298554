"""Schedules: retrain after every N new rankings, or by the clock."""

from datetime import datetime
from typing import Any, Self

from celery.schedules import ParseException, crontab
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from labeling import export
from rlhf.models.model_version import ModelVersion
from rlhf.models.training_run import TrainingRun


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    def visible_to(self, user: Any) -> Self:
        return self if user.is_authenticated and user.has_role("ops", "admin") else self.none()

    def run_due(self) -> int:
        """Start every retraining that is due. Returns how many were started."""
        return sum(schedule.run_if_due() for schedule in self.filter(enabled=True).select_related("project"))


class Schedule(models.Model):
    project = models.ForeignKey("labeling.Project", on_delete=models.CASCADE, related_name="schedules")
    every_rankings = models.PositiveIntegerField(
        _("after every N new rankings"), null=True, blank=True, help_text=_("Empty: not by number.")
    )
    cron = models.CharField(
        _("by the clock"),
        max_length=100,
        blank=True,
        help_text=_("Minute, hour, day of month, month, day of week; “0 3 * * 1” is Mondays at 3:00 UTC."),
    )
    reward_params = models.JSONField(_("reward model parameters"), default=dict, blank=True)
    ppo_params = models.JSONField(_("PPO parameters"), default=dict, blank=True)
    enabled = models.BooleanField(_("enabled"), default=True)
    rankings_seen = models.PositiveIntegerField(default=0, editable=False)
    last_run_at = models.DateTimeField(_("last started"), null=True, editable=False)
    last_error = models.TextField(_("why it did not start last time"), blank=True, editable=False)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+", editable=False
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScheduleQuerySet.as_manager()

    class Meta:
        verbose_name = _("schedule")
        verbose_name_plural = _("schedules")
        constraints = [
            models.CheckConstraint(
                condition=models.Q(every_rankings__gte=1) | models.Q(every_rankings__isnull=True),
                name="schedule_counts_at_least_one",
            )
        ]

    def __str__(self) -> str:
        return f"{self.project}: {self.cron or self.every_rankings}"

    def clean(self) -> None:
        if not self.every_rankings and not self.cron:
            raise ValidationError(_("Say after how many rankings or at what time to retrain."))
        if self.cron:
            self._crontab()
        for field, stage in (("reward_params", "reward"), ("ppo_params", "ppo")):
            run = TrainingRun(stage=stage, params=getattr(self, field))
            try:
                run.config()
            except ValueError as error:
                raise ValidationError({field: str(error)}) from error

    def run_if_due(self, now: datetime | None = None) -> bool:
        """Start a retraining where one is due. A refusal is kept as `last_error` and tried again at the next beat."""
        now = now or timezone.now()
        if not self.is_due(now):
            return False
        try:
            policy = ModelVersion.objects.get(name=self.project.policy_name)
            TrainingRun.objects.retrain(
                self.project,
                self.by,
                policy=policy,
                reward_params=self.reward_params,
                ppo_params=self.ppo_params,
                schedule=self,
            )
        except ModelVersion.DoesNotExist:
            return self._refused(_("The project has no policy yet. Promote one."))
        except ValidationError as error:
            return self._refused(" ".join(error.messages))
        self.rankings_seen, self.last_run_at, self.last_error = export.ranking_count(self.project), now, ""
        self.save(update_fields=["rankings_seen", "last_run_at", "last_error"])
        return True

    def is_due(self, now: datetime) -> bool:
        """By number: N rankings came since the last start. By the clock: a set time passed since then."""
        if self.every_rankings and export.ranking_count(self.project) >= self.rankings_seen + self.every_rankings:
            return True
        if not self.cron:
            return False
        since = self.last_run_at or self.created_at
        return bool(self._crontab(now).is_due(since).is_due)

    def _refused(self, why: Any) -> bool:
        Schedule.objects.filter(pk=self.pk).update(last_error=str(why))
        return False

    def _crontab(self, now: datetime | None = None) -> crontab:
        try:
            minute, hour, day, month, weekday = self.cron.split()
            return crontab(minute, hour, weekday, day, month, nowfun=(lambda: now) if now else None)
        except (ValueError, ParseException) as error:
            raise ValidationError({"cron": _("Five fields are needed, such as “0 3 * * 1”.")}) from error
