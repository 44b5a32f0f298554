"""Seconds and memory of an SFT, a reward-model and a PPO run on SmolLM2-135M with 16 rankings of 4 completions.

    python -m benchmarks.runs > runs.json

The completions are sampled from the model itself; who wins is drawn at random, which costs the trainers the same.
Prints JSON with the machine. Fails unless PPO's KL starts at exactly 0 and its ratio at exactly 1.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.snapshots import write_snapshot
from modelzoo.config import SamplingConfig
from modelzoo.generate import PromptError
from modelzoo.import_model import import_model
from modelzoo.sampler import Sampler
from worker.machine import machine

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = ROOT / "labeling" / "starter" / "prompts.en.jsonl"
RANKINGS, K = 16, 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=64, help="longest completion")
    parser.add_argument("--episodes", type=int, default=32, help="completions that PPO learns from, in two steps")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nanochatgpt-runs-") as folder:
        report = measure(Path(folder), options.tokens, options.episodes)
    print(json.dumps(report, indent=1))
    ppo = report["runs"]["ppo"]
    return 0 if ppo["first_kl"] == 0 and ppo["first_ratio"] == 1 else 1


def measure(folder: Path, tokens: int, episodes: int) -> dict[str, Any]:
    policy = folder / "smollm2"
    seconds = {"import": timed(lambda: import_model("starter", policy, languages=["en"]))}
    snapshot = folder / "snapshot"
    seconds["sample"] = timed(lambda: sampled_snapshot(policy, snapshot, tokens))
    common = {"snapshot": str(snapshot), "policy": str(policy), "languages": ["en"]}
    runs = {stage: run(folder, stage, {}, **common) for stage in ("sft", "reward")}
    half = episodes // 2  # one optimizer step a rollout, so that the first ratio is that of untouched weights
    params = {"episodes": episodes, "batch_size": half, "minibatch_size": half, "max_new_tokens": tokens}
    runs["ppo"] = run(folder, "ppo", params, reward_model=str(folder / "reward" / "model"), **common)
    return {"machine": machine(), "rankings": RANKINGS, "k": K, "tokens": tokens, "seconds": seconds, "runs": runs}


def timed(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return round(time.monotonic() - started, 1)


def sampled_snapshot(policy: Path, directory: Path, tokens: int) -> None:
    """16 starter prompts, 4 completions of each in a random order of merit, the first also as a demonstration."""
    rows = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()][:RANKINGS]
    sampling = SamplingConfig(max_new_tokens=tokens, top_p=0.95)
    results = Sampler.load(policy).sample([row["messages"] for row in rows], K, sampling, seeds=range(len(rows)))
    chance = random.Random(0)
    files: dict[str, list[dict[str, Any]]] = {"prompts.jsonl": [], "rankings.jsonl": [], "demonstrations.jsonl": []}
    for row, samples in zip(rows, results, strict=True):
        if isinstance(samples, PromptError):
            raise samples
        prompt = {"split": "train", "language": "en", "messages": row["messages"]}
        files["prompts.jsonl"].append({"id": row["key"], **prompt})
        said = {"completions": [s.text for s in samples], "finish_reasons": [s.finish_reason for s in samples]}
        tiers = chance.sample(range(1, K + 1), K)
        files["rankings.jsonl"].append({"id": row["key"], **prompt, **said, "tiers": tiers})
        files["demonstrations.jsonl"].append({"id": row["key"], **prompt, "completion": samples[0].text})
    write_snapshot(directory, files)


def run(folder: Path, stage: str, params: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    """One trainer in a process of its own, as the worker starts it, and what it says of itself."""
    spec, out = folder / f"{stage}.json", folder / stage
    spec.write_text(json.dumps({"stage": stage, "params": params, **inputs}))
    command = [sys.executable, "-m", "modelzoo", stage, "--spec", str(spec), "--out", str(out)]
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wall = round(time.monotonic() - started, 1)
    if done.returncode:
        raise SystemExit(f"{stage} ended with exit code {done.returncode}:\n{done.stderr[-3000:]}")
    result = json.loads((out / "result.json").read_text())
    report = {
        "seconds": wall,
        "training_seconds": result["metrics"]["seconds"],
        "peak_memory_mb": result["metrics"]["peak_memory_mb"],
        "steps": result["total"],
        "warnings": result["warnings"],
    }
    if stage == "ppo":
        first = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
        report |= {"episodes": params["episodes"], "first_kl": first["kl"], "first_ratio": first["ratio"]}
    return report


if __name__ == "__main__":
    sys.exit(main())
