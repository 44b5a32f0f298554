"""Schedules: retrain after every N new rankings, or by the clock."""

import uuid
from datetime import datetime
from typing import Any, Self

from celery.schedules import ParseException, crontab
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from labeling import export
from modelzoo.config import STAGES, ConfigError, build
from rlhf.models.model_version import ModelVersion
from rlhf.models.training_run import TrainingRun
from worker.celery import app


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    def visible_to(self, user: Any) -> Self:
        return self if user.is_authenticated and user.has_role("ops", "admin") else self.none()

    def run_due(self) -> int:
        """Start every retraining that is due. Returns how many were started."""
        return sum(schedule.run_if_due() for schedule in self.filter(enabled=True).select_related("project"))


class Schedule(models.Model):
    project = models.ForeignKey(
        "labeling.Project", on_delete=models.CASCADE, related_name="schedules", verbose_name=_("project")
    )
    every_rankings = models.PositiveIntegerField(
        _("after every N new rankings"), null=True, blank=True, help_text=_("Empty: not by number.")
    )
    cron = models.CharField(
        _("by the clock"),
        max_length=100,
        blank=True,
        help_text=_("Minute, hour, day of month, month, day of week; “0 3 * * 1” is Mondays at 3:00. Empty: not so."),
    )
    reward_params = models.JSONField(_("reward model parameters"), default=dict, blank=True)
    ppo_params = models.JSONField(_("PPO parameters"), default=dict, blank=True)
    enabled = models.BooleanField(_("enabled"), default=True)
    rankings_seen = models.PositiveIntegerField(default=0, editable=False)
    """How many rankings the project had when the schedule was made or last started something."""
    counts_from = models.DateTimeField(default=timezone.now, editable=False)
    """Set times before this moment are past: it was made, switched on, given another time, or last started then."""
    last_run_at = models.DateTimeField(_("last started"), null=True, editable=False)
    last_error = models.TextField(_("why it did not start"), blank=True, editable=False)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.PROTECT,
        related_name="+",
        editable=False,
        verbose_name=_("by"),
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScheduleQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("schedule")
        verbose_name_plural = _("schedules")
        constraints = [
            models.CheckConstraint(
                condition=models.Q(every_rankings__gte=1) | models.Q(every_rankings__isnull=True),
                name="schedule_counts_at_least_one",
                violation_error_message=_("Retrain after at least one new ranking."),
            )
        ]

    def __str__(self) -> str:
        return f"{self.project} #{self.pk}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """A new, changed or re-enabled schedule counts from now: no time that had passed before starts anything."""
        before = Schedule.objects.filter(pk=self.pk).first() if self.pk else None
        if not before or before.project_id != self.project_id:
            self.rankings_seen = export.ranking_count(self.project)
        if not before or before.cron != self.cron or (self.enabled and not before.enabled):
            self.counts_from = timezone.now()
            self.last_error = ""
        super().save(*args, **kwargs)

    def clean(self) -> None:
        errors: dict[str, Any] = {}
        if self.every_rankings is None and not self.cron:
            errors["every_rankings"] = _("Say after how many rankings or at what time to retrain.")
        if self.cron:
            try:
                self._crontab()
            except ValueError as error:
                errors["cron"] = str(error)
        for field, stage in (("reward_params", "reward"), ("ppo_params", "ppo")):
            try:
                build(STAGES[stage], getattr(self, field))
            except ConfigError as error:
                errors[field] = [f"{name}: {message}" for name, message in error.errors.items()]
        if errors:
            raise ValidationError(errors)

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
                key=self._occasion(),
            )
        except ModelVersion.DoesNotExist:
            return self._refused(_("The project has no policy yet. Promote one."))
        except ValidationError as error:
            return self._refused(" ".join(error.messages))
        self.rankings_seen, self.last_error = export.ranking_count(self.project), ""
        self.counts_from = self.last_run_at = now
        self.save(update_fields=["rankings_seen", "counts_from", "last_run_at", "last_error"])
        return True

    def is_due(self, now: datetime) -> bool:
        """By number: N rankings came since the last start. By the clock: a set time passed since then."""
        if self.every_rankings and self.new_rankings() >= self.every_rankings:
            return True
        if not self.cron:
            return False
        return bool(self._crontab(now).is_due(self.counts_from).is_due)

    def new_rankings(self) -> int:
        """How many rankings came since it was made or last started something."""
        return max(0, export.ranking_count(self.project) - self.rankings_seen)

    def next_due(self, now: datetime | None = None) -> datetime | None:
        """The next set time from now on; None without a clock or while switched off."""
        if not self.cron or not self.enabled:
            return None
        now = now or timezone.now()
        schedule = self._crontab(now)
        since = now if schedule.is_due(self.counts_from).is_due else self.counts_from
        last, delta, _now = schedule.remaining_delta(since)
        due: datetime = last + delta  # by the wall clock of the site's zone
        return due

    def _occasion(self) -> uuid.UUID:
        """The same for the same due moment: two beats at once start one retraining."""
        return uuid.uuid5(uuid.NAMESPACE_OID, f"{self.pk} {self.rankings_seen} {self.counts_from.isoformat()}")

    def _refused(self, why: Any) -> bool:
        Schedule.objects.filter(pk=self.pk).update(last_error=str(why))
        return False

    def _crontab(self, now: datetime | None = None) -> crontab:
        """The set times, in the site's time zone. ValueError in words where `cron` is not readable."""
        try:
            minute, hour, day, month, weekday = self.cron.split()
        except ValueError as error:
            raise ValueError(_("Five fields are needed, such as “0 3 * * 1”.")) from error
        try:
            schedule = crontab(minute, hour, weekday, day, month, nowfun=(lambda: now) if now else None, app=app)
        except (ValueError, KeyError, ParseException) as error:
            raise ValueError(_("This is not a time: %(why)s") % {"why": error}) from error
        schedule.tz = timezone.get_default_timezone()
        return schedule
