"""Dataset snapshots: what people had said at one moment, frozen as files that no one changes again."""

import shutil
import uuid
from pathlib import Path
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext_lazy as _

from rlhf.snapshots import write_snapshot


class SnapshotQuerySet(models.QuerySet["DatasetSnapshot"]):
    def visible_to(self, user: Any) -> Self:
        return self if user.is_authenticated and user.has_role("ops", "admin") else self.none()

    def freeze(self, project: Any, by: Any) -> "DatasetSnapshot":
        """Write what `project` holds now. ValidationError where there is nothing or no room; then no file is left."""
        directory = f"snapshots/{project.slug}-{uuid.uuid4().hex[:12]}"
        path = Path(settings.DATA_DIR) / directory
        try:
            manifest, digest = write_snapshot(project, path)
        except OSError as error:
            raise ValidationError(
                _("The snapshot could not be written (%(why)s). Free space in the data directory and try again."),
                params={"why": error.strerror or str(error)},
            ) from error
        if not any(file["rows"] for file in manifest["files"].values()):
            shutil.rmtree(path)
            raise ValidationError(_("There is nothing to freeze yet: approve prompts and collect rankings first."))
        return self.create(project=project, by=by, directory=directory, hash=digest, counts=manifest["counts"])


class DatasetSnapshot(models.Model):
    project = models.ForeignKey("labeling.Project", on_delete=models.PROTECT, related_name="snapshots")
    directory = models.CharField(max_length=300, unique=True, editable=False)
    hash = models.CharField(max_length=64, editable=False)
    counts = models.JSONField(default=dict, editable=False)
    """`{"train": {"rankings", "rankings:en", "pairs", "tied_pairs", "demonstrations", ...}, "heldout": {...}}`"""
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+", editable=False
    )
    created_at = models.DateTimeField(_("frozen"), auto_now_add=True)

    objects = SnapshotQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("dataset snapshot")
        verbose_name_plural = _("dataset snapshots")

    def __str__(self) -> str:
        return f"{self.project} #{self.pk} ({self.hash[:8]})"

    @property
    def path(self) -> Path:
        return Path(settings.DATA_DIR) / self.directory
