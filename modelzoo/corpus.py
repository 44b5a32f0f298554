"""A pretraining corpus: JSONL with a `text` or a dialogue in `messages` on each line."""

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from modelzoo.data import Example, SnapshotError, encode_example
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


def write_dialogues(source: Path, target: Path, *, prompt: str, response: str) -> int:
    """Turn two columns of a CSV into a corpus of dialogues; returns how many. Raises SnapshotError."""
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SnapshotError(f"{source} cannot be read as UTF-8 CSV ({error}).") from None
    lines = []
    for number, row in enumerate(rows, 2):
        if not row.get(prompt) or not row.get(response):
            raise SnapshotError(
                f"Line {number} of {source} has no text in {prompt!r} or {response!r}; mend or remove it."
            )
        turns = [{"role": "user", "content": row[prompt]}, {"role": "assistant", "content": row[response]}]
        lines.append(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
    target.write_text("".join(lines), encoding="utf-8")
    return len(lines)
