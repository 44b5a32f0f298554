"""A sentencepiece BPE model as Hugging Face's `tokenizer.json`, so that transformers opens our checkpoints."""

from typing import Any

import sentencepiece


def sentencepiece_to_json(processor: sentencepiece.SentencePieceProcessor) -> dict[str, Any]:
    """The same vocabulary and merges; only the character U+2581 itself is read differently (as a space)."""
    size = processor.get_piece_size()
    pieces = [processor.id_to_piece(i) for i in range(size)]
    special = [i for i in range(size) if processor.is_control(i) or processor.is_unknown(i)]
    plain = [i for i in range(size) if i not in set(special) and not processor.is_byte(i)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": pieces[i],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i in special
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": processor.id_to_piece(processor.unk_id()),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "merges": _merges({pieces[i]: processor.get_score(i) for i in plain}),
        },
    }


def _merges(scores: dict[str, float]) -> list[list[str]]:
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
