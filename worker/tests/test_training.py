"""The supervisor: a real trainer in a process of its own, its metrics as rows, its end as the run's."""

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

from labeling.models import Demonstration, Project, Prompt, User
from modelzoo.checkpoint import manifest_hash, verify
from rlhf.models import DatasetSnapshot, ModelVersion, TrainingRun
from worker import leases, training
from worker.attempts import read_result
from worker.jobs import MAX_ATTEMPTS
from worker.tests.conftest import WORDS, until

State = TrainingRun.State
Start = Callable[..., TrainingRun]

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def start(project: Project, curator: User, version: ModelVersion) -> Start:
    """Queue an SFT run on eight demonstrations; `epochs` are its steps."""
    for number in range(8):
        text = f"{WORDS[number]} {WORDS[number + 3]}"
        prompt = Prompt.objects.add(project, [{"role": "user", "content": text}], language="en")
        Prompt.objects.filter(pk=prompt.pk).update(split="train")
        Prompt.objects.filter(pk=prompt.pk).approve(curator)
        Demonstration.objects.import_all([(prompt, "good fish")], source="a book")
    snapshot = DatasetSnapshot.objects.freeze(project, curator)

    def start(**params: Any) -> TrainingRun:
        params = {"epochs": 3, "batch_size": 8, "micro_batch_size": 8, "checkpoint_every": 1, **params}
        return TrainingRun.objects.start(
            project=project, stage="sft", snapshot=snapshot, policy=version, params=params, by=curator
        )

    return start


@pytest.fixture
def in_background() -> Iterator[Callable[[TrainingRun], threading.Thread]]:
    """Supervise a run in another thread, as the worker's pool does."""
    threads = []

    def supervise(run: TrainingRun) -> threading.Thread:
        def work() -> None:
            training.train(run.pk)
            connection.close()

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return threads[-1]

    yield supervise
    leases.stopping.set()
    for thread in threads:
        thread.join()


def fresh(run: TrainingRun) -> TrainingRun:
    return TrainingRun.objects.get(pk=run.pk)


