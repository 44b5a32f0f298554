"""Whether files still are what their manifest says. Snapshots and checkpoints have the same kind of manifest."""

import hashlib
import json
from pathlib import Path
from typing import Any

from django.utils.translation import gettext as _


def complaints(directory: Path, manifest_hash: str) -> list[str]:
    """One sentence for each file of `directory` that is missing or altered; empty where all is as it was written."""
    manifest = directory / "manifest.json"
    try:
        encoded = manifest.read_bytes()
    except OSError:
        return [_("%(file)s is missing.") % {"file": manifest.name}]
    if hashlib.sha256(encoded).hexdigest() != manifest_hash:
        return [_("%(file)s was altered.") % {"file": manifest.name}]
    files: dict[str, Any] = json.loads(encoded)["files"]
    return [complaint for name, entry in files.items() if (complaint := _complaint(directory / name, entry))]


def _complaint(path: Path, entry: Any) -> str | None:
    expected = entry["sha256"] if isinstance(entry, dict) else entry
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return _("%(file)s is missing.") % {"file": path.name}
    return None if actual == expected else _("%(file)s was altered.") % {"file": path.name}
