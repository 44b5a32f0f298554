"""`config.json`, both ways: in the words of the Hugging Face family that computes the same, else in our own.

A key that would make transformers compute something that this transformer does not is refused by name.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from modelzoo.config import ConfigError, ModelConfig, build
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import RewardModel, Transformer

OWN = "nanochatgpt"  # the model type of variants that transformers has no name for

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"max_position_embeddings": 2048}),
    "mistral": ("Mistral", {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096}),
    "qwen2": ("Qwen2", {"max_position_embeddings": 32768, "num_key_value_heads": 32}),
    "qwen3": ("Qwen3", {"max_position_embeddings": 32768, "num_key_value_heads": 32, "head_dim": 128}),
}
"""Model types whose weights have our names: the prefix of their classes, and what they take for a missing key."""

LLAMA_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rope_theta",
    "rms_norm_eps",
    "tie_word_embeddings",
    "head_dim",
)
GPT2_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "num_key_value_heads": "n_head",
    "max_position_embeddings": "n_positions",
}
GPT2_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "silu": "silu"}


def family(config: ModelConfig) -> str | None:
    """The model type of FAMILIES that computes what `config` says; None where there is none."""
    if (config.position, config.norm, config.mlp) != ("rope", "rmsnorm", "swiglu"):
        return None
    if (config.num_hidden_groups, config.embedding_size) != (config.num_hidden_layers, config.hidden_size):
        return None
    return {
        ("none", False, False): "llama",
        ("all", False, False): "llama",
        ("none", False, True): "mistral",
        ("qkv", False, False): "qwen2",
        ("none", True, False): "qwen3",
    }.get((config.bias, config.qk_norm, config.sliding_window > 0))


def variant(config: ModelConfig) -> str:
    """What tells this model from a plain Llama, for people: "position=alibi, mlp=gelu"."""
    llama = {field.name: field.default for field in dataclasses.fields(config) if field.name not in LLAMA_KEYS}
    llama |= {"num_hidden_groups": config.num_hidden_layers, "embedding_size": config.hidden_size}
    return ", ".join(f"{n}={getattr(config, n)}" for n, usual in llama.items() if getattr(config, n) != usual)


def config_to_json(model: Transformer | RewardModel, tokenizer: Tokenizer) -> dict[str, Any]:
    """What transformers needs to open the weights, and `score_offset` for a reward model."""
    config, model_type = model.config, family(model.config)
    stop: int | list[int] = tokenizer.stop_ids[0] if len(tokenizer.stop_ids) == 1 else list(tokenizer.stop_ids)
    if model_type is None:
        shape = {"architectures": [type(model).__name__], "model_type": OWN, **dataclasses.asdict(config)}
    else:
        head = "ForSequenceClassification" if isinstance(model, RewardModel) else "ForCausalLM"
        shape = {
            "architectures": [FAMILIES[model_type][0] + head],
            "model_type": model_type,
            "hidden_act": "silu",
            "attention_bias": config.bias == "all",
            "mlp_bias": config.bias == "all",
            **{name: getattr(config, name) for name in LLAMA_KEYS},
            "rope_scaling": None,
        }
        if model_type == "mistral":
            shape["sliding_window"] = config.sliding_window
    shape |= {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": stop,
        "pad_token_id": tokenizer.pad_id,
        "torch_dtype": str(model.model.embed_tokens.weight.dtype).removeprefix("torch."),
    }
    if isinstance(model, RewardModel):
        shape |= {"num_labels": 1, "score_offset": model.score_offset}
    return shape


def config_from_json(raw: Mapping[str, Any]) -> ModelConfig:
    """The shape of a model from its config.json. Raises ConfigError naming every key that cannot be honoured."""
    model_type = raw.get("model_type", "llama")
    if model_type == OWN:
        names = [field.name for field in dataclasses.fields(ModelConfig)]
        values = {name: raw[name] for name in names if name in raw}
    elif model_type == "gpt2":
        values = _from_gpt2(raw)
    elif model_type in FAMILIES:
        values = _from_llama(raw, model_type)
    else:
        known = ", ".join([*FAMILIES, "gpt2"])
        raise ConfigError({"model_type": f"must be one of {known}, not {model_type!r}"})
    return build(ModelConfig, {name: value for name, value in values.items() if value is not None})


def _from_llama(raw: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """Fields of ModelConfig from a config.json of one of FAMILIES."""
    stated = {name: value for name, value in raw.items() if value is not None}
    defaults = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, "hidden_act": "silu", **FAMILIES[model_type][1]}
    known = {"num_key_value_heads": stated.get("num_attention_heads"), **defaults, **stated}
    errors = _must_be(known, hidden_act="silu")
    values = {name: known[name] for name in LLAMA_KEYS if name in known}

    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}  # transformers 5 and 4
    if rope.get("rope_type", rope.get("type", "default")) != "default" or rope.get("partial_rotary_factor", 1) != 1:
        errors["rope_scaling"] = f"only plain RoPE is read, not {rope}"
    if "rope_theta" in rope:
        values["rope_theta"] = rope["rope_theta"]

    attention, mlp = bool(known.get("attention_bias")), bool(known.get("mlp_bias"))
    if model_type == "llama" and attention != mlp:
        errors["mlp_bias"] = f"must be what attention_bias is, {attention}"
    values["bias"] = "qkv" if model_type == "qwen2" else "all" if model_type == "llama" and attention else "none"
    values["qk_norm"] = model_type == "qwen3"
    if model_type == "qwen3":
        errors |= _must_be(known, attention_bias=False)

    if model_type == "mistral" and raw.get("sliding_window", 1) is not None:  # null turns it off
        values["sliding_window"] = known["sliding_window"]
    elif model_type in ("qwen2", "qwen3"):
        errors |= _must_be(known, use_sliding_window=False)  # only some of their layers have one
    if model_type != "mistral" and set(known.get("layer_types", ())) - {"full_attention"}:
        errors["layer_types"] = "only layers that see every token are read"
    if errors:
        raise ConfigError(errors)
    return values


def _from_gpt2(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ModelConfig from GPT-2's config.json."""
    defaults: dict[str, Any] = {"layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "n_positions": 1024}
    known = defaults | {name: value for name, value in raw.items() if value is not None}
    errors = _must_be(known, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    if known["activation_function"] not in GPT2_ACTIVATIONS:
        errors["activation_function"] = f"must be one of {', '.join(GPT2_ACTIVATIONS)}"
    if errors:
        raise ConfigError(errors)
    return {ours: known.get(theirs) for ours, theirs in GPT2_KEYS.items()} | {
        "intermediate_size": known.get("n_inner", 4 * known.get("n_embd", 0)),
        "rms_norm_eps": known["layer_norm_epsilon"],
        "tie_word_embeddings": known.get("tie_word_embeddings", True),
        "position": "learned",
        "norm": "layernorm",
        "mlp": GPT2_ACTIVATIONS[known["activation_function"]],
        "bias": "all",
    }


def _must_be(known: Mapping[str, Any], **fixed: Any) -> dict[str, str]:
    """Keys that have one value here; a missing one means just that."""
    return {n: f"must be {value!r}, not {known[n]!r}" for n, value in fixed.items() if known.get(n, value) != value}
