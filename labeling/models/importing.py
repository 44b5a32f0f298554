"""An import: an uploaded file on its way from columns to prompts. Nothing becomes a prompt before `take`."""

import hashlib
import json
import logging
import uuid
from collections import Counter
from functools import cached_property
from pathlib import PurePath
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.db import IntegrityError, models, transaction
from django.utils.translation import gettext_lazy as _

from labeling.importing import Candidate, candidates, guess_language, guess_mapping
from labeling.models.demonstration import Demonstration
from labeling.models.project import Project
from labeling.models.prompt import BATCH, Prompt, draw_split
from labeling.models.user import User
from labeling.tables import KOREAN_WINDOWS, Table, TableError, decode, encoding_of, format_of, read_table
from labeling.text import is_storable

logger = logging.getLogger(__name__)


class ImportQuerySet(models.QuerySet["Import"]):
    def curated_by(self, user: Any) -> Self:
        return self.filter(project__in=Project.objects.curated_by(user))

    def upload(self, project: Project, by: User, file: "UploadedFile[Any]") -> "Import":
        """Keep the file and guess what its columns are. ValidationError where it cannot be read as a table."""
        name = PurePath(file.name or "").name[-255:]
        name = name if is_storable(name) else "upload"
        if (file.size or 0) > settings.MAX_IMPORT_BYTES:
            raise ValidationError(
                _("The file has %(size).1f MB, the limit is %(limit).0f MB. Split it and import the parts."),
                params={"size": (file.size or 0) / 2**20, "limit": settings.MAX_IMPORT_BYTES / 2**20},
            )
        batch = Import(project=project, author=by, name=name, source=PurePath(name).stem[:200])
        try:
            data = file.read()
            batch.format = format_of(name)
            batch.encoding = encoding_of(data) or ""
            if batch.encoding:
                batch.guess(read_table(data, batch.format, batch.encoding))
        except TableError as error:
            raise ValidationError(str(error)) from error
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


def upload_path(batch: "Import", name: str) -> str:
    """A name of our own: the uploaded one is kept as data, never as a path."""
    return f"imports/{uuid.uuid4()}"


