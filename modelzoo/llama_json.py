"""`config.json` in Llama's vocabulary, both ways. What this transformer would compute differently is refused."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from modelzoo.config import ConfigError, ModelConfig, build
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import RewardModel, Transformer

FIXED = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
"""Keys that have one value here; a missing one means Llama's default, which is the same."""


def config_to_json(model: Transformer | RewardModel, tokenizer: Tokenizer) -> dict[str, Any]:
    """What transformers needs to open the weights, and `score_offset` for a reward model."""
    stop: int | list[int] = tokenizer.stop_ids[0] if len(tokenizer.stop_ids) == 1 else list(tokenizer.stop_ids)
    dtype = str(model.model.embed_tokens.weight.dtype).removeprefix("torch.")
    config = {
        "architectures": ["LlamaForCausalLM"],
        **FIXED,
        **dataclasses.asdict(model.config),
        "head_dim": model.config.head_dim,
        "rope_scaling": None,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": stop,
        "pad_token_id": tokenizer.pad_id,
        "torch_dtype": dtype,
    }
    if isinstance(model, RewardModel):
        config |= {
            "architectures": ["LlamaForSequenceClassification"],
            "num_labels": 1,
            "score_offset": model.score_offset,
        }
    return config


def config_from_json(raw: Mapping[str, Any]) -> ModelConfig:
    """The shape of a Llama from its config.json. Raises ConfigError naming every key that cannot be honoured."""
    errors = {
        name: f"must be {value!r}, not {raw[name]!r}" for name, value in FIXED.items() if raw.get(name, value) != value
    }
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}  # transformers 5 and 4
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        errors["rope_scaling"] = f"only plain RoPE is read, not {rope}"
    names = {field.name for field in dataclasses.fields(ModelConfig)}
    values = {name: value for name, value in raw.items() if name in names and value is not None}
    values.setdefault("tie_word_embeddings", False)  # Llama's default; ours is True
    values.setdefault("rms_norm_eps", 1e-6)
    values.setdefault("num_key_value_heads", raw.get("num_attention_heads"))
    if "rope_theta" in rope:
        values["rope_theta"] = rope["rope_theta"]
    for field in dataclasses.fields(ModelConfig):
        if field.default is dataclasses.MISSING and field.name not in values:
            errors[field.name] = "is missing"
    if errors:
        raise ConfigError(errors)
    config = build(ModelConfig, values)
    if raw.get("head_dim") not in (None, config.head_dim):
        raise ConfigError({"head_dim": f"must be hidden_size / num_attention_heads = {config.head_dim}"})
    return config
