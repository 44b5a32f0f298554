"""Does adversarial training make a Korean reward model sturdier? Pair accuracy on texts with slips, 5 seeds.

    python -m benchmarks.adversarial       # a run on each core; interrupted, it continues when called again

A small Korean language model is trained from scratch on songys' questions and answers, which their author sorted into
daily life, parting and love. For each seed, a ranking is a question with its own answer above three answers to
questions of the other sorts. Reward models learn from them plainly and with each
kind of adversarial training, through `python -m modelzoo reward`, and judge the same held-out rankings as they are and
with typing errors, wrong spaces and wrong particles (benchmarks/korean_noise.py) in question and answers. Prints JSON:
accuracies, and their differences to plain training, each a mean over seeds with a 95% t-interval of the paired seeds.
"""

import argparse
import csv
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.alternate import CORES, RESULTS, ROOT
from benchmarks.korean_noise import NOISES
from benchmarks.snapshots import write_snapshot
from modelzoo.checkpoint import load_reward_model
from modelzoo.data import encode_rankings
from modelzoo.dialogues import Dialogue, read_dialogues
from modelzoo.rankings import pair_accuracy
from modelzoo.shared_prefix import shared_scores
from worker.machine import machine

CSV = ROOT.parent / "shared" / "data" / "chatbot_ko.csv"
SEEDS = 5
RANKINGS, HELDOUT, WRONG = 6000, 571, 3  # held out is every dialogue of that side
T95 = 2.776  # of Student's t with SEEDS - 1 degrees of freedom
PRETRAIN = {
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_length": 128,
    "batch_size": 8,
    "micro_batch_size": 8,
    "epochs": 4,
    "learning_rate": 2e-3,
}
REWARD = {"max_length": 128, "batch_size": 16, "micro_batch_size": 64, "epochs": 3, "learning_rate": 1e-3}
EPSILON = 0.01  # chosen on a seed that is not reported; a sequence's embeddings have a norm of some 3
ARMS: dict[str, dict[str, Any]] = {
    "none": {},
    "freelb": {"adversarial": "freelb", "adversarial_epsilon": EPSILON},
    "fgm": {"adversarial": "fgm", "adversarial_epsilon": EPSILON},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=CORES, help="runs at once (default: cores)")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of each run: they go side by side
    torch.set_num_threads(1)
    folder = RESULTS / "adversarial"
    if not folder.exists():
        prepare(folder)
    names = [(arm, seed) for seed in range(SEEDS) for arm in ARMS]
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(lambda name: finished(folder, *name), names))
    print(json.dumps(compared(dict(zip(names, outcomes, strict=True))), indent=1))
    return 0


def finished(folder: Path, arm: str, seed: int) -> dict[str, Any]:
    """What a run found, kept in a file."""
    path = folder / f"{arm}-{seed}.json"
    if not path.exists():
        path.write_text(json.dumps(run(folder, arm, seed)))
        print(f"{arm}, seed {seed}: {path.read_text()}", file=sys.stderr, flush=True)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def prepare(folder: Path) -> None:
    """A tokenizer and a small Korean language model from scratch."""
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    data, tokenizer = unfinished / "data", unfinished / "tokenizer"
    modelzoo("dialogues", str(CSV), str(data), "--prompt", "Q", "--response", "A", "--language", "ko")
    columns = ["--column", "prompt", "--column", "response"]
    modelzoo("tokenizer", str(tokenizer), "--text", str(data / "train.csv"), *columns, "--vocab-size", "4000")
    inputs = {"corpus": str(data / "corpus.jsonl"), "tokenizer": str(tokenizer), "languages": ["ko"]}
    train(unfinished / "base", "pretrain", PRETRAIN, **inputs)
    unfinished.rename(folder)


def run(folder: Path, arm: str, seed: int) -> dict[str, Any]:
    """Train one reward model and let it judge the held-out rankings, clean and noisy."""
    rankings = ranked(seed)
    work = folder / f"{arm}-{seed}"
    shutil.rmtree(work, ignore_errors=True)
    write_snapshot(work / "snapshot", {"rankings.jsonl": rankings, "demonstrations.jsonl": []})
    started = time.monotonic()
    inputs = {"snapshot": str(work / "snapshot"), "policy": str(folder / "base" / "model"), "languages": ["ko"]}
    train(work / "reward", "reward", {**REWARD, **ARMS[arm], "seed": seed}, **inputs)
    seconds = time.monotonic() - started
    heldout = [row for row in rankings if row["split"] == "heldout"]
    accuracies = judged(work / "reward" / "model", heldout, seed)
    shutil.rmtree(work)
    return {"seconds": round(seconds, 1), **accuracies}


