"""Seconds and memory of an export, by format: 100,000 pairs out of a SQLite database of their own.

    python -m benchmarks.exporting

Makes a database with 16,667 rankings of 4 (100,002 pairs) and one with a tenth of them, then writes each format in a
fresh process. Prints JSON: seconds, bytes, and by how many MB the process grew over what it held before the first row,
at its peak. Memory is flat where the whole costs as much as the tenth.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RANKINGS = 16_667  # of 4 completions without ties: 6 pairs each
SIZES = {"tenth": RANKINGS // 10, "whole": RANKINGS}
FORMATS = ("jsonl", "csv", "parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=2, metavar=("SIZE", "FORMAT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make()
    elif options.write:
        print(json.dumps(measured(*options.write)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(compared(Path(folder)), indent=1))


def compared(folder: Path) -> dict[str, Any]:
    from worker.machine import machine

    _call(folder, "--make")
    results = {
        format: {size: json.loads(_call(folder, "--write", size, format)) for size in SIZES} for format in FORMATS
    }
    return {"pairs": {size: 6 * count for size, count in SIZES.items()}, "formats": results, "machine": machine()}


def _call(folder: Path, *arguments: str) -> str:
    """In a process of its own, on the database in `folder`."""
    quiet = {"DATA_DIR": str(folder), "DATABASE_URL": "", "ENVIRONMENT": "embedded", "LOG_LEVEL": "ERROR"}
    command = [sys.executable, "-m", "benchmarks.exporting", *arguments]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **quiet}, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1] if done.stdout else ""


def make() -> None:
    """Projects `tenth` and `whole` in a new database."""
    _set_up()
    from django.core.management import call_command

    from labeling.models import Project, User
    from labeling.tests.rows import many_ranked

    call_command("migrate", verbosity=0)
    labeler = User.objects.create_user("labeler")
    for size, count in SIZES.items():
        project = Project.objects.create(name=size, slug=size, languages=["en"])
        many_ranked(project, labeler, count)


def measured(size: str, format: str) -> dict[str, Any]:
    _set_up()
    from django.conf import settings

    from labeling.models import Export, Project
    from worker import parquet  # so that the package's own memory is there before
    from worker.exporting import write_export

    assert parquet.TYPES
    export = Export(project=Project.objects.get(slug=size), kind="pairs", format=format)
    before, started = _memory("VmRSS"), time.monotonic()
    written = write_export(export, Path(settings.DATA_DIR) / f"{size}.{format}", lambda step, total: None)
    return {
        "seconds": round(time.monotonic() - started, 2),
        "rows": written.rows,
        "bytes": written.size,
        "peak_growth_mb": round(_memory("VmHWM") - before, 1),
    }


def _set_up() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
    import django

    django.setup()


def _memory(name: str) -> float:
    """MB (10^6 bytes) that this process holds (VmRSS), or held at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e6


if __name__ == "__main__":
    main()
