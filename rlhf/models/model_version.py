"""The model registry: immutable names, archived but never deleted or renamed."""

from pathlib import Path
from typing import Any, Self

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _


class ModelVersionQuerySet(models.QuerySet["ModelVersion"]):
    def visible_to(self, user: Any) -> Self:
        """Model names would unblind labelers: only ops and admins see the registry."""
        return self if user.is_authenticated and user.has_role("ops", "admin") else self.none()

    def active(self) -> Self:
        return self.filter(archived_at=None)

    def policies(self) -> Self:
        """Versions that can answer prompts."""
        return self.exclude(kind=ModelVersion.Kind.REWARD)

    def reward_models(self) -> Self:
        return self.filter(kind=ModelVersion.Kind.REWARD)


class ModelVersion(models.Model):
    class Kind(models.TextChoices):
        BASE = "base", _("base")
        SFT = "sft", _("fine-tuned")
        REWARD = "reward", _("reward model")
        POLICY = "policy", _("policy")

    name = models.CharField(
        _("name"), max_length=120, unique=True, validators=[RegexValidator(r"^[a-z0-9][a-z0-9._-]*\Z")]
    )
    kind = models.CharField(_("kind"), max_length=8, choices=Kind)
    parents = models.ManyToManyField("self", symmetrical=False, related_name="children", blank=True)
    directory = models.CharField(max_length=300, help_text=_("Relative to the data directory."))
    manifest_hash = models.CharField(max_length=64)
    snapshot_hash = models.CharField(max_length=64, blank=True)
    languages = models.JSONField(_("languages"), default=list)
    params = models.JSONField(_("parameters"), default=dict)
    metrics = models.JSONField(_("metrics"), default=dict)
    archived_at = models.DateTimeField(_("archived"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    objects = ModelVersionQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("model version")
        verbose_name_plural = _("model versions")

    def __str__(self) -> str:
        return self.name

    @property
    def path(self) -> Path:
        return Path(settings.DATA_DIR) / self.directory

    @property
    def is_policy(self) -> bool:
        return self.kind != self.Kind.REWARD