def ranked(seed: int) -> list[dict[str, Any]]:
    """Rankings of a question's own answer above answers to other sorts of questions of its side of the split."""
    dialogues = read_dialogues(CSV, prompt="Q", response="A")
    with CSV.open(encoding="utf-8-sig", newline="") as file:
        sort_of = {(row["Q"].strip(), row["A"].strip()): row["label"].strip() for row in csv.DictReader(file)}
    chance = random.Random(seed)
    rows = []
    for split, count in (("train", RANKINGS), ("heldout", HELDOUT)):
        side = [dialogue for dialogue in dialogues if dialogue.is_heldout == (split == "heldout")]
        answers: dict[str, list[str]] = {}
        for dialogue in side:
            answers.setdefault(sort_of[dialogue.prompt, dialogue.response], []).append(dialogue.response)
        for number, dialogue in enumerate(chance.sample(side, count)):
            own = sort_of[dialogue.prompt, dialogue.response]
            others = [answer for sort, of in sorted(answers.items()) if sort != own for answer in of]
            rows.append(_ranking(f"{split}-{number}", split, dialogue, others, chance))
    return rows


def _ranking(name: str, split: str, dialogue: Dialogue, others: Sequence[str], chance: random.Random) -> dict[str, Any]:
    wrong: list[str] = []
    while len(wrong) < WRONG:
        answer = chance.choice(others)
        if answer not in (dialogue.response, *wrong):
            wrong.append(answer)
    return {
        "id": name,
        "split": split,
        "language": "ko",
        "messages": dialogue.messages,
        "completions": [dialogue.response, *wrong],
        "finish_reasons": ["stop"] * (1 + WRONG),
        "tiers": [1] + [2] * WRONG,
    }


@torch.no_grad()
def judged(model: Path, rows: Sequence[dict[str, Any]], seed: int) -> dict[str, float]:
    """Pair accuracy on the rankings as they are and under each noise, which is the same for every arm."""
    reward_model, tokenizer, _ = load_reward_model(model)
    accuracies = {}
    for name, noise in {"clean": lambda text, chance: text, **NOISES}.items():
        chance = random.Random(f"{name}/{seed}")
        noisy = [
            {
                **row,
                "messages": [{**turn, "content": noise(turn["content"], chance)} for turn in row["messages"]],
                "completions": [noise(text, chance) for text in row["completions"]],
            }
            for row in rows
        ]
        right, pairs = 0.0, 0
        for ranking in encode_rankings(noisy, tokenizer, 128, ties="drop")[0]:
            (scores,) = shared_scores(reward_model, [ranking.examples])
            won, of = pair_accuracy(scores, torch.tensor(ranking.tiers))
            right, pairs = right + won, pairs + of
        accuracies[name] = right / pairs
    return accuracies


def compared(results: dict[tuple[str, int], dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and the paired differences to plain training in points."""
    report: dict[str, Any] = {"machine": machine(), "rankings": RANKINGS, "held out": HELDOUT, "seeds": SEEDS}
    for arm in ARMS:
        of = [results[arm, seed] for seed in range(SEEDS)]
        plain = [results["none", seed] for seed in range(SEEDS)]
        report[arm] = {
            "seconds": statistics.median(one["seconds"] for one in of),
            **{name: _mean([100 * one[name] for one in of]) for name in ("clean", *NOISES)},
        }
        if arm != "none":
            report[arm]["more than none"] = {
                name: _mean([100 * (one[name] - base[name]) for one, base in zip(of, plain, strict=True)])
                for name in ("clean", *NOISES)
            }
    return report


def _mean(values: Sequence[float]) -> str:
    half = T95 * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.1f} ± {half:.1f}"


def train(out: Path, stage: str, params: dict[str, Any], **inputs: Any) -> None:
    spec = out.with_suffix(".json")
    spec.write_text(json.dumps({"stage": stage, "params": params, **inputs}))
    modelzoo(stage, "--spec", str(spec), "--out", str(out))


def modelzoo(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "modelzoo", *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{arguments[0]} failed:\n{done.stderr[-3000:]}")


if __name__ == "__main__":
    sys.exit(main())
