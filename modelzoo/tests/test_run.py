"""`python -m modelzoo STAGE` as someone would use it, with input that cannot be used."""

import json
import math
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelzoo import run
from modelzoo.__main__ import main
from modelzoo.checkpoint import load_reward_model, load_state, save_checkpoint
from modelzoo.failures import explained
from modelzoo.state import step_checkpoints
from modelzoo.tests.conftest import Finished, Train, ranking, tiny_policy, write_snapshot
from modelzoo.tests.test_resume import assert_same_model, interrupt_after
from modelzoo.tokenizer import Tokenizer

Spec = Callable[..., dict[str, Any]]


def command(out: Path, spec: Path, stage: str = "reward") -> list[str]:
    return [sys.executable, "-m", "modelzoo", stage, "--spec", str(spec), "--out", str(out)]


def test_the_command_trains_a_reward_model(tmp_path: Path, spec_of: Spec) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(spec_of("reward")))
    finished = subprocess.run(command(tmp_path / "out", tmp_path / "spec.json"), capture_output=True, text=True)
    done = Finished(finished.returncode, tmp_path / "out")
    assert done.code == 0
    assert done.result["status"] == "succeeded" and done.result["model"] == "model"
    assert "16 rankings" in finished.stderr and "step 2/2" in finished.stderr
    load_reward_model(done.out / "model")
    assert sorted(path.name for path in done.out.iterdir()) == ["metrics.jsonl", "model", "result.json"]


def test_step_checkpoints_are_removed_when_nothing_is_left_to_resume(train: Train) -> None:
    done = train("sft", {"epochs": 3, "checkpoint_every": 2})
    assert done.code == 0 and not (done.out / "checkpoints").exists()


def test_metrics_have_a_line_for_each_step_with_its_number_total_and_seconds(train: Train) -> None:
    lines = [line for line in train("reward", {"epochs": 3}).metrics if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {line["total"] for line in lines} == {6}
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params": {"lerning_rate": 1}}, "lerning_rate: is not a parameter"),
        ({"params": {"epochs": 0}}, "epochs: must be at least 1"),
        ({"params": {"ties": "maybe"}}, "ties: must be one of drop, model"),
        ({"params": [1]}, '"params" in the spec must be an object'),
        ({"stage": "sft"}, "The spec is for stage 'sft'"),
        ({"snapshot": None}, 'must name "snapshot"'),
        ({"snapshot": "/nowhere"}, "There is no snapshot in /nowhere"),
        ({"policy": "/nowhere"}, "/nowhere"),
        ({"languages": []}, '"languages" in the spec is empty'),
        ({"colour": "red"}, "unknown keys (colour)"),
    ],
)
def test_a_bad_spec_is_refused_in_one_sentence(
    tmp_path: Path, spec_of: Spec, changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(spec_of("reward") | changes))
    code = main(["reward", "--spec", str(tmp_path / "spec.json"), "--out", str(tmp_path / "out")])
    done = Finished(code, tmp_path / "out")
    assert done.code == 2
    assert done.result["error"]["kind"] == "bad_input"
    assert message in done.message and "\n" not in done.message


@pytest.mark.parametrize("content", ["", "{", "[]", '{"params": []}'])
def test_a_spec_that_is_no_spec_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "spec.json").write_text(content)
    code = main(["sft", "--spec", str(tmp_path / "spec.json"), "--out", str(tmp_path / "out")])
    assert code == 2 and "spec" in Finished(code, tmp_path / "out").message


def test_a_missing_spec_is_refused(tmp_path: Path) -> None:
    assert main(["sft", "--spec", str(tmp_path / "spec.json"), "--out", str(tmp_path / "out")]) == 2


def test_a_corrupt_policy_is_refused(train: Train, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "policy", tiny_policy(tokenizer), tokenizer, kind="base", languages=["en"])
    weights = tmp_path / "policy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = train("sft", policy=str(tmp_path / "policy"))
    assert done.code == 2
    assert done.result["error"]["kind"] == "bad_input" and "model.safetensors is corrupt" in done.message


def test_a_reward_model_is_no_policy(train: Train, reward_directory: Path) -> None:
    done = train("sft", policy=str(reward_directory))
    assert done.code == 2 and "reward" in done.message


def test_a_snapshot_too_small_to_train_on_is_refused(train: Train, tmp_path: Path) -> None:
    empty = str(write_snapshot(tmp_path / "s", rankings=[], demonstrations=[], prompts=[]))
    for stage in ("sft", "reward", "ppo"):
        done = train(stage, snapshot=empty, out=stage)
        assert done.code == 2 and "snapshot" in done.message


