"""Supervised fine-tuning in packed rows, against TRL's SFTTrainer with packing, on real Korean demonstrations.

    python -m benchmarks.sft               # 5 rounds of 2 minutes; with --minutes 5 call it until it is done

SmolLM2-135M in float32, 8 demonstrations a step, a few hundred tokens. Both start from the same weights and take the
same optimizer steps on the same tokens; the losses and gradient norms of all steps must be equal before a time counts.
Each runs without gradient checkpointing and with it, which is TRL's default and saves memory. Prints JSON.
"""

import json
import math
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.alternate import RESULTS, ROOT, alternate, medians, options_of, sgemm_gflops, spread
from benchmarks.peers import peer_python
from modelzoo.__main__ import main as modelzoo
from modelzoo.batches import Example, step_indices
from modelzoo.checkpoint import load_policy
from modelzoo.data import Snapshot, encode_demonstrations
from modelzoo.dialogues import Dialogue, read_dialogues, write_dialogues
from modelzoo.huggingface import export_huggingface
from modelzoo.import_model import import_model
from worker.machine import machine

PEER = ("trl==1.16.0", "transformers==5.23.0", "torch==2.13.0")
TALK = ROOT.parent / "shared" / "data" / "chatbot_ko.csv"
STEPS, BATCH = 6, 8
WARM_UP = 2  # steps that do not count: threads, memory and Adam start
PARAMS = {
    "batch_size": BATCH,
    "micro_batch_size": BATCH,
    "epochs": 1,
    "learning_rate": 2e-5,
    "final_lr_ratio": 1.0,  # constant
    "checkpoint_every": 1000,
}
CHECKPOINTING = "ours, gradient checkpointing"
GOAL = 1.3


def main() -> int:
    options = options_of(__doc__)
    if options.ours:
        print(json.dumps(our_run(options.ours)))
        return 0
    folder = RESULTS / "sft-inputs"
    if not folder.exists():
        prepare(folder)
    python, script = str(peer_python(*PEER)), str(Path(__file__).with_name("trl_sft.py"))
    peer = [python, script, str(folder / "hf"), str(folder / "steps.json")]
    arms = {
        "ours": [sys.executable, "-m", "benchmarks.sft", "--ours", str(folder / "spec.json")],
        CHECKPOINTING: [sys.executable, "-m", "benchmarks.sft", "--ours", str(folder / "spec-checkpointing.json")],
        "trl": peer,
        f"trl{CHECKPOINTING.removeprefix('ours')}": [*peer, "--checkpointing"],
    }
    results = alternate("sft", arms, repeats=options.repeats, seconds=60 * options.minutes, timed=False)
    report = compared(results, folder)
    print(json.dumps(report, indent=1, ensure_ascii=False))
    return 0 if report["equal"] and min(report["times_faster"].values()) >= GOAL else 1


def prepare(folder: Path) -> None:
    """The starter policy, as we and as transformers read it, the demonstrations, and each step's tokens for TRL."""
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    import_model("starter", unfinished / "policy", languages=["en"])
    export_huggingface(unfinished / "policy", unfinished / "hf")
    talk = read_dialogues(TALK, prompt="Q", response="A")
    write_dialogues(_few(talk), unfinished / "data", language="ko", source="talk")
    examples = demonstrations(unfinished)
    steps = [[examples[i] for i in step_indices(len(examples), BATCH, 0, step)] for step in range(STEPS)]
    rows = [[{"input_ids": e.tokens, "labels": [-100] * len(e.prompt) + e.response} for e in step] for step in steps]
    (unfinished / "steps.json").write_text(json.dumps(rows))
    inputs = {"snapshot": str(folder / "data" / "snapshot"), "policy": str(folder / "policy")}
    for name, extra in (("spec", {}), ("spec-checkpointing", {"gradient_checkpointing": True})):
        (unfinished / f"{name}.json").write_text(json.dumps({**inputs, "params": PARAMS | extra}))
    unfinished.rename(folder)


