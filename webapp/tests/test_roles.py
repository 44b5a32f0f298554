"""Walks every address of the site, as everyone, on one's own and on another team's rows, against docs/roles.md."""

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from http.cookies import SimpleCookie
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from webapp.tests.teams import FOREIGN, populate

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("anonymous", "labeler", "curator", "ops", "admin")
SIDES = ("own", "colleague", "foreign")


@dataclass(frozen=True)
class Address:
    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    method: str
    allowed: dict[str, str]
    """role -> "all", "own", "login" or "no"."""


def addresses(resolver: Any = None, namespace: str = "") -> Iterator[Address]:
    """Every named pattern of the site, with the names of its arguments."""
    for pattern in (resolver or get_resolver()).url_patterns:
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern, f"{namespace}{pattern.namespace}:" if pattern.namespace else namespace)
        elif isinstance(pattern, URLPattern) and pattern.name:
            yield Address(namespace + pattern.name, tuple(re.findall(r"<(?:\w+:)?(\w+)>", str(pattern.pattern))))


@cache
def documented() -> list[tuple[str, Row]]:
    """The rows of docs/roles.md: name of the address (* stands for anything), method, who may."""
    rows = []
    for line in (ROOT / "docs" / "roles.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 + len(ROLES) and cells[2] in ("GET", "POST", "DELETE"):
            allowed = dict(zip(ROLES, cells[3:], strict=True))
            rows += [(name, Row(cells[2], allowed)) for name in re.findall(r"`([^`]+)`", cells[1])]
    return rows


def rows_for(name: str) -> list[Row]:
    """The row of an address for each method: of those that fit, the one that says most."""
    fitting = [(pattern, row) for pattern, row in documented() if fnmatch(name, pattern)]
    by_method = {row.method: row for _pattern, row in sorted(fitting, key=lambda pair: len(pair[0]))}
    return list(by_method.values())


@pytest.fixture
def teams(db: None, data_dir: Path) -> SimpleNamespace:
    return populate()


def subject(address: Address) -> str:
    """What the address is about, by its name: `task` for task_submit and for api-task-skip."""
    name = address.name.removeprefix("api-").split(":")[-1].replace("ranking", "answer").replace("prompts", "prompt")
    return re.split(r"[-_]", name)[0]


def arguments(site: SimpleNamespace, address: Address, side: str) -> dict[str, Any]:
    """Arguments that make `address` point at a row of one's own, of a colleague, or of another team."""
    rows = {"own": site.ours, "colleague": site.colleagues, "foreign": site.theirs}[side]
    row = _admin_row(site, address.name, rows) if address.name.startswith("admin:") else rows.get(subject(address))
    known = {
        "slug": rows["project"].slug,
        "pk": getattr(row, "pk", 0),
        "object_id": getattr(row, "pk", 0),
        "id": getattr(row, "pk", 0),
        "project_id": rows["project"].pk,
        "name": "manifest.json" if "snapshot" in address.name else site.version.name,
        "number": 1,
        "language": "ko",
        "labeler": rows["answer"].labeler_id,
        "stage": "sft",
        "url": "nowhere",
        "app_label": "rlhf",
        "content_type_id": 1,
    }
    return {argument: known[argument] for argument in address.arguments}


def _admin_row(site: SimpleNamespace, name: str, rows: dict[str, Any]) -> Any:
    found = re.match(r"admin:([a-z]+)_([a-z]+)_", name)
    if not found or found[1] not in apps.app_configs:
        return None
    if found[2] == "user":  # the password form keeps the name of the model that ours replaces
        return site.second
    of_the_team = {"trainingrun": "run", "datasetsnapshot": "snapshot", "completionset": "completion"}
    row = rows.get(of_the_team.get(found[2], found[2]))
    return row or apps.get_model(found[1], found[2])._default_manager.first()


class Visitor:
    """Somebody of one role who goes everywhere; the effects of each request are undone."""

    def __init__(self, site: SimpleNamespace, role: str) -> None:
        self.site = site
        self.client = Client(raise_request_exception=False)
        if role != "anonymous":
            self.client.force_login(getattr(site, role))
        self.cookies = self.client.cookies.output(header="", sep=";")

    def ask(self, method: str, address: Address, side: str) -> Any:
        """The answer to one request. A way to the login page is followed."""
        self.client.cookies = SimpleCookie(self.cookies)
        url = reverse(address.name, kwargs=arguments(self.site, address, side))
        body = json.dumps({"key": str(uuid.uuid4())})
        with transaction.atomic():
            answer = self.client.generic(method, url, body, content_type="application/json")
            while answer.status_code == 302 and "/login/?next=" in answer.headers["location"]:
                answer = self.client.get(answer.headers["location"])
            transaction.set_rollback(True)
        return answer


def outcome(answer: Any) -> str:
    """in, login, or refused."""
    if answer.status_code == 401 or answer.wsgi_request.path == "/login/" and "next" in answer.wsgi_request.GET:
        return "login"
    return "refused" if answer.status_code in (403, 404) else "in"


def text_of(answer: Any) -> str:
    return str((answer.getvalue() if answer.streaming else answer.content).decode())


def confided(answer: Any) -> str:
    """What an answer tells, but for the questions of one's own project: whoever is given a task next reads them."""
    return re.sub(r"What is a \w+, ours too\?", "", text_of(answer))


ALL = sorted(set(addresses()), key=lambda address: address.name)


def cases(role: str) -> Iterator[tuple[Address, Row, str]]:
    for address in ALL:
        for row in rows_for(address.name):
            for side in SIDES if address.arguments else SIDES[:1]:
                yield address, row, side


def test_every_address_has_a_row_in_the_table() -> None:
    assert [address.name for address in ALL if not rows_for(address.name)] == []


def test_every_row_of_the_table_has_an_address() -> None:
    names = [address.name for address in ALL]
    assert [pattern for pattern, _ in documented() if not any(fnmatch(name, pattern) for name in names)] == []


@pytest.mark.parametrize("role", ROLES)
def test_everyone_gets_where_the_table_says_and_nowhere_else(teams: SimpleNamespace, role: str) -> None:
    visitor, wrong = Visitor(teams, role), []
    for address, row, side in cases(role):
        answer = visitor.ask(row.method, address, side)
        wanted = expected(address, role, row.allowed[role], side)
        case = f"{row.method} {address.name} on {side}: {answer.status_code}"
        if answer.status_code in (405, 500) or outcome(answer) != wanted:
            wrong.append(f"{case}, should be {wanted}")
        elif told := sorted(secret for secret in hidden_from(role, side) if secret in confided(answer)):
            wrong.append(f"{case}, tells {told}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
def test_no_address_breaks_whatever_the_method(teams: SimpleNamespace, method: str) -> None:
    admin = Visitor(teams, "admin")
    answers = {address.name: admin.ask(method, address, "own").status_code for address in ALL}
    assert {name: status for name, status in answers.items() if status >= 500} == {}


def hidden_from(role: str, side: str) -> tuple[str, ...]:
    """What no answer may hold: words of the other team and, for labelers, the model that wrote what they judge."""
    if role == "labeler":
        return FOREIGN, "ours too", "tiny-base", "-3.5"
    return (FOREIGN,) if role in ("anonymous", "curator") else ()


def expected(address: Address, role: str, allowed: str, side: str) -> str:
    if allowed != "own":
        return {"all": "in", "no": "refused", "login": "login"}[allowed]
    is_label = subject(address) in ("task", "answer", "demonstration")
    return "refused" if side == "foreign" or (side == "colleague" and role == "labeler" and is_label) else "in"
