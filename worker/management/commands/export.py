"""`manage.py export PROJECT --kind pairs --out FILE`: labels into a file, here and now; no worker is needed."""

import sys
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from labeling.models import Export, Project, Prompt
from worker.exporting import write_export


class Command(BaseCommand):
    help = "Write a project's labels to a file: pairs, rankings, demonstrations or ratings; JSONL, CSV or Parquet."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project", help="the project's short name, as in its address")
        parser.add_argument("--out", required=True, type=Path, help="the file; one that is there is replaced")
        parser.add_argument("--kind", choices=Export.Kind.values, default=Export.Kind.PAIRS)
        parser.add_argument("--format", choices=Export.Format.values, help="default: by the end of the file's name")
        parser.add_argument("--split", choices=Prompt.Split.values, default="", help="default: both")
        parser.add_argument("--language", default="", metavar="CODE", help="default: all")
        parser.add_argument("--ties", choices=Export.Ties.values, default=Export.Ties.DROP, help="of pairs")
        parser.add_argument("--margin", choices=Export.Margin.values, default=Export.Margin.NONE, help="of pairs")
        parser.add_argument(
            "--identities", choices=Export.Identities.values, default=Export.Identities.PSEUDONYMS, help="of labelers"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        out: Path = options["out"]
        chosen = {name: options[name] for name in ("kind", "split", "language", "ties", "margin", "identities")}
        try:
            project = Project.objects.get(slug=options["project"])
            format = options["format"] or format_by_name(out)
            export = Export(project=project, format=format, **chosen)
            export.full_clean()
            written = write_export(export, out, self.show)
        except Project.DoesNotExist as error:
            known = ", ".join(Project.objects.values_list("slug", flat=True)) or "none"
            raise CommandError(f"There is no project “{options['project']}”. There are: {known}.") from error
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        except OSError as error:
            raise CommandError(f"{out} cannot be written: {error.strerror or error}.") from error
        except ModuleNotFoundError as error:
            raise CommandError(f"Parquet needs the packages of a worker ({error}). Take JSONL here.") from error
        if self.stderr.isatty():
            self.stderr.write("")
        self.stdout.write(f"{out}: {written.rows} rows, {written.size} bytes, SHA-256 {written.sha256}")

    def show(self, step: int, total: int) -> None:
        """On a terminal one line that changes, elsewhere only the end."""
        if self.stderr.isatty() or step == total:
            self.stderr.write(f"\r{step} of {total} labels", ending="" if self.stderr.isatty() else "\n")
            sys.stderr.flush()


def format_by_name(path: Path) -> str:
    """ValidationError where the name does not tell."""
    ending = path.suffix.removeprefix(".").lower()
    if ending not in Export.Format.values:
        raise ValidationError(f"The name {path.name} does not say which format: add --format jsonl, csv or parquet.")
    return ending
