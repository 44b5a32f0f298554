"""Commands around models that are not training: import, export, tokenizer, shards, dialogues, sample, verify."""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from modelzoo.checkpoint import CheckpointError, manifest_hash, verify
from modelzoo.config import ConfigError, SamplingConfig, build
from modelzoo.data import SnapshotError
from modelzoo.dialogues import read_dialogues, write_dialogues
from modelzoo.generate import PromptError
from modelzoo.gguf_writer import DTYPES, export_gguf
from modelzoo.huggingface import export_huggingface
from modelzoo.import_model import import_model
from modelzoo.sampler import Sampler
from modelzoo.shards import SHARD_TOKENS, write_shards
from modelzoo.tokenizer import TokenizerError, load_tokenizer, train_sentencepiece

UNUSABLE = (ConfigError, CheckpointError, TokenizerError, SnapshotError, PromptError, OSError, FloatingPointError)


@dataclass(frozen=True)
class Command:
    """One subcommand: its options, and what it does with them. `main` returns the exit code."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    main: Callable[[argparse.Namespace], int]


def run_command(command: Command, arguments: argparse.Namespace) -> int:
    """Run it; bad input becomes one line on standard error and exit code 2."""
    try:
        return command.main(arguments)
    except UNUSABLE as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="'starter' (SmolLM2-135M-Instruct), a .gguf file, or a Hugging Face directory")
    parser.add_argument("directory", type=Path, help="the checkpoint to write")
    parser.add_argument("--language", action="append", metavar="CODE", help="a language it speaks; may be repeated")
    parser.add_argument("--kind", choices=("policy", "sft", "base"), default="policy")


def _import(arguments: argparse.Namespace) -> int:
    identity = import_model(arguments.source, arguments.directory, languages=arguments.language, kind=arguments.kind)
    print(f"{arguments.directory}: {identity}")
    return 0


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("path", type=Path, help="the Hugging Face directory or the GGUF file to write")
    parser.add_argument("--format", choices=("hf", "gguf"), default="hf", help="what to write (default: hf)")
    parser.add_argument(
        "--dtype", choices=tuple(DTYPES), default="f16", help="of the matrices in a GGUF file (default: f16)"
    )


def _export(arguments: argparse.Namespace) -> int:
    if arguments.format == "gguf":
        export_gguf(arguments.checkpoint, arguments.path, arguments.dtype)
        print(f"{arguments.path}: run it with llama.cpp")
    else:
        export_huggingface(arguments.checkpoint, arguments.path)
        print(f"{arguments.path}: open it with transformers' from_pretrained")
    return 0


def _tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, help="where to write tokenizer.model and its companions")
    parser.add_argument(
        "--text", type=Path, action="append", required=True, help="UTF-8 text, CSV or JSONL; repeatable"
    )
    parser.add_argument("--column", action="append", help="CSV column or JSONL field to read; may be repeated")
    parser.add_argument("--vocab-size", type=int, default=8000)


def _tokenizer(arguments: argparse.Namespace) -> int:
    texts = (text for path in arguments.text for text in _texts(path, arguments.column or []))
    tokenizer = train_sentencepiece(texts, arguments.vocab_size, arguments.directory)
    print(f"{arguments.directory}: {tokenizer.vocab_size} tokens")
    return 0


def _texts(path: Path, columns: list[str]) -> Iterator[str]:
    """Texts of a file: its lines, or the named columns of a CSV or JSONL file. Raises TokenizerError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if not columns:
                yield from file
                return
            rows = (
                csv.DictReader(file) if path.suffix == ".csv" else (json.loads(line) for line in file if line.strip())
            )
            for number, row in enumerate(rows, 1):
                for column in columns:
                    if not isinstance(row.get(column), str):
                        raise TokenizerError(f"{path}: row {number} has no text in {column!r}")
                    yield row[column]
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path} is not UTF-8: {error}") from error
    except (csv.Error, json.JSONDecodeError, AttributeError) as error:
        raise TokenizerError(f"{path} is neither CSV nor JSONL with one object a line: {error}") from error


