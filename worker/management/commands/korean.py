"""`manage.py korean CSV`: a Korean policy from scratch, in a Korean project, ready to be ranked (docs/training.md)."""

import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from labeling.models import Project, User
from rlhf.models import ModelVersion

STARTER = settings.BASE_DIR / "labeling" / "starter" / "prompts.ko.jsonl"


class Command(BaseCommand):
    help = "Train a small Korean policy from scratch on questions and answers, and promote it in a Korean project."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("csv", type=Path, help="UTF-8, with a column of questions and one of answers")
        parser.add_argument("--prompt", default="Q", metavar="COLUMN", help="the questions (default: Q)")
        parser.add_argument("--response", default="A", metavar="COLUMN", help="the answers (default: A)")
        parser.add_argument("--name", default="ko-small", help="name of the model version (default: ko-small)")
        parser.add_argument("--project", default="한국어 대화", help="name of the project to make")

    def handle(self, *args: Any, **options: Any) -> None:
        from worker.korean import StepFailed  # loads torch: not while Django only lists its commands

        name, project = options["name"], options["project"]
        call_command("migrate", verbosity=0, interactive=False)
        if ModelVersion.objects.filter(name=name).exists() or Project.objects.filter(name=project).exists():
            raise CommandError(
                f"There is a model version “{name}” or a project “{project}” already. Choose others with --name and "
                "--project."
            )
        if not User.objects.exists():  # `make run` was never here
            call_command("setup_site", stdout=self.stdout, stderr=self.stderr)
        try:
            self._walk(options["csv"].absolute(), name, project, options["prompt"], options["response"])
        except (StepFailed, ValidationError) as error:
            raise CommandError("; ".join(getattr(error, "messages", [str(error)]))) from error

    def _walk(self, table: Path, name: str, project_name: str, prompt: str, response: str) -> None:
        from worker.korean import Training, open_project, promote_and_sample

        training = Training(settings.DATA_DIR / "korean" / name, self.say)
        checkpoint = training.run(table, prompt=prompt, response=response)
        if bits := training.bits_per_byte():
            self.say(f"held-out answers cost {bits:.2f} bits per byte")
        self.say(f"$ python manage.py import_model {checkpoint} --name {name}")
        call_command("import_model", str(checkpoint), name=name, stdout=self.stdout)
        starter = [json.loads(line) for line in STARTER.read_text(encoding="utf-8").splitlines()]
        by = User.objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
        if by is None:
            raise CommandError("Nobody may make a project: create an account with manage.py createsuperuser.")
        project = open_project(project_name, by, starter, training.data, table.stem)
        self.say(f"project “{project}” made; its {project.prompts.count()} prompts are being answered")
        completions = promote_and_sample(project, ModelVersion.objects.get(name=name), by)
        for completion in completions[:: project.k]:
            self.say(f"  {completion.completion_set.prompt.text[:60]}  →  {completion.text}")
        answered = len({completion.completion_set_id for completion in completions})
        if left := project.prompts.count() - answered:
            self.say(f"{left} prompts are too long for this model; the site says so beside each")
        self.say(f"{len(completions)} completions are ready to be ranked in “{project}”")

    def say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()
