"""Every variant that `ModelConfig` names: parity with a peer where there is one, else what defines the variant."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from modelzoo.batches import Example, collate
from modelzoo.config import ConfigError, ModelConfig, SamplingConfig
from modelzoo.generate import generate, row_generators
from modelzoo.shared_prefix import shared_scores
from modelzoo.tests.test_transformer import tokens, wild
from modelzoo.transformer import RewardModel, Transformer, alibi_slopes

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GPT2 = {
    "position": "learned",
    "norm": "layernorm",
    "mlp": "gelu_tanh",
    "bias": "all",
    "num_key_value_heads": 6,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": GPT2,
    "qwen2": {"bias": "qkv", "tie_word_embeddings": False},
    "qwen3": {"qk_norm": True, "head_dim": 10},
    "mistral": {"sliding_window": 5},
    "mpt": {"position": "alibi", "norm": "layernorm", "mlp": "gelu", "num_key_value_heads": 6},
    "alibi": {"position": "alibi", "num_key_value_heads": 1},
    "alibi in a window": {"position": "alibi", "sliding_window": 7},
    "silu": {"mlp": "silu", "position": "learned"},
    "shared": {"num_hidden_groups": 1},
    "shared by two": {"num_hidden_groups": 2, "bias": "all"},
    "factorised": {"embedding_size": 12},
    "factorised, untied": {"embedding_size": 12, "tie_word_embeddings": False},
    "ALBERT": {**GPT2, "num_hidden_groups": 1, "embedding_size": 12, "mlp": "gelu"},
}


def config(name: str = "llama", **changes: Any) -> ModelConfig:
    return ModelConfig(**{**SHAPE, **VARIANTS[name], **changes})


def wilder(model: Any, seed: int = 0) -> Any:
    """As `wild`, and biases around 0."""
    wild(model, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter) * 0.2
    return model


@pytest.fixture(scope="module", params=VARIANTS)
def model(request: pytest.FixtureRequest) -> Transformer:
    return wilder(Transformer(config(request.param))).requires_grad_(False)


# --- What holds for each of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pads", [1, 3, 7])
@pytest.mark.parametrize("side", ["left", "right", "middle"])
def test_pads_change_no_logit_of_a_real_token(model: Transformer, pads: int, side: str) -> None:
    ids = tokens(3, 30)
    at = {"left": 0, "middle": 11, "right": 30}[side]
    padded = torch.cat([ids[:, :at], tokens(3, pads, seed=5), ids[:, at:]], dim=1)
    mask = torch.ones_like(padded, dtype=torch.bool)
    mask[:, at : at + pads] = False
    difference = model(padded, mask=mask)[mask] - model(ids).reshape(-1, SHAPE["vocab_size"])
    assert difference.abs().max() < 1e-4


def test_a_token_cannot_see_the_future(model: Transformer) -> None:
    ids = tokens(1, 20)
    changed = ids.clone()
    changed[0, 12:] = (changed[0, 12:] + 1) % SHAPE["vocab_size"]
    assert (model(ids)[:, :12] - model(changed)[:, :12]).abs().max() < 1e-5
    assert (model(ids)[:, 12:] - model(changed)[:, 12:]).abs().max() > 0.1


def test_sampled_logprobs_equal_those_of_a_whole_forward_pass(model: Transformer) -> None:
    prompts = [tokens(1, length, seed=length)[0].tolist() for length in (9, 4, 1)]
    rows = generate(model, prompts, 2, SamplingConfig(max_new_tokens=12), [96], row_generators(0, 6))
    for prompt, group in zip(prompts, rows, strict=True):
        for row in group:
            ids = torch.tensor([[*prompt, *row.token_ids]])
            logprobs = torch.log_softmax(model(ids)[0, len(prompt) - 1 : -1], -1)
            expected = logprobs.gather(1, torch.tensor(row.token_ids)[:, None])[:, 0]
            assert (expected - torch.tensor(row.logprobs)).abs().max() < 1e-4


def test_a_reward_model_grows_on_any_trunk(model: Transformer) -> None:
    reward = RewardModel.from_policy(model, torch.Generator().manual_seed(0))
    ids = tokens(2, 12)
    mask = torch.ones_like(ids, dtype=torch.bool)
    expected = model.hidden(ids)[:, -1] @ reward.score.weight[0]
    assert (reward(ids, mask) - expected).abs().max() < 1e-5


def test_completions_that_share_a_prompt_score_as_if_each_stood_alone(model: Transformer) -> None:
    reward = RewardModel.from_policy(model, torch.Generator().manual_seed(0)).requires_grad_(False)
    rankings = [
        [
            Example(tokens(1, 9, seed=seed)[0].tolist(), tokens(1, size, seed=50 + size)[0].tolist())
            for size in (3, 8, 1)
        ]
        for seed in (3, 4)
    ]
    for examples, scores in zip(rankings, shared_scores(reward, rankings), strict=True):
        assert (reward(*collate(examples, 0)[:2]) - scores).abs().max() < 1e-4


# --- What makes each of them what it is ----------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [4, 6])
def test_alibi_layernorm_and_gelu_give_the_logits_of_mpt(heads: int) -> None:
    """In float32 alone: MPT's softmax knows nothing better."""
    from transformers import MptConfig, MptForCausalLM

    ours = wild(Transformer(config("mpt", num_attention_heads=heads, num_key_value_heads=heads, intermediate_size=192)))
    for name, parameter in ours.named_parameters():
        if name.endswith("bias"):  # MPT's norms have none
            parameter.data.zero_()
    theirs = MptForCausalLM(MptConfig(vocab_size=97, d_model=48, n_heads=heads, n_layers=3, max_seq_len=64))
    names = {"embed_tokens": "wte", "norm": "norm_f"}
    for layer in range(3):
        parts = {"self_attn.o_proj": "attn.out_proj", "input_layernorm": "norm_1", "post_attention_layernorm": "norm_2"}
        parts |= {"mlp.up_proj": "ffn.up_proj", "mlp.down_proj": "ffn.down_proj"}
        names |= {f"layers.{layer}.{part}": f"blocks.{layer}.{their}" for part, their in parts.items()}
    weights = {name: value.clone() for name, value in ours.model.state_dict().items() if not name.endswith("bias")}
    state = {f"transformer.{their}.weight": weights[f"{our}.weight"] for our, their in names.items()}
    for layer in range(3):
        attention = [weights[f"layers.{layer}.self_attn.{part}_proj.weight"] for part in "qkv"]
        state[f"transformer.blocks.{layer}.attn.Wqkv.weight"] = torch.cat(attention)
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected
    ids = tokens(3, 40)
    with torch.no_grad():
        expected = theirs.eval()(ids).logits
        assert (ours(ids) - expected).abs().max() < 1e-4 and expected.std() > 1


