"""The model registry: immutable names, archived but never deleted or renamed."""

from pathlib import Path
from typing import Any, NoReturn, Self

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from rlhf.integrity import complaints


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
    parents = models.ManyToManyField(
        "self", symmetrical=False, related_name="children", blank=True, verbose_name=_("made from")
    )
    directory = models.CharField(_("folder"), max_length=300, help_text=_("Relative to the data directory."))
    manifest_hash = models.CharField(_("manifest hash"), max_length=64)
    snapshot_hash = models.CharField(_("snapshot hash"), max_length=64, blank=True)
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

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk and ModelVersion.objects.filter(pk=self.pk).exclude(name=self.name).exists():
            raise TypeError("A model version is never renamed: completions carry its name for ever.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("A model version is archived, never deleted: completions carry its name for ever.")

    def archive(self) -> None:
        """Offer this version for nothing new. ValidationError while a project samples from it or a run needs it."""
        if project := self.current_promotions().select_related("project").first():
            raise ValidationError(
                _("“%(name)s” is the current policy of “%(project)s”. Promote another version there first."),
                params={"name": self.name, "project": project.project.name},
            )
        if self.runs_from.unfinished().exists() or self.runs_scored_by.unfinished().exists():
            raise ValidationError(
                _("A training run under way uses “%(name)s”. Wait for it or cancel it first."),
                params={"name": self.name},
            )
        self.archived_at = timezone.now()
        self._store_archived()

    def unarchive(self) -> None:
        self.archived_at = None
        self._store_archived()

    @transaction.atomic
    def _store_archived(self) -> None:
        self.save(update_fields=["archived_at"])
        known = apps.get_model("labeling", "RewardModel").objects.filter(name=self.name)
        known.update(in_use=self.archived_at is None)

    def require_usable(self) -> None:
        """ValidationError where it is archived or its files are gone."""
        if self.archived_at:
            raise ValidationError(_("“%(name)s” is archived. Choose another version."), params={"name": self.name})
        if not (self.path / "manifest.json").is_file():
            raise ValidationError(
                _("The files of “%(name)s” are missing from the data directory."), params={"name": self.name}
            )

    def complaints(self) -> list[str]:
        """What is wrong with the files, a sentence each; empty where they are as they were written."""
        return complaints(self.path, self.manifest_hash)

    def current_promotions(self) -> "models.QuerySet[Any]":
        """The promotions through which projects sample from it now."""
        return self.promotions.filter(project__policy_name=self.name)

    @property
    def path(self) -> Path:
        return Path(settings.DATA_DIR) / self.directory

    @property
    def is_policy(self) -> bool:
        return self.kind != self.Kind.REWARD
