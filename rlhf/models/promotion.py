"""Which policy a project samples from. History is append-only; rolling back is a new row."""

from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils.translation import gettext_lazy as _

from rlhf.models.model_version import ModelVersion


class PromotionQuerySet(models.QuerySet["Promotion"]):
    @transaction.atomic
    def promote(self, project: Any, version: ModelVersion, by: Any, reason: str = "") -> "Promotion":
        """Make `version` the policy of `project`. ValidationError where it cannot be sampled from."""
        if not version.is_policy:
            raise ValidationError(_("A reward model scores answers, it gives none. Choose a policy."))
        if version.archived_at:
            raise ValidationError(_("“%(name)s” is archived. Choose another version."), params={"name": version.name})
        if not (version.path / "manifest.json").is_file():
            raise ValidationError(
                _("The files of “%(name)s” are missing from the data directory."), params={"name": version.name}
            )
        promotion = self.create(project=project, version=version, by=by, reason=reason)
        project.set_policy(version.name, version.languages)
        return promotion

    def roll_back(self, project: Any, by: Any) -> "Promotion":
        """Promote what the project sampled from before. ValidationError where there is nothing before."""
        names = self.filter(project=project).order_by("-pk").select_related("version")
        current = names.first()
        previous = names.exclude(version=current.version).first() if current else None
        if not current or not previous:
            raise ValidationError(_("There is no earlier policy to go back to."))
        return self.promote(project, previous.version, by, reason=f"rolled back from {current.version.name}")


class Promotion(models.Model):
    project = models.ForeignKey("labeling.Project", on_delete=models.PROTECT, related_name="promotions")
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="promotions")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    reason = models.CharField(_("reason"), max_length=300, blank=True)
    created_at = models.DateTimeField(_("when"), auto_now_add=True)

    objects = PromotionQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("promotion")
        verbose_name_plural = _("promotions")

    def __str__(self) -> str:
        return f"{self.project} → {self.version}"
