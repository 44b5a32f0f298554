"""Hugging Face model directories of the Llama family: read theirs, write ours.

A checkpoint is such a directory already (docs/files.md), so exporting one is a verified copy without the manifest.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelzoo.chat_template import PLAIN_TEMPLATE
from modelzoo.checkpoint import CheckpointError, load_tensors, read_json, verify, write_whole
from modelzoo.config import ConfigError
from modelzoo.llama_json import config_from_json
from modelzoo.tokenizer import (
    HuggingFaceTokenizer,
    SpecialTokens,
    Tokenizer,
    TokenizerError,
    control_tokens_of,
    free_special_token,
    load_tokenizer,
)
from modelzoo.transformer import Transformer


def read_huggingface(directory: Path | str) -> tuple[Transformer, Tokenizer]:
    """A Llama directory (config.json, safetensors in one file or shards, tokenizer.json) in float32.

    Raises CheckpointError on what is missing, broken, or not a plain Llama.
    """
    directory = Path(directory)
    raw = read_json(directory, "config.json")
    try:
        config = config_from_json(raw)
        tokenizer = _read_tokenizer(directory, raw)
    except (ConfigError, TokenizerError) as error:
        raise CheckpointError(f"{directory}: {error}") from error
    tensors = {name: tensor.float() for name, tensor in _read_tensors(directory).items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)  # some files repeat the embedding
    with torch.device("meta"):
        model = Transformer(config)
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{directory}: the weights are not those of config.json: {reason[:300]}") from error
    return model, tokenizer


def export_huggingface(checkpoint: Path | str, directory: Path | str) -> None:
    """Write a verified checkpoint as a plain Hugging Face directory. Raises CheckpointError."""
    checkpoint = Path(checkpoint)
    files = verify(checkpoint)["files"]

    def write(temporary: Path) -> None:
        for name in files:
            shutil.copyfile(checkpoint / name, temporary / name)

    write_whole(directory, write)


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
        pad = free_special_token(control, used=(eos, bos, *stop), template=template)
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
