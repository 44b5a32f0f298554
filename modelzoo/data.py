"""From a snapshot's JSONL to tokens: what people said, as the trainers see it.

Rows that cannot be trained on are left out and counted by reason; nothing is cut short silently.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelzoo.batches import Example
from modelzoo.rankings import Ranking
from modelzoo.tokenizer import Tokenizer

Row = dict[str, Any]


class SnapshotError(ValueError):
    """A snapshot or corpus that cannot be read or trained on; the message says what to do."""


# Snapshot ---------------------------------------------------------------------------------------------------------

COLUMNS = {
    "rankings.jsonl": {
        "split": str,
        "language": str,
        "messages": list,
        "completions": list,
        "finish_reasons": list,
        "tiers": list,
    },
    "demonstrations.jsonl": {"split": str, "language": str, "messages": list, "completion": str},
    "prompts.jsonl": {"split": str, "language": str, "messages": list},
}


@dataclass(frozen=True)
class Snapshot:
    """An immutable directory of labels. `digest` is the SHA-256 of its manifest: its identity."""

    directory: Path
    digest: str
    files: dict[str, Row]

    @classmethod
    def open(cls, directory: Path) -> "Snapshot":
        try:
            manifest = (directory / "manifest.json").read_bytes()
            content = json.loads(manifest)
            files = dict(content["files"])
        except FileNotFoundError:
            raise SnapshotError(
                f"There is no snapshot in {directory} (no manifest.json); freeze one and use its folder."
            ) from None
        except (ValueError, KeyError, TypeError):
            raise SnapshotError(
                f"The manifest of snapshot {directory} is damaged; freeze the snapshot again."
            ) from None
        if content.get("kind") != "snapshot" or content.get("format") != 1:
            raise SnapshotError(f"{directory} is not a snapshot of format 1; give the folder of a frozen snapshot.")
        return cls(directory, hashlib.sha256(manifest).hexdigest(), files)

    def rows(self, name: str, *, split: str, languages: Sequence[str] | None) -> list[Row]:
        """The rows of one file in one split and in the given languages (None: all), after checking the file's hash."""
        if name not in self.files:
            return []
        try:
            content = (self.directory / name).read_bytes()
        except FileNotFoundError:
            raise SnapshotError(
                f"{name} is missing from snapshot {self.directory}; freeze the snapshot again."
            ) from None
        if hashlib.sha256(content).hexdigest() != self.files[name].get("sha256"):
            raise SnapshotError(
                f"{name} in snapshot {self.directory} was changed after it was frozen; freeze it again."
            )
        rows = [_parsed(line, number, name) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
        return [row for row in rows if row["split"] == split and (languages is None or row["language"] in languages)]


def _parsed(line: bytes, number: int, name: str) -> Row:
    try:
        row: Row = json.loads(line)
        wrong = [key for key, kind in COLUMNS[name].items() if not isinstance(row[key], kind)]
        if name == "rankings.jsonl" and not len(row["completions"]) == len(row["finish_reasons"]) == len(row["tiers"]):
            wrong.append("tiers")
    except (ValueError, TypeError) as error:
        raise SnapshotError(
            f"Line {number} of {name} is not a JSON object ({error}); freeze the snapshot again."
        ) from None
    except KeyError as error:
        raise SnapshotError(f"Line {number} of {name} has no {error}; freeze the snapshot again.") from None
    if wrong:
        raise SnapshotError(f"Line {number} of {name} has an unusable {wrong[0]!r}; freeze the snapshot again.")
    return row


# Tokens -----------------------------------------------------------------------------------------------------------


class LeftOut(Counter[str]):
    """How many rows were not used, by reason."""

    def __str__(self) -> str:
        return ", ".join(f"{count} {reason}" for reason, count in sorted(self.items())) or "none"


def encode_example(tokenizer: Tokenizer, messages: list[Row], text: str, *, finished: bool) -> Example:
    """The end-of-turn token stands behind a finished response only: a cut one must not look finished."""
    return Example(
        tokenizer.encode_chat(messages, add_generation_prompt=True), tokenizer.encode_response(text, finished)
    )


def encode_demonstrations(rows: Iterable[Row], tokenizer: Tokenizer, max_length: int) -> tuple[list[Example], LeftOut]:
    examples, left_out = [], LeftOut()
    for row in rows:
        if not row["completion"].strip():
            left_out["empty"] += 1
            continue
        example = encode_example(tokenizer, row["messages"], row["completion"], finished=True)
        if len(example.tokens) > max_length:
            left_out["too long"] += 1
        else:
            examples.append(example)
    return examples, left_out


def encode_rankings(
    rows: Iterable[Row], tokenizer: Tokenizer, max_length: int, *, ties: str
) -> tuple[list[Ranking], LeftOut]:
    """Rankings with a pair to learn from. A completion that is too long leaves its ranking; the others stay."""
    rankings, left_out = [], LeftOut()
    for row in rows:
        examples, tiers = [], []
        for text, reason, tier in zip(row["completions"], row["finish_reasons"], row["tiers"], strict=True):
            example = encode_example(tokenizer, row["messages"], text, finished=reason != "length")
            if not example.response or len(example.tokens) > max_length:
                left_out["completions too long" if example.response else "completions empty"] += 1
            else:
                examples.append(example)
                tiers.append(int(tier))
        if len(examples) < 2:
            left_out["with fewer than two usable completions"] += 1
        elif ties == "drop" and len(set(tiers)) == 1:
            left_out["all tied"] += 1
        else:
            rankings.append(Ranking(examples, tiers))
    return rankings, left_out


def encode_prompts(
    rows: Iterable[Row], tokenizer: Tokenizer, max_prompt_length: int
) -> tuple[list[list[int]], LeftOut]:
    prompts, left_out = [], LeftOut()
    for row in rows:
        prompt = tokenizer.encode_chat(row["messages"], add_generation_prompt=True)
        if len(prompt) > max_prompt_length:
            left_out["too long"] += 1
        else:
            prompts.append(prompt)
    return prompts, left_out