def _shards_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, help="where to write the shards; give it to pretrain as its corpus")
    parser.add_argument(
        "--corpus", type=Path, action="append", required=True, help='JSONL with "text" or "messages"; repeatable'
    )
    parser.add_argument("--tokenizer", type=Path, required=True, help="a directory with a tokenizer")
    parser.add_argument("--shard-tokens", type=int, default=SHARD_TOKENS, help=f"default: {SHARD_TOKENS:,} a file")


def _shards(arguments: argparse.Namespace) -> int:
    if arguments.shard_tokens < 1:
        raise ConfigError({"shard-tokens": f"must be at least 1, not {arguments.shard_tokens}"})
    tokenizer = load_tokenizer(arguments.tokenizer)
    manifest = write_shards(arguments.corpus, tokenizer, arguments.directory, arguments.shard_tokens)
    tokens = manifest["tokens"]
    print(f"{arguments.directory}: {tokens['train']} tokens to train on, {tokens['heldout']} held out")
    return 0


def _sample_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("prompt", help="what the user says")
    parser.add_argument("--system", help="a system message before it")
    parser.add_argument("-k", type=int, default=1, help="how many completions")
    parser.add_argument(
        "--weights", choices=("float32", "int8"), default="float32", help="int8 is faster on a CPU and not quite exact"
    )
    for field in fields(SamplingConfig):
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, type=type(field.default), default=field.default, help=field.metadata["help"])


def _sample(arguments: argparse.Namespace) -> int:
    sampling = build(SamplingConfig, {field.name: getattr(arguments, field.name) for field in fields(SamplingConfig)})
    if arguments.k < 1:
        raise ConfigError({"k": f"must be at least 1, not {arguments.k}"})
    messages = [{"role": "system", "content": arguments.system}] if arguments.system else []
    messages.append({"role": "user", "content": arguments.prompt})
    result = Sampler.load(arguments.checkpoint, weights=arguments.weights).sample([messages], arguments.k, sampling)[0]
    if isinstance(result, PromptError):
        raise result
    for sample in result:
        print(f"--- {sample.finish_reason}, {len(sample.token_ids)} tokens, log-probability {sample.logprob_sum:.2f}")
        print(sample.text)
    return 0


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path)


def _verify(arguments: argparse.Namespace) -> int:
    manifest = verify(arguments.checkpoint)
    identity = manifest_hash(arguments.checkpoint)
    print(f"{arguments.checkpoint}: {manifest['kind']}, {len(manifest['files'])} files, {identity}")
    return 0


def _dialogues_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("csv", type=Path, help="a CSV with a question and its answer in each row")
    parser.add_argument("directory", type=Path, help="where to write corpus.jsonl, snapshot/, train.csv, heldout.csv")
    parser.add_argument("--prompt", default="prompt", metavar="COLUMN", help="what the user says (default: prompt)")
    parser.add_argument("--response", default="response", metavar="COLUMN", help="the answer (default: response)")
    parser.add_argument("--language", required=True, metavar="CODE", help="what they are in, such as ko")


def _dialogues(arguments: argparse.Namespace) -> int:
    dialogues = read_dialogues(arguments.csv, prompt=arguments.prompt, response=arguments.response)
    source = arguments.csv.stem
    counts = write_dialogues(dialogues, arguments.directory, language=arguments.language, source=source)
    print(f"{arguments.directory}: {counts['train']} dialogues to train on, {counts['heldout']} held out")
    return 0


COMMANDS = {
    "import": Command("make a checkpoint of a model from elsewhere", _import_arguments, _import),
    "export": Command("write a checkpoint as a Hugging Face directory or a GGUF file", _export_arguments, _export),
    "tokenizer": Command("train a sentencepiece tokenizer", _tokenizer_arguments, _tokenizer),
    "shards": Command("tokenise a corpus into files that pretraining maps into memory", _shards_arguments, _shards),
    "dialogues": Command("turn two columns of a CSV into a corpus and a snapshot", _dialogues_arguments, _dialogues),
    "sample": Command("complete a prompt", _sample_arguments, _sample),
    "verify": Command("check a checkpoint against its manifest", _verify_arguments, _verify),
}
