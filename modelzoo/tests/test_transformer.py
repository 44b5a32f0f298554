"""Row numbers refer to the checklist that the project measures itself by: parity, padding, cache, reward head."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from modelzoo.config import ConfigError, ModelConfig
from modelzoo.transformer import RewardModel, Transformer

CONFIG = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "rope_theta": 100000.0,
}


def wild(model: torch.nn.Module, seed: int = 0) -> Any:
    """Weights large enough that every part of the model matters to the output."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        spread = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = (spread * 0.2 if parameter.dim() == 2 else 1 + spread * 0.2).to(parameter.dtype)
    return model


def tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(0, CONFIG["vocab_size"], shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> Transformer:
    return wild(Transformer(ModelConfig(**CONFIG))).requires_grad_(False)


@pytest.fixture(params=[(True, 2), (False, 6), (False, 1)], ids=["tied-grouped", "untied-full", "untied-single"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Transformer, Any]]:
    """Our model and transformers' with the same random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tied, groups = request.param
    config = ModelConfig(**{**CONFIG, "num_key_value_heads": groups}, tie_word_embeddings=tied)
    ours = wild(Transformer(config))
    theirs = LlamaForCausalLM(
        LlamaConfig(**{**CONFIG, "num_key_value_heads": groups}, rms_norm_eps=1e-5, tie_word_embeddings=tied)
    )
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert missing == (["lm_head.weight"] if tied else []) and not unexpected
    yield ours, theirs.eval()


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_logits_and_gradients_equal_those_of_transformers(
    pair: tuple[Transformer, Any], dtype: torch.dtype, limit: float
) -> None:
    ours, theirs = (model.to(dtype) for model in pair)
    ids = tokens(3, 50)
    logits, expected = ours(ids), theirs(ids).logits
    assert expected.abs().max() > 1
    assert (logits - expected).abs().max() < limit
    logits.square().mean().backward()
    expected.square().mean().backward()
    their_gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert (parameter.grad - their_gradients[name]).abs().max() < limit, name


def test_padded_logits_equal_those_of_transformers(pair: tuple[Transformer, Any]) -> None:
    ours, theirs = pair
    mask = torch.ones(2, 20, dtype=torch.bool)
    mask[0, :6] = False
    ids = tokens(2, 20)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask.long(), position_ids=positions).logits
        assert (ours(ids, mask=mask) - expected)[mask].abs().max() < 1e-4


@pytest.mark.parametrize("pads", [0, 1, 3, 7])
@pytest.mark.parametrize("side", ["left", "right", "middle"])
def test_pads_change_no_logit_of_a_real_token(model: Transformer, pads: int, side: str) -> None:
    ids = tokens(3, 30)
    at = {"left": 0, "middle": 11, "right": 30}[side]
    padded = torch.cat([ids[:, :at], tokens(3, pads, seed=5), ids[:, at:]], dim=1)
    mask = torch.ones_like(padded, dtype=torch.bool)
    mask[:, at : at + pads] = False
    logprobs = model(padded, mask=mask)[mask].log_softmax(-1)
    assert (logprobs - model(ids).reshape(-1, CONFIG["vocab_size"]).log_softmax(-1)).abs().max() < 1e-5
    assert not model(padded)[mask].equal(model(ids).reshape(-1, CONFIG["vocab_size"])) or pads == 0 or side == "right"


def test_a_token_cannot_see_the_future(model: Transformer) -> None:
    ids = tokens(1, 20)
    changed = ids.clone()
    changed[0, 12:] = (changed[0, 12:] + 1) % CONFIG["vocab_size"]
    assert (model(ids)[:, :12] - model(changed)[:, :12]).abs().max() < 1e-5
    assert (model(ids)[:, 12:] - model(changed)[:, 12:]).abs().max() > 0.1


def test_reward_head_starts_with_the_papers_spread() -> None:
    config = ModelConfig(**{**CONFIG, "hidden_size": 4092, "intermediate_size": 1, "num_hidden_layers": 1})
    reward = RewardModel.from_policy(Transformer(config), torch.Generator().manual_seed(0))
    assert reward.score.weight.std().item() == pytest.approx(4093**-0.5, rel=0.03)
    assert reward.score.bias is None


def test_reward_model_copies_the_trunk_and_leaves_the_policy_alone(model: Transformer) -> None:
    reward = RewardModel.from_policy(model, torch.Generator().manual_seed(0))
    assert all(parameter.requires_grad for parameter in reward.parameters())
    again = RewardModel.from_policy(model, torch.Generator().manual_seed(0))
    assert again.score.weight.equal(reward.score.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in reward.parameters():
            parameter.add_(1)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_score_is_read_at_the_last_real_token_minus_the_offset(model: Transformer) -> None:
    reward = RewardModel.from_policy(model, torch.Generator().manual_seed(0)).requires_grad_(False)
    ids = tokens(2, 12)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, 9:] = False
    scores, values = reward(ids, mask), reward.values(ids, mask)
    assert scores.tolist() == pytest.approx([values[0, 8].item(), values[1, 11].item()])
    more = torch.cat([ids, tokens(2, 5, seed=3)], 1)
    more_mask = torch.cat([mask, torch.zeros(2, 5, dtype=torch.bool)], 1)
    assert (reward(more, more_mask) - scores).abs().max() < 1e-5  # pads on the right change nothing
    without_last = mask.clone()
    without_last[:, 8:] = False
    assert (reward(ids, without_last) - scores).abs().min() > 1e-3  # the end token counts
    reward.score_offset = 0.75
    assert (reward(ids, mask) - (scores - 0.75)).abs().max() < 1e-6
    assert (reward.values(ids, mask) - (values - 0.75)).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_size": 50}, "hidden_size"),
        ({"num_key_value_heads": 4}, "num_key_value_heads"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"hidden_size": 18}, "hidden_size"),
    ],
)
def test_impossible_shapes_are_refused_by_name(changes: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig(**{**CONFIG, **changes})
    assert list(caught.value.errors) == [named]
