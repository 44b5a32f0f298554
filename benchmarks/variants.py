"""Model variants from scratch on Korean dialogues, with equal parameters and equal tokens: bits per byte and speed.

    python -m benchmarks.variants ../shared/data/chatbot_ko.csv > variants.json

Every variant is the same small Llama but for what its name says; the feed-forward width makes up for the parameters
that this costs or saves. Each seed (initial weights and order of the data) trains all of them before the next one does,
so that a machine that slows down slows all. Prints a table on standard error and JSON with the machine.
"""

import argparse
import contextlib
import csv
import io
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from modelzoo.__main__ import main as modelzoo
from modelzoo.config import ModelConfig
from modelzoo.transformer import Transformer
from worker.machine import machine

VOCABULARY, CONTEXT = 2000, 128
SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TRAINING = {"max_length": CONTEXT, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 2e-3}
GPT2 = {"position": "learned", "norm": "layernorm", "mlp": "gelu_tanh", "bias": "all", "num_key_value_heads": 4}
VARIANTS: dict[str, dict[str, Any]] = {
    "Llama: RoPE, RMSNorm, SwiGLU, grouped queries, tied": {},
    "learned positions": {"position": "learned"},
    "ALiBi": {"position": "alibi"},
    "LayerNorm": {"norm": "layernorm"},
    "GELU without a gate": {"mlp": "gelu"},
    "SiLU without a gate": {"mlp": "silu"},
    "multi-head attention": {"num_key_value_heads": 4},
    "multi-query attention": {"num_key_value_heads": 1},
    "normalised queries and keys (Qwen3)": {"qk_norm": True},
    "untied": {"tie_word_embeddings": False},
    "factorised embeddings": {"embedding_size": 64},
    "one shared layer, wider (ALBERT)": {"num_hidden_groups": 1, "hidden_size": 192, "num_attention_heads": 6},
    "GPT-2: learned, LayerNorm, GELU, biases, multi-head": GPT2,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="questions and answers in the columns Q and A")
    parser.add_argument("--rows", type=int, default=4000, help="how many of them")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nanochatgpt-variants-") as folder:
        write_corpus(options.csv, options.rows, Path(folder))
        report = measure(Path(folder), options.seeds)
    print(json.dumps({"machine": machine(), "rows": options.rows, "variants": report}, ensure_ascii=False, indent=1))
    print(table(report), file=sys.stderr)
    return 0


def write_corpus(source: Path, rows: int, folder: Path) -> None:
    """corpus.jsonl of dialogues, every so many rows of the file, and a tokenizer trained on their text."""
    with source.open(encoding="utf-8-sig", newline="") as file:
        pairs = [(row["Q"], row["A"]) for row in csv.DictReader(file)]
    pairs = pairs[:: max(1, len(pairs) // rows)][:rows]
    turns = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in pairs]
    lines = [json.dumps({"messages": messages}, ensure_ascii=False) for messages in turns]
    (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "text.txt").write_text("\n".join(text for pair in pairs for text in pair), encoding="utf-8")
    run("tokenizer", folder / "tokenizer", "--text", folder / "text.txt", "--vocab-size", VOCABULARY)


def measure(folder: Path, seeds: int) -> list[dict[str, Any]]:
    report: list[dict[str, Any]] = []
    goal = parameters(SHAPE)
    for name, changes in VARIANTS.items():
        shape = fitted(SHAPE | changes, goal)
        report.append({"variant": name, "parameters": parameters(shape), "shape": shape, "runs": []})
    for seed in range(seeds):
        for number, variant in enumerate(report):
            variant["runs"].append(trained(folder, f"{number}-{seed}", variant["shape"] | {"seed": seed}))
            print(f"seed {seed}: {variant['variant']}: {variant['runs'][-1]}", file=sys.stderr)
    return report


def parameters(shape: dict[str, Any]) -> int:
    with torch.device("meta"):
        model = Transformer(ModelConfig(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, **shape))
    return sum(weight.numel() for weight in model.parameters())


def fitted(shape: dict[str, Any], goal: int) -> dict[str, Any]:
    """The shape with the feed-forward width that brings it nearest to `goal` parameters."""
    one, two = (parameters(shape | {"intermediate_size": width}) for width in (1, 2))
    return shape | {"intermediate_size": 1 + round((goal - one) / (two - one))}


def trained(folder: Path, name: str, shape: dict[str, Any]) -> dict[str, float]:
    """Held-out bits per byte after one pass, and the median step's tokens per second."""
    inputs = {"corpus": str(folder / "corpus.jsonl"), "tokenizer": str(folder / "tokenizer"), "languages": ["ko"]}
    spec, out = folder / f"{name}.json", folder / name
    spec.write_text(json.dumps({"stage": "pretrain", "params": TRAINING | shape, **inputs}))
    run("pretrain", "--spec", spec, "--out", out)
    result = json.loads((out / "result.json").read_text())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    speeds = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
    return {
        "bits_per_byte": round(result["metrics"]["bits_per_byte"], 4),
        "tokens_per_second": round(statistics.median(speeds)),
        "seconds": result["metrics"]["seconds"],
    }


def run(*words: object) -> None:
    """One command of modelzoo, in this process: what it says is shown only if it fails."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = modelzoo([str(word) for word in words])
    if code:
        raise SystemExit(f"{words[0]} ended with exit code {code}:\n{said.getvalue()[-3000:]}")


def table(report: list[dict[str, Any]]) -> str:
    """Markdown: mean and range over the seeds."""
    lines = ["| variant | parameters | held-out bits per byte | tokens/s |", "|---|---|---|---|"]
    for variant in report:
        bits = [run["bits_per_byte"] for run in variant["runs"]]
        speed = statistics.median(run["tokens_per_second"] for run in variant["runs"])
        spread = f"{statistics.mean(bits):.3f} ({min(bits):.3f}–{max(bits):.3f})"
        lines.append(f"| {variant['variant']} | {variant['parameters']:,} | {spread} | {speed:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
