"""Snapshots in the console: freeze, verify, download."""

import uuid
from typing import Any

import pytest
from django.test import Client

from labeling.models import Project
from rlhf.models import DatasetSnapshot
from rlhf.tests.console import recorded, said, url


def test_freeze_page_shows_what_would_be_in_it_and_freezes(ops: Client, project: Project, rank: Any) -> None:
    rank(2)
    address = url("datasetsnapshot_freeze", project=project.pk)
    page = ops.get(address).content.decode()
    assert "No demonstrations for training" in page
    answer = ops.post(address, {"key": uuid.uuid4()})
    snapshot = DatasetSnapshot.objects.get()
    assert answer.headers["Location"] == url("datasetsnapshot_change", snapshot.pk)
    assert recorded(snapshot) == ["frozen"]
    assert snapshot.by.username == "oscar"


def test_freeze_button_pressed_twice_freezes_once(ops: Client, project: Project, rank: Any) -> None:
    rank()
    key = uuid.uuid4()
    for _ in range(2):
        ops.post(url("datasetsnapshot_freeze", project=project.pk), {"key": key})
    assert DatasetSnapshot.objects.count() == 1


def test_empty_project_cannot_be_frozen(ops: Client, project: Project) -> None:
    address = url("datasetsnapshot_freeze", project=project.pk)
    assert "nothing to freeze yet" in ops.get(address).content.decode()
    assert "nothing to freeze yet" in ops.post(address, {"key": uuid.uuid4()}).content.decode()


def test_project_is_asked_for_where_there_are_several(ops: Client, project: Project) -> None:
    other = Project.objects.create(name="Another", slug="another", languages=["en"])
    page = ops.get(url("datasetsnapshot_freeze")).content.decode()
    assert f"?project={project.pk}" in page
    assert f"?project={other.pk}" in page


@pytest.mark.parametrize("query", ["project=999", "project=x", "project=-1"])
def test_unknown_project_is_not_found(ops: Client, project: Project, query: str) -> None:
    assert ops.get(url("trainingrun_retrain") + "?" + query).status_code == 404


def test_verify_button_names_the_altered_file(ops: Client, snapshot: DatasetSnapshot) -> None:
    assert "Every file is as it was frozen" in said(ops.post(url("datasetsnapshot_verify", snapshot.pk)))
    (snapshot.path / "prompts.jsonl").write_text("")
    assert "prompts.jsonl was altered" in said(ops.post(url("datasetsnapshot_verify", snapshot.pk)))


def test_files_are_downloaded_by_their_names_alone(ops: Client, snapshot: DatasetSnapshot) -> None:
    answer = ops.get(url("datasetsnapshot_file", snapshot.pk, "rankings.jsonl"))
    assert answer.getvalue() == (snapshot.path / "rankings.jsonl").read_bytes()
    assert "attachment" in answer.headers["Content-Disposition"]
    (snapshot.path / "notes.txt").write_text("put there later")
    assert ops.get(url("datasetsnapshot_file", snapshot.pk, "notes.txt")).status_code == 404


def test_used_snapshot_offers_no_delete(ops: Client, start: Any) -> None:
    run = start()
    assert ops.post(url("datasetsnapshot_delete", run.snapshot_id), {"post": "yes"}).status_code == 403
    assert DatasetSnapshot.objects.filter(pk=run.snapshot_id).exists()
