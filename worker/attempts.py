"""What stands in the folder of one attempt at a training run. Formats: `docs/files.md`."""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf.models import Metric, TrainingRun

MOST_BYTES = 1 << 20  # of metrics in one transaction: others wait to write meanwhile
NOT_CURVES = ("step", "total", "seconds")


class MetricsTail:
    """Reads what was appended to metrics.jsonl; what was read is only done with after `keep`."""

    def __init__(self, path: Path) -> None:
        self._path, self._kept, self._read = path, 0, 0

    def read(self) -> list[dict[str, Any]]:
        """Whole new lines, parsed; an empty list while there is nothing new."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._kept)
                text = file.read(MOST_BYTES)
        except FileNotFoundError:
            return []
        text = text[: text.rfind(b"\n") + 1]
        self._read = self._kept + len(text)
        return [row for line in text.splitlines() if (row := _parsed(line)) and "step" in row]

    def keep(self) -> bool:
        """Be done with what was read last. Returns whether that was anything."""
        moved, self._kept = self._read > self._kept, self._read
        return moved


def metrics_of(run: TrainingRun, rows: list[dict[str, Any]]) -> Iterator[Metric]:
    for row in rows:
        for name, value in finite(row).items():
            if name not in NOT_CURVES:
                yield Metric(run=run, step=row["step"], name=name, value=value)


def finite(metrics: dict[str, Any]) -> dict[str, float]:
    """Those that are numbers a database can hold."""
    return {name: value for name, value in metrics.items() if isinstance(value, int | float) and math.isfinite(value)}


def read_result(folder: Path) -> dict[str, Any]:
    """result.json, or an empty dict where the trainer died before it wrote one."""
    return _read_json(folder / "result.json")


def same_work(folder: Path, spec: dict[str, Any]) -> bool:
    """Whether an attempt was at the very run that `spec` describes, and not at one of a database since deleted."""
    before = _read_json(folder / "spec.json")
    return {**before, "resume_from": None} == {**spec, "resume_from": None}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path.read_bytes())
    except OSError:
        return {}


def _parsed(text: bytes) -> dict[str, Any]:
    """An object, or an empty one where a full disk cut it short."""
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def log_tail(path: Path, lines: int) -> str:
    """The last lines of a log, without empty ones."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


def identity(checkpoint: Path) -> str:
    """A checkpoint's identity is the SHA-256 of its manifest."""
    return hashlib.sha256((checkpoint / "manifest.json").read_bytes()).hexdigest()


def free_space_needed(run: TrainingRun) -> int:
    """Bytes for one step checkpoint (weights and Adam's two moments) and the finished model; the trainer knows better.

    PPO trains a policy and a value model.
    """
    weights = run.inputs()[0].path / "model.safetensors"
    size = weights.stat().st_size if weights.is_file() else 0
    trained = 2 * size if run.stage == TrainingRun.Stage.PPO else size
    return 3 * trained + size + (50 << 20)
