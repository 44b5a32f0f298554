"""What one labeler is given in one project, and whether what they say counts."""

from typing import Any, Self

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import OuterRef
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from labeling.checking import has_passed
from labeling.models.project import Project
from labeling.models.user import User
from labeling.text import is_storable

MAX_REASON_CHARACTERS = 500


class ParticipationQuerySet(models.QuerySet["Participation"]):
    def of(self, project: Project, labeler: User) -> "Participation":
        """The row of `labeler` in `project`; where there is none yet, what holds then, not stored."""
        found = self.filter(project=project, labeler=labeler).first()
        participation = found or Participation(project=project, labeler=labeler)
        participation.project, participation.labeler = project, labeler
        return participation

    def quarantined(self) -> Self:
        return self.filter(quarantined_at__isnull=False)

    def hides(self, project: str, labeler: str) -> models.Exists:
        """Whether the outer row, with these names for its project and its labeler, is of somebody in quarantine."""
        return models.Exists(self.quarantined().filter(project=OuterRef(project), labeler=OuterRef(labeler)))


class Participation(models.Model):
    class Screening(models.TextChoices):
        NONE = "", _("not yet")
        PASSED = "passed", _("passed")
        FAILED = "failed", _("failed")
        WAIVED = "waived", _("let in by a curator")

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="participations")
    labeler = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="participations")
    languages = models.JSONField(default=list, blank=True)
    """Codes of the languages whose tasks they are given; empty for all."""
    tags = models.JSONField(default=list, blank=True)
    """Tags of which a prompt must have one to be given to them; empty for all prompts."""
    screening = models.CharField(max_length=8, choices=Screening, default=Screening.NONE, blank=True)
    quarantined_at = models.DateTimeField(null=True, editable=False)
    quarantine_reason = models.CharField(max_length=MAX_REASON_CHARACTERS, blank=True, editable=False)

    objects = ParticipationQuerySet.as_manager()

    class Meta:
        verbose_name = _("labeler in a project")
        verbose_name_plural = _("labelers in projects")
        constraints = [
            models.UniqueConstraint(fields=["project", "labeler"], name="one_participation_per_project_and_labeler")
        ]

    def __str__(self) -> str:
        return f"{self.labeler}: {self.project}"

    @property
    def is_quarantined(self) -> bool:
        return self.quarantined_at is not None

    @property
    def is_screened(self) -> bool:
        """Whether the screening set stands between this labeler and other rankings."""
        if self.project.screening_percent is None or self.screening in (self.Screening.PASSED, self.Screening.WAIVED):
            return False
        return bool(self._known().screening(self.project).exists())

    def finish_screening(self) -> None:
        """Pass or fail them, once every piece of the screening set is answered or skipped."""
        if not self.is_screened or self._known().left_for(self).exists():
            return
        counts = self._known().screened(self)
        passed = has_passed(counts, self.project.screening_percent or 0)
        self.screening = self.Screening.PASSED if passed else self.Screening.FAILED
        self.save()

    def reopen_screening(self) -> None:
        """What was answered last is unfinished again."""
        if self.screening in (self.Screening.PASSED, self.Screening.FAILED):
            self.screening = self.Screening.NONE
            self.save()

    def quarantine(self, reason: Any) -> None:
        """Give them nothing more, and count nothing that they said; others are asked in their stead. Reversible.

        Raises ValidationError without a reason.
        """
        reason = reason.strip() if isinstance(reason, str) and is_storable(reason) else ""
        if not reason:
            raise ValidationError(_("Say why, for those who come after you."))
        if len(reason) > MAX_REASON_CHARACTERS:
            raise ValidationError(
                _("The reason has at most %(limit)s characters."), params={"limit": MAX_REASON_CHARACTERS}
            )
        self.quarantine_reason = reason
        self._set_quarantine(timezone.now())

    def lift_quarantine(self) -> None:
        """Everything they said counts again, and places nobody has taken in their stead are withdrawn."""
        self.quarantine_reason = ""
        self._set_quarantine(None)

    def _set_quarantine(self, at: Any) -> None:
        self.quarantined_at = at
        self.save()
        apps.get_model("labeling", "Slot").objects.match_overlap(self.project)

    def _known(self) -> Any:
        return apps.get_model("labeling", "KnownAnswer").objects
