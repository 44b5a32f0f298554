"""A small language model from scratch on real text, with both schedules, in bits per byte.

    apt-get download libreoffice-help-ko && dpkg-deb -x libreoffice-help-ko_*.deb help
    python -m benchmarks.pretraining help/usr/share/libreoffice/help/ko --language ko

Documents are the pages of a manual (.html: what its main part says) and plain text files (.txt). Each step is a command
that anyone can type, and is printed before it runs. The baseline is xz: how many bits per byte the held-out documents
cost it behind the text that the model was trained on. Prints JSON.
"""

import argparse
import json
import lzma
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from benchmarks.alternate import ROOT
from modelzoo.corpus import documents
from modelzoo.tokenizer import load_tokenizer
from worker.machine import machine

VOCABULARY = 4000
MODEL = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_length": 256,
    "batch_size": 8,
    "micro_batch_size": 8,
    "learning_rate": 2e-3,
    "evaluate_every": 200,
    "checkpoint_every": 200,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, nargs="+", help="files, or folders of files, .html and .txt")
    parser.add_argument("--language", required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--schedule", action="append", choices=("cosine", "wsd"), help="default: both")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pretraining-") as folder:
        report = measure(Path(folder), options)
    print(json.dumps(report, indent=1, ensure_ascii=False))
    return 0


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    corpus, tokenizer, shards = folder / "corpus.jsonl", folder / "tokenizer", folder / "shards"
    texts = list(dict.fromkeys(texts_of(options.texts)))
    corpus.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))
    command("tokenizer", tokenizer, "--text", corpus, "--column", "text", "--vocab-size", VOCABULARY)
    command("shards", shards, "--corpus", corpus, "--tokenizer", tokenizer)
    manifest = json.loads((shards / "manifest.json").read_text())
    inputs = {"corpus": str(shards), "tokenizer": str(tokenizer), "languages": [options.language]}
    schedules = options.schedule or ["cosine", "wsd"]
    return {
        "machine": machine(),
        "documents": manifest["documents"],
        "tokens": manifest["tokens"],
        "bytes_per_token": round(manifest["train_bytes"] / manifest["tokens"]["train"], 2),
        "xz_bits_per_byte": xz_bits_per_byte(corpus, tokenizer),
        "model": MODEL,
        "runs": {name: pretrain(folder, inputs, {"schedule": name, "epochs": options.epochs}) for name in schedules},
    }


def texts_of(paths: Sequence[Path]) -> Iterator[str]:
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    for file in files:
        if file.suffix in (".html", ".txt"):
            text = file.read_text(encoding="utf-8")
            text = main_part(text) if file.suffix == ".html" else text.strip()
            if text:
                yield text


def main_part(page: str) -> str:
    """What stands in the page's <div id="DisplayArea">, a line for each paragraph."""
    reader = MainPart()
    reader.feed(page)
    lines = (" ".join(line.split()) for line in "".join(reader.parts).split("\n"))
    return "\n".join(line for line in lines if line)


class MainPart(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.depth = 0  # of nested <div>, counted from the main part's own

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "div" and (self.depth or ("id", "DisplayArea") in attrs):
            self.depth += 1
        if tag in ("p", "h1", "h2", "h3", "h4", "li", "tr", "br"):
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "div" and self.depth > 0

    def handle_data(self, data: str) -> None:
        if self.depth:
            self.parts.append(data.replace("\n", " "))


def xz_bits_per_byte(corpus: Path, tokenizer: Path) -> float:
    lines = corpus.read_bytes().splitlines(keepends=True)
    heldout = [document.heldout for document in documents(corpus, load_tokenizer(tokenizer))]
    texts = [json.loads(line)["text"].encode() for line in lines]
    known = b"\n".join(text for text, held in zip(texts, heldout, strict=True) if not held)
    new = b"\n".join(text for text, held in zip(texts, heldout, strict=True) if held)
    sizes = [len(lzma.compress(content, preset=9)) for content in (known + new, known)]
    return round(8 * (sizes[0] - sizes[1]) / len(new), 3)


def pretrain(folder: Path, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    name = str(params["schedule"])
    spec, out = folder / f"{name}.json", folder / name
    spec.write_text(json.dumps({"stage": "pretrain", **inputs, "params": {**MODEL, **params}}))
    command("pretrain", "--spec", spec, "--out", out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((out / "result.json").read_text())
    speeds = sorted(line["tokens_per_second"] for line in lines if "tokens_per_second" in line)
    return {
        "steps": result["total"],
        "seconds": result["metrics"]["seconds"],
        "peak_memory_mb": result["metrics"]["peak_memory_mb"],
        "tokens_per_second": round(speeds[len(speeds) // 2]),
        "heldout_loss": round(result["metrics"]["heldout_loss"], 4),
        "bits_per_byte": {line["step"]: round(line["bits_per_byte"], 4) for line in lines if "bits_per_byte" in line},
    }


def command(*words: object) -> None:
    arguments = [sys.executable, "-m", "modelzoo", *map(str, words)]
    print("$", shlex.join(["python", *arguments[1:]]), file=sys.stderr, flush=True)
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])


if __name__ == "__main__":
    sys.exit(main())
