"""An import of comparisons: a file of prompts with completions, and mostly with what people said of them elsewhere.

It waits for somebody to look at the preview and to say how to take it; then it is a job. Every batch is stored in one
transaction with how far the file was read, so a worker that dies costs nothing and doubles nothing.
"""

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import PurePath
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.db import models, transaction
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from labeling.comparisons import Options, shape_of
from labeling.importing import HANGUL
from labeling.models.comparison import Judged, judge, store
from labeling.models.project import Project
from labeling.models.user import User
from labeling.reading import SHAPES
from labeling.records import Record, check_name, records
from labeling.tables import TableError
from labeling.text import is_storable
from worker.jobs import Job, JobQuerySet

LOOKED_AT = 2000
"""Records that the preview judges; what comes behind them is judged when it is taken."""
SNIFFED = 200
BATCH = 500
LISTED = 500
"""Refused records that the report names one by one. All of them are counted."""
CHOICES = ("use", "language", "source", "licence", "tags", "order", "suggestions")


class ComparisonImportQuerySet(JobQuerySet):
    def runnable(self) -> Self:
        """Those whose preview somebody has looked at and taken."""
        return super().runnable().filter(taken_by__isnull=False)

    def curated_by(self, user: Any) -> Self:
        return self.filter(project__in=Project.objects.curated_by(user))

    def upload(self, project: Project, by: User, file: "UploadedFile[Any]") -> "ComparisonImport":
        """Keep the file and look what it holds. ValidationError where there is no comparison at its beginning."""
        name = PurePath(file.name or "").name[-255:]
        name = name if is_storable(name) else "upload"
        if (file.size or 0) > settings.MAX_COMPARISONS_BYTES:
            raise ValidationError(
                _("The file has %(size).1f MB, the limit is %(limit).0f MB. Split it and import the parts."),
                params={"size": (file.size or 0) / 2**20, "limit": settings.MAX_COMPARISONS_BYTES / 2**20},
            )
        batch = ComparisonImport(project=project, by=by, name=name, source=PurePath(name).name.split(".")[0][:200])
        try:
            check_name(name)
            batch.sniff(list(islice(records(file.file or file), SNIFFED)))
        except TableError as error:
            raise ValidationError(str(error)) from error
        file.seek(0)
        batch.file = file
        try:
            with transaction.atomic():
                batch.save()
        except OSError as error:
            raise ValidationError(
                _("The file could not be stored (%(why)s). Ask the people who run this site to free space."),
                params={"why": error.strerror or str(error)},
            ) from error
        return batch


def comparisons_path(batch: "ComparisonImport", name: str) -> str:
    """A name of our own: the uploaded one is kept as data, never as a path."""
    return f"imports/{uuid.uuid4()}"


