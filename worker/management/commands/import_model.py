"""`manage.py import_model SOURCE --name NAME`: a model from elsewhere becomes a model version."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from rlhf.models import ModelVersion


class Command(BaseCommand):
    help = "Register a model: a checkpoint, a Hugging Face directory, a .gguf file, or 'starter' (SmolLM2)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("source", help="a directory, a .gguf file, or 'starter'")
        parser.add_argument("--name", required=True, help="never used before, never changed: small letters and hyphens")
        parser.add_argument("--kind", choices=ModelVersion.Kind.values, default="", help="default: what it says it is")
        parser.add_argument("--languages", nargs="+", default=[], metavar="CODE", help="languages it speaks: en ko")

    def handle(self, *args: Any, **options: Any) -> None:
        from worker.registry import CannotImport, register  # loads torch: not while Django only lists its commands

        try:
            version = register(
                options["source"], name=options["name"], kind=options["kind"], languages=options["languages"]
            )
        except CannotImport as error:
            raise CommandError(str(error)) from error
        spoken = ", ".join(version.languages) or "none stated"
        self.stdout.write(f"{version.name}: {version.get_kind_display()}, languages {spoken}, in {version.path}")
