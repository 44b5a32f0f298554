"""Adapters: equal to what they adapt at first, merged at last, and the only weights that move in between."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelzoo.batches import Example, collate, seeded
from modelzoo.checkpoint import load_policy, load_reward_model, load_state
from modelzoo.config import FineTuningConfig, PPOConfig, SamplingConfig, SFTConfig, build
from modelzoo.generate import generate
from modelzoo.logprobs import response_logprobs
from modelzoo.lora import LoRALinear, adapted, merged
from modelzoo.optimizer import adamw, independent, trained, update_average
from modelzoo.prepare_ppo import _load_models
from modelzoo.rollout import Models
from modelzoo.run import Run
from modelzoo.spec import load_spec
from modelzoo.state import step_checkpoints
from modelzoo.tests.conftest import Train, demonstration, question, write_snapshot
from modelzoo.tests.test_resume import interrupt_after
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import RewardModel, Transformer

RANK = 3
TOKENS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])


def lora(**params: Any) -> FineTuningConfig:
    return build(SFTConfig, {"lora_rank": RANK, **params})


def moved(model: Any) -> Any:
    """The model after some training, as far as its adapters are concerned."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("lora_B"):
                weight.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return model


@pytest.mark.parametrize("layers", ["attention", "all"])
def test_adapted_model_equals_its_base_bit_for_bit_at_first(policy: Transformer, layers: str) -> None:
    learner = adapted(policy, lora(lora_layers=layers))
    assert any(isinstance(layer, LoRALinear) for layer in learner.modules())
    assert torch.equal(learner(TOKENS), policy(TOKENS))
    assert not torch.equal(moved(learner)(TOKENS), policy(TOKENS))


def test_merged_model_gives_the_adapted_ones_logits(policy: Transformer) -> None:
    learner = moved(adapted(policy, lora()))
    plain = merged(learner)
    assert not any(isinstance(layer, LoRALinear) for layer in plain.modules())
    assert plain.state_dict().keys() == policy.state_dict().keys()
    assert (plain(TOKENS) - learner(TOKENS)).abs().max() < 1e-5
    assert (plain(TOKENS) - policy(TOKENS)).abs().max() > 1e-2


def test_merging_leaves_base_and_adapters_as_they_were(policy: Transformer) -> None:
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    learner = moved(adapted(policy, lora()))
    logits = learner(TOKENS)
    merged(learner)
    assert torch.equal(learner(TOKENS), logits)
    assert all(torch.equal(weight, before[name]) for name, weight in policy.state_dict().items())


def test_adapters_off_is_the_same_memory(policy: Transformer) -> None:
    learner = adapted(policy, lora())
    own = {weight.data_ptr() for weight in policy.parameters()}
    shared = [weight for weight in learner.parameters() if weight.data_ptr() in own]
    assert len(shared) == len(list(policy.parameters()))
    assert {name.split(".")[-1] for name, w in learner.named_parameters() if w.data_ptr() not in own} == {
        "lora_A",
        "lora_B",
    }


def test_gradients_and_adams_moments_are_of_adapters_alone(policy: Transformer) -> None:
    learner = moved(adapted(policy, lora()))
    optimizer = adamw(learner, lora())
    learner(TOKENS).square().mean().backward()
    optimizer.step()
    with_gradient = {name for name, weight in learner.named_parameters() if weight.grad is not None}
    assert with_gradient == {name for name, _ in learner.named_parameters() if ".lora_" in name}
    assert len(optimizer.state) == len(with_gradient)


@pytest.mark.parametrize("layers", ["attention", "all"])
def test_an_adapter_has_rank_times_inputs_plus_outputs_parameters(policy: Transformer, layers: str) -> None:
    width, key_value_width, inner = 32, 16, 48
    shapes = [(width, width), (width, key_value_width), (width, key_value_width), (width, width)]
    if layers == "all":
        shapes += [(width, inner), (width, inner), (inner, width)]
    learner = adapted(policy, lora(lora_layers=layers))
    assert sum(w.numel() for w in trained(learner)) == 2 * RANK * sum(i + o for i, o in shapes)  # two layers


def test_alpha_over_rank_scales_what_is_added(policy: Transformer) -> None:
    once, twice = (moved(adapted(policy, lora(lora_alpha=alpha))) for alpha in (4.0, 8.0))
    added = [
        merged(m).model.layers[0].mlp.up_proj.weight - policy.model.layers[0].mlp.up_proj.weight for m in (once, twice)
    ]
    layer = once.model.layers[0].mlp.up_proj
    assert torch.allclose(added[0], 4 / RANK * layer.lora_B @ layer.lora_A, atol=1e-6)
    assert torch.allclose(2 * added[0], added[1], atol=1e-6)


def test_a_value_model_has_adapters_and_a_score_head_of_its_own(policy: Transformer) -> None:
    reward = RewardModel.from_policy(policy, seeded("head"))
    reward.score_offset = 0.5
    value = adapted(reward, lora())
    mask = torch.ones_like(TOKENS).bool()
    assert torch.equal(value(TOKENS, mask), reward(TOKENS, mask))
    assert value.score.weight.requires_grad and not reward.score.weight.requires_grad
    assert value.score.weight.data_ptr() != reward.score.weight.data_ptr()
    assert value.model.norm.weight is reward.model.norm.weight


