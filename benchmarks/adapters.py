"""What LoRA saves on SmolLM2-135M: peak memory and time of a step of SFT, reward model and PPO, full and with adapters.

    python -m benchmarks.adapters           # 5 rounds of about 4 minutes; with --minutes 5 call it until it is done

Each is a run of `python -m modelzoo` in a process of its own, on Self-Instruct's seed tasks and expert instructions:
4 steps of 8 demonstrations, of 2 rankings of 8 completions, 2 rollouts of 16 responses of 32 tokens. Adapters have rank
16 in all layers. Prints JSON; the time is the median of the steps after the first.
"""

import argparse
import gzip
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.alternate import RESULTS, ROOT, alternate, spread
from benchmarks.human_preferences import DATA, MODEL_TIERS
from benchmarks.snapshots import write_snapshot
from benchmarks.starter import starter_and_judge
from worker.machine import machine

RANK = 16
STEPS = 4
SHARED = {"max_length": 160, "checkpoint_every": 1000, "learning_rate": 1e-5}
PARAMS: dict[str, dict[str, Any]] = {
    "sft": {**SHARED, "batch_size": 8, "micro_batch_size": 4, "epochs": 1},
    "reward": {**SHARED, "batch_size": 2, "micro_batch_size": 8, "epochs": 1},
    "ppo": {
        **SHARED,
        "episodes": 32,
        "batch_size": 16,
        "minibatch_size": 16,
        "micro_batch_size": 4,
        "max_new_tokens": 32,
    },
}
CHARACTERS = 300  # of an answer: short enough for every row to fit `max_length`


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60.0, help="stop before this; the next call goes on")
    parser.add_argument("--run", nargs=2, metavar=("STAGE", "RANK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = RESULTS / "adapters"
    if options.run:
        print(json.dumps(run(folder, options.run[0], int(options.run[1]))))
        return 0
    if not folder.exists():
        prepare(folder)
    command = [sys.executable, "-m", "benchmarks.adapters", "--run"]
    arms = {f"{stage} {rank}": [*command, stage, str(rank)] for stage in PARAMS for rank in (0, RANK)}
    results = alternate("adapters-runs", arms, repeats=options.repeats, seconds=60 * options.minutes, timed=False)
    report: dict[str, Any] = {"machine": machine(), "rank": RANK}
    for stage in PARAMS:
        full, adapters = results[f"{stage} 0"], results[f"{stage} {RANK}"]
        report[stage] = {
            name: {measure: spread([one[measure] for one in runs]) for measure in ("seconds", "peak_memory_mb")}
            for name, runs in (("full", full), ("adapters", adapters))
        }
    print(json.dumps(report, indent=1))
    return 0


def prepare(folder: Path) -> None:
    """The starter policy, a reward model with a random head, and a snapshot."""
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    starter_and_judge(unfinished)
    tasks = [json.loads(line) for line in (DATA / "seed_tasks.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [task for task in tasks if len(task["instruction"] + task["instances"][0]["input"]) < CHARACTERS]
    with gzip.open(DATA / "instructions_8_models.jsonl.gz", "rt", encoding="utf-8") as file:
        compared = [json.loads(line) for line in file]
    rows = {
        "demonstrations.jsonl": [
            _row(number, task["instruction"], task["instances"][0]["input"])
            | {"completion": task["instances"][0]["output"][:CHARACTERS]}
            for number, task in enumerate(asked[: STEPS * PARAMS["sft"]["batch_size"]])
        ],
        "rankings.jsonl": [
            _row(number, task["instruction"], task["input"][:CHARACTERS])
            | {
                "completions": [said["text"][:CHARACTERS] or "-" for said in task["completions"]],
                "finish_reasons": ["stop"] * len(task["completions"]),
                "tiers": [MODEL_TIERS[said["model"]] for said in task["completions"]],
            }
            for number, task in enumerate(compared[: STEPS * PARAMS["reward"]["batch_size"]])
        ],
        "prompts.jsonl": [_row(number, task["instruction"], "") for number, task in enumerate(asked[:32])],
    }
    write_snapshot(unfinished / "snapshot", rows)
    unfinished.rename(folder)


def _row(number: int, instruction: str, given: str) -> dict[str, Any]:
    content = f"{instruction}\n\n{given}".strip()
    return {
        "id": str(number),
        "split": "train",
        "language": "en",
        "messages": [{"role": "user", "content": content}],
    }


def run(folder: Path, stage: str, rank: int) -> dict[str, float]:
    """One run of the trainer, and what it says of itself."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    spec = {
        "snapshot": str(folder / "snapshot"),
        "policy": str(folder / "policy"),
        "reward_model": str(folder / "reward"),
        "params": {**PARAMS[stage], "lora_rank": rank},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "modelzoo", stage, "--spec", str(folder / "spec.json"), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{stage} failed:\n{done.stderr[-3000:]}")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    times = [line["seconds"] for line in lines if "grad_norm" in line]
    result = json.loads((out / "result.json").read_text())
    shutil.rmtree(out)
    return {
        "seconds": statistics.median(after - before for before, after in zip(times, times[1:], strict=False)),
        "peak_memory_mb": result["metrics"]["peak_memory_mb"],
    }


if __name__ == "__main__":
    sys.exit(main())
