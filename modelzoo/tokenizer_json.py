"""Writing Hugging Face's `tokenizer.json`: from a sentencepiece BPE model, and from a byte-level BPE vocabulary.

It lets transformers open our checkpoints, and us read the vocabulary inside a GGUF file.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sentencepiece

META_SPACE = "\u2581"  # sentencepiece writes a space as this character


def sentencepiece_to_json(processor: sentencepiece.SentencePieceProcessor) -> str:
    """The same vocabulary and merges; only the character U+2581 itself is read differently (as a space)."""
    size = processor.get_piece_size()
    pieces = [processor.id_to_piece(i) for i in range(size)]
    special = {i: True for i in range(size) if processor.is_control(i) or processor.is_unknown(i)}
    scores = {pieces[i]: processor.get_score(i) for i in range(size) if i not in special and not processor.is_byte(i)}
    decoders = [
        {"type": "Replace", "pattern": {"String": META_SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    return _definition(
        tokens=pieces,
        merges=_sentencepiece_merges(scores),
        added=special,
        normalizer={"type": "Replace", "pattern": {"String": " "}, "content": META_SPACE},
        decoder={"type": "Sequence", "decoders": decoders},
        unknown=processor.id_to_piece(processor.unk_id()),
    )


def _sentencepiece_merges(scores: dict[str, float]) -> list[list[str]]:
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


def byte_level_bpe_to_json(tokens: Sequence[str], merges: Sequence[str], added: Mapping[int, bool]) -> str:
    """GPT-2's byte-level BPE that takes digits one at a time, as SmolLM does. Bytes without a token are left out."""
    splitters = [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ]
    return _definition(
        tokens=tokens,
        merges=[merge.split(" ") for merge in merges],
        added=added,
        pre_tokenizer={"type": "Sequence", "pretokenizers": splitters},
        decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    )


def _definition(
    *,
    tokens: Sequence[str],
    merges: list[list[str]],
    added: Mapping[int, bool],
    decoder: dict[str, Any],
    normalizer: dict[str, Any] | None = None,
    pre_tokenizer: dict[str, Any] | None = None,
    unknown: str | None = None,
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
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }
    return json.dumps(definition, ensure_ascii=False, indent=1) + "\n"
