"""A transformer of a few thousand weights, a tokenizer trained on the spot, and a snapshot to train on."""

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelzoo.__main__ import main
from modelzoo.batches import seeded
from modelzoo.checkpoint import save_checkpoint
from modelzoo.config import ModelConfig, PPOConfig, build
from modelzoo.prepare_ppo import sample
from modelzoo.rollout import Models, Rollout, collect
from modelzoo.tokenizer import Tokenizer, train_sentencepiece
from modelzoo.transformer import RewardModel, Transformer

SENTENCE = "the cat sat on a mat and saw good fish in warm sea water while dogs ran over green hills"
WORDS = SENTENCE.split()
Rows = list[dict[str, Any]]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny matrices gain nothing from a second thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_sentencepiece([SENTENCE] * 4 + ["안녕하세요 오늘 날씨가 좋네요"], 310)


def tiny_policy(tokenizer: Tokenizer, seed: int = 0) -> Transformer:
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Transformer(config)


@pytest.fixture
def policy(tokenizer: Tokenizer) -> Transformer:
    return tiny_policy(tokenizer)


@pytest.fixture(scope="session")
def policy_directory(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "policy"
    save_checkpoint(directory, tiny_policy(tokenizer), tokenizer, kind="base", languages=["en"])
    return directory


@pytest.fixture(scope="session")
def reward_directory(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "reward"
    model = RewardModel.from_policy(tiny_policy(tokenizer), seeded("head"))
    save_checkpoint(directory, model, tokenizer, kind="reward", languages=["en"])
    return directory


@pytest.fixture
def models(policy: Transformer, tokenizer: Tokenizer) -> Models:
    reward = RewardModel.from_policy(policy, seeded("head"))
    return Models(policy, copy.deepcopy(policy), reward, copy.deepcopy(reward), tokenizer)


def config_of(**params: Any) -> PPOConfig:
    return build(PPOConfig, {"batch_size": 8, "minibatch_size": 8, "max_new_tokens": 6, **params})


def rolled_out(models: Models, config: PPOConfig, step: int = 0) -> Rollout:
    prompts = [models.tokenizer.encode_chat(question(number))[: 3 + number] for number in range(config.batch_size)]
    examples, finished = sample(models, config, prompts, step, should_stop=lambda: False)
    return collect(models, examples, finished, config, config.kl_coef)[0]


def question(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{WORDS[number % len(WORDS)]} {WORDS[number * 7 % len(WORDS)]}"}]


def ranking(number: int, tiers: list[int] | None = None, **changes: Any) -> dict[str, Any]:
    """Completions of which those that say "good" are better."""
    tiers = tiers or [2, 1, 2, 3]
    texts = {1: "good fish", 2: "warm water", 3: "dogs ran over hills"}
    row = {
        "id": f"rev-{number}",
        "split": "heldout" if number % 5 == 4 else "train",
        "prompt_id": str(number),
        "language": "en",
        "messages": question(number),
        "completions": [f"{texts.get(tier, 'sea')} {WORDS[(number + i) % len(WORDS)]}" for i, tier in enumerate(tiers)],
        "finish_reasons": ["stop", "length", "stop", "stop", "stop", "stop", "stop", "stop", "stop"][: len(tiers)],
        "models": ["tiny"] * len(tiers),
        "tiers": tiers,
        "ratings": [None] * len(tiers),
        "labeler": "labeler-1",
        "instruction_version": 1,
    }
    return row | changes


def demonstration(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "id": f"demo-{number}",
        "split": "heldout" if number % 5 == 4 else "train",
        "prompt_id": str(number),
        "language": "en",
        "messages": question(number),
        "completion": f"good {WORDS[number * 3 % len(WORDS)]}",
        "origin": "labeler",
        "labeler": "labeler-1",
        "source": "",
        "instruction_version": 1,
    }
    return row | changes


def prompt(number: int, **changes: Any) -> dict[str, Any]:
    row = {"id": str(number), "split": "train", "language": "en", "messages": question(number)}
    return row | changes


def write_snapshot(directory: Path, *, rankings: Rows, demonstrations: Rows, prompts: Rows) -> Path:
    directory.mkdir(parents=True)
    files = {}
    for name, rows in (("rankings", rankings), ("demonstrations", demonstrations), ("prompts", prompts)):
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        (directory / f"{name}.jsonl").write_bytes(content)
        files[f"{name}.jsonl"] = {"sha256": hashlib.sha256(content).hexdigest(), "rows": len(rows)}
    manifest = {
        "format": 1,
        "kind": "snapshot",
        "project": "p",
        "created_at": "2026-01-01",
        "counts": {},
        "files": files,
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


@pytest.fixture(scope="session")
def snapshot_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapshot(
        tmp_path_factory.mktemp("snapshots") / "snapshot",
        rankings=[ranking(number) for number in range(20)],
        demonstrations=[demonstration(number) for number in range(20)],
        prompts=[prompt(number) for number in range(12)],
    )


class Finished:
    """What a run left behind."""

    def __init__(self, code: int, out: Path) -> None:
        self.code, self.out = code, out
        self.result: dict[str, Any] = json.loads((out / "result.json").read_text())
        metrics = out / "metrics.jsonl"
        self.metrics: Rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []

    @property
    def message(self) -> str:
        return self.result["error"]["message"]

    def series(self, name: str) -> list[float]:
        return [line[name] for line in self.metrics if name in line]


Train = Callable[..., Finished]


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """160 short documents, few of them held out."""
    path = tmp_path / "corpus.jsonl"
    texts = (f"{word} {other}" for word in WORDS for other in WORDS[:8])
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


@pytest.fixture
def spec_of(policy_directory: Path, reward_directory: Path, snapshot_directory: Path) -> Callable[..., dict[str, Any]]:
    """The spec of a small run of a stage, with changes."""

    def spec(stage: str, params: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        small: dict[str, Any] = {"learning_rate": 1e-3}
        content: dict[str, Any] = {"stage": stage, "snapshot": str(snapshot_directory), "policy": str(policy_directory)}
        if stage == "pretrain":
            content = {"stage": stage, "tokenizer": str(policy_directory), "languages": ["en"]}
        if stage == "ppo":
            small |= {
                "episodes": 24,
                "batch_size": 8,
                "minibatch_size": 4,
                "max_new_tokens": 6,
                "value_learning_rate": 1e-3,
            }
            content["reward_model"] = str(reward_directory)
        return content | {"params": small | (params or {})} | changes

    return spec


@pytest.fixture
def train(tmp_path: Path, spec_of: Callable[..., dict[str, Any]]) -> Train:
    """Run a stage through the command line's `main` in this process."""

    def run(stage: str, params: dict[str, Any] | None = None, *, out: Path | str = "out", **changes: Any) -> Finished:
        out = tmp_path / out
        spec = tmp_path / f"spec-{out.name}.json"
        spec.write_text(json.dumps(spec_of(stage, params, **changes)))
        return Finished(main([stage, "--spec", str(spec), "--out", str(out)]), out)

    return run