@pytest.mark.parametrize("heads", [1, 2, 6, 8, 9, 12, 16])
def test_alibis_slopes_are_blooms_and_for_powers_of_two_the_papers(heads: int) -> None:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    theirs = build_alibi_tensor(torch.ones(1, 2), heads, torch.float64)[:, 0, 1]  # the bias at position 1
    assert torch.tensor(alibi_slopes(heads), dtype=torch.float64).allclose(theirs.double(), rtol=1e-6)
    if heads in (1, 2, 8, 16):
        assert alibi_slopes(heads) == [2 ** (-8 * (head + 1) / heads) for head in range(heads)]


def test_alibi_and_rope_know_distances_alone_and_learned_positions_do_not() -> None:
    ids = tokens(2, 20)
    moved = torch.arange(20)[None] + 13
    for name, invariant in (("mpt", True), ("llama", True), ("gpt2", False)):
        model = wilder(Transformer(config(name))).requires_grad_(False)
        difference = (model(ids) - model(ids, positions=moved.expand(2, -1))).abs().max()
        assert difference < 1e-4 if invariant else difference > 0.1, name


def test_alibi_lowers_a_score_by_its_distance_times_the_slope() -> None:
    """One layer whose queries and keys are 0: attention is the softmax of the bias alone."""
    model = Transformer(config("mpt", num_hidden_layers=1, norm="rmsnorm")).requires_grad_(False)
    attention = model.model.layers[0].self_attn
    attention.q_proj.weight.zero_()
    seen: list[Tensor] = []
    attention.o_proj.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    attention.v_proj.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(tokens(1, 7))
    values, mixed = (tensor.view(7, 6, 8) for tensor in seen)  # (T, heads, E)
    for head, slope in enumerate(alibi_slopes(6)):
        distance = torch.arange(7)[:, None] - torch.arange(7)
        weights = (-slope * distance).masked_fill(distance < 0, -torch.inf).softmax(-1)
        assert (mixed[:, head] - weights @ values[:, head]).abs().max() < 1e-6


def test_a_window_hides_what_is_further_away() -> None:
    model = wilder(Transformer(config("mistral", num_hidden_layers=1))).requires_grad_(False)
    ids = tokens(1, 20)
    changed = ids.clone()
    changed[0, 3] = (changed[0, 3] + 1) % 97
    difference = (model(ids) - model(changed)).abs().amax(-1)[0]
    assert difference[3:8].min() > 1e-3 and difference[8:].max() == 0  # five tokens see it, itself included


