"""Measurements that take turns, each in a process of its own, the same number of threads for all."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / ".results"
UNFINISHED = 3  # exit code: call again to go on
CORES = len(os.sched_getaffinity(0))
UNDISTURBED = 0.8  # of the cores' time, for the process that is measured; a run with less is done again


def alternate(
    name: str, arms: Mapping[str, Sequence[str]], *, repeats: int, seconds: float, timed: bool = True
) -> dict[str, list[dict[str, Any]]]:
    """Run the commands in turn, `repeats` times each, and return what they printed last: a line of JSON.

    Where it is `timed` it has `seconds` and the `cpu_seconds` of all threads in the same time; where other programs
    took the cores, the run does not count. Each result is kept in benchmarks/.results/NAME.jsonl. Where the next run
    would likely end after `seconds`, the process exits with UNFINISHED, and another call goes on from there.
    """
    RESULTS.mkdir(exist_ok=True)
    path, started = RESULTS / f"{name}.jsonl", time.monotonic()
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for repeat in range(repeats):
        for arm, command in arms.items():
            while len(done := [line for line in lines if line["arm"] == arm]) <= repeat:
                expected = max((line["wall"] for line in done), default=0.0)
                if time.monotonic() - started + expected > seconds:
                    print(f"{len(lines)} of {repeats * len(arms)} runs are done: call this again", file=sys.stderr)
                    sys.exit(UNFINISHED)
                line = {"arm": arm, **_run(command)}
                busy = line["cpu_seconds"] / line["seconds"] / CORES if timed else 1.0
                print(f"{json.dumps(line)} {busy:.0%} of the cores", file=sys.stderr, flush=True)
                if busy >= UNDISTURBED:
                    lines.append(line)
                    with path.open("a") as file:
                        file.write(json.dumps(line) + "\n")
    return {arm: [line for line in lines if line["arm"] == arm][:repeats] for arm in arms}


def _run(command: Sequence[str]) -> dict[str, Any]:
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
    started = time.monotonic()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **quiet, "OMP_NUM_THREADS": str(CORES), "MKL_NUM_THREADS": str(CORES)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result | {"wall": round(time.monotonic() - started, 1)}


def options_of(description: str | None) -> argparse.Namespace:
    """What every comparison can be told; with --ours FOLDER it is one of its own measurements."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60.0, help="stop before this; the next call goes on")
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def medians(results: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> dict[str, dict[str, float]]:
    """The spread of one figure in each arm."""
    return {arm: spread([line[name] for line in lines]) for arm, lines in results.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most of repeated measurements."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def sgemm_gflops(size: int = 2048, repeats: int = 5) -> float:
    """What this machine does of float32 matrix products, in 10^9 operations a second: the best of some."""
    left, right = torch.rand(size, size), torch.rand(size, size)
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds[1:]) / 1e9
