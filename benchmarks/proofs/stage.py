"""Running a trainer inside a proof: the code behind `python -m modelzoo`, in this process, its log in a file."""

import hashlib
import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from torch import nn

from modelzoo.__main__ import main
from modelzoo.config import PPOConfig
from modelzoo.prepare_ppo import ppo
from modelzoo.run import Run
from modelzoo.spec import load_spec

Row = dict[str, Any]
Models = Mapping[str, nn.Module]
Watch = Callable[[int, Models], dict[str, float]]
"""Measures the models of a run (`policy`, `value`, `average`) after a step, whose number it is told."""


class ProofError(Exception):
    """A trainer did not succeed; the text is the end of its log."""


def train(stage: str, out: Path, params: Mapping[str, Any], **inputs: Any) -> list[Row]:
    """One run of a stage to its end; returns the lines of metrics.jsonl."""
    spec = _spec(stage, out, params, inputs)
    with log_of(out).open("w", encoding="utf-8") as log, redirect_stderr(log):
        code = main([stage, "--spec", str(spec), "--out", str(out)])
    if code:
        raise ProofError(f"{stage} ended with exit code {code}:\n{log_of(out).read_text(encoding='utf-8')[-2000:]}")
    return metrics_of(out)


class WatchedRun(Run[PPOConfig]):
    """A PPO run whose models are measured after each step; what is found stands beside the run's own metrics.

    Those describe the rollout, so they are of the policy as it was before the step; `watch` sees it after.
    """

    watch: Watch

    def end_step(self, metrics: dict[str, float]) -> None:
        state = self._running()
        super().end_step(metrics | self.watch(state.step + 1, state.models))


def train_ppo_watched(out: Path, params: Mapping[str, Any], watch: Watch, **inputs: Any) -> list[Row]:
    """`train("ppo", ...)`, measured by `watch` after each step."""
    spec = _spec("ppo", out, params, inputs)
    out.mkdir(parents=True)
    with log_of(out).open("w", encoding="utf-8") as log, redirect_stderr(log):
        run = WatchedRun(load_spec(spec, "ppo", PPOConfig), out)
        run.watch = watch
        try:
            ppo(run)
        except Exception as error:
            traceback.print_exc()
            raise ProofError(f"PPO in {out}: {error}") from error
    return metrics_of(out)


def metrics_of(out: Path) -> list[Row]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def log_of(out: Path) -> Path:
    return out.with_suffix(".log")


def _spec(stage: str, out: Path, params: Mapping[str, Any], inputs: Mapping[str, Any]) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    paths = {name: str(value) if isinstance(value, Path) else value for name, value in inputs.items()}
    path = out.with_suffix(".json")
    path.write_text(json.dumps({"stage": stage, "params": dict(params), **paths}), encoding="utf-8")
    return path


def write_snapshot(directory: Path, **rows: Sequence[Row]) -> Path:
    """A snapshot as the site freezes it: `write_snapshot(folder, prompts=[...], rankings=[...])`."""
    directory.mkdir(parents=True)
    files = {}
    for name, content in rows.items():
        data = "".join(json.dumps(row) + "\n" for row in content).encode()
        (directory / f"{name}.jsonl").write_bytes(data)
        files[f"{name}.jsonl"] = {"sha256": hashlib.sha256(data).hexdigest(), "rows": len(content)}
    manifest = {"format": 1, "kind": "snapshot", "project": "proofs", "counts": {}, "files": files}
    (directory / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return directory
