"""Questions and answers of a CSV file as what the trainers read: a corpus, a snapshot, and rows kept out of both."""

import csv
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from modelzoo.data import SnapshotError

HELDOUT_PERCENT = 5


@dataclass(frozen=True)
class Dialogue:
    prompt: str
    response: str

    @property
    def is_heldout(self) -> bool:
        """By the response's hash: prompts that share one fall on the same side, or it would be known already."""
        digest = hashlib.sha256(self.response.encode()).digest()
        return int.from_bytes(digest[:4], "big") % 100 < HELDOUT_PERCENT

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.prompt}]


def read_dialogues(path: Path, *, prompt: str, response: str) -> list[Dialogue]:
    """Every different pair of the two columns, in order; rows without either are passed over. Raises SnapshotError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [column for column in (prompt, response) if column not in (reader.fieldnames or ())]
            if missing:
                raise SnapshotError(f"{path} has no column {missing[0]!r}; it has {', '.join(reader.fieldnames or ())}")
            pairs = [((row[prompt] or "").strip(), (row[response] or "").strip()) for row in reader]
    except UnicodeDecodeError as error:
        raise SnapshotError(f"{path} is not UTF-8: {error}") from error
    except csv.Error as error:
        raise SnapshotError(f"{path} is not a CSV file: {error}") from error
    dialogues = [Dialogue(*pair) for pair in dict.fromkeys(pairs) if all(pair)]
    if not any(dialogue.is_heldout for dialogue in dialogues) or all(dialogue.is_heldout for dialogue in dialogues):
        raise SnapshotError(
            f"{path} has {len(dialogues)} prompts with responses: too few to train on and keep some out"
        )
    return dialogues


def write_dialogues(dialogues: Iterable[Dialogue], directory: Path, *, language: str, source: str) -> dict[str, int]:
    """Make `directory`, whole or not at all; returns how many rows are for training and how many held out.

    corpus.jsonl (for `pretrain`) and train.csv (for `tokenizer`) have the training dialogues. snapshot/ (for `sft`) has
    all of them as demonstrations, the held-out ones marked. heldout.csv is for people: prompts nobody has trained on.
    """
    if directory.exists():
        raise SnapshotError(f"{directory} exists already; give a new directory")
    dialogues = list(dialogues)
    heldout = [dialogue for dialogue in dialogues if dialogue.is_heldout]
    train = [dialogue for dialogue in dialogues if not dialogue.is_heldout]
    temporary = directory.with_name(f".{directory.name}.{token_hex(6)}.tmp")
    (temporary / "snapshot").mkdir(parents=True)
    corpus = ({"messages": [*d.messages, {"role": "assistant", "content": d.response}]} for d in train)
    _write_lines(temporary / "corpus.jsonl", corpus)
    for name, rows in (("train.csv", train), ("heldout.csv", heldout)):
        with (temporary / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("prompt", "response"), *((d.prompt, d.response) for d in rows)])
    demonstrations = [_demonstration(number, d, language, source) for number, d in enumerate(dialogues, 1)]
    digest = _write_lines(temporary / "snapshot" / "demonstrations.jsonl", demonstrations)
    manifest = {
        "format": 1,
        "kind": "snapshot",
        "project": source,
        "counts": {"train": {"demonstrations": len(train)}, "heldout": {"demonstrations": len(heldout)}},
        "files": {"demonstrations.jsonl": {"sha256": digest, "rows": len(dialogues)}},
    }
    (temporary / "snapshot" / "manifest.json").write_text(
        json.dumps(manifest, ensure_ascii=False, indent=2, sort_keys=True), encoding="utf-8"
    )
    temporary.rename(directory)
    return {"train": len(train), "heldout": len(heldout)}


def _demonstration(number: int, dialogue: Dialogue, language: str, source: str) -> dict[str, Any]:
    return {
        "id": f"row-{number}",
        "split": "heldout" if dialogue.is_heldout else "train",
        "prompt_id": str(number),
        "language": language,
        "messages": dialogue.messages,
        "completion": dialogue.response,
        "origin": "imported",
        "labeler": None,
        "source": source,
        "instruction_version": None,
    }


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    """JSONL; returns its SHA-256."""
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()
