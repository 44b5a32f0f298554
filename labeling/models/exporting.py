"""An export: labels on their way into a file that other programs read. The rows in it: `labeling/exporting.py`."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.files.storage import default_storage
from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from labeling.models.project import Project
from labeling.models.prompt import Prompt
from labeling.models.user import User
from worker.jobs import Job, JobQuerySet

KEPT = timedelta(days=7)
FOLDER = "exports"
CHOICES = ("kind", "format", "split", "language", "ties", "margin", "identities")
CONTENT_TYPES = {
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}


def export_folder() -> Path:
    return Path(default_storage.path(FOLDER))


def _delete(name: str) -> None:
    """Delete a file once the row that named it no longer does."""
    transaction.on_commit(lambda: default_storage.delete(name))


class ExportQuerySet(JobQuerySet):
    def visible_to(self, user: Any) -> Self:
        """Those of the projects whose labels `user` may take out; with names only those of projects they curate."""
        nameless = Q(identities=Export.Identities.PSEUDONYMS, project__in=Project.objects.exported_by(user))
        return self.filter(nameless | Q(project__in=Project.objects.curated_by(user)))

    def start(self, project: Project, by: User, **choices: Any) -> "Export":
        """Ask for a file. Asked for again while it is on its way, it is the same one.

        Raises PermissionDenied for who may not, ValidationError where the choices make no sense.
        """
        if not Project.objects.exported_by(by).filter(pk=project.pk).exists():
            raise PermissionDenied
        export = Export(project=project, by=by, **choices)
        export.full_clean()
        chosen = {name: getattr(export, name) for name in CHOICES}
        if under_way := self.unfinished().filter(project=project, by=by, cancel_requested=False, **chosen).first():
            found: Export = under_way
            return found
        export.save()
        export.enqueue()
        return export

    def expire(self) -> int:
        """Delete the files that were KEPT long enough, and those that no row knows any more. Returns how many."""
        old = self.filter(finished_at__lt=Now() - KEPT).exclude(file="")
        count = sum(bool(export.drop_file()) for export in old)
        known = set(self.exclude(file="").values_list("file", flat=True))
        before = (timezone.now() - KEPT).timestamp()
        for path in export_folder().glob("*") if export_folder().is_dir() else []:
            if f"{FOLDER}/{path.name}" not in known and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
                count += 1
        return count


class Export(Job):
    TASK = "worker.tasks.export"
    QUEUE = "default"

    class Kind(models.TextChoices):
        PAIRS = "pairs", _("pairs (chosen, rejected)")
        RANKINGS = "rankings", _("rankings as they were given")
        DEMONSTRATIONS = "demonstrations", _("demonstrations")
        RATINGS = "ratings", _("ratings of completions")

    class Format(models.TextChoices):
        JSONL = "jsonl", "JSONL"
        CSV = "csv", "CSV"
        PARQUET = "parquet", "Parquet"

    class Ties(models.TextChoices):
        DROP = "drop", _("leave out")
        KEEP = "keep", _("keep, with margin 0")

    class Margin(models.TextChoices):
        NONE = "none", _("none")
        TIERS = "tiers", _("difference of the tiers")
        RATINGS = "ratings", _("difference of the ratings")
        STRENGTH = "strength", _("strength of preference, of pairs that were asked as such")

    class Identities(models.TextChoices):
        PSEUDONYMS = "pseudonyms", _("pseudonyms")
        USERNAMES = "usernames", _("user names")

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="exports", verbose_name=_("project"))
    kind = models.CharField(_("what"), max_length=14, choices=Kind, default=Kind.PAIRS)
    format = models.CharField(
        _("format"),
        max_length=8,
        choices=Format,
        default=Format.JSONL,
        help_text=_("JSONL and Parquet to train on, CSV for spreadsheets."),
    )
    split = models.CharField(
        _("part"),
        max_length=10,
        choices=Prompt.Split,
        blank=True,
        help_text=_("What is held out measures models. Do not train on it."),
    )
    language = models.CharField(_("language"), max_length=8, blank=True)
    ties = models.CharField(_("ties"), max_length=4, choices=Ties, default=Ties.DROP, help_text=_("Of pairs only."))
    margin = models.CharField(
        _("margin"), max_length=8, choices=Margin, default=Margin.NONE, help_text=_("Of pairs only.")
    )
    identities = models.CharField(
        _("labelers"),
        max_length=10,
        choices=Identities,
        default=Identities.PSEUDONYMS,
        help_text=_("User names are for the project's curators alone; do not pass them on."),
    )
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, editable=False, on_delete=models.PROTECT, related_name="+"
    )
    file = models.FileField(editable=False, blank=True)
    """Empty while there is none yet, or none any more."""
    rows = models.PositiveIntegerField(default=0, editable=False)
    bytes = models.PositiveBigIntegerField(default=0, editable=False)
    sha256 = models.CharField(max_length=64, blank=True, editable=False)

    objects = ExportQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("export")
        verbose_name_plural = _("exports")
        indexes = [models.Index(fields=["state"]), models.Index(fields=["finished_at"])]

    def __str__(self) -> str:
        return f"{self.kind}.{self.format} #{self.pk}"

    def clean(self) -> None:
        if self.language and self.language not in self.project.languages:
            raise ValidationError({"language": _("The project has no such language.")})
        names = self.identities == self.Identities.USERNAMES
        if names and self.by and not Project.objects.curated_by(self.by).filter(pk=self.project_id).exists():
            raise ValidationError({"identities": _("Only curators of the project may take out user names.")})

    @transaction.atomic
    def finish(self, path: Path, *, rows: int, size: int, sha256: str) -> None:
        """Hand over the finished file at `path` in the export folder. Raises LostLease."""
        self.succeed(file=f"{FOLDER}/{path.name}", rows=rows, bytes=size, sha256=sha256, error="")
        about = {"export": self.pk, "kind": self.kind, "format": self.format, "rows": rows, "sha256": sha256}
        self.project.webhooks.tell("export.finished", **about)

    def drop_file(self) -> bool:
        """Delete the file and keep the row. False where somebody else was faster."""
        name = str(self.file.name)
        dropped = Export.objects.filter(pk=self.pk, file=name).exclude(file="").update(file="")
        if dropped:
            _delete(name)
        return bool(dropped)

    def discard(self) -> None:
        """Forget the export and its file; a worker that is at work on it notices and stops."""
        name = self.file.name
        self.delete()
        if name:
            _delete(name)

    @property
    def attempt_path(self) -> Path:
        """Where this attempt writes: no two attempts at one export share a file."""
        return export_folder() / f"{self.pk}-{self.fence}.{self.format}"

    def earlier_attempts(self) -> list[Path]:
        """What attempts of workers that died have left behind, finished or not."""
        found = [*export_folder().glob(f"{self.pk}-*"), *export_folder().glob(f".{self.pk}-*")]
        return [path for path in found if self.attempt_path.name not in path.name]

    @property
    def download_name(self) -> str:
        return f"{self.project.slug}-{self.kind}-{self.created_at:%Y%m%d-%H%M}.{self.format}"

    @property
    def content_type(self) -> str:
        return CONTENT_TYPES[self.format]

    @property
    def expires_at(self) -> datetime | None:
        """When the file goes, or went."""
        return self.finished_at + KEPT if self.finished_at and self.state == self.State.SUCCEEDED else None
