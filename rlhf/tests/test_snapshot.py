"""Snapshots: written whole, never changed, checked by hash."""

import json
import resource
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import ProtectedError

from labeling.models import ComparisonImport, Project, User
from rlhf.models import DatasetSnapshot
from rlhf.snapshots import count_labels
from worker.comparing import import_comparisons


@contextmanager
def small_files() -> Iterator[None]:
    """No file may grow past 600 bytes: what a full disk does to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_snapshot_holds_what_was_said_by_split(snapshot: DatasetSnapshot) -> None:
    assert snapshot.counts["train"]["rankings"] == 2
    assert snapshot.counts["train"]["pairs"] == 10
    assert snapshot.counts["train"]["tied_pairs"] == 2
    assert snapshot.counts["train"]["demonstrations:en"] == 1
    assert snapshot.counts["heldout"]["rankings"] == 1
    assert snapshot.counts["heldout"]["pairs"] == 5
    assert snapshot.total("rankings") == 3


def test_preview_counts_what_freezing_then_writes(project: Project, snapshot: DatasetSnapshot) -> None:
    assert json.loads(json.dumps(count_labels(project))) == snapshot.counts


def test_manifest_counts_the_lines_of_each_file(snapshot: DatasetSnapshot) -> None:
    manifest = json.loads((snapshot.path / "manifest.json").read_bytes())
    for name, entry in manifest["files"].items():
        assert len((snapshot.path / name).read_bytes().splitlines()) == entry["rows"]
    assert manifest["files"]["rankings.jsonl"]["rows"] == 3


def test_later_rankings_do_not_change_a_snapshot(snapshot: DatasetSnapshot, rank: Any) -> None:
    before = {path.name: path.read_bytes() for path in snapshot.path.iterdir()}
    rank(2)
    assert {path.name: path.read_bytes() for path in snapshot.path.iterdir()} == before
    assert snapshot.complaints() == []


@pytest.mark.parametrize("name", ["rankings.jsonl", "demonstrations.jsonl", "prompts.jsonl", "manifest.json"])
def test_altered_file_is_named(snapshot: DatasetSnapshot, name: str) -> None:
    path = snapshot.path / name
    path.write_bytes(path.read_bytes().replace(b"e", b"a", 1))
    assert snapshot.complaints() == [f"{name} was altered."]


@pytest.mark.parametrize("name", ["rankings.jsonl", "manifest.json"])
def test_missing_file_is_named(snapshot: DatasetSnapshot, name: str) -> None:
    (snapshot.path / name).unlink()
    assert snapshot.complaints() == [f"{name} is missing."]


def test_full_disk_leaves_neither_row_nor_file(project: Project, oscar: User, rank: Any, data_dir: Path) -> None:
    rank(3)
    with small_files(), pytest.raises(ValidationError, match="Free space"):
        DatasetSnapshot.objects.freeze(project, oscar)
    assert not DatasetSnapshot.objects.exists()
    assert list((data_dir / "snapshots").iterdir()) == []


def test_nothing_to_freeze_leaves_nothing(project: Project, oscar: User, data_dir: Path) -> None:
    with pytest.raises(ValidationError, match="nothing to freeze"):
        DatasetSnapshot.objects.freeze(project, oscar)
    assert list((data_dir / "snapshots").iterdir()) == []


def test_double_click_freezes_once(project: Project, oscar: User, rank: Any) -> None:
    rank()
    key = uuid.uuid4()
    first = DatasetSnapshot.objects.freeze(project, oscar, key=key)
    assert DatasetSnapshot.objects.freeze(project, oscar, key=key) == first
    assert DatasetSnapshot.objects.count() == 1


def test_snapshot_of_a_run_cannot_be_deleted(snapshot: DatasetSnapshot, start: Any) -> None:
    start()
    with pytest.raises(ProtectedError):
        snapshot.delete()
    assert snapshot.complaints() == []


@pytest.mark.django_db(transaction=True)
def test_deleting_an_unused_snapshot_removes_its_files(project: Project, oscar: User, rank: Any) -> None:
    rank()
    snapshot = DatasetSnapshot.objects.freeze(project, oscar)
    snapshot.delete()
    assert not snapshot.path.exists()


@pytest.mark.django_db(transaction=True)
def test_comparisons_imported_as_labelled_are_in_a_snapshot(
    project: Project, oscar: User, settings: Any, tmp_path: Path
) -> None:
    settings.MEDIA_ROOT = tmp_path
    upload = SimpleUploadedFile("hh.jsonl", b'{"prompt": "Why?", "chosen": "So.", "rejected": "No.", "split": "train"}')
    batch = ComparisonImport.objects.upload(project, oscar, upload)
    batch.take(oscar, approve=True)
    import_comparisons(batch.pk)
    frozen = DatasetSnapshot.objects.freeze(project, oscar)
    assert (frozen.counts["train"]["rankings"], frozen.counts["train"]["pairs"]) == (1, 1)
    row = json.loads((frozen.path / "rankings.jsonl").read_text())
    assert (row["source"], sorted(zip(row["tiers"], row["completions"], strict=True))) == (
        "hh",
        [(1, "So."), (2, "No.")],
    )
