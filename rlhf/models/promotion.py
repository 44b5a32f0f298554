"""Which policy a project samples from. History is append-only; rolling back is a new row."""

from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils.translation import gettext_lazy as _

from rlhf.models.model_version import ModelVersion


class PromotionQuerySet(models.QuerySet["Promotion"]):
    def visible_to(self, user: Any) -> Self:
        return self if user.is_authenticated and user.has_role("ops", "admin") else self.none()

    @transaction.atomic
    def promote(
        self, project: Any, version: ModelVersion, by: Any, reason: str = "", *, is_rollback: bool = False
    ) -> "Promotion":
        """Make `version` the policy of `project`. ValidationError where it cannot be sampled from.

        Promoting the current policy again changes nothing and returns the row that is there.
        """
        if not version.is_policy:
            raise ValidationError(_("A reward model scores answers, it gives none. Choose a policy."))
        version.require_usable()
        current = _locked(self.filter(project=project), project)
        if current and current.version_id == version.pk and project.policy_name == version.name:
            return current
        promotion = self.create(project=project, version=version, by=by, reason=reason, is_rollback=is_rollback)
        project.set_policy(version.name, version.languages)
        return promotion

    @transaction.atomic
    def roll_back(self, project: Any, by: Any, *, from_promotion: int | None = None) -> "Promotion":
        """Promote what the project sampled from before; archived versions are passed over.

        ValidationError where there is nothing before, or where `from_promotion` is no longer the current one: a
        button pressed twice goes back once.
        """
        current = _locked(self.filter(project=project), project)
        if current and from_promotion is not None and from_promotion != current.pk:
            raise ValidationError(_("The policy changed meanwhile. Look at the history before you roll back."))
        target = self.rollback_target(project)
        if not target:
            raise ValidationError(_("There is no earlier policy to go back to."))
        return self.promote(project, target, by, is_rollback=True)

    def rollback_target(self, project: Any) -> ModelVersion | None:
        """What `roll_back` would promote. Rolling back twice goes back two steps, as undo does."""
        path: list[Promotion] = []
        for row in self.filter(project=project).select_related("version").order_by("pk"):
            if row.is_rollback:
                while path and path[-1].version_id != row.version_id:
                    path.pop()
            else:
                path.append(row)
        current = path.pop().version if path else None
        earlier = (row.version for row in reversed(path) if row.version != current and not row.version.archived_at)
        return next(earlier, None)


def _locked(promotions: "PromotionQuerySet", project: Any) -> "Promotion | None":
    """The newest of `promotions`, after making other promotions of `project` wait for this transaction."""
    locked = type(project)._default_manager.select_for_update().get(pk=project.pk)
    project.policy_name = locked.policy_name
    return promotions.order_by("-pk").first()


class Promotion(models.Model):
    project = models.ForeignKey(
        "labeling.Project", on_delete=models.PROTECT, related_name="promotions", verbose_name=_("project")
    )
    version = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, related_name="promotions", verbose_name=_("policy")
    )
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+", verbose_name=_("by")
    )
    reason = models.CharField(_("reason"), max_length=300, blank=True)
    is_rollback = models.BooleanField(_("rolled back"), default=False, editable=False)
    created_at = models.DateTimeField(_("when"), auto_now_add=True)

    objects = PromotionQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("promotion")
        verbose_name_plural = _("promotions")

    def __str__(self) -> str:
        return f"{self.project} → {self.version}"
