"""A reward model from SmolLM2-135M on what people, or models of known rank, preferred; measured on held-out prompts.

    python -m benchmarks.human_preferences harmless                # HH-RLHF harmless: 500 dialogues, 300 held out
    python -m benchmarks.human_preferences instructions            # 8 models on 160 instructions: 110, 50 held out

Everything goes through a snapshot and `python -m modelzoo reward`, as on the site. Prints JSON: the share of held-out
pairs in their order, and what knowing only the lengths would give, each with a 95% interval over prompts (bootstrap).
Interrupted, it continues when called again.
"""

import argparse
import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.alternate import RESULTS, ROOT
from benchmarks.snapshots import write_snapshot
from modelzoo.batches import epoch_order, seeded
from modelzoo.checkpoint import load_policy, load_reward_model
from modelzoo.data import Snapshot, encode_rankings
from modelzoo.import_model import import_model
from modelzoo.rankings import Ranking, pair_accuracy
from modelzoo.shared_prefix import shared_scores
from modelzoo.tokenizer import Tokenizer
from worker.machine import machine

DATA = ROOT.parent / "shared" / "data"
RESAMPLES = 10_000
LONGEST_RESPONSE = 128  # tokens; a longer one is cut there, as sampling would have, and counts as unfinished

# What is known of the models, not of each answer (Self-Instruct, 2212.10560: its human evaluation): each later engine
# of InstructGPT is the stronger one; GPT-3 tuned on generated instructions is a little behind the first of them, far
# before GPT-3 tuned on public datasets alone; plain GPT-3 follows instructions worst. Two tuned alike share a tier.
MODEL_TIERS = {
    "text-davinci-003": 1,
    "text-davinci-002": 2,
    "text-davinci-001": 3,
    "davinci-self-instruct-and-superni-ft": 4,
    "davinci-self-instruct": 4,
    "davinci-superni-ft": 5,
    "davinci-t0-ft": 5,
    "davinci": 6,
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Source:
    file: str
    ranked: Callable[[Row, Tokenizer], Row | None]  # a ranking's messages, completions and tiers; None: unusable
    train: int
    heldout: int
    params: dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=SOURCES)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data files")
    options = parser.parse_args()
    source, folder = SOURCES[options.source], RESULTS / options.source
    policy, snapshot = RESULTS / "starter", folder / "snapshot"
    if not policy.exists():
        import_model("starter", policy, languages=["en"])
    _, tokenizer, _ = load_policy(policy)
    if not snapshot.exists():
        rankings = rankings_of(source, options.data / source.file, tokenizer)
        write_snapshot(snapshot, {"rankings.jsonl": rankings, "demonstrations.jsonl": [], "prompts.jsonl": []})
    if not (folder / "run" / "model").exists():
        train(folder, snapshot, policy, source.params)
    print(json.dumps(measured(folder, snapshot, tokenizer, source), indent=1))
    return 0


