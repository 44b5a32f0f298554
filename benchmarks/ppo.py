"""A rollout of PPO and its optimizer step, against trl 1.12's PPOTrainer, the last that TRL had.

    python -m benchmarks.ppo            # 5 rounds of 5 minutes; with --minutes 5 call it until it is done

SmolLM2-135M in float32, 16 prompts of 48 tokens, responses of 32 that no stop token ends, one epoch, one optimizer
step of policy and value model a rollout. The third rollout is timed: the first two claim the memory. First, on the
responses that TRL drew, our scores and our value loss must be TRL's. Neither keeps a moving average, which ours would
by default. Prints JSON.
"""

import json
import shutil
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.alternate import RESULTS, alternate, medians, options_of, sgemm_gflops, spread
from benchmarks.peers import peer_python
from benchmarks.starter import starter_and_judge
from modelzoo.allocator import keep_freed_memory
from modelzoo.batches import Example, seeded
from modelzoo.checkpoint import load_policy, load_reward_model
from modelzoo.config import PPOConfig, build
from modelzoo.prepare_ppo import sample
from modelzoo.progress import TrainingState
from modelzoo.rollout import Models, collect
from modelzoo.run import owned, peak_memory_mb
from modelzoo.train_ppo import add_value_gradient, ppo_state, train_ppo
from worker.machine import machine

PEER = ("trl==1.12.0", "transformers==5.23.0", "torch==2.13.0")
BATCH, PROMPT, RESPONSE = 16, 48, 32
GOAL = 1.6
PARAMS = {
    "episodes": 3 * BATCH,
    "batch_size": BATCH,
    "minibatch_size": BATCH,
    "micro_batch_size": BATCH,
    "max_new_tokens": RESPONSE,
    "missing_eos_penalty": 0.0,
    "ema_decay": 0.0,
    "warmup_steps": 0,
}


@dataclass
class Endless:
    """A vocabulary in which nothing ends a response."""

    pad_id: int
    end_of_turn_id: int
    stop_ids: tuple[int, ...] = ()

    def decode(self, ids: object) -> str:
        return ""


class Clock:
    """What `train_ppo` reports to, here with a note of the time."""

    def __init__(self, state: TrainingState) -> None:
        self.state, self.times, self.cpu_times = state, [time.perf_counter()], [time.process_time()]
        self.metrics: list[dict[str, float]] = []

    def log(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        raise SystemExit(message)

    def check_stop(self) -> None:
        pass

    def end_step(self, metrics: dict[str, float]) -> None:
        self.state.step += 1
        self.times.append(time.perf_counter())
        self.cpu_times.append(time.process_time())
        self.metrics.append(metrics)


def main() -> int:
    options = options_of(__doc__)
    if options.ours:
        print(json.dumps(our_rollouts(options.ours)))
        return 0
    folder = RESULTS / "ppo-models"
    if not folder.exists():
        prepare(folder)
    python, script = str(peer_python(*PEER)), str(Path(__file__).with_name("trl_ppo.py"))
    inputs = [str(folder / name) for name in ("policy", "reward", "prompts.json")]
    arms = {
        "ours": [sys.executable, "-m", "benchmarks.ppo", "--ours", str(folder)],
        "trl": [python, script, *inputs, str(RESPONSE)],
    }
    results = alternate("ppo", arms, repeats=options.repeats, seconds=60 * options.minutes)
    report = compared(folder, results)
    print(json.dumps(report, indent=1))
    return 0 if report["equal"] and report["times_faster"] >= GOAL else 1


def prepare(folder: Path) -> None:
    """The starter policy, a reward model on the same trunk with a random head, and prompts of random words."""
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    starter_and_judge(unfinished)
    prompts = torch.randint(20, 49_000, (BATCH, PROMPT), generator=seeded("benchmark")).tolist()
    (unfinished / "prompts.json").write_text(json.dumps(prompts))
    unfinished.rename(folder)


def load(folder: Path) -> tuple[Models, list[list[int]]]:
    device = torch.device("cpu")
    policy, tokenizer, _ = load_policy(folder / "policy")
    policy = owned(policy, device)
    reference = owned(load_policy(folder / "policy")[0], device).requires_grad_(False)
    reward = owned(load_reward_model(folder / "reward")[0], device).requires_grad_(False)
    value = owned(load_reward_model(folder / "reward")[0], device).requires_grad_(True)
    vocabulary = Endless(tokenizer.pad_id, tokenizer.end_of_turn_id)
    return Models(policy, reference, reward, value, vocabulary), json.loads((folder / "prompts.json").read_text())


def our_rollouts(folder: Path) -> dict[str, Any]:
    keep_freed_memory()
    limit = sgemm_gflops()
    models, prompts = load(folder)
    config = build(PPOConfig, PARAMS)
    state = ppo_state(models, config)
    clock = Clock(state)
    speak = partial(sample, models, config, should_stop=lambda: False)
    train_ppo(models, state, prompts, config, sample=speak, run=clock)
    return {
        "seconds": clock.times[-1] - clock.times[-2],
        "cpu_seconds": clock.cpu_times[-1] - clock.cpu_times[-2],
        "rollouts": [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)],
        "kl": clock.metrics[0]["kl"],
        "ratio": clock.metrics[0]["ratio"],
        "response_length": clock.metrics[-1]["response_length"],
        "peak_memory_mb": peak_memory_mb(),
        "sgemm_gflops": limit,
    }


