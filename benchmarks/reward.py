"""A step of the reward model on one ranking of 9 completions, against TRL's RewardTrainer on its 36 pairs.

    python -m benchmarks.reward            # 5 rounds of 3 minutes; with --minutes 5 call it until it is done

SmolLM2-135M in float32, a prompt of 64 tokens, responses of 32. The same weights and tokens, one optimizer step each;
the losses and gradient norms must be equal before a time counts. TRL runs as its default has it, with gradient
checkpointing, and without. Prints JSON.
"""

import json
import shutil
import sys
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from benchmarks.alternate import RESULTS, alternate, medians, options_of, sgemm_gflops, spread
from benchmarks.peers import peer_python
from benchmarks.starter import starter_and_judge
from modelzoo.allocator import keep_freed_memory
from modelzoo.batches import Example, seeded
from modelzoo.checkpoint import load_reward_model
from modelzoo.config import RewardConfig, build
from modelzoo.optimizer import adamw, clip_gradients
from modelzoo.rankings import Ranking
from modelzoo.run import owned, peak_memory_mb
from modelzoo.train_reward import add_ranking_gradient
from worker.machine import machine

PEER = ("trl==1.16.0", "transformers==5.23.0", "torch==2.13.0")
K, PROMPT, RESPONSE = 9, 64, 32
PAIRS_AT_ONCE = 6  # for TRL; all rows are of one length, so nothing is padded. Other sizes were not tried
GOAL = 14.0


def main() -> int:
    options = options_of(__doc__)
    if options.ours:
        print(json.dumps(our_step(options.ours)))
        return 0
    folder = RESULTS / "reward-model"
    if not folder.exists():
        prepare(folder)
    python, script = str(peer_python(*PEER)), str(Path(__file__).with_name("trl_reward.py"))
    peer = [python, script, str(folder / "reward"), str(folder / "pairs.json"), str(PAIRS_AT_ONCE)]
    arms = {
        "ours": [sys.executable, "-m", "benchmarks.reward", "--ours", str(folder)],
        "trl": peer,
        "trl, gradient checkpointing": [*peer, "--checkpointing"],
    }
    results = alternate("reward", arms, repeats=options.repeats, seconds=60 * options.minutes)
    report = compared(results)
    print(json.dumps(report, indent=1))
    return 0 if report["equal"] and min(report["times_faster"].values()) >= GOAL else 1


def ranking() -> Ranking:
    """Random words: what they say matters to no time. No ties, so all 36 pairs count."""
    ids = torch.randint(20, 49_000, (PROMPT + K * RESPONSE,), generator=seeded("benchmark")).tolist()
    rest = ids[PROMPT:]
    examples = [Example(ids[:PROMPT], rest[k * RESPONSE : (k + 1) * RESPONSE]) for k in range(K)]
    return Ranking(examples, [*range(1, K + 1)])


def prepare(folder: Path) -> None:
    """The starter policy with a random head, in a form that transformers opens, and the pairs as TRL takes them."""
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    starter_and_judge(unfinished)
    pairs = [
        {"chosen_ids": chosen.tokens, "rejected_ids": rejected.tokens}
        for chosen, rejected in combinations(ranking().examples, 2)
    ]
    (unfinished / "pairs.json").write_text(json.dumps(pairs))
    unfinished.rename(folder)


def our_step(folder: Path) -> dict[str, float]:
    """The median of five steps as `train_reward` makes them, after two that start threads, memory and Adam."""
    keep_freed_memory()
    limit = sgemm_gflops()
    reward_model, _, _ = load_reward_model(folder / "reward")
    owned(reward_model, torch.device("cpu")).requires_grad_(True)
    config = build(RewardConfig, {"learning_rate": 0.0})  # the same work, and every step starts from the same weights
    optimizer, rankings = adamw(reward_model, config), [ranking()]
    times = []
    for _ in range(7):
        started, cpu_started = time.perf_counter(), time.process_time()
        metrics = add_ranking_gradient(reward_model, rankings, config)
        grad_norm = clip_gradients(reward_model, config.max_grad_norm, "reward model")
        optimizer.step()
        optimizer.zero_grad()
        times.append((time.perf_counter() - started, time.process_time() - cpu_started))
    seconds, cpu_seconds = sorted(times[2:])[2]
    matrices = sum(weight.numel() for weight in reward_model.model.layers.parameters() if weight.dim() == 2)
    operations = 6 * matrices * (PROMPT + K * RESPONSE)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "loss": metrics["loss"],
        "grad_norm": grad_norm,
        "peak_memory_mb": peak_memory_mb(),
        "sgemm_gflops": limit,
        "share_of_limit": operations / seconds / 1e9 / limit,
    }


def compared(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    ours, peers = results["ours"], {arm: lines for arm, lines in results.items() if arm != "ours"}
    seconds = medians(results, "seconds")
    reference = ours[0]
    equal = all(
        abs(line[name] - reference[name]) < 1e-4 * abs(reference[name])
        for lines in results.values()
        for line in lines
        for name in ("loss", "grad_norm")
    )
    return {
        "machine": machine(),
        "peer": PEER,
        "equal": equal,
        "loss": {arm: lines[0]["loss"] for arm, lines in results.items()},
        "grad_norm": {arm: lines[0]["grad_norm"] for arm, lines in results.items()},
        "seconds": seconds,
        "times_faster": {arm: round(seconds[arm]["median"] / seconds["ours"]["median"], 2) for arm in peers},
        "peak_memory_mb": medians(results, "peak_memory_mb"),
        "sgemm_gflops": spread([line["sgemm_gflops"] for line in ours]),
        "share_of_limit": spread([line["share_of_limit"] for line in ours]),
    }


if __name__ == "__main__":
    sys.exit(main())