def _few(talk: list[Dialogue]) -> list[Dialogue]:
    """As many as the steps take, from all over the file, and one to hold out."""
    train = [dialogue for dialogue in talk if not dialogue.is_heldout]
    heldout = next(dialogue for dialogue in talk if dialogue.is_heldout)
    return [*train[:: len(train) // (STEPS * BATCH)][: STEPS * BATCH], heldout]


def demonstrations(folder: Path) -> list[Example]:
    _, tokenizer, _ = load_policy(folder / "policy")
    rows = Snapshot.open(folder / "data" / "snapshot").rows("demonstrations.jsonl", split="train", languages=None)
    return encode_demonstrations(rows, tokenizer, 1024)[0]


def our_run(spec: Path) -> dict[str, Any]:
    """`python -m modelzoo sft`, as it tells of itself."""
    limit, out, folder = sgemm_gflops(), spec.with_suffix(".out"), spec.parent
    shutil.rmtree(out, ignore_errors=True)
    if modelzoo(["sft", "--spec", str(spec), "--out", str(out)]):
        raise SystemExit("the run did not succeed")
    steps = [line for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()) if "loss" in line]
    tokens = [sum(len(row["input_ids"]) for row in rows) for rows in read_steps(folder)]
    result = json.loads((out / "result.json").read_text())["metrics"]
    shutil.rmtree(out)
    return {
        "seconds": [count / line["tokens_per_second"] for count, line in zip(tokens, steps, strict=True)],
        "losses": [line["loss"] for line in steps],
        "grad_norms": [line["grad_norm"] for line in steps],
        "peak_memory_mb": result["peak_memory_mb"],
        "sgemm_gflops": limit,
    }


def read_steps(folder: Path) -> list[list[dict[str, list[int]]]]:
    steps: list[list[dict[str, list[int]]]] = json.loads((folder / "steps.json").read_text())
    return steps


def compared(results: dict[str, list[dict[str, Any]]], folder: Path) -> dict[str, Any]:
    reference = results["ours"][0]
    equal = all(
        math.isclose(value, expected, rel_tol=1e-4)
        for lines in results.values()
        for line in lines
        for name in ("losses", "grad_norms")
        for value, expected in zip(line[name], reference[name], strict=True)
    )
    rows = [row for step in read_steps(folder)[WARM_UP:] for row in step]
    tokens = sum(len(row["input_ids"]) for row in rows)
    learned = sum(label >= 0 for row in rows for label in row["labels"])
    speeds = {arm: [tokens / sum(line["seconds"][WARM_UP:]) for line in lines] for arm, lines in results.items()}
    gflops = statistics.median(line["sgemm_gflops"] for line in results["ours"])
    limit = gflops * 1e9 * tokens / needed_operations(folder, rows)
    medians_of = {arm: statistics.median(values) for arm, values in speeds.items()}
    ours = medians_of["ours"]
    return {
        "machine": machine(),
        "peer": PEER,
        "equal": equal,
        "losses": {arm: lines[0]["losses"] for arm, lines in results.items()},
        "tokens_a_step": round(tokens / (STEPS - WARM_UP)),
        "learned_tokens_a_step": round(learned / (STEPS - WARM_UP)),
        "tokens_per_second": {arm: spread(values) for arm, values in speeds.items()},
        "times_faster": {
            f"{mine} / {peer}": round(medians_of[mine] / medians_of[peer], 2)
            for mine in ("ours", CHECKPOINTING)
            for peer in medians_of.keys() - {"ours", CHECKPOINTING}
        },
        "peak_memory_mb": medians(results, "peak_memory_mb"),
        "sgemm_gflops": round(gflops, 1),
        "limit_tokens_per_second": round(limit, 1),
        "share_of_limit": round(ours / limit, 3),
    }


def needed_operations(folder: Path, rows: list[dict[str, list[int]]]) -> float:
    """6 for each weight of a matrix and token that goes through it: the head's only for tokens that are learned."""
    policy, _, _ = load_policy(folder / "policy")
    layers = sum(weight.numel() for weight in policy.model.layers.parameters() if weight.dim() == 2)
    head = policy.model.embed_tokens.weight.numel()
    learned = sum(label >= 0 for row in rows for label in row["labels"])
    return 6.0 * (layers * sum(len(row["input_ids"]) for row in rows) + head * learned)


if __name__ == "__main__":
    sys.exit(main())
