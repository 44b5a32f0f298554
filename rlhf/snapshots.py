"""Writing a snapshot directory. Format: `docs/files.md`."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from django.utils import timezone

from labeling import export
from labeling.pairs import preferred_pairs, tied_pairs

Counts = dict[str, Counter[str]]
"""`{"train": {"rankings", "rankings:en", "pairs", "tied_pairs", "demonstrations", ...}, "heldout": {...}}`"""


def count_labels(project: Any) -> Counts:
    """What a snapshot of `project` would hold if it were frozen now."""
    counts = _no_counts()
    for _name, rows in _tallied(project, counts):
        for _row in rows:
            pass
    return counts


def write_snapshot(project: Any, path: Path) -> tuple[dict[str, Any], str]:
    """Write `project`'s labels to the new directory `path`; returns the manifest and its SHA-256.

    Each file is the answer to one query, so it shows one moment, and nobody's work waits while it is written.
    OSError leaves nothing behind.
    """
    temporary = path.with_name(f".{path.name}.writing")
    temporary.mkdir(parents=True)
    try:
        counts = _no_counts()
        files = {name: _write(temporary / name, rows) for name, rows in _tallied(project, counts)}
        manifest = {
            "format": 1,
            "kind": "snapshot",
            "project": project.slug,
            "created_at": timezone.now().isoformat(),
            "counts": counts,
            "files": files,
        }
        encoded = json.dumps(manifest, ensure_ascii=False, indent=2, sort_keys=True).encode()
        _write(temporary / "manifest.json", [encoded])
        _sync(temporary)
        os.rename(temporary, path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return manifest, hashlib.sha256(encoded).hexdigest()


def _no_counts() -> Counts:
    return {"train": Counter(), "heldout": Counter()}


def _tallied(project: Any, counts: Counts) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The lines of each file, which add themselves to `counts` as they are read."""
    for what, rows in (
        ("rankings", export.rankings(project)),
        ("demonstrations", export.demonstrations(project)),
        ("prompts", export.prompts(project)),
    ):
        yield f"{what}.jsonl", _lines(rows, what, counts)


def _lines(rows: Iterator[dict[str, Any]], what: str, counts: Counts) -> Iterator[bytes]:
    for row in rows:
        count = counts[row["split"]]
        count[what] += 1
        count[f"{what}:{row['language']}"] += 1
        if what == "rankings":
            count["pairs"] += len(preferred_pairs(row["tiers"]))
            count["tied_pairs"] += len(tied_pairs(row["tiers"]))
        yield json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _write(path: Path, lines: Iterable[bytes]) -> dict[str, Any]:
    digest, count = hashlib.sha256(), 0
    with path.open("wb") as file:
        for line in lines:
            digest.update(line)
            file.write(line)
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": digest.hexdigest(), "rows": count}


def _sync(directory: Path) -> None:
    """Make names in `directory` survive power loss."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
