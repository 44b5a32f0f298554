"""Writing Hugging Face's `tokenizer.json`: from a sentencepiece BPE model, and from a byte-level BPE vocabulary.

It lets transformers open our checkpoints, and us read the vocabulary inside a GGUF file (`gguf_tokenizer`).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sentencepiece

META_SPACE = "\u2581"  # sentencepiece writes a space as this character
SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": META_SPACE}
PREFIXED = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": META_SPACE}, SPACES]}


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _words(digits: str) -> dict[str, Any]:
    """The words of Llama 3 and Qwen2, which differ in how many digits stay together."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(use_regex=False)]}


SPLITTERS: dict[str, dict[str, Any]] = {
    "gpt-2": _byte_level(use_regex=True),
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True)],
    },
    "llama-bpe": _words("{1,3}"),
    "qwen2": _words(""),
}
"""How a byte-level BPE cuts text into words before it merges, under llama.cpp's names."""


def sentencepiece_to_json(processor: sentencepiece.SentencePieceProcessor) -> str:
    """The same vocabulary and merges; only the character U+2581 itself is read differently (as a space)."""
    ids = range(processor.get_piece_size())
    pieces = {i: processor.id_to_piece(i) for i in ids}
    special = {i: True for i in ids if processor.is_control(i) or processor.is_unknown(i)}
    scores = {pieces[i]: processor.get_score(i) for i in ids if i not in special and not processor.is_byte(i)}
    return pieces_to_json(pieces, special, scores, unknown=processor.id_to_piece(processor.unk_id()))


def pieces_to_json(
    pieces: Mapping[int, str],
    added: Mapping[int, bool],
    scores: Mapping[str, float],
    *,
    unknown: str,
    space_prefix: bool = False,
) -> str:
    """Sentencepiece BPE with byte fallback. `scores` are of the pieces that merges can make.

    `space_prefix` puts a space before every text, as Llama 2 does.
    """
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": META_SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if space_prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return _definition(
        tokens=pieces,
        merges=_sentencepiece_merges(scores),
        added=added,
        normalizer=PREFIXED if space_prefix else SPACES,
        decoder={"type": "Sequence", "decoders": decoders},
        unknown=unknown,
    )


def _sentencepiece_merges(scores: Mapping[str, float]) -> list[list[str]]:
    """Pairs in the order in which sentencepiece merges: best score of the result first.

    sentencepiece stores no pairs: it joins any two neighbours whose concatenation is a piece.
    """
    ranked = []
    for piece, score in scores.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in scores and right in scores:
                ranked.append((-score, cut, left, right))
    return [[left, right] for *_, left, right in sorted(ranked)]


def byte_level_bpe_to_json(
    tokens: Mapping[int, str], merges: Sequence[str], added: Mapping[int, bool], splitter: str
) -> str:
    """GPT-2's byte-level BPE on words cut as one of SPLITTERS does. Bytes without a token are left out."""
    return _definition(
        tokens=tokens,
        merges=[merge.split(" ") for merge in merges],
        added=added,
        normalizer={"type": "NFC"} if splitter == "qwen2" else None,
        pre_tokenizer=SPLITTERS[splitter],
        decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        ignore_merges=splitter == "llama-bpe",
    )


def _definition(
    *,
    tokens: Mapping[int, str],
    merges: list[list[str]],
    added: Mapping[int, bool],
    decoder: dict[str, Any],
    normalizer: dict[str, Any] | None = None,
    pre_tokenizer: dict[str, Any] | None = None,
    unknown: str | None = None,
    ignore_merges: bool = False,
) -> str:
    """`added` maps the ids of tokens that are never merged to whether they are control tokens."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    definition = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": tokens[i], **flags, "special": control} for i, control in added.items()],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": unknown is not None,
            "byte_fallback": unknown is not None,
            "ignore_merges": ignore_merges,
            "vocab": {token: i for i, token in tokens.items()},
            "merges": merges,
        },
    }
    return json.dumps(definition, ensure_ascii=False, indent=1) + "\n"