def test_a_conversation_that_the_template_refuses_is_bad_input(train: Train, tmp_path: Path) -> None:
    rows = [ranking(0, messages=[{"role": "ghost", "content": "boo"}])]
    done = train("reward", snapshot=str(write_snapshot(tmp_path / "s", rankings=rows, demonstrations=[], prompts=[])))
    assert done.code == 2 and "role" in done.message


def test_a_finished_run_is_not_written_over(train: Train) -> None:
    assert train("sft").code == 0
    done = train("sft")
    assert done.code == 2 and "already holds a finished model" in done.message
    assert (done.out / "model").exists()


def test_gradients_that_are_no_numbers_stop_the_run_and_keep_the_last_good_checkpoint(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {4: math.inf}  # this step ruins the weights, so the next gradient is no number
    monkeypatch.setattr("modelzoo.train_sft.cosine_rate", lambda step, *args, **options: rates.get(step, 1e-3))
    done = train("sft", {"epochs": 10, "checkpoint_every": 2})
    assert done.code == 1
    assert done.result["status"] == "failed" and done.result["error"]["kind"] == "non_finite"
    assert "lower learning_rate" in done.message
    (good, _) = step_checkpoints([done.out / "checkpoints"])
    assert good.name == "step-00000004"
    assert "After step 5 the gradients of the policy are not numbers any more (first model." in done.message
    assert f"the state after step 4 is kept in {good}" in done.message
    assert all(torch.isfinite(tensor).all() for tensor in load_state(good)[0].values())
    assert not (done.out / "model").exists()


def limited_to(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_is_named_and_leaves_no_half_written_checkpoint(tmp_path: Path, spec_of: Spec) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(spec_of("reward", {"epochs": 5, "checkpoint_every": 2})))
    process = subprocess.run(
        command(tmp_path / "out", tmp_path / "spec.json"),
        preexec_fn=limited_to(300_000),
        capture_output=True,
        text=True,
    )
    done = Finished(process.returncode, tmp_path / "out")
    assert done.code == 1
    assert done.result["error"]["kind"] == "no_space"
    assert "free some space" in done.message
    assert list((done.out / "checkpoints").iterdir()) == []


def test_a_disk_that_fills_up_later_leaves_the_last_good_state_to_resume_from(
    tmp_path: Path, spec_of: Spec, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {"epochs": 5, "checkpoint_every": 2}
    with monkeypatch.context() as patched:
        interrupt_after(4, patched)
        train("reward", params, out="out")
    (tmp_path / "spec.json").write_text(json.dumps(spec_of("reward", params)))
    before = {path: path.read_bytes() for path in (tmp_path / "out" / "checkpoints").rglob("*") if path.is_file()}
    process = subprocess.run(
        command(tmp_path / "out", tmp_path / "spec.json"),
        preexec_fn=limited_to(300_000),
        capture_output=True,
        text=True,
    )
    full = Finished(process.returncode, tmp_path / "out")
    assert (full.code, full.result["error"]["kind"]) == (1, "no_space")
    assert process.stderr.splitlines()[-1] == f"no_space: {full.message}"
    assert {path: path.read_bytes() for path in before} == before
    resumed, whole = train("reward", params, out="out"), train("reward", params, out="whole")
    assert resumed.code == 0
    assert_same_model(resumed, whole)


def test_too_little_room_is_seen_before_the_first_step(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    done = train("sft")
    assert (done.code, done.result["error"]["kind"], done.metrics) == (1, "no_space", [])
    assert "GB free" in done.message


def test_an_allocation_that_fails_is_out_of_memory(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    kind, message = explained(caught.value, tmp_path, None, 0)
    assert kind == "out_of_memory" and "micro_batch_size" in message


def test_an_error_of_our_own_is_a_crash_with_its_name(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise KeyError("nonsense")

    monkeypatch.setattr("modelzoo.train_sft.clip_gradients", broken)
    done = train("sft")
    assert done.code == 1
    assert done.result["error"]["kind"] == "crash" and "KeyError" in done.message


def test_a_stop_before_the_first_step_leaves_nothing_to_resume(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.Run, "stopping", lambda self: True)
    done = train("sft")
    assert (done.code, done.result["status"], done.result["step"]) == (3, "stopped", 0)
    assert not step_checkpoints([done.out / "checkpoints"])
