"""Virtual environments of the libraries we measure ourselves against: made on first use, one for each, pinned."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent / ".peers"


def peer_python(*requirements: str) -> Path:
    """The interpreter of an environment that holds exactly these pinned packages and what they need."""
    digest = hashlib.sha256("\n".join([*requirements, sys.version]).encode()).hexdigest()[:8]
    folder = HERE / f"{requirements[0].replace('==', '-')}-{digest}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"making {folder.name} with {', '.join(requirements)}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        ready.touch()
    return python
