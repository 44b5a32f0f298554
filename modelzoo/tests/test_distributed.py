"""Several processes under torchrun: the same course as one, files from one of them, an end for all at once."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelzoo.distributed import Processes
from modelzoo.state import step_checkpoints
from modelzoo.tests.conftest import Finished, Train
from modelzoo.tests.test_resume import STAGES, TEN_STEPS, assert_same_model, wait_for_step

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "localhost"]
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path, spec_of: Callable[..., dict[str, Any]], corpus: str) -> Iterator[Start]:
    """Start a run of two processes."""
    started = []

    def begin(stage: str, out: str, params: dict[str, Any], *options: str, **changes: Any) -> "subprocess.Popen[bytes]":
        spec = tmp_path / f"spec-{out}.json"
        spec.write_text(json.dumps(spec_of(stage, params, corpus=corpus, **changes)))
        command = [
            *LAUNCHER,
            "--nproc-per-node",
            "2",
            "-m",
            "modelzoo",
            stage,
            "--spec",
            str(spec),
            "--out",
            str(tmp_path / out),
            *options,
        ]
        with (tmp_path / f"{out}.log").open("wb") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, stdout=log, env=environment))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()


def processes_of(launcher: "subprocess.Popen[bytes]") -> dict[int, int]:
    """The process id of each rank."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    ranks = {}
    for child in map(int, children):
        environment = dict(
            item.split("=", 1) for item in Path(f"/proc/{child}/environ").read_text().split("\0") if "=" in item
        )
        ranks[int(environment["RANK"])] = child
    return ranks


LONG = {"epochs": 400, "batch_size": 4, "checkpoint_every": 10}


@pytest.mark.parametrize(
    "stage",
    [pytest.param(stage, marks=pytest.mark.slow if stage in ("pretrain", "dpo", "reward") else []) for stage in STAGES],
)
def test_two_processes_take_the_same_course_as_one(train: Train, start: Start, corpus: str, stage: str) -> None:
    params = {**TEN_STEPS[stage], "adam_eps": 1e-3}  # the default turns rounding of tiny gradients into steps
    two = start(stage, "two", params)
    one = train(stage, params, corpus=corpus, out="one")
    assert two.wait(timeout=300) == 0
    done = Finished(0, one.out.parent / "two")
    assert done.result["step"] == one.result["step"] == 10
    assert len(done.metrics) == len(one.metrics)
    for ours, theirs in zip(done.metrics, one.metrics, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"seconds", "tokens_per_second"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-6), name
    assert sorted(path.name for path in done.out.iterdir()) == ["metrics.jsonl", "model", "result.json"]


def test_bad_input_is_one_clear_line_and_a_result(start: Start, tmp_path: Path) -> None:
    assert start("sft", "out", {"epochs": "many"}).wait(timeout=300) != 0
    done = Finished(1, tmp_path / "out")
    assert done.result["error"]["kind"] == "bad_input"
    assert (tmp_path / "out.log").read_text().count("Some parameters cannot be used") == 1


@pytest.mark.parametrize("how", ["sigterm", pytest.param("end of standard input", marks=pytest.mark.slow)])
def test_asked_to_stop_all_processes_end_with_a_checkpoint_of_the_same_step(
    start: Start, tmp_path: Path, how: str
) -> None:
    launcher = start("reward", "out", LONG, "--supervised")
    wait_for_step(tmp_path / "out", 5)
    if how == "sigterm":
        launcher.terminate()
    else:
        assert launcher.stdin
        launcher.stdin.close()
    launcher.wait(timeout=300)
    done = Finished(3, tmp_path / "out")
    assert done.result["status"] == "stopped" and done.result["error"] is None
    newest = step_checkpoints([tmp_path / "out" / "checkpoints"])[0]
    assert newest.name == f"step-{done.result['step']:08d}"
    assert done.metrics[-1]["step"] == done.result["step"]


def test_when_the_first_process_is_killed_the_other_does_not_hang(start: Start, tmp_path: Path) -> None:
    launcher = start("reward", "out", LONG)
    wait_for_step(tmp_path / "out", 5)
    os.kill(processes_of(launcher)[0], signal.SIGKILL)
    assert launcher.wait(timeout=300) != 0
    assert not (tmp_path / "out" / "result.json").exists()


@pytest.mark.parametrize(
    ("stage", "params", "step"),
    [
        pytest.param("reward", {"epochs": 25, "batch_size": 4, "checkpoint_every": 10}, 25, marks=pytest.mark.slow),
        pytest.param(
            "ppo",
            {"episodes": 80, "minibatch_size": 4, "batch_size": 4, "checkpoint_every": 4, "sharding": "always"},
            6,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["whole in each", "spread over both"],
)
def test_when_another_process_is_killed_none_hangs_and_the_run_resumes_to_the_same_bits(
    start: Start, tmp_path: Path, stage: str, params: dict[str, Any], step: int
) -> None:
    whole = start(stage, "whole", params)
    first = start(stage, "first", params)
    wait_for_step(tmp_path / "first", step)
    os.kill(processes_of(first)[1], signal.SIGKILL)
    assert first.wait(timeout=300) != 0
    assert not (tmp_path / "first" / "result.json").exists()  # as after any kill: a supervisor tries again
    assert step_checkpoints([tmp_path / "first" / "checkpoints"])
    assert start(stage, "second", params, resume_from=[str(tmp_path / "first")]).wait(timeout=300) == 0
    assert whole.wait(timeout=300) == 0
    assert_same_model(Finished(0, tmp_path / "whole"), Finished(0, tmp_path / "second"))


OUT_OF_MEMORY_LATER = """
import os
if os.environ.get("RANK") == "1":
    import torch
    backward, calls = torch.Tensor.backward, []
    def failing(*arguments, **named):
        calls.append(1)
        if len(calls) > 8:
            raise MemoryError
        backward(*arguments, **named)
    torch.Tensor.backward = failing
"""


def test_what_fails_in_another_process_is_told_by_the_first(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(OUT_OF_MEMORY_LATER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert start("reward", "out", LONG).wait(timeout=300) != 0
    done = Finished(1, tmp_path / "out")
    assert done.result["error"]["kind"] == "out_of_memory"
    assert done.result["step"] > 0


def test_shares_are_everything_once_and_even() -> None:
    items = [9, 1, 4, 4, 7, 2, 2, 1]
    shares = [Processes(rank, 3).share(items, lambda item: item) for rank in range(3)]
    assert sorted(sum(shares, [])) == sorted(items)
    assert max(map(sum, shares)) - min(map(sum, shares)) <= 1
    assert [Processes(rank, 3).share([5], lambda item: item) for rank in range(3)] == [[5], [], []]
