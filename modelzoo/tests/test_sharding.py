"""Weights, gradients and Adam's moments spread over processes (FSDP2): the same course, a part of the memory."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from modelzoo import memory
from modelzoo.config import STAGES, PPOConfig, SFTConfig
from modelzoo.memory import NotEnoughMemory, require_fitting
from modelzoo.spec import BadInput, Spec, load_spec
from modelzoo.tests.conftest import Finished, Train
from modelzoo.tests.test_distributed import LAUNCHER, Start, start
from modelzoo.tests.test_resume import TEN_STEPS

__all__ = ["start"]  # a fixture

ALWAYS = {"sharding": "always"}
# Two processes: with one demonstration a step, one of them never has any of its own.
RAGGED: dict[str, tuple[str, dict[str, Any]]] = {
    "one demonstration a step": ("sft", {"epochs": 1, "batch_size": 1, "micro_batch_size": 1}),
    "several passes, layers computed again": (
        "reward",
        {"epochs": 1, "batch_size": 3, "adversarial": "freelb", "gradient_checkpointing": True},
    ),
    "three rankings a step": ("dpo", {"epochs": 2, "batch_size": 3}),
    "three episodes, one at a time": (
        "ppo",
        {"episodes": 9, "batch_size": 3, "minibatch_size": 3, "micro_batch_size": 1, "ptx_coef": 1.0, "ptx_length": 16},
    ),
    "layers that are one, two heads' matrices": (
        "pretrain",
        {
            **TEN_STEPS["pretrain"],
            "epochs": 1,
            "num_hidden_layers": 4,
            "num_hidden_groups": 2,
            "tie_word_embeddings": False,
            "embedding_size": 16,
            "position": "learned",
            "bias": "all",
        },
    ),
}


QUICK = ("three episodes, one at a time",)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in QUICK else pytest.mark.slow) for case in RAGGED]
)
def test_however_ragged_the_shares_the_course_is_that_of_one_process(
    train: Train, start: Start, corpus: str, case: str
) -> None:
    stage, params = RAGGED[case]
    params = {**params, "adam_eps": 1e-3}
    two = start(stage, "two", {**params, **ALWAYS})
    one = train(stage, params, corpus=corpus, out="one")
    assert two.wait(timeout=300) == 0
    done = Finished(0, one.out.parent / "two")
    assert len(done.metrics) == len(one.metrics)
    for ours, theirs in zip(done.metrics, one.metrics, strict=True):
        for name in theirs.keys() - {"seconds", "tokens_per_second"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-6), (ours["step"], name)


HELD = """
import json, sys
import torch
from modelzoo.checkpoint import load_policy
from modelzoo.config import STAGES, PPOConfig, SFTConfig
from modelzoo.distributed import Processes
from modelzoo.logprobs import response_logprobs
from modelzoo.batches import Example, collate
from modelzoo.optimizer import adamw
from modelzoo.progress import TrainingState

processes = Processes.join()
policy = load_policy(sys.argv[1])[0]
whole = sum(weight.numel() for weight in policy.parameters())
optimizer = adamw(policy, SFTConfig())
processes.spread(TrainingState({"policy": policy}, {"policy": optimizer}))
response_logprobs(policy, collate([Example([5, 6], [7, 8])], 0)).sum().backward()
processes.sum_gradients(policy)
optimizer.step()
processes.rest()
held = {
    "weights": sum(weight.to_local().numel() for weight in policy.parameters()),
    "gradients": sum(weight.grad.to_local().numel() for weight in policy.parameters()),
    "moments": sum(moments["exp_avg"].to_local().numel() for moments in optimizer.state.values()),
}
everything = processes.gather(held)
gathered = sum(weight.numel() for weight in processes.whole(policy).parameters())
if processes.is_first:
    print(json.dumps({"whole": whole, "gathered": gathered, "held": everything}))
"""


def test_each_process_holds_half_of_weights_gradients_and_moments(policy_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "held.py").write_text(HELD)
    command = [*LAUNCHER, "--nproc-per-node", "2", str(tmp_path / "held.py"), str(policy_directory)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["gathered"] == report["whole"]
    for what in ("weights", "gradients", "moments"):
        parts = [process[what] for process in report["held"]]
        assert sum(parts) == report["whole"]
        assert max(parts) < 0.51 * report["whole"], what


@pytest.fixture
def spec(spec_of: Any, tmp_path: Path) -> Any:
    def write(**params: Any) -> Spec[Any]:
        (tmp_path / "spec.json").write_text(json.dumps(spec_of("sft", params)))
        return load_spec(tmp_path / "spec.json", "sft", SFTConfig)

    return write


def test_if_needed_spreads_a_model_that_the_processes_cannot_hold_whole(
    spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu, needs = torch.device("cpu"), memory.estimate(spec()).certain
    told: list[str] = []
    for free, sharded in ((2.1 * needs, False), (1.9 * needs, True)):
        monkeypatch.setattr(memory, "free_memory", lambda free=free: int(free))
        assert require_fitting(spec(), cpu, 2, told.append) is sharded
    with pytest.raises(NotEnoughMemory, match="are free"):
        require_fitting(spec(sharding="never"), cpu, 2, told.append)
    monkeypatch.setattr(memory, "free_memory", lambda: int(0.9 * needs))
    with pytest.raises(NotEnoughMemory, match="are free"):
        require_fitting(spec(), cpu, 2, told.append)


def test_a_policy_that_is_gathered_to_sample_with_is_reckoned_whole(
    spec_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(spec_of("ppo", ALWAYS)))
    spec: Spec[Any] = load_spec(tmp_path / "spec.json", "ppo", PPOConfig)
    needs = memory.estimate(spec)
    policy = memory.estimate(spec_of_stage(spec_of, tmp_path, "sft")).weights
    assert needs.gathered == policy
    enough = needs.certain + 2 * policy  # of two processes on one machine: all of it once, the policy in each
    for free, fits in ((enough, True), (enough - 1, False)):
        monkeypatch.setattr(memory, "free_memory", lambda free=free: free)
        if fits:
            assert require_fitting(spec, torch.device("cpu"), 2, print)
        else:
            with pytest.raises(NotEnoughMemory, match="are free"):
                require_fitting(spec, torch.device("cpu"), 2, print)


def spec_of_stage(spec_of: Any, folder: Path, stage: str) -> Spec[Any]:
    (folder / f"{stage}.json").write_text(json.dumps(spec_of(stage, {})))
    return load_spec(folder / f"{stage}.json", stage, STAGES[stage])


LITTLE_FREE = """
import os, pathlib
if os.environ.get("RANK") == "1":
    read = pathlib.Path.read_text
    def reading(path, *arguments, **named):
        return "MemAvailable: {} kB" if str(path) == "/proc/meminfo" else read(path, *arguments, **named)
    pathlib.Path.read_text = reading
"""


def test_processes_share_where_one_alone_finds_too_little_memory(
    start: Start, spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 1.5 * memory.estimate(spec()).certain / 1024
    (tmp_path / "sitecustomize.py").write_text(LITTLE_FREE.format(int(free)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert start("sft", "out", {"epochs": 1}).wait(timeout=300) == 0
    assert "are spread over 2 processes" in (tmp_path / "out.log").read_text()


def test_one_process_has_nobody_to_share_with(train: Train) -> None:
    assert train("sft", ALWAYS).code == 0


def test_adapters_are_not_spread(spec: Any) -> None:
    with pytest.raises(BadInput, match="lora_rank"):
        require_fitting(spec(sharding="always", lora_rank=2), torch.device("cpu"), 2, print)
