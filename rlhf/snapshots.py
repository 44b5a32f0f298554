"""Writing a snapshot directory. Format: `docs/files.md`."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils import timezone

from labeling import export
from labeling.pairs import preferred_pairs, tied_pairs


def write_snapshot(project: Any, path: Path) -> tuple[dict[str, Any], str]:
    """Write `project`'s labels to the new directory `path`; returns the manifest and its SHA-256.

    The rows are read in one transaction, so they fit together. OSError leaves nothing behind.
    """
    temporary = path.with_name(f".{path.name}.writing")
    temporary.mkdir(parents=True)
    try:
        counts: dict[str, Counter[str]] = {"train": Counter(), "heldout": Counter()}
        with transaction.atomic():
            files = {
                "rankings.jsonl": _write(temporary / "rankings.jsonl", _counted(export.rankings(project), counts)),
                "demonstrations.jsonl": _write(
                    temporary / "demonstrations.jsonl",
                    _tallied(export.demonstrations(project), counts, "demonstrations"),
                ),
                "prompts.jsonl": _write(
                    temporary / "prompts.jsonl", _tallied(export.prompts(project), counts, "prompts")
                ),
            }
        manifest = {
            "format": 1,
            "kind": "snapshot",
            "project": project.slug,
            "created_at": timezone.now().isoformat(),
            "counts": counts,
            "files": files,
        }
        encoded = json.dumps(manifest, ensure_ascii=False, indent=2, sort_keys=True).encode()
        _write_bytes(temporary / "manifest.json", encoded)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return manifest, hashlib.sha256(encoded).hexdigest()


def _counted(rows: Iterator[dict[str, Any]], counts: dict[str, Counter[str]]) -> Iterator[dict[str, Any]]:
    for row in _tallied(rows, counts, "rankings"):
        counts[row["split"]]["pairs"] += len(preferred_pairs(row["tiers"]))
        counts[row["split"]]["tied_pairs"] += len(tied_pairs(row["tiers"]))
        yield row


def _tallied(rows: Iterator[dict[str, Any]], counts: dict[str, Counter[str]], what: str) -> Iterator[dict[str, Any]]:
    for row in rows:
        counts[row["split"]][what] += 1
        counts[row["split"]][f"{what}:{row['language']}"] += 1
        yield row


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> dict[str, Any]:
    digest, count = hashlib.sha256(), 0
    with path.open("wb") as file:
        for row in rows:
            line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
            digest.update(line)
            file.write(line)
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": digest.hexdigest(), "rows": count}


def _write_bytes(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
