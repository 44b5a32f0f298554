"""A pretraining corpus: JSONL with a `text` or a dialogue in `messages` on each line."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from modelzoo.batches import Example
from modelzoo.data import SnapshotError, encode_example
from modelzoo.tokenizer import Tokenizer


def read_corpus(path: Path, tokenizer: Tokenizer) -> tuple[list[int], str]:
    """One stream of tokens, an end token behind each document, and the file's SHA-256.

    A line of JSON holds either `text` or a dialogue in `messages`, which is rendered with the chat template.
    """
    stream: list[int] = []
    try:
        content = path.read_bytes()
        lines = content.decode("utf-8").split("\n")  # splitlines() would also cut at separators inside the JSON
    except (OSError, UnicodeDecodeError) as error:
        raise SnapshotError(f"The corpus {path} cannot be read as UTF-8 JSONL ({error}).") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "messages" in row:
                *context, last = row["messages"]
                example = encode_example(tokenizer, context, last["content"], finished=True)
                stream += example.tokens
            else:
                stream += [*tokenizer.encode(row["text"]), tokenizer.eos_id]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SnapshotError(
                f'Line {number} of the corpus {path} must be JSON with "text" or "messages"; mend or remove it.'
            ) from None
    return stream, hashlib.sha256(content).hexdigest()


def windows(stream: Sequence[int], length: int) -> list[Example]:
    """The stream cut into whole windows of `length` tokens; a shorter rest is dropped unless there is nothing else.

    The first token of a window is its prompt: every other one is predicted.
    """
    cuts = [stream[start : start + length] for start in range(0, len(stream), length)]
    whole = [cut for cut in cuts if len(cut) == length] or [cut for cut in cuts if len(cut) > 1]
    return [Example(list(cut[:1]), list(cut[1:])) for cut in whole]
