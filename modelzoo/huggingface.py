"""Hugging Face model directories: read Llama's, Mistral's, Qwen2's, Qwen3's and GPT-2's, write all but the last.

A checkpoint is such a directory already (docs/files.md), so exporting one is a verified copy without the manifest.
"""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelzoo.chat_template import PLAIN_TEMPLATE
from modelzoo.checkpoint import CheckpointError, load_tensors, read_json, verify, write_whole
from modelzoo.config import ConfigError
from modelzoo.config_json import config_from_json, family, variant
from modelzoo.tokenizer import (
    HuggingFaceTokenizer,
    SpecialTokens,
    Tokenizer,
    TokenizerError,
    add_control_token,
    control_tokens_of,
    free_special_token,
    load_tokenizer,
)
from modelzoo.transformer import Transformer

GPT2_NAMES = {
    "wte.weight": "model.embed_tokens.weight",
    "wpe.weight": "model.embed_positions.weight",
    "ln_f.weight": "model.norm.weight",
    "ln_f.bias": "model.norm.bias",
    "lm_head.weight": "lm_head.weight",
}
GPT2_LAYER_NAMES = {
    "ln_1": "input_layernorm",
    "attn.c_proj": "self_attn.o_proj",
    "ln_2": "post_attention_layernorm",
    "mlp.c_fc": "mlp.up_proj",
    "mlp.c_proj": "mlp.down_proj",
}
PAD = "<|pad|>"  # added where a tokenizer has nothing to pad with


def read_huggingface(directory: Path | str) -> tuple[Transformer, Tokenizer]:
    """A directory with config.json, safetensors in one file or shards, and tokenizer.json, in float32.

    Raises CheckpointError on what is missing, broken, or no model that this transformer computes.
    """
    directory = Path(directory)
    raw = read_json(directory, "config.json")
    try:
        config = config_from_json(raw)
        tokenizer = _read_tokenizer(directory, raw)
        tensors = {name: tensor.float() for name, tensor in _read_tensors(directory).items()}
        if raw.get("model_type") == "gpt2":
            tensors = _from_gpt2(tensors)
    except (ConfigError, TokenizerError) as error:
        raise CheckpointError(f"{directory}: {error}") from error
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)  # some files repeat the embedding
    if tokenizer.special.pad == PAD and tokenizer.pad_id == config.vocab_size:  # added by _read_tokenizer
        tensors = {
            n: _with_mean(t) if n.endswith(("embed_tokens.weight", "lm_head.weight")) else t for n, t in tensors.items()
        }
        config = dataclasses.replace(config, vocab_size=config.vocab_size + 1)
    with torch.device("meta"):
        model = Transformer(config)
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{directory}: the weights are not those of config.json: {reason[:300]}") from error
    return model, tokenizer


def export_huggingface(checkpoint: Path | str, directory: Path | str) -> None:
    """Write a verified checkpoint as a plain Hugging Face directory.

    Raises CheckpointError, also on a variant that transformers has no name for.
    """
    checkpoint = Path(checkpoint)
    files = verify(checkpoint)["files"]
    try:
        config = config_from_json(read_json(checkpoint, "config.json"))
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error
    if family(config) is None:
        raise CheckpointError(
            f"{checkpoint} is of a variant that transformers has no name for ({variant(config)}): "
            "it cannot be exported as a Hugging Face directory"
        )

    def write(temporary: Path) -> None:
        for name in files:
            shutil.copyfile(checkpoint / name, temporary / name)

    write_whole(directory, write)


def _from_gpt2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """GPT-2's weights under our names; its linear layers keep the transpose, queries, keys and values in one matrix."""
    ours: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("transformer.")
        if name in GPT2_NAMES:
            ours[GPT2_NAMES[name]] = tensor
        elif not name.endswith((".attn.bias", ".attn.masked_bias")):  # these are causal masks
            number, _, rest = name.removeprefix("h.").partition(".")
            part, _, kind = rest.rpartition(".")
            tensor = tensor.T.contiguous() if tensor.dim() == 2 else tensor
            layer = f"model.layers.{number}"
            if part == "attn.c_attn":
                for projection, third in zip(("q_proj", "k_proj", "v_proj"), tensor.chunk(3), strict=True):
                    ours[f"{layer}.self_attn.{projection}.{kind}"] = third.clone()
            elif part in GPT2_LAYER_NAMES:
                ours[f"{layer}.{GPT2_LAYER_NAMES[part]}.{kind}"] = tensor
            else:
                raise ConfigError({name: "is no tensor of GPT-2"})
    return ours


def _with_mean(rows: Tensor) -> Tensor:
    """One row more, the mean of the others: a model gives such a token at most the share 1/V (Hewitt 2021)."""
    return torch.cat([rows, rows.mean(0, keepdim=True)])


def _read_tensors(directory: Path) -> dict[str, Tensor]:
    if not (directory / "model.safetensors.index.json").exists():
        return load_tensors(directory / "model.safetensors")
    index = read_json(directory, "model.safetensors.index.json")
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{directory / 'model.safetensors.index.json'} has no weight_map")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:
            raise CheckpointError(f"{directory / 'model.safetensors.index.json'} names a file outside: {shard}")
        tensors |= load_tensors(directory / shard)
    return tensors


def _read_tokenizer(directory: Path, config: Mapping[str, Any]) -> Tokenizer:
    path = directory / "tokenizer_config.json"
    named = read_json(directory, path.name) if path.exists() else {}
    if "stop_tokens" in named:  # written by us
        return load_tokenizer(directory)
    if not (directory / "tokenizer.json").exists():
        raise CheckpointError(
            f"{directory / 'tokenizer.json'} is missing: load the tokenizer with transformers and save it once"
        )
    definition = (directory / "tokenizer.json").read_text(encoding="utf-8")
    control = control_tokens_of(definition)
    by_id = {i: name for name, i in control.items()}
    eos_ids = _stop_ids(directory, config)
    eos = _content(named.get("eos_token")) or next((by_id[i] for i in eos_ids if i in by_id), None)
    if eos is None:
        raise TokenizerError("neither tokenizer_config.json nor config.json names an end-of-text token")
    stop = tuple(by_id[i] for i in eos_ids if i in by_id and by_id[i] != eos)
    template = _chat_template(directory, named)
    bos, pad = _content(named.get("bos_token")), _content(named.get("pad_token"))
    if pad is None or pad in (eos, *stop):
        try:
            pad = free_special_token(control, used=(eos, bos, *stop), template=template)
        except TokenizerError:
            definition, pad = add_control_token(definition, PAD), PAD
    return HuggingFaceTokenizer(definition, SpecialTokens(eos=eos, pad=pad, bos=bos, stop=stop), template)


def _stop_ids(directory: Path, config: Mapping[str, Any]) -> list[int]:
    """What ends a generation, by config.json and generation_config.json; either may say one number or several."""
    generation = directory / "generation_config.json"
    ids: list[int] = []
    for source in (config, read_json(directory, generation.name) if generation.exists() else {}):
        value = source.get("eos_token_id")
        ids += value if isinstance(value, list) else [] if value is None else [value]
    return ids


def _content(token: Any) -> str | None:
    """A token is written as a string or as an object with its content."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _chat_template(directory: Path, named: Mapping[str, Any]) -> str:
    """From its own file, which newer versions write, or tokenizer_config.json, where several may have names."""
    path = directory / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    template = named.get("chat_template")
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    return template if isinstance(template, str) else PLAIN_TEMPLATE