def rankings_of(source: Source, path: Path, tokenizer: Tokenizer) -> list[Row]:
    """As many rankings as the source wants, in an order drawn once; no prompt is in both splits."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rankings: dict[str, Row] = {}
    for number in epoch_order(len(rows), seed=0, epoch=0):
        ranked = source.ranked(rows[number], tokenizer)
        if ranked and len(rankings) < source.train + source.heldout:
            split = "train" if len(rankings) < source.train else "heldout"
            key = json.dumps(ranked["messages"])
            rankings.setdefault(key, {"id": str(number), "split": split, "language": "en", **ranked})
    return list(rankings.values())


def harmless(row: Row, tokenizer: Tokenizer) -> Row | None:
    """Two answers of an assistant to one dialogue; the order in which they stand is drawn."""
    (messages, chosen), (others, rejected) = map(dialogue, (row["chosen"], row["rejected"]))
    if messages != others or not chosen or not rejected or chosen == rejected:
        return None
    completions, tiers = [chosen, rejected], [1, 2]
    if torch.rand((), generator=seeded(chosen, rejected)) < 0.5:
        completions, tiers = completions[::-1], tiers[::-1]
    ranked = {"messages": messages, "completions": completions, "finish_reasons": ["stop"] * 2, "tiers": tiers}
    prompt = tokenizer.encode_chat(messages)
    return ranked if len(prompt) + max(len(tokenizer.encode(text)) for text in completions) < 256 else None


def dialogue(text: str) -> tuple[list[dict[str, str]], str]:
    """HH's transcript as messages, and the assistant's last words."""
    turns = text.strip().replace("\n\nAssistant:", "\n\nHuman:").removeprefix("Human:").split("\n\nHuman:")
    *messages, last = [
        {"role": "assistant" if place % 2 else "user", "content": turn.strip()} for place, turn in enumerate(turns)
    ]
    return messages, last["content"]


def instructions(row: Row, tokenizer: Tokenizer) -> Row | None:
    """What eight models answered to one instruction, in the tiers of the models, whatever each one said."""
    said = [(MODEL_TIERS[one["model"]], one["text"].strip()) for one in row["completions"] if one["text"].strip()]
    cut = [(tier, tokenizer.encode(text)[: LONGEST_RESPONSE + 1]) for tier, text in said]
    content = "\n\n".join(filter(None, (row["instruction"].strip(), row["input"].strip())))
    return {
        "messages": [{"role": "user", "content": content}],
        "completions": [tokenizer.decode(tokens[:LONGEST_RESPONSE]) for _, tokens in cut],
        "finish_reasons": ["length" if len(tokens) > LONGEST_RESPONSE else "stop" for _, tokens in cut],
        "tiers": [tier for tier, _ in cut],
    }


SHARED = {"learning_rate": 2e-5, "batch_size": 8, "micro_batch_size": 16, "checkpoint_every": 1000}
SOURCES = {
    "harmless": Source("hh_harmless.jsonl.gz", harmless, 500, 300, {**SHARED, "max_length": 256}),
    "instructions": Source("instructions_8_models.jsonl.gz", instructions, 110, 50, {**SHARED, "max_length": 512}),
}


def train(folder: Path, snapshot: Path, policy: Path, params: dict[str, Any]) -> None:
    spec = folder / "spec.json"
    spec.write_text(json.dumps({"snapshot": str(snapshot), "policy": str(policy), "params": params}))
    command = [sys.executable, "-m", "modelzoo", "reward", "--spec", str(spec), "--out", str(folder / "run")]
    done = subprocess.run(command, cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.returncode)


@torch.no_grad()
def measured(folder: Path, snapshot: Path, tokenizer: Tokenizer, source: Source) -> dict[str, Any]:
    reward_model, _, _ = load_reward_model(folder / "run" / "model")
    longest = source.params["max_length"]
    rankings = {}
    for split in ("train", "heldout"):
        rows = Snapshot.open(snapshot).rows("rankings.jsonl", split=split, languages=None)
        rankings[split], left_out = encode_rankings(rows, tokenizer, longest, ties="drop")
    heldout = rankings["heldout"]
    sign = 1.0 if share(rights(rankings["train"], lengths)) >= 0.5 else -1.0  # longer or shorter, as people chose
    model = rights(heldout, lambda ranking: shared_scores(reward_model, [ranking.examples])[0])
    baseline = rights(heldout, lambda ranking: sign * lengths(ranking))
    result = json.loads((folder / "run" / "result.json").read_text())
    return {
        "machine": machine(),
        "rankings": {split: len(found) for split, found in rankings.items()},
        "heldout_pairs": int(model[:, 1].sum()),
        "left_out": dict(left_out),
        "params": source.params,
        "seconds": result["metrics"]["seconds"],
        "peak_memory_mb": result["metrics"]["peak_memory_mb"],
        "accuracy": interval(share, model),
        "length_only": {"prefers": "longer" if sign > 0 else "shorter", **interval(share, baseline)},
        "more_than_length_only": interval(gain, torch.cat([model, baseline], 1)),
    }


def lengths(ranking: Ranking) -> torch.Tensor:
    return torch.tensor([float(len(example.response)) for example in ranking.examples])


def rights(rankings: list[Ranking], scores: Callable[[Ranking], torch.Tensor]) -> torch.Tensor:
    """(prompts, 2): how many untied pairs of each prompt are in their order, and of how many."""
    return torch.tensor([pair_accuracy(scores(ranking), torch.tensor(ranking.tiers)) for ranking in rankings])


def share(counts: torch.Tensor) -> Any:
    """Pairs in their order, as a share of all pairs: (..., prompts, 2) -> (...)."""
    right, pairs = counts.double().sum(-2).unbind(-1)
    return right / pairs


def gain(both: torch.Tensor) -> Any:
    """The model's share less the baseline's, of the same prompts: (..., prompts, 4) -> (...)."""
    return share(both[..., :2]) - share(both[..., 2:])


def interval(statistic: Callable[[torch.Tensor], Any], counts: torch.Tensor) -> dict[str, float]:
    """The statistic, with the middle 95% of what it is on prompts drawn anew with replacement."""
    prompts = len(counts)
    drawn = torch.randint(0, prompts, (RESAMPLES, prompts), generator=seeded("bootstrap"))
    low, high = torch.quantile(statistic(counts[drawn]), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"value": round(float(statistic(counts)), 4), "low": round(low, 4), "high": round(high, 4)}


if __name__ == "__main__":
    sys.exit(main())