class ComparisonImport(Job):
    TASK = "worker.tasks.import_comparisons"
    QUEUE = "default"

    class Use(models.TextChoices):
        LABELLED = "labelled", _("as labelled: with the rankings in the file")
        WORK = "work", _("as work: for the labelers of this project to rank")

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="comparison_imports")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    file = models.FileField(upload_to=comparisons_path)
    name = models.CharField(_("file name"), max_length=255)
    found = models.JSONField(default=dict)
    """What the first records are: their shapes, and the models they name."""
    use = models.CharField(_("how"), max_length=8, choices=Use, default=Use.LABELLED)
    language = models.CharField(_("language"), max_length=8)
    source = models.CharField(
        _("source"), max_length=200, help_text=_("Whose rankings these are. It stands on every label.")
    )
    licence = models.CharField(_("licence"), max_length=100, blank=True)
    tags = models.JSONField(_("tags"), default=list, blank=True)
    order = models.JSONField(_("models, the best first"), default=list, blank=True)
    suggestions = models.BooleanField(_("count a model’s suggestion where no person has answered"), default=False)
    approve = models.BooleanField(default=False)
    taken_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    report = models.JSONField(default=dict)
    """How far the file was read ("records"), and what became of them."""

    bytes_read = 0
    """Of the file, by whoever goes through its records at present."""

    objects = ComparisonImportQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("import of comparisons")
        verbose_name_plural = _("imports of comparisons")
        indexes = [models.Index(fields=["state"])]

    def __str__(self) -> str:
        return self.name

    def sniff(self, first: Sequence[Record]) -> None:
        """Guess from the first records what the file is. ValidationError where none is a comparison."""
        read = [record.value for record in first if not record.problem]
        shapes = Counter(shape for value in read if (shape := shape_of(value)))
        if not shapes:
            raise ValidationError(
                _("No comparisons were found. Each record needs chosen and rejected, or several completions.")
            )
        korean = sum(bool(HANGUL.search(json.dumps(value, ensure_ascii=False))) for value in read) * 2 >= len(read)
        languages = self.project.languages
        self.language = next((code for code in languages if (code == "ko") == korean), languages[0])
        named = dict.fromkeys(name for value in read if shape_of(value) == "several" for name in _models(value))
        self.found = {"shapes": [shape for shape, _count in shapes.most_common()], "models": list(named)[:50]}
        if self.found["shapes"] == ["several"] and not any(_is_scored(value) for value in read):
            self.use = self.Use.WORK

    @transaction.atomic
    def take(self, by: User, approve: bool = False) -> bool:
        """Start taking the file over. False where somebody has started it already."""
        waiting = ComparisonImport.objects.filter(pk=self.pk, taken_by=None, state=self.State.QUEUED)
        # It is a job from now on, and waits for a worker from now on.
        if not waiting.update(taken_by=by, approve=approve, created_at=Now()):
            return False
        self.taken_by, self.approve = by, approve
        self.enqueue()
        return True

    def discard(self) -> None:
        """Forget the upload; what was taken from it stays. A worker that is at work on it notices and stops."""
        name = self.file.name
        self.delete()
        if name:
            transaction.on_commit(lambda: self.file.storage.delete(name))

    def preview(self) -> list[Judged]:
        """What would become of the first LOOKED_AT records now. ValidationError where the file cannot be read."""
        return judge(self, list(islice(self.records(), LOOKED_AT)))

    def records(self) -> Iterator[Record]:
        """Every record of the file. ValidationError where it cannot be read any more."""
        try:
            with self.file.open("rb") as file:
                for record in records(file):
                    self.bytes_read = file.tell()
                    yield record
        except (OSError, TableError) as error:
            gone = _("The uploaded file is gone from the server. Upload it again.")
            raise ValidationError(gone if isinstance(error, OSError) else str(error)) from error

    def batches(self) -> Iterator[list[Record]]:
        """What is still to be taken, in parts small enough for one transaction."""
        rest = islice(self.records(), self.report.get("records", 0), None)
        while batch := list(islice(rest, BATCH)):
            yield batch

    @transaction.atomic
    def take_batch(self, batch: Sequence[Record]) -> None:
        """Store what can be used of `batch`, and how far the file was read. Raises LostLease."""
        Project.objects.filter(pk=self.project_id).lock()
        judged = judge(self, batch)
        made = store(self, judged)
        report = Counter({name: value for name, value in self.report.items() if isinstance(value, int)})
        report.update(made)
        report.update(each.kind for each in judged)
        report["records"] += len(batch)
        refused = [each for each in judged if each.problem]
        reasons = Counter(self.report.get("reasons", {}))
        reasons.update(str(each.problem) for each in refused)
        listed = self.report.get("listed", [])
        listed += [[each.place, str(each.problem)] for each in refused[: max(0, LISTED - len(listed))]]
        self.write(report={**report, "reasons": dict(reasons.most_common(50)), "listed": listed})

    @property
    def options(self) -> Options:
        return Options(order=self.order, suggestions=self.suggestions)

    @property
    def fingerprint(self) -> str:
        """Changes with every choice: what a person takes is what the preview showed."""
        chosen = [getattr(self, name) for name in CHOICES]
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def shapes(self) -> list[str]:
        return [str(SHAPES[shape]) for shape in self.found.get("shapes", []) if shape in SHAPES]

    @property
    def is_waiting(self) -> bool:
        """Whether nobody has taken it yet."""
        return self.taken_by_id is None and self.state == self.State.QUEUED


def _rows(value: dict[str, Any]) -> Iterable[dict[str, Any]]:
    return (item for name in value.values() if isinstance(name, list) for item in name if isinstance(item, dict))


def _models(value: dict[str, Any]) -> Iterable[str]:
    return (item["model"] for item in _rows(value) if isinstance(item.get("model"), str) and is_storable(item["model"]))


def _is_scored(value: dict[str, Any]) -> bool:
    return any("score" in item or "rating" in item or "overall_score" in item for item in _rows(value))
