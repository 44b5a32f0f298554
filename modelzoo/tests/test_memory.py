"""The memory a run is reckoned to need, against what it allocates, and what is said when there is too little."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelzoo import memory
from modelzoo.batches import Example, collate
from modelzoo.config import STAGES, ModelConfig, TrainingConfig
from modelzoo.logprobs import response_logprobs
from modelzoo.memory import Estimate, estimate, free_memory
from modelzoo.progress import TrainingState
from modelzoo.run import Run
from modelzoo.spec import load_spec
from modelzoo.tests.conftest import Train
from modelzoo.transformer import Transformer

Specs = Callable[..., dict[str, Any]]


@pytest.fixture
def reckoned(spec_of: Specs, tmp_path: Path) -> Callable[..., Estimate]:
    def reckon(stage: str, params: dict[str, Any] | None = None, **changes: Any) -> Estimate:
        (tmp_path / "spec.json").write_text(json.dumps(spec_of(stage, params, **changes)))
        return estimate(load_spec(tmp_path / "spec.json", stage, STAGES[stage]))

    return reckon


@pytest.fixture
def held(train: Train, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, int]]:
    """Bytes that the trained models of a finished run held, each tensor once, and bytes of Adam's moments."""

    def hold(stage: str, params: dict[str, Any], out: str) -> tuple[int, int]:
        states: list[TrainingState] = []
        begin = Run.begin

        def noted(run: Run[Any], state: TrainingState, *args: Any, **named: Any) -> None:
            states.append(state)
            begin(run, state, *args, **named)

        monkeypatch.setattr(Run, "begin", noted)
        train(stage, params, out=out)
        monkeypatch.setattr(Run, "begin", begin)
        (state,) = states
        weights = {w.data_ptr(): w.nbytes for model in state.models.values() for w in model.parameters()}
        optimizers = state.optimizers.values()
        moments = [m for adam in optimizers for of in adam.state.values() for m in of.values() if m.dim()]
        return sum(weights.values()), sum(moment.nbytes for moment in moments)

    return hold


@pytest.mark.parametrize("stage", ["sft", "reward", "dpo"])
@pytest.mark.parametrize("rank", [0, 4])
def test_weights_and_moments_are_reckoned_to_the_byte(
    reckoned: Callable[..., Estimate], held: Callable[..., tuple[int, int]], stage: str, rank: int
) -> None:
    weights, moments = held(stage, {"lora_rank": rank}, f"out-{rank}")
    needs = reckoned(stage, {"lora_rank": rank})
    adapters = moments // 2 if rank else 0
    head = 4 * 32 if rank and stage == "reward" else 0  # the base's own score head, which the learner replaces
    assert needs.weights == weights - adapters + head
    assert needs.training == moments * 3 // 2


def test_ppo_holds_five_models_or_with_adapters_two(
    reckoned: Callable[..., Estimate], held: Callable[..., tuple[int, int]]
) -> None:
    policy = reckoned("sft").weights
    reward = reckoned("reward").weights
    full, small = reckoned("ppo"), reckoned("ppo", {"lora_rank": 4})
    assert full.weights == 3 * policy + 2 * reward  # policy, reference, average; reward and value model
    assert small.weights < 1.2 * (policy + reward)
    assert full.training == 2 * (policy + reward) + reward
    assert reckoned("ppo", {"ema_decay": 0.0}).weights == full.weights - policy
    assert held("ppo", {}, "full")[1] == 2 * (policy + reward)


@pytest.mark.parametrize(("width", "layers", "rows", "length"), [(64, 2, 4, 64), (128, 4, 2, 200), (96, 3, 1, 500)])
def test_activations_are_reckoned_above_what_autograd_keeps_and_below_twice_that(
    width: int, layers: int, rows: int, length: int
) -> None:
    shape = ModelConfig(
        vocab_size=1000,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    policy, kept = Transformer(shape), {}
    own = {weight.untyped_storage().data_ptr() for weight in policy.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        response_logprobs(policy, collate([Example([5], [6] * (length - 1))] * rows, 0)).sum()
    actual = sum(size for size, _ in kept.values())
    limits: dict[str, Any] = {"micro_batch_size": rows, "max_length": length}
    assert actual <= memory._activations(shape, TrainingConfig(**limits)) <= 2 * actual


PEAK = """
import re, sys, torch
from modelzoo.config import ModelConfig
from modelzoo.transformer import Transformer
torch.set_num_threads(1)
policy = Transformer(ModelConfig(**eval(sys.argv[1])))
policy.model.recompute = sys.argv[2] == "True"
tokens = torch.zeros(1, int(sys.argv[3]), dtype=torch.long)
policy.hidden(tokens[:, :8]).sum().backward()
def held(what):
    return int(re.search(what + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far, which may be the parent's
before = held("VmRSS")
policy.hidden(tokens).sum().backward()
print(held("VmHWM") - before)
"""


def test_recomputing_takes_the_memory_that_is_reckoned() -> None:
    fields = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 16, "num_attention_heads": 4}
    fields |= {"vocab_size": 1, "num_key_value_heads": 4}
    shape, length = ModelConfig(**fields), 2000  # type: ignore[arg-type]
    taken, reckoned = {}, {}
    for recompute in (False, True):
        command = [sys.executable, "-c", PEAK, str(fields), str(recompute), str(length)]
        taken[recompute] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        config = TrainingConfig(micro_batch_size=1, max_length=length, gradient_checkpointing=recompute)
        reckoned[recompute] = memory._activations(shape, config)
    assert taken[True] < taken[False] / 2
    for recompute, size in taken.items():
        assert size / 2 < reckoned[recompute] < 2 * size, (taken, reckoned)


@pytest.mark.parametrize("stage", ["sft", "reward", "dpo", "ppo"])
def test_too_little_memory_is_seen_before_anything_is_loaded(
    train: Train, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def loaded(*args: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    monkeypatch.setattr("modelzoo.checkpoint.load_tensors", loaded)
    done = train(stage)
    assert (done.code, done.result["error"]["kind"], done.metrics) == (1, "out_of_memory", [])
    assert "smaller model or lora_rank" in done.message and "GB" in done.message


def test_memory_for_short_sequences_only_is_a_warning(
    train: Train, reckoned: Callable[..., Estimate], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = reckoned("sft")
    monkeypatch.setattr(memory, "free_memory", lambda: needs.certain + needs.activations // 2)
    done = train("sft")
    assert done.code == 0
    assert "Sequences as long as max_length (1024) would take" in done.result["warnings"][0]
    monkeypatch.setattr(memory, "free_memory", lambda: needs.certain + needs.activations)
    assert train("sft", out="enough").result["warnings"] == []


def test_adapters_fit_where_full_training_does_not(
    train: Train, reckoned: Callable[..., Estimate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: reckoned("ppo").certain - 1)
    assert train("ppo", out="full").result["error"]["kind"] == "out_of_memory"
    assert train("ppo", {"lora_rank": 2}, out="adapters").code == 0


def test_free_memory_is_what_this_machine_has() -> None:
    assert 1 << 20 < free_memory() < 1 << 50
