"""A snapshot directory as the site freezes it (docs/files.md), from rows that a benchmark made."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_snapshot(directory: Path, files: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    directory.mkdir(parents=True)
    manifest: dict[str, Any] = {"format": 1, "kind": "snapshot", "files": {}}
    for name, rows in files.items():
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        (directory / name).write_bytes(content)
        manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "rows": len(rows)}
    (directory / "manifest.json").write_text(json.dumps(manifest))