def test_moving_average_of_adapters_shares_the_trunk(policy: Transformer) -> None:
    learner = adapted(policy, lora())
    average = independent(learner)
    assert average.model.embed_tokens.weight is policy.model.embed_tokens.weight
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    moved(learner)
    update_average(average, learner, decay=0.5, updates=10**6)
    theirs = dict(learner.named_parameters())
    for name, weight in average.named_parameters():
        expected = theirs[name] / 2 if name.endswith("lora_B") else theirs[name]
        assert torch.allclose(weight, expected, atol=1e-7)
    assert all(torch.equal(weight, before[name]) for name, weight in policy.state_dict().items())


def test_sampler_speaks_with_the_adapters(policy: Transformer, tokenizer: Tokenizer) -> None:
    learner = moved(adapted(policy, lora()))
    prompt = tokenizer.encode_chat(question(0))
    (response,) = generate(learner, [prompt], 1, SamplingConfig(max_new_tokens=6), (), [seeded("row")])[0]
    batch = collate([Example(prompt, response.token_ids)], tokenizer.pad_id)
    with torch.no_grad():
        logprobs = response_logprobs(learner, batch)[batch.response]
        plain = response_logprobs(policy, batch)[batch.response]
    assert torch.allclose(logprobs, torch.tensor(response.logprobs), atol=1e-5)
    assert (logprobs - plain).abs().max() > 1e-2


# Runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo", "dpo"])
def test_export_is_a_plain_checkpoint_that_differs_in_adapted_layers_only(
    train: Train, policy_directory: Path, stage: str
) -> None:
    done = train(stage, {"lora_rank": RANK, "lora_layers": "attention", "learning_rate": 1e-2})
    load = load_reward_model if stage == "reward" else load_policy
    after = load(done.out / "model")[0].state_dict()
    before = load_policy(policy_directory)[0].state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if ".self_attn." in name}


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo", "dpo"])
def test_step_checkpoints_hold_only_what_changes(train: Train, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    with monkeypatch.context() as patched:
        interrupt_after(1, patched)
        done = train(stage, {"lora_rank": RANK})
    tensors, _ = load_state(step_checkpoints([done.out / "checkpoints"])[0])
    weights = {name.split("/", 1)[1] for name in tensors if name.startswith("model/")}
    assert weights and all(name.endswith(("lora_A", "lora_B", "score.weight")) for name in weights)
    assert any(name.endswith("score.weight") for name in weights) == (stage in ("reward", "ppo"))


def test_ppo_needs_no_copy_of_the_policy_as_its_reference(
    spec_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    def models_of(params: dict[str, Any]) -> Models:
        (tmp_path / "spec.json").write_text(json.dumps(spec_of("ppo", params)))
        return _load_models(Run(load_spec(tmp_path / "spec.json", "ppo", PPOConfig), tmp_path))[0]

    models = models_of({"lora_rank": RANK})
    assert models.policy.model.embed_tokens.weight is models.reference.model.embed_tokens.weight
    assert models.value.model.embed_tokens.weight is models.reward.model.embed_tokens.weight
    apart = models_of({})
    assert apart.policy.model.embed_tokens.weight is not apart.reference.model.embed_tokens.weight
    assert apart.value.model.embed_tokens.weight is not apart.reward.model.embed_tokens.weight


def test_first_ppo_step_with_adapters_starts_from_no_kl_and_later_ones_move_away(train: Train) -> None:
    params = {"lora_rank": RANK, "minibatch_size": 8, "learning_rate": 1e-2, "warmup_steps": 0}
    done = train("ppo", params)
    kl, ratio = done.series("kl"), done.series("ratio")
    assert kl[0] == 0 and ratio[0] == 1
    assert kl[1] != 0


@pytest.mark.parametrize("stage", ["reward", "dpo"])
def test_adapters_alone_learn_to_tell_better_from_worse(train: Train, stage: str) -> None:
    done = train(stage, {"lora_rank": 8, "epochs": 30, "learning_rate": 1e-2})
    assert done.result["metrics"]["heldout_accuracy"] >= 0.9
    assert done.series("loss")[-1] < 0.6 * done.series("loss")[0]


def test_adapters_alone_teach_a_trained_policy_other_words(train: Train, tmp_path: Path) -> None:
    base = train("sft", {"epochs": 60, "batch_size": 16, "learning_rate": 1e-2}, out="base").out / "model"
    rows = [demonstration(number, completion=f"warm {number % 7}") for number in range(20)]
    snapshot = str(write_snapshot(tmp_path / "s", rankings=[], demonstrations=rows, prompts=[]))
    params = {"lora_rank": 8, "epochs": 60, "batch_size": 16, "learning_rate": 1e-2}
    losses = train("sft", params, snapshot=snapshot, policy=str(base)).series("heldout_loss")
    assert losses[-1] < 0.5 * losses[0]
