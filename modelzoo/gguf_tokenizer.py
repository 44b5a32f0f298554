"""The vocabulary inside a GGUF file, both ways between llama.cpp's metadata and Hugging Face's `tokenizer.json`."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import gguf
from gguf import TokenType

from modelzoo.chat_template import PLAIN_TEMPLATE
from modelzoo.tokenizer import HuggingFaceTokenizer, SpecialTokens, Tokenizer, TokenizerError, free_special_token
from modelzoo.tokenizer_json import PREFIXED, SPACES, SPLITTERS, byte_level_bpe_to_json, pieces_to_json

ELSEWHERE = "import the model's Hugging Face directory instead"


def read_tokenizer(fields: Mapping[str, Any]) -> HuggingFaceTokenizer:
    """From a file's metadata. Raises TokenizerError on a kind that cannot be honoured, KeyError on missing metadata."""
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    types: list[int] = fields["tokenizer.ggml.token_type"]
    used = {i: token for i, token in enumerate(tokens) if types[i] != TokenType.UNUSED}
    added = {i: types[i] != TokenType.USER_DEFINED for i in used if types[i] in _ADDED}
    kind, splitter = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "default")
    if kind == "gpt2" and splitter in SPLITTERS:
        definition = byte_level_bpe_to_json(used, fields["tokenizer.ggml.merges"], added, splitter)
    elif kind == "llama":
        scores = {tokens[i]: fields["tokenizer.ggml.scores"][i] for i in used if types[i] == TokenType.NORMAL}
        unknown = tokens[fields.get("tokenizer.ggml.unknown_token_id", 0)]
        prefix = bool(fields.get("tokenizer.ggml.add_space_prefix", True))
        definition = pieces_to_json(used, added, scores, unknown=unknown, space_prefix=prefix)
    else:
        known = ", ".join(f"gpt2/{name}" for name in SPLITTERS)
        raise TokenizerError(f"its tokenizer is {kind}/{splitter}; only llama and {known} can be read: {ELSEWHERE}")

    template = fields.get("tokenizer.chat_template", PLAIN_TEMPLATE)
    control = {tokens[i]: i for i, special in added.items() if special}

    def token(role: str) -> str | None:
        i = fields.get(f"tokenizer.ggml.{role}_token_id")
        return None if i is None else tokens[i]

    eos = token("eos")
    if eos is None:
        raise TokenizerError("it names no end-of-text token")
    stop = tuple(name for name in (token("eot"), token("eom")) if name)
    pad = token("padding")
    if pad is None or pad in (eos, *stop):
        pad = free_special_token(control, used=(eos, token("bos"), *stop), template=template)
    return HuggingFaceTokenizer(definition, SpecialTokens(eos=eos, pad=pad, bos=token("bos"), stop=stop), template)


_ADDED = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)


def write_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, definition: str, size: int) -> None:
    """Metadata of a tokenizer and its `tokenizer.json`, for a model of `size` tokens.

    Raises TokenizerError where llama.cpp has no name for what it does.
    """
    content = json.loads(definition)
    model, splitter = content["model"], _splitter(content)
    by_id = {i: token for token, i in model["vocab"].items()}
    tokens = [by_id.get(i, f"[PAD{i}]") for i in range(size)]
    types = [int(TokenType.NORMAL if i in by_id else TokenType.UNUSED) for i in range(size)]
    for token in content["added_tokens"]:
        tokens[token["id"]] = token["content"]
        types[token["id"]] = int(TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if splitter is not None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(splitter)
        writer.add_token_merges(merges)
    else:
        unknown = tokens.index(model["unk_token"])
        types[unknown] = int(TokenType.UNKNOWN)
        for byte in range(256):
            types[model["vocab"][f"<0x{byte:02X}>"]] = int(TokenType.BYTE)
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(_scores(tokens, types, merges))
        writer.add_unk_token_id(unknown)
        writer.add_add_space_prefix(content["normalizer"] == PREFIXED)
    writer.add_token_list(tokens)
    writer.add_token_types(types)

    writer.add_chat_template(tokenizer.chat_template)
    writer.add_add_bos_token(False)  # the template writes what is wanted
    writer.add_add_eos_token(False)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_pad_token_id(tokenizer.pad_id)
    if tokenizer.bos_id is not None:
        writer.add_bos_token_id(tokenizer.bos_id)
    stop = [i for i in tokenizer.stop_ids if i != tokenizer.eos_id]
    if len(stop) > 2:
        raise TokenizerError(f"{len(stop) + 1} tokens end a response, and GGUF has room for 3")
    for i, add in zip(sorted(stop, key=lambda i: i != tokenizer.end_of_turn_id), _END_OF, strict=False):
        add(writer, i)


_END_OF: tuple[Callable[[gguf.GGUFWriter, int], None], ...] = (
    gguf.GGUFWriter.add_eot_token_id,
    lambda writer, i: writer.add_uint32("tokenizer.ggml.eom_token_id", i),
)


def _splitter(content: Mapping[str, Any]) -> str | None:
    """llama.cpp's name for how a tokenizer.json cuts text into words; None for sentencepiece's BPE."""
    model, normalizer, pre_tokenizer = content["model"], content.get("normalizer"), content.get("pre_tokenizer")
    if model.get("type") == "BPE" and model.get("byte_fallback"):
        if normalizer in (SPACES, PREFIXED) and pre_tokenizer is None:
            return None
    elif model.get("type") == "BPE" and (normalizer is None or normalizer == {"type": "NFC"}):
        for name, known in SPLITTERS.items():
            if _steps(pre_tokenizer) == _steps(known):
                return name
    raise TokenizerError("its tokenizer cuts text in a way that llama.cpp has no name for")


def _steps(pre_tokenizer: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A pre-tokenizer as the list of what it does, without what only moves offsets."""
    if pre_tokenizer is None:
        return []
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    return [
        {"use_regex": True} | {key: value for key, value in step.items() if key != "trim_offsets"} for step in steps
    ]


def _scores(tokens: list[str], types: list[int], merges: list[str]) -> list[float]:
    """What sentencepiece would give each piece: the earlier a merge makes it, the more; 0 where nothing is merged."""
    rank: dict[str, int] = {}
    for number, merge in enumerate(merges):
        rank.setdefault(merge.replace(" ", ""), number)
    pairs = zip(tokens, types, strict=True)
    return [-float(rank.get(token, len(merges))) if kind == TokenType.NORMAL else 0.0 for token, kind in pairs]