class Import(models.Model):
    class State(models.TextChoices):
        UPLOADED = "uploaded", _("uploaded")
        TAKEN = "taken", _("taken over")

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="imports")
    file = models.FileField(upload_to=upload_path)
    name = models.CharField(_("file name"), max_length=255)
    format = models.CharField(max_length=5, choices=[("jsonl", "JSONL"), ("csv", "CSV")])
    encoding = models.CharField(_("encoding"), max_length=12, blank=True)
    """Empty while the file is not in Unicode and nobody has looked whether it reads well in another encoding."""
    mapping = models.JSONField(default=dict, help_text="prompt, input, demonstration -> name of a column.")
    language = models.CharField(_("language"), max_length=8, blank=True)
    source = models.CharField(_("source"), max_length=200)
    licence = models.CharField(_("licence"), max_length=100, blank=True)
    tags = models.JSONField(_("tags"), default=list, blank=True)
    state = models.CharField(max_length=8, choices=State, default=State.UPLOADED)
    report = models.JSONField(default=dict)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ImportQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("import")
        verbose_name_plural = _("imports")

    def __str__(self) -> str:
        return self.name

    def guess(self, table: Table) -> None:
        self.mapping = guess_mapping(table.columns)
        self.language = guess_language(table, self.mapping.get("prompt", ""), self.project.languages)

    def accept_encoding(self) -> None:
        """A person has looked and found that the file reads well in the Korean Windows encoding."""
        self.encoding = KOREAN_WINDOWS
        self.guess(self.table)
        self.save(update_fields=["encoding", "mapping", "language"])

    @transaction.atomic
    def take(self, by: User, approve: bool = False) -> dict[str, int]:
        """Make prompts of what can be used, all or nothing, and once: taken again, it returns the first report.

        ValidationError where the file or the mapping is no longer usable; then nothing was taken.
        """
        Project.objects.filter(pk=self.project_id).lock()
        if not Import.objects.filter(pk=self.pk, state=self.State.UPLOADED).update(state=self.State.TAKEN):
            self.refresh_from_db()
            return dict(self.report)
        judged = self.preview()
        taken = [candidate for candidate in judged if candidate.kind == "taken"]
        if not taken:
            raise ValidationError(_("There is nothing to take: every row is a duplicate or was refused."))
        prompts = self._store(taken, by)
        counts = Counter(candidate.kind for candidate in judged)
        report = {kind: counts[kind] for kind in ("taken", "duplicate", "refused")}
        report["demonstrations"] = sum(bool(candidate.demonstration) for candidate in taken)
        if approve:
            parts = (prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH))
            report["approved"] = sum(
                Prompt.objects.filter(pk__in=[row.pk for row in part]).approve(by) for part in parts
            )
        self.state, self.report = self.State.TAKEN, report
        self.save(update_fields=["report"])
        return report

    def discard(self) -> None:
        """Forget the upload; what was taken from it stays."""
        self.delete()
        self.file.delete(save=False)

    def preview(self) -> list[Candidate]:
        """Every row and what would become of it now. ValidationError where the file cannot be read any more."""
        if not self.encoding or not self.mapping.get("prompt"):
            raise ValidationError(_("Choose the column that holds the prompts."))
        missing = [column for column in self.mapping.values() if column not in self.table.columns]
        if missing:
            raise ValidationError(_("The file has no column “%(column)s”."), params={"column": missing[0]})
        known = self.project.prompts.filter(language=self.language).order_by().values_list("hash", flat=True)
        return candidates(self.table, self.mapping, set(known))

    def examples(self) -> list[tuple[str, str]]:
        """Each column with the first value in it."""
        rows = self.table.rows[:50]
        first = {
            column: next((str(row.values[column]) for row in rows if row.values.get(column) not in (None, "")), "")
            for column in self.table.columns
        }
        return [(column, " ".join(text.split())[:60]) for column, text in first.items()]

    @property
    def fingerprint(self) -> str:
        """Changes with every choice: what a person takes is what the preview showed."""
        chosen = [self.encoding, self.mapping, self.language, self.source, self.licence, self.tags]
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def table(self) -> Table:
        try:
            return read_table(self.data, self.format, self.encoding)
        except TableError as error:
            raise ValidationError(str(error)) from error

    @cached_property
    def data(self) -> bytes:
        try:
            with self.file.open("rb") as file:
                return bytes(file.read())
        except OSError as error:
            logger.warning("The file of import %s cannot be read: %s", self.pk, error)
            raise ValidationError(_("The uploaded file is gone from the server. Upload it again.")) from error

    def first_lines_in_korean(self) -> list[str]:
        """How the file begins when it is read in the Korean Windows encoding: for a person to look at."""
        return decode(self.data, KOREAN_WINDOWS).splitlines()[:8]

    def _store(self, taken: list[Candidate], by: User) -> list[Prompt]:
        prompts = []
        for candidate in taken:
            prompt = Prompt(
                project=self.project,
                language=self.language,
                source=self.source,
                licence=self.licence,
                tags=self.tags,
                author=by,
            )
            prompt.set_messages(candidate.messages)
            prompt.split = draw_split(prompt.family)
            prompts.append(prompt)
        try:
            Prompt.objects.bulk_create(prompts, batch_size=BATCH)
        except IntegrityError as error:
            raise ValidationError(
                _("Somebody added one of these prompts at this very moment. Nothing was taken; press again.")
            ) from error
        Demonstration.objects.import_all(
            ((prompt, row.demonstration) for prompt, row in zip(prompts, taken, strict=True) if row.demonstration),
            self.source,
        )
        return prompts