def scored_like_trl(folder: Path, rollout: list[list[int]]) -> dict[str, float]:
    """Score and value loss of responses that TRL drew, by our functions."""
    models, _ = load(folder)
    config = build(PPOConfig, PARAMS)
    examples = [Example(row[:PROMPT], row[PROMPT:]) for row in rollout]
    collected, kept = collect(models, examples, [False] * len(examples), config, config.kl_coef)
    loss = add_value_gradient(models, collected, list(range(len(examples))), config, kept)
    return {"score": collected.scores.mean().item(), "value_loss": loss}


def compared(folder: Path, results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    theirs = results["trl"][0]
    ours = scored_like_trl(folder, theirs["first_responses"])
    equal = all(abs(ours[name] - theirs[name]) < 1e-3 * abs(theirs[name]) for name in ours)
    seconds = medians(results, "seconds")
    limit = spread([line["sgemm_gflops"] for line in results["ours"]])
    return {
        "machine": machine(),
        "peer": PEER,
        "equal": equal,
        "same responses": {"ours": ours, "trl": {name: theirs[name] for name in ours}},
        "first kl": {"ours": results["ours"][0]["kl"], "trl": theirs["kl"]},
        "seconds": seconds,
        "episodes_per_second": {arm: round(BATCH / value["median"], 3) for arm, value in seconds.items()},
        "times_faster": round(seconds["trl"]["median"] / seconds["ours"]["median"], 2),
        "peak_memory_mb": medians(results, "peak_memory_mb"),
        "sgemm_gflops": limit,
        "share_of_limit": round(operations(folder) / seconds["ours"]["median"] / 1e9 / limit["median"], 3),
    }


def operations(folder: Path) -> float:
    """Multiplications and additions in the matrix products that a rollout cannot do without.

    Each token goes forward through four models and sampling, backward through two (twice the work of forward); the head
    is needed once to sample, once for policy and reference each, and back through the policy.
    """
    policy, _, _ = load_policy(folder / "policy")
    trunk = sum(weight.numel() for weight in policy.model.layers.parameters() if weight.dim() == 2)
    head = policy.model.embed_tokens.weight.numel()
    tokens, said = BATCH * (PROMPT + RESPONSE), BATCH * RESPONSE
    return 2.0 * (tokens * trunk * (5 + 2 * 2) + said * head * (3 + 2))


if __name__ == "__main__":
    sys.exit(main())
