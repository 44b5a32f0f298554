"""An export is there whole or not at all, whatever becomes of the worker that writes it."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.files.storage import default_storage
from django.utils import timezone

from labeling import exporting as rows
from labeling.models import Export, Project, Role, User
from labeling.models.exporting import KEPT, export_folder
from labeling.tests.rows import many_ranked
from worker import exporting, leases, tasks
from worker.jobs import MAX_ATTEMPTS
from worker.tests.conftest import Worker, until
from worker.tests.test_processes import TRAINER

State = Export.State
Start = Callable[..., Export]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def folder(settings: Any, data_dir: Path) -> Path:
    settings.MEDIA_ROOT = data_dir
    return data_dir / "exports"


@pytest.fixture
def start(project: Project, curator: User) -> Start:
    """Ask for an export of 30 rankings of 4: 180 pairs."""
    project.members.add(curator)
    many_ranked(project, User.objects.create_user("alice"), 30)

    def start(**choices: Any) -> Export:
        return Export.objects.start(project, curator, **choices)

    return start


def fresh(export: Export) -> Export:
    return Export.objects.get(pk=export.pk)


def export(*queued: Export) -> list[Export]:
    """Ring for each, as messages would; returns them as they are then."""
    for job in queued:
        exporting.export(job.pk)
    return [fresh(job) for job in queued]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


def test_a_finished_export_has_its_file_and_says_what_is_in_it(start: Start) -> None:
    [done] = export(start())
    with done.file.open("rb") as file:
        data = file.read()
    assert done.state == State.SUCCEEDED
    assert (done.rows, done.bytes) == (180, len(data))
    assert done.sha256 == hashlib.sha256(data).hexdigest()
    assert [json.loads(line)["tie"] for line in data.splitlines()] == [False] * 180
    assert files(export_folder()) == [f"{done.pk}-1.jsonl"]


def test_the_same_asked_for_twice_is_one_export_until_it_is_done(start: Start) -> None:
    first = start()
    assert start() == first
    assert start(format="csv") != first
    export(first)
    assert start() != first


@pytest.mark.parametrize(
    ("choices", "field"),
    [({"kind": "prompts"}, "kind"), ({"format": "xls"}, "format"), ({"language": "fr"}, "language")],
)
def test_choices_that_make_no_sense_are_refused(start: Start, choices: dict[str, str], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        start(**choices)
    assert set(refused.value.message_dict) == {field}


def test_only_who_curates_the_project_takes_names_out(start: Start, project: Project) -> None:
    oscar, cleo = User.objects.create_user("oscar"), User.objects.create_user("cleo")
    oscar.set_roles([Role.OPS])
    cleo.set_roles([Role.CURATOR])
    named = start(identities="usernames")
    nameless = start()
    assert set(Export.objects.visible_to(oscar)) == {nameless}
    assert set(Export.objects.visible_to(nameless.by)) == {named, nameless}
    assert not Export.objects.visible_to(cleo).exists()
    Export.objects.start(project, oscar)
    with pytest.raises(ValidationError, match="user names"):
        Export.objects.start(project, oscar, identities="usernames")
    with pytest.raises(PermissionDenied):
        Export.objects.start(project, cleo)


def test_a_queued_export_is_cancelled_at_once(start: Start) -> None:
    job = start()
    assert job.request_cancel()
    [job] = export(job)
    assert (job.state, job.file.name) == (State.CANCELLED, "")


def test_cancelled_while_it_is_written_it_leaves_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(exporting, "BATCH", 6)
    job, real, seen = start(), rows.labels, []

    def labels(export: Export) -> Any:
        for number, label in enumerate(real(export)):
            if number == 10:
                seen.extend(path.name for path in folder.iterdir())
                job.request_cancel()
                held[0].renew()
            yield label

    held: list[leases.Leases] = []
    monkeypatch.setattr(rows, "labels", labels)
    monkeypatch.setattr(leases.Leases, "start", lambda self: held.append(self))
    monkeypatch.setattr(leases.Leases, "join", lambda self: None)
    [job] = export(job)
    assert seen == [f".{job.pk}-1.jsonl.writing"]
    assert (job.state, files(folder)) == (State.CANCELLED, [])
    assert 0 < job.progress["step"] < job.progress["total"] == 30


def test_a_worker_that_shuts_down_gives_the_export_back(
    start: Start, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    job, real = start(), rows.labels

    def labels(export: Export) -> Any:
        leases.stopping.set()
        yield from real(export)

    monkeypatch.setattr(exporting, "BATCH", 6)
    monkeypatch.setattr(rows, "labels", labels)
    [job] = export(job)
    assert (job.state, job.attempts, files(folder)) == (State.QUEUED, 0, [])


def test_who_lost_the_export_leaves_the_winners_file_alone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    job, real, other = start(), rows.labels, []

    def labels(export: Export) -> Any:
        if not other:  # as if this worker were frozen for a minute just before it writes
            other.append(True)
            Export.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(minutes=1))
            assert Export.objects.reap() == 1
            exporting.slot.release()
            exporting.export(job.pk)
            assert exporting.slot.acquire(blocking=False)
        yield from real(export)

    monkeypatch.setattr(rows, "labels", labels)
    [job] = export(job)
    assert (job.state, job.attempts) == (State.SUCCEEDED, 2)
    assert files(export_folder()) == [Path(job.file.name).name]
    assert len(job.file.read().splitlines()) == job.rows == 180


def test_what_a_dead_worker_left_is_swept_away_by_the_next(start: Start, folder: Path) -> None:
    job = start()
    other = start(format="csv")
    folder.mkdir()
    for name in (f".{job.pk}-1.jsonl.writing", f"{job.pk}-1.jsonl", f"{job.pk}0-1.jsonl"):
        (folder / name).write_text("half")
    Export.objects.filter(pk=job.pk).update(fence=1)
    export(job, other)
    assert files(folder) == sorted([f"{job.pk}-2.jsonl", f"{other.pk}-1.csv", f"{job.pk}0-1.jsonl"])


def test_a_full_disk_fails_the_export_with_what_to_do(
    start: Start, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    [job] = export(start())
    assert (job.state, files(folder)) == (State.FAILED, [])
    assert job.error == "The file could not be written (No space left on device). Free space, then start anew."


def test_an_export_that_breaks_is_tried_again_and_then_says_why(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(export: Export) -> Any:
        raise ZeroDivisionError("of labels")

    monkeypatch.setattr(rows, "labels", broken)
    job = start()
    for _ in range(MAX_ATTEMPTS):
        [job] = export(job)
    assert job.state == State.FAILED
    assert "ZeroDivisionError: of labels" in job.error


def test_files_go_after_a_week_and_rows_stay(start: Start, folder: Path) -> None:
    old, young = export(start(), start(format="csv"))
    long_ago = timezone.now() - KEPT - timedelta(minutes=1)
    Export.objects.filter(pk=old.pk).update(finished_at=long_ago)
    orphan = folder / "99-1.csv"
    orphan.write_text("of a project that was deleted")
    os.utime(orphan, (long_ago.timestamp(), long_ago.timestamp()))
    tasks.expire_exports()
    assert files(folder) == [Path(young.file.name).name]
    old = fresh(old)
    assert (old.state, old.file.name, old.rows) == (State.SUCCEEDED, "", 180)
    assert old.expires_at is not None and old.expires_at < timezone.now()
    assert Export.objects.expire() == 0


def test_discarding_takes_the_file_along(start: Start, folder: Path) -> None:
    [job] = export(start())
    job.discard()
    assert (files(folder), Export.objects.count()) == ([], 0)


def test_an_export_of_a_killed_worker_is_written_anew_and_whole(
    project: Project, curator: User, start_worker: Callable[..., Worker], folder: Path
) -> None:
    project.members.add(curator)
    many_ranked(project, User.objects.create_user("alice"), 2500, k=9)
    worker = start_worker(*TRAINER)
    job = Export.objects.start(project, curator)
    until(lambda: [path for path in folder.glob(".*.writing") if path.stat().st_size])
    worker.kill()
    assert fresh(job).state == State.RUNNING
    assert [path.name for path in folder.iterdir()] == [f".{job.pk}-1.jsonl.writing"]
    start_worker(*TRAINER)

    def is_done_at_last() -> bool:
        tasks.mend()  # what the beat sends
        return fresh(job).state == State.SUCCEEDED

    until(is_done_at_last)
    job = fresh(job)
    assert (job.attempts, job.rows) == (2, 2500 * 36)
    assert [path.name for path in folder.iterdir()] == [Path(job.file.name).name]
    with default_storage.open(job.file.name) as file:
        assert sum(1 for line in file if json.loads(line)["split"] == "train") == job.rows