def test_layers_of_one_group_are_one_layer_and_its_gradient_is_their_sum() -> None:
    shared = wilder(Transformer(config("shared by two", num_hidden_layers=4)))
    unshared = Transformer(config("shared by two", num_hidden_layers=4, num_hidden_groups=4))
    state = shared.state_dict()
    own = ("0", "0", "1", "1")
    unshared.load_state_dict(
        {name: state[renumbered(name, own)].clone() for name in unshared.state_dict()},
    )
    ids = tokens(2, 12)
    for model in (shared, unshared):
        model(ids).log_softmax(-1).square().mean().backward()
    assert shared(ids).equal(unshared(ids))
    gradients = {name: parameter.grad for name, parameter in unshared.named_parameters()}
    for name, parameter in shared.named_parameters():
        copies = [gradient for other, gradient in gradients.items() if renumbered(other, own) == name]
        assert len(copies) == (2 if "layers" in name else 1)
        assert (parameter.grad - sum(copies)).abs().max() < 1e-6 * (1 + parameter.grad.abs().max()), name


def renumbered(name: str, groups: tuple[str, ...]) -> str:
    """The name of a layer's parameter in the model where `groups` says which layer stands for it."""
    head, _, rest = name.partition("layers.")
    number, _, part = rest.partition(".")
    return f"{head}layers.{groups[int(number)]}.{part}" if rest else name


@pytest.mark.parametrize("tied", [True, False])
def test_factorised_embeddings_are_a_product_matrix(tied: bool) -> None:
    factorised = wilder(Transformer(config("factorised", tie_word_embeddings=tied))).requires_grad_(False).double()
    whole = Transformer(config(tie_word_embeddings=tied)).requires_grad_(False).double()
    state = factorised.state_dict()
    state["model.embed_tokens.weight"] = state["model.embed_tokens.weight"] @ state.pop("model.embed_proj.weight").T
    if not tied:
        state["lm_head.weight"] = state["lm_head.weight"] @ state.pop("head_proj.weight")
    whole.load_state_dict(state)
    ids = tokens(2, 12)
    assert (factorised(ids) - whole(ids)).abs().max() < 1e-5
    assert sum(p.numel() for p in factorised.parameters()) < sum(p.numel() for p in whole.parameters())


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu", "swiglu"])
def test_the_feed_forward_layer_is_what_its_name_says(name: str) -> None:
    mlp = wilder(Transformer(config(mlp=name, bias="all"))).model.layers[0].mlp
    x = torch.randn(5, 48, generator=torch.Generator().manual_seed(0))
    up, x = mlp.up_proj(x), x
    inner = {
        "gelu": up * 0.5 * (1 + torch.erf(up / math.sqrt(2))),
        "gelu_tanh": up * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3))),
        "silu": up / (1 + torch.exp(-up)),
        "swiglu": up * (mlp.gate_proj(x) / (1 + torch.exp(-mlp.gate_proj(x)))) if name == "swiglu" else up,
    }[name]
    assert (mlp(x) - (inner @ mlp.down_proj.weight.T + mlp.down_proj.bias)).abs().max() < 1e-4


def test_a_fresh_variant_has_no_bias_yet_and_the_residual_scheme() -> None:
    model = Transformer(config("gpt2", hidden_size=480, num_attention_heads=6, intermediate_size=960))
    spread = {name: parameter.std().item() for name, parameter in model.named_parameters() if parameter.dim() == 2}
    for name, std in spread.items():
        expected = 0.02 / math.sqrt(6) if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
        assert std == pytest.approx(expected, rel=0.05), name
    assert all(not parameter.any() for name, parameter in model.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"position": "sinusoidal"}, "position"),
        ({"norm": "batchnorm"}, "norm"),
        ({"mlp": "relu"}, "mlp"),
        ({"bias": "some"}, "bias"),
        ({"head_dim": 7}, "head_dim"),
        ({"head_dim": -2}, "head_dim"),
        ({"num_hidden_groups": 4}, "num_hidden_groups"),
        ({"embedding_size": 1.5}, "embedding_size"),
        ({"sliding_window": -1}, "sliding_window"),
        ({"rope_theta": 0.0}, "rope_theta"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
    ],
)
def test_impossible_variants_are_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**changes)
    assert list(caught.value.errors) == [named]


def test_a_head_of_odd_size_is_fine_where_nothing_turns() -> None:
    assert config("gpt2", head_dim=7).head_dim == 7
