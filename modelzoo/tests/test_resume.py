"""A run that was interrupted ends with the same bits as one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from modelzoo.checkpoint import load_state
from modelzoo.run import Run
from modelzoo.state import step_checkpoints
from modelzoo.tests.conftest import Finished, Train

TEN_STEPS: dict[str, dict[str, Any]] = {
    "sft": {"epochs": 5, "batch_size": 8},
    "reward": {"epochs": 5, "batch_size": 8},
    "pretrain": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_length": 16,
        "epochs": 5,
        "batch_size": 40,
        "schedule": "wsd",
        "warmup_ratio": 0.2,
        "evaluate_every": 3,
    },
    "ppo": {"episodes": 80, "inner_epochs": 2, "kl_target": 0.5, "kl_horizon": 100, "ptx_coef": 1.0, "ptx_length": 16},
    "dpo": {"epochs": 5, "batch_size": 8},
}
STAGES = [*TEN_STEPS]
TEN_STEPS |= {f"{stage} lora": {**TEN_STEPS[stage], "lora_rank": 2} for stage in STAGES if stage != "pretrain"}
TEN_STEPS |= {
    "sft neftune": {**TEN_STEPS["sft"], "adversarial": "neftune"},
    "reward freelb": {**TEN_STEPS["reward"], "adversarial": "freelb"},
    "sft bfloat16": {**TEN_STEPS["sft"], "precision": "bfloat16"},
    "ppo bfloat16": {**TEN_STEPS["ppo"], "precision": "bfloat16"},
}


def interrupt_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process the signal a supervisor sends, right after the metrics of a step were written."""
    write = Run.log_metrics

    def write_and_interrupt(run: Run[Any], metrics: dict[str, float]) -> None:
        write(run, metrics)
        if run.state and run.state.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Run, "log_metrics", write_and_interrupt)


def model_bytes(done: Finished) -> dict[str, torch.Tensor]:
    return load_file(done.out / "model" / "model.safetensors")


