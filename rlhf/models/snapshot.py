"""Dataset snapshots: what people had said at one moment, frozen as files that no one changes again."""

import shutil
import uuid
from pathlib import Path
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils.translation import gettext_lazy as _

from rlhf.integrity import complaints
from rlhf.snapshots import write_snapshot


class SnapshotQuerySet(models.QuerySet["DatasetSnapshot"]):
    def visible_to(self, user: Any) -> Self:
        return self if user.is_authenticated and user.has_role("ops", "admin") else self.none()

    def freeze(self, project: Any, by: Any, *, key: uuid.UUID | None = None) -> "DatasetSnapshot":
        """Write what `project` holds now. ValidationError where there is nothing or no room; then no file is left.

        Freezing with the same `key` again returns the snapshot that is there: a double click freezes once.
        """
        directory = f"snapshots/{project.slug}-{(key or uuid.uuid4()).hex[:12]}"
        if done := self.filter(directory=directory).first():
            return done
        path = Path(settings.DATA_DIR) / directory
        try:
            manifest, digest = write_snapshot(project, path)
        except FileExistsError as error:
            raise ValidationError(_("This snapshot is being frozen right now. Wait a moment.")) from error
        except OSError as error:
            raise ValidationError(
                _("The snapshot could not be written (%(why)s). Free space in the data directory and try again."),
                params={"why": error.strerror or str(error)},
            ) from error
        if not any(file["rows"] for file in manifest["files"].values()):
            shutil.rmtree(path)
            raise ValidationError(_("There is nothing to freeze yet: approve prompts and collect rankings first."))
        try:
            return self.create(project=project, by=by, directory=directory, hash=digest, counts=manifest["counts"])
        except BaseException:
            shutil.rmtree(path)
            raise


class DatasetSnapshot(models.Model):
    project = models.ForeignKey(
        "labeling.Project", on_delete=models.PROTECT, related_name="snapshots", verbose_name=_("project")
    )
    directory = models.CharField(_("folder"), max_length=300, unique=True, editable=False)
    hash = models.CharField(_("hash"), max_length=64, editable=False)
    counts = models.JSONField(default=dict, editable=False)
    """`rlhf.snapshots.Counts`, as it was when the files were written."""
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.PROTECT,
        related_name="+",
        editable=False,
        verbose_name=_("by"),
    )
    created_at = models.DateTimeField(_("frozen"), auto_now_add=True)

    objects = SnapshotQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("dataset snapshot")
        verbose_name_plural = _("dataset snapshots")

    def __str__(self) -> str:
        return f"{self.project} #{self.pk} ({self.hash[:8]})"

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Remove the row and its files. ProtectedError while a training run refers to it."""
        path = self.path
        deleted = super().delete(*args, **kwargs)
        transaction.on_commit(lambda: shutil.rmtree(path, ignore_errors=True))
        return deleted

    def complaints(self) -> list[str]:
        """What is wrong with the files, a sentence each; empty where they are as they were frozen."""
        return complaints(self.path, self.hash)

    def total(self, what: str) -> int:
        """How many of "rankings", "pairs" ... both splits hold together."""
        return sum(int(counts.get(what, 0)) for counts in self.counts.values())

    def rankings(self, split: str, languages: list[str]) -> int:
        """How many rankings of `split` are in one of `languages`, or in all where none is given."""
        counts = self.counts.get(split, {})
        names = [f"rankings:{language}" for language in languages] or ["rankings"]
        return sum(int(counts.get(name, 0)) for name in names)

    @property
    def path(self) -> Path:
        return Path(settings.DATA_DIR) / self.directory
