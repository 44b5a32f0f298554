"""Exports over the API: POST, ask until it is there, GET the file."""

from typing import Any

import pytest
from django.test import Client

from labeling.models import Export, Project, User
from labeling.tests.rows import ranked, ranking
from worker import exporting

pytestmark = pytest.mark.django_db(transaction=True)


def post(client: Client, address: str, **data: Any) -> Any:
    return client.post(address, data, content_type="application/json")


def test_a_program_asks_waits_and_fetches(as_carol: Client, project: Project, alice: User) -> None:
    ranked(project, alice, ranking([1, 2, 3, 4]))
    asked = post(as_carol, "/api/exports/", project=project.pk, kind="pairs", format="jsonl", margin="tiers")
    assert asked.status_code == 201
    address = f"/api/exports/{asked.json()['id']}/"
    waiting = as_carol.get(address).json()
    assert (waiting["state"], waiting["percent"], waiting["file"]) == ("queued", None, None)
    assert as_carol.get(f"{address}file/").status_code == 404
    exporting.export(waiting["id"])
    done = as_carol.get(address).json()
    assert (done["state"], done["rows"], done["by"]) == ("succeeded", 6, "carol")
    assert done["file"] == f"http://testserver{address}file/"
    answer: Any = as_carol.get(done["file"], headers={"accept": "application/octet-stream"})
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert len(answer.getvalue()) == done["bytes"]


def test_cancelling_twice_is_a_conflict(as_carol: Client, project: Project, carol: User) -> None:
    export = Export.objects.start(project, carol)
    assert post(as_carol, f"/api/exports/{export.pk}/cancel/").json()["state"] == "cancelled"
    assert post(as_carol, f"/api/exports/{export.pk}/cancel/").status_code == 409


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"kind": "x"}, "kind"), ({"language": "fr"}, "language"), ({"project": 0}, "project"), ({"ties": 1}, "ties")],
)
def test_wrong_choices_are_named(as_carol: Client, project: Project, wrong: dict[str, Any], field: str) -> None:
    answer = post(as_carol, "/api/exports/", **({"project": project.pk} | wrong))
    assert answer.status_code == 400
    assert set(answer.json()) == {field}


def test_another_teams_curator_sees_nothing(as_cleo: Client, project: Project, carol: User) -> None:
    export = Export.objects.start(project, carol)
    assert as_cleo.get("/api/exports/").json()["results"] == []
    for address in (f"/api/exports/{export.pk}/", f"/api/exports/{export.pk}/file/"):
        assert as_cleo.get(address).status_code == 404
    assert set(post(as_cleo, "/api/exports/", project=project.pk).json()) == {"project"}


def test_labelers_are_refused(project: Project, alice: User) -> None:
    client = Client()
    client.force_login(alice)
    assert client.get("/api/exports/").status_code == 403
    assert post(client, "/api/exports/", project=project.pk).status_code == 403


def test_deleting_takes_the_file_away_once(as_carol: Client, as_cleo: Client, project: Project, carol: User) -> None:
    export = Export.objects.start(project, carol)
    exporting.export(export.pk)
    export.refresh_from_db()
    assert export.file.storage.exists(export.file.name)
    assert as_cleo.delete(f"/api/exports/{export.pk}/").status_code == 404
    assert as_carol.delete(f"/api/exports/{export.pk}/").status_code == 204
    assert not export.file.storage.exists(export.file.name) and not Export.objects.exists()
    assert as_carol.delete(f"/api/exports/{export.pk}/").status_code == 404


def test_labelers_delete_nothing(project: Project, alice: User, carol: User) -> None:
    export = Export.objects.start(project, carol)
    client = Client()
    client.force_login(alice)
    assert client.delete(f"/api/exports/{export.pk}/").status_code == 403
    assert Export.objects.count() == 1