def assert_same_model(one: Finished, other: Finished) -> None:
    ours, theirs = model_bytes(one), model_bytes(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    config = [json.loads((done.out / "model" / "config.json").read_text()) for done in (one, other)]
    assert config[0] == config[1]  # the reward model's offset too


def course(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    timed = {"seconds", "tokens_per_second"}
    return [{name: value for name, value in line.items() if name not in timed} for line in metrics]


# An epoch has two steps, but for PPO. How the weights are trained matters at any step alike.
AT = [(stage, step) for stage in STAGES for step in (1, 4, 5, 6, 9)] + [(what, 5) for what in TEN_STEPS if " " in what]


@pytest.mark.parametrize(("what", "step"), AT)
def test_ten_steps_equal_some_then_the_rest_bit_for_bit(
    train: Train, corpus: str, monkeypatch: pytest.MonkeyPatch, what: str, step: int
) -> None:
    stage = what.split()[0]
    whole = train(stage, TEN_STEPS[what], corpus=corpus, out="whole")
    assert whole.result["total"] == 10
    with monkeypatch.context() as patched:
        interrupt_after(step, patched)
        first = train(stage, TEN_STEPS[what], corpus=corpus, out="first")
    assert (first.code, first.result["status"], first.result["step"]) == (3, "stopped", step)
    second = train(stage, TEN_STEPS[what], corpus=corpus, resume_from=[str(first.out)], out="second")
    assert second.result["step"] == 10 and second.result["status"] == "succeeded"
    assert_same_model(whole, second)
    steps = [line for line in course(whole.metrics) if "loss" in line or "reward" in line]
    resumed = [line for line in course(first.metrics + second.metrics) if "loss" in line or "reward" in line]
    assert steps == resumed


@pytest.mark.parametrize("what", sorted(TEN_STEPS))
def test_a_step_checkpoint_holds_the_same_state_as_an_uninterrupted_run(
    train: Train, corpus: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Weights, Adam's moments, moving average, value model and KL weight, at step 9 of both."""
    stage = what.split()[0]
    saved = {}
    for name, first_stop in (("whole", None), ("resumed", 5)):
        attempts: list[str] = []
        for stop in [first_stop, 9] if first_stop else [9]:
            with monkeypatch.context() as patched:
                interrupt_after(stop, patched)
                done = train(stage, TEN_STEPS[what], corpus=corpus, resume_from=attempts, out=f"{name}-{stop}")
            attempts.append(str(done.out))
        (checkpoint,) = step_checkpoints([done.out / "checkpoints"])
        saved[name] = load_state(checkpoint)
    (tensors, counters), (other_tensors, other_counters) = saved["whole"], saved["resumed"]
    assert tensors.keys() == other_tensors.keys()
    assert all(torch.equal(tensors[key], other_tensors[key]) for key in tensors)
    assert counters["numbers"] == other_counters["numbers"] and counters["step"] == 9
    if stage == "ppo":
        assert counters["numbers"]["kl_coef"] != 0.02
        assert {key.split("/")[1] for key in tensors if key.startswith("model/")} == {"policy", "value", "average"}


def test_stopped_after_the_last_step_a_run_still_finishes_when_resumed(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train("sft", out="whole")
    with monkeypatch.context() as patched:
        interrupt_after(4, patched)
        first = train("sft", out="first")
    assert first.result["status"] == "stopped" and first.result["step"] == first.result["total"] == 4
    second = train("sft", resume_from=[str(first.out)], out="second")
    assert second.result["status"] == "succeeded"
    assert second.result["metrics"]["loss"] == whole.result["metrics"]["loss"]
    assert_same_model(whole, second)


def test_a_stop_while_responses_are_sampled_ends_at_once_with_the_step_undone(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Run.log

    def log_and_interrupt(run: Run[Any], message: str) -> None:
        log(run, message)
        if "the reward model scores" in message:  # the last words before the first rollout
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Run, "log", log_and_interrupt)
    done = train("ppo")
    assert (done.code, done.result["status"], done.result["step"], done.metrics) == (3, "stopped", 0, [])


def test_the_last_two_step_checkpoints_are_kept_while_a_run_goes_on(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(9, monkeypatch)
    done = train("sft", {**TEN_STEPS["sft"], "checkpoint_every": 2})
    names = [path.name for path in step_checkpoints([done.out / "checkpoints"])]
    assert names == ["step-00000009", "step-00000008"]


@pytest.fixture
def interrupted(train: Train, monkeypatch: pytest.MonkeyPatch) -> Finished:
    with monkeypatch.context() as patched:
        interrupt_after(6, patched)
        return train("sft", {**TEN_STEPS["sft"], "checkpoint_every": 4}, out="first")


def corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_step_checkpoint_is_passed_over_for_the_one_before(train: Train, interrupted: Finished) -> None:
    corrupt(interrupted.out / "checkpoints" / "step-00000006" / "state.safetensors")
    whole = train("sft", TEN_STEPS["sft"], out="whole")
    done = train("sft", TEN_STEPS["sft"], resume_from=[str(interrupted.out)])
    assert [line["step"] for line in done.metrics if "loss" in line] == [5, 6, 7, 8, 9, 10]
    assert any("step-00000006 is damaged" in warning for warning in done.result["warnings"])
    assert_same_model(whole, done)


def test_with_every_step_checkpoint_damaged_the_run_starts_over(train: Train, interrupted: Finished) -> None:
    for checkpoint in step_checkpoints([interrupted.out / "checkpoints"]):
        (checkpoint / "state.json").unlink()
    done = train("sft", TEN_STEPS["sft"], resume_from=[str(interrupted.out)])
    assert [line["step"] for line in done.metrics if "loss" in line] == list(range(1, 11))
    assert len(done.result["warnings"]) == 2


def test_earlier_attempts_are_left_as_they_are(train: Train, interrupted: Finished) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in interrupted.out.rglob("*"))
    train("sft", TEN_STEPS["sft"], resume_from=[str(interrupted.out), str(interrupted.out / "missing")])
    assert sorted((path, path.stat().st_mtime_ns) for path in interrupted.out.rglob("*")) == before


def test_an_attempt_with_other_parameters_is_not_continued(train: Train, interrupted: Finished) -> None:
    params = {**TEN_STEPS["sft"], "learning_rate": 5e-4, "adam_eps": 1e-6}
    done = train("sft", params, resume_from=[str(interrupted.out)])
    assert done.code == 2
    assert "differs in adam_eps, learning_rate" in done.message


def test_the_same_command_again_continues_where_it_was_stopped(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        interrupt_after(5, patched)
        train("reward", TEN_STEPS["reward"])
    done = train("reward", TEN_STEPS["reward"])
    assert done.code == 0
    assert [line["step"] for line in done.metrics if "loss" in line] == list(range(1, 11))


def test_metrics_of_steps_that_are_done_again_are_not_kept_twice(train: Train, interrupted: Finished) -> None:
    corrupt(interrupted.out / "checkpoints" / "step-00000006" / "state.safetensors")
    (interrupted.out / "result.json").unlink()
    with (interrupted.out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')  # cut off by a kill
    done = train("sft", {**TEN_STEPS["sft"], "checkpoint_every": 4}, out="first")
    assert done.code == 0
    assert [line["step"] for line in done.metrics if "loss" in line] == list(range(1, 11))


# The command line as its own process ------------------------------------------------------------------------------

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path, spec_of: Callable[..., dict[str, Any]]) -> Start:
    """Start a reward run of 100 steps in a process of its own."""

    def begin(out: str, *options: str, **changes: Any) -> "subprocess.Popen[bytes]":
        spec = tmp_path / f"spec-{out}.json"
        spec.write_text(
            json.dumps(spec_of("reward", {"epochs": 25, "batch_size": 4, "checkpoint_every": 10}, **changes))
        )
        command = [
            sys.executable,
            "-m",
            "modelzoo",
            "reward",
            "--spec",
            str(spec),
            "--out",
            str(tmp_path / out),
            *options,
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)

    return begin


def wait_for_step(out: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        metrics = out / "metrics.jsonl"
        if metrics.exists() and len(metrics.read_text().splitlines()) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"{out} did not come to step {step}")


def test_killed_without_warning_a_run_resumes_to_the_same_bits(start: Start, tmp_path: Path) -> None:
    first = start("first")
    wait_for_step(tmp_path / "first", 25)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert not (tmp_path / "first" / "result.json").exists()
    processes = [start("second", resume_from=[str(tmp_path / "first")]), start("whole")]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    assert_same_model(Finished(0, tmp_path / "whole"), Finished(0, tmp_path / "second"))


def test_sigterm_writes_a_checkpoint_of_the_step_it_came_in(start: Start, tmp_path: Path) -> None:
    process = start("out")
    wait_for_step(tmp_path / "out", 5)
    process.terminate()
    assert process.wait(timeout=300) == 3
    done = Finished(3, tmp_path / "out")
    assert done.result["status"] == "stopped" and done.result["error"] is None
    newest = step_checkpoints([tmp_path / "out" / "checkpoints"])[0]
    assert newest.name == f"step-{done.result['step']:08d}"
    assert done.metrics[-1]["step"] == done.result["step"]


def test_end_of_standard_input_stops_a_supervised_run(start: Start, tmp_path: Path) -> None:
    process = start("out", "--supervised")
    wait_for_step(tmp_path / "out", 5)
    assert process.stdin
    process.stdin.close()
    assert process.wait(timeout=300) == 3
    assert Finished(3, tmp_path / "out").result["status"] == "stopped"
    assert step_checkpoints([tmp_path / "out" / "checkpoints"])