def trainer_of(run: TrainingRun) -> int | None:
    """The process id of the trainer that writes to the run's newest folder."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--supervised" in arguments and str(fresh(run).attempt_folder).encode() in arguments:
            return int(entry.name)
    return None


def checkpoints(run: TrainingRun) -> list[str]:
    return sorted(path.name for path in fresh(run).attempt_folder.glob("checkpoints/step-*"))


def test_a_finished_run_becomes_a_model_version_and_its_metrics_rows(start: Start, version: ModelVersion) -> None:
    run = start()
    training.train(run.pk)
    run = fresh(run)
    assert (run.state, run.error) == (State.SUCCEEDED, "")
    result = run.result
    assert result is not None
    assert (result.name, result.kind, result.languages) == (f"help-sft-{run.pk}", "sft", ["en"])
    assert list(result.parents.all()) == [version]
    assert verify(result.path)["kind"] == "sft"
    assert result.complaints() == []
    assert result.metrics["seconds"] > 0
    assert not list(run.folder.glob("*/checkpoints"))
    lines = [json.loads(line) for line in (run.attempt_folder / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert set(losses) == {1, 2, 3}
    assert dict(run.metrics.filter(name="loss").values_list("step", "value")) == losses
    assert run.progress == {"step": 3, "total": 3}


def test_a_run_that_cannot_work_fails_in_the_words_of_the_trainer(start: Start, version: ModelVersion) -> None:
    run = start()
    (version.path / "model.safetensors").write_bytes(b"nonsense")
    training.train(run.pk)
    run = fresh(run)
    assert run.state == State.FAILED
    assert run.error == read_result(run.attempt_folder)["error"]["message"]
    assert "model.safetensors" in run.error


def test_a_killed_trainer_is_resumed_from_its_last_checkpoint(
    start: Start, in_background: Callable[[TrainingRun], threading.Thread]
) -> None:
    run = start(epochs=40, checkpoint_every=5)
    thread = in_background(run)
    until(lambda: checkpoints(run))
    os.kill(until(lambda: trainer_of(run)), signal.SIGKILL)
    thread.join()
    assert fresh(run).state == State.QUEUED
    training.train(run.pk)
    run = fresh(run)
    assert (run.state, run.attempts) == (State.SUCCEEDED, 2)
    assert "continuing after step" in (run.attempt_folder / "log.txt").read_text()
    assert list(run.metrics.filter(name="loss").values_list("step", flat=True)) == list(range(1, 41))


def test_a_trainer_that_is_always_killed_fails_with_the_likely_cause(
    start: Start, in_background: Callable[[TrainingRun], threading.Thread]
) -> None:
    run = start(epochs=1000)
    for _ in range(MAX_ATTEMPTS):
        thread = in_background(run)
        until(lambda: trainer_of(run))
        os.kill(until(lambda: trainer_of(run)), signal.SIGKILL)
        thread.join()
    run = fresh(run)
    assert run.state == State.FAILED
    assert "ran out of memory" in run.error
    assert "micro_batch_size" in run.error


def test_a_cancelled_run_leaves_no_trainer_and_can_be_resumed(
    start: Start, in_background: Callable[[TrainingRun], threading.Thread]
) -> None:
    run = start(epochs=1000)
    thread = in_background(run)
    until(lambda: checkpoints(run))
    fresh(run).request_cancel()
    thread.join()
    assert fresh(run).state == State.CANCELLED
    assert trainer_of(run) is None
    assert fresh(run).requeue()
    attempt = str(fresh(run).attempt_folder)
    assert training.Supervisor(TrainingRun.objects.claim(run.pk)).spec["resume_from"] == [attempt]


def test_a_worker_that_is_stopped_gives_its_run_back_with_a_checkpoint(
    start: Start, in_background: Callable[[TrainingRun], threading.Thread]
) -> None:
    run = start(epochs=1000, checkpoint_every=1000)
    thread = in_background(run)
    until(lambda: run.metrics.exists())
    leases.stopping.set()
    thread.join()
    run = fresh(run)
    assert (run.state, run.attempts) == (State.QUEUED, 0)
    assert len(checkpoints(run)) == 1
    assert read_result(run.attempt_folder)["status"] == "stopped"


def test_a_supervisor_that_lost_the_run_kills_its_trainer(
    start: Start, in_background: Callable[[TrainingRun], threading.Thread]
) -> None:
    run = start(epochs=1000)
    thread = in_background(run)
    until(lambda: run.metrics.exists())
    trainer = until(lambda: trainer_of(run))
    TrainingRun.objects.filter(pk=run.pk).update(fence=99)
    thread.join()
    assert not Path(f"/proc/{trainer}").exists()
    assert fresh(run).state == State.RUNNING  # its new holder's business


def test_one_run_at_a_time(start: Start) -> None:
    run = start()
    with training.slot:
        training.train(run.pk)
    assert fresh(run).state == State.QUEUED


def test_a_model_that_was_finished_before_the_worker_died_is_not_trained_again(start: Start, checkpoint: Path) -> None:
    run = start()
    attempt = run.folder / "1"
    shutil.copytree(checkpoint, attempt / "model")
    (attempt / "spec.json").write_text(json.dumps(training.Supervisor(run).spec))
    (attempt / "result.json").write_text('{"status": "succeeded", "metrics": {"loss": 0.5}}')
    TrainingRun.objects.filter(pk=run.pk).update(fence=1)
    training.train(run.pk)
    run = fresh(run)
    assert run.state == State.SUCCEEDED
    assert run.result is not None
    assert (run.result.manifest_hash, run.result.metrics) == (manifest_hash(checkpoint), {"loss": 0.5})
    assert not run.attempt_folder.exists()


def test_folders_of_a_database_that_is_gone_are_not_mistaken_for_ones_own(start: Start) -> None:
    run = start()
    foreign = run.folder / "1"
    (foreign / "model").mkdir(parents=True)
    (foreign / "spec.json").write_text('{"stage": "ppo"}')
    (foreign / "result.json").write_text('{"status": "succeeded", "step": 1, "total": 1, "model": "model"}')
    training.train(run.pk)
    run = fresh(run)
    assert run.state == State.SUCCEEDED
    assert run.result is not None
    assert run.result.complaints() == []


def test_a_run_does_not_start_without_room_for_its_checkpoints(
    start: Start, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    run = start()
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=10**6, used=0, free=10**6))
    training.train(run.pk)
    run = fresh(run)
    assert run.state == State.FAILED
    assert "not enough disk space" in run.error
    assert str(data_dir) in run.error


def test_secrets_are_not_handed_to_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "a-key-nobody-else-may-know")
    assert "a-key-nobody-else-may-know" not in training.trainer_environment().values()


@pytest.mark.parametrize(
    ("cards", "setting", "launched"),
    [("", 0, 1), ("-1", 0, 1), ("0", 0, 1), ("0,1,2", 0, 3), ("0,1,2", 2, 2), ("", 2, 2)],
)
def test_a_trainer_is_started_through_torchrun_where_there_are_several_cards(
    monkeypatch: pytest.MonkeyPatch, settings: Any, cards: str, setting: int, launched: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", cards)
    settings.TRAINING_PROCESSES = setting
    command = training.trainer_command("sft", Path("spec.json"), Path("out"))
    start = command.index("modelzoo")
    assert command[start:] == ["modelzoo", "sft", "--spec", "spec.json", "--out", "out", "--supervised"]
    torchrun = ["torch.distributed.run", "--standalone", "--local-addr", "localhost", "--nproc-per-node", str(launched)]
    assert command[:start] == [sys.executable, "-m", *([*torchrun, "-m"] if launched > 1 else [])]


def test_a_run_of_two_processes_becomes_a_model_version_like_any_other(start: Start, settings: Any) -> None:
    settings.TRAINING_PROCESSES = 2
    run = start()
    training.train(run.pk)
    assert (fresh(run).state, fresh(run).error) == (State.SUCCEEDED, "")
    assert "2 processes" in (fresh(run).attempt_folder / "log.txt").read_text()


def test_two_processes_end_with_a_checkpoint_when_the_worker_stops(
    start: Start, settings: Any, in_background: Callable[[TrainingRun], threading.Thread]
) -> None:
    settings.TRAINING_PROCESSES = 2
    run = start(epochs=1000, checkpoint_every=1000)
    thread = in_background(run)
    until(lambda: fresh(run).progress.get("step"))
    leases.stopping.set()
    thread.join(60)
    assert not thread.is_alive()
    assert fresh(run).state == State.QUEUED
    assert len(checkpoints(run)) == 1
