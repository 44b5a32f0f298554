"""Whatever is sent to the REST API, the answer is never a crash: every operation of the schema, right and wrong."""

import json
import random
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
import schemathesis
from django.core.cache.backends.locmem import LocMemCache
from django.db import transaction
from django.test import Client
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as examples
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode

from webapp.api import Throttle
from webapp.tests.teams import populate

EXAMPLES = 8
PEOPLE = ("admin", "labeler")
NASTY = ["\x00", "-1", "0", str(2**63), "9" * 40, "9" * 5000, "1e400", "nan", "٣", "''", "%00", "[]", "{}", "x" * 5000]
BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"a":' * 20_000,
    b'{"key": "\\u0000", "project": "\\u0000", "payload": {"\\ud800": 1}, "text": "\\ud83d"}',
    b'{"project": 1e999, "version": 99999999999999999999999, "active_seconds": -Infinity}',
    json.dumps({name: [[{}]] for name in ("project", "policy", "params", "tiers", "messages", "key", "text")}).encode(),
    json.dumps({name: {"a": None} for name in ("project", "stage", "snapshot", "payload", "ratings", "tags")}).encode(),
    json.dumps(dict.fromkeys(("project", "policy", "snapshot", "k", "version", "language", "key"), True)).encode(),
]


@pytest.fixture
def site(db: None, data_dir: Any, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(Throttle, "rate", "1000000/min", raising=False)
    monkeypatch.setattr(Throttle, "cache", LocMemCache("fuzz", {}))  # the next test's people have the same numbers
    return populate()


@pytest.fixture(params=PEOPLE)
def client(request: pytest.FixtureRequest, site: SimpleNamespace) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(getattr(site, request.param))
    return client


@pytest.fixture
def operations(site: SimpleNamespace, client: Client) -> list[Any]:
    schema = schemathesis.openapi.from_dict(json.loads(client.get("/api/schema/").content))
    found = [result.ok() for result in schema.get_all_operations()]
    assert len(found) > 30
    return found


def send(client: Client, method: str, path: str, body: bytes, content_type: str = "application/json") -> Any:
    """The answer to a request whose effects are undone."""
    with transaction.atomic():
        answer = client.generic(method, path, body, content_type=content_type)
        transaction.set_rollback(True)
    assert answer.status_code < 500, f"{method} {path[:200]} {body[:300]!r}: {answer.status_code}"
    return answer


def known_keys(site: SimpleNamespace) -> dict[str, dict[str, Any]]:
    """Rows that are there, so that a request gets past "not found": by resource in the path, and by field."""
    ours = site.ours
    by_path = {
        "projects": ours["project"].pk,
        "prompts": ours["prompt"].pk,
        "completion-sets": ours["completion"].pk,
        "tasks": ours["task"].pk,
        "rankings": ours["answer"].pk,
        "demonstrations": ours["demonstration"].pk,
        "exports": ours["export"].pk,
        "snapshots": ours["snapshot"].pk,
        "runs": ours["run"].pk,
        "models": site.version.name,
        "promotions": ours["promotion"].pk,
    }
    fields = {"project": ours["project"].pk, "snapshot": ours["snapshot"].pk, "policy": site.version.pk}
    return {"path": by_path, "field": fields}


def aimed(case: Case, known: dict[str, dict[str, Any]], dice: random.Random) -> tuple[str, bytes]:
    """Path and body of `case`, most times with keys of rows that are there in place of made-up ones."""
    resource = case.path.removeprefix("/api/").split("/")[0]
    if case.path_parameters and dice.random() < 0.8:
        case.path_parameters = dict.fromkeys(case.path_parameters, known["path"][resource])
    body = case.body
    if isinstance(body, dict) and dice.random() < 0.8:
        body = body | {name: key for name, key in known["field"].items() if name in body}
    encoded = b"" if not isinstance(body, dict | list | str | int | float | None) else json.dumps(body).encode()
    query = urlencode(case.query or {}, doseq=True, errors="surrogatepass")
    return f"{case.formatted_path}?{query}", encoded


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
def test_no_request_made_from_the_schema_breaks_it(
    site: SimpleNamespace, client: Client, operations: list[Any], mode: GenerationMode
) -> None:
    known, dice, statuses = known_keys(site), random.Random(1), set()
    for operation in operations:

        @seed(1)
        @examples(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def fuzz(case: Case) -> None:
            path, body = aimed(case, known, dice)
            statuses.add(send(client, case.method, path, body).status_code)

        with suppress(Unsatisfiable):  # nothing in this operation can be wrong
            fuzz()
    assert 429 not in statuses
    assert statuses & {200, 400} == {200, 400}, "the requests do not get far enough to mean anything"


def test_no_body_breaks_it(site: SimpleNamespace, client: Client, operations: list[Any]) -> None:
    known = known_keys(site)["path"]
    for operation in operations:
        if operation.method.upper() == "POST":
            resource = operation.path.removeprefix("/api/").split("/")[0]
            path = operation.path.replace("{id}", str(known[resource])).replace("{name}", str(known[resource]))
            for body in BODIES:
                send(client, "POST", path, body)
            for content_type in ("text/plain", "multipart/form-data; boundary=x", "application/xml", "", "\u00e9"):
                send(client, "POST", path, b"{}", content_type)


def test_no_path_or_query_breaks_it(site: SimpleNamespace, client: Client, operations: list[Any]) -> None:
    for operation in operations:
        if operation.method.upper() == "GET":
            names = [parameter.name for parameter in operation.query]
            for value in NASTY:
                path = operation.path.replace("{id}", value).replace("{name}", value).replace("%", "%25")
                send(client, "GET", f"{path}?{urlencode(dict.fromkeys(names, value))}", b"")
