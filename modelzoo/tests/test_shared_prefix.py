"""A prompt that goes through the model once gives what one pass for each completion gives, gradients too."""

import pytest
import torch
from torch import Tensor

from modelzoo.batches import Example, collate, seeded
from modelzoo.config import ModelConfig
from modelzoo.shared_prefix import shared_scores
from modelzoo.tests.test_transformer import wild
from modelzoo.transformer import RewardModel, RMSNorm

VOCABULARY, PAD = 60, 0
CONFIG = ModelConfig(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-10)]


def reward_model(dtype: torch.dtype) -> RewardModel:
    """Our RMSNorm works in float32 whatever comes in, as Llama's does; torch's own lets float64 be float64."""
    model: RewardModel = wild(RewardModel(CONFIG, score_offset=0.3))
    for name, norm in list(model.named_modules()):
        if isinstance(norm, RMSNorm):
            exact = torch.nn.RMSNorm(norm.weight.shape, eps=norm.eps)
            exact.weight = norm.weight
            model.set_submodule(name, exact)
    return model.to(dtype)


def said(length: int, seed: int) -> list[int]:
    return torch.randint(1, VOCABULARY, (length,), generator=seeded("said", seed)).tolist()


def ranking(prompt: int, responses: list[int], seed: int = 0) -> list[Example]:
    asked = said(prompt, 1000 + seed)
    return [Example(asked, said(length, 10 * seed + k)) for k, length in enumerate(responses)]


def plain_scores(model: RewardModel, rankings: list[list[Example]]) -> list[Tensor]:
    return [model(*collate(examples, PAD)[:2]) for examples in rankings]


def gradients(model: RewardModel, scores: list[Tensor]) -> list[Tensor]:
    """Of a loss in which every score has a weight of its own."""
    model.zero_grad()
    weights = torch.linspace(-1, 2, sum(map(len, scores)), dtype=scores[0].dtype)
    (torch.cat(scores).sin() * weights).sum().backward()
    return [weight.grad.clone() for weight in model.parameters()]


def assert_same(rankings: list[list[Example]], dtype: torch.dtype, limit: float) -> None:
    model = reward_model(dtype)
    shared, plain = shared_scores(model, rankings), plain_scores(model, rankings)
    for one, other in zip(shared, plain, strict=True):
        assert (one - other).abs().max() < limit
    for one, other in zip(gradients(model, shared), gradients(model, plain), strict=True):
        assert (one - other).norm() <= limit * max(1.0, other.norm().item())


@pytest.mark.parametrize(("dtype", "limit"), PRECISIONS)
@pytest.mark.parametrize("prompt", [0, 1, 7])
@pytest.mark.parametrize(
    "responses",
    [[5] * 4, [1, 2, 3, 4], [9, 1, 4, 4, 2, 7, 3, 1, 12], [1] * 9, [3]],
    ids=["equal", "rising", "ragged", "single tokens", "alone"],
)
def test_scores_and_gradients_equal_those_of_one_pass_a_completion(
    dtype: torch.dtype, limit: float, prompt: int, responses: list[int]
) -> None:
    assert_same([ranking(prompt, responses)], dtype, limit)


@pytest.mark.parametrize(("dtype", "limit"), PRECISIONS)
def test_rankings_side_by_side_are_blind_to_each_other(dtype: torch.dtype, limit: float) -> None:
    sizes = [(4, [3, 6, 2, 8]), (0, [2, 2]), (9, [1]), (2, [5, 1, 3, 4, 2, 6, 7, 2, 9])]
    rankings = [ranking(prompt, responses, seed) for seed, (prompt, responses) in enumerate(sizes)]
    assert_same(rankings, dtype, limit)
    model = reward_model(dtype)
    others = [rankings[0], *(ranking(6, [4, 4], seed=50 + n) for n in range(3))]
    assert torch.allclose(shared_scores(model, rankings)[0], shared_scores(model, others)[0], rtol=0, atol=limit)


@pytest.mark.parametrize(("dtype", "limit"), PRECISIONS)
def test_completions_that_begin_alike_share_their_beginning_too(dtype: torch.dtype, limit: float) -> None:
    asked, opening = said(3, 1), said(4, 2)
    examples = [Example(asked, [*opening, *said(n, 3 + n)]) for n in (1, 2, 5)]
    one_token_more = [Example(asked, opening), *examples]  # a whole completion is the beginning of the others
    assert_same([examples, one_token_more, [examples[0]] * 2], dtype, limit)
    assert columns_read(reward_model(dtype), examples) == 3 + 4 + 1 + 2 + 5


def columns_read(model: RewardModel, examples: list[Example]) -> int:
    """How many columns go through the first layer."""
    seen: list[int] = []
    handle = model.model.layers[0].mlp.register_forward_hook(
        lambda _, inputs, __: seen.append(inputs[0][..., 0].numel())
    )
    shared_scores(model, [examples])
    handle.remove()
    return sum(seen)


def test_a_prompt_is_read_once_and_nothing_is_padded() -> None:
    model = reward_model(torch.float32)
    examples = ranking(20, [3, 9, 1, 5])
    assert columns_read(model, examples) == 20 + 3 + 9 + 1 + 5
    assert columns_read(model, examples[:1]) == 20 + 3
