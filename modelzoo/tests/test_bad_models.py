"""Models that cannot be used, through the commands that people type: one clear line, exit code 2, nothing written."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelzoo.__main__ import main
from modelzoo.checkpoint import load_tensors, save_tensors
from modelzoo.huggingface import export_huggingface
from modelzoo.tests.conftest import Train
from modelzoo.tests.test_checkpoint import resealed

Damage = Callable[[Path], object]


def weights(directory: Path) -> Path:
    return directory / "model.safetensors"


def flip_a_bit(directory: Path) -> None:
    content = bytearray(weights(directory).read_bytes())
    content[-1000] ^= 4
    weights(directory).write_bytes(content)


def truncate(directory: Path) -> None:
    weights(directory).write_bytes(weights(directory).read_bytes()[:-1000])


def change_weight(directory: Path, name: str, value: float) -> None:
    tensors = load_tensors(weights(directory))
    tensors[name].view(-1)[0] = value
    save_tensors(weights(directory), tensors)


def leave_out(directory: Path, name: str) -> None:
    tensors = load_tensors(weights(directory))
    del tensors[name]
    save_tensors(weights(directory), tensors)


def forget_tokens(directory: Path) -> None:
    tensors = load_tensors(weights(directory))
    name = "model.embed_tokens.weight"
    save_tensors(weights(directory), tensors | {name: tensors[name][:300]})
    configure(vocab_size=300)(directory)


def configure(**changes: Any) -> Damage:
    def change(directory: Path) -> None:
        content = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps(content | changes))

    return change


CASES: dict[str, tuple[Damage, str]] = {
    "truncated safetensors": (truncate, "model.safetensors is not a complete safetensors file"),
    "an empty file": (lambda d: weights(d).write_bytes(b""), "model.safetensors is not a complete safetensors file"),
    "a pickle renamed": (lambda d: torch.save({}, weights(d)), "model.safetensors is a pickle under another name"),
    "an old pickle renamed": (
        lambda d: weights(d).write_bytes(pickle.dumps({"a": 1}, protocol=2)),
        "model.safetensors is a pickle under another name",
    ),
    "no weights": (lambda d: weights(d).unlink(), "model.safetensors is missing"),
    "a NaN": (lambda d: change_weight(d, "model.norm.weight", float("nan")), "model.norm.weight holds values that are"),
    "an infinity": (
        lambda d: change_weight(d, "model.embed_tokens.weight", float("inf")),
        "model.embed_tokens.weight holds values that are not finite",
    ),
    "a missing tensor": (lambda d: leave_out(d, "model.norm.weight"), "the weights are not those of config.json"),
    "another width": (configure(hidden_size=64, head_dim=None), "the weights are not those of config.json"),
    "no layers": (configure(num_hidden_layers=0), "num_hidden_layers: must be a whole number above 0, not 0"),
    "endless layers": (configure(num_hidden_layers=10**9), "num_hidden_layers: must be at most 1000"),
    "heads that do not divide the width": (
        configure(num_attention_heads=5, num_key_value_heads=5, head_dim=None),
        "hidden_size: 32 is not divisible by 5 heads",
    ),
    "key-value heads that do not fit the heads": (
        configure(num_key_value_heads=3),
        "cannot share 3 key-value heads",
    ),
    "half a layer": (configure(num_hidden_layers=1.5), "num_hidden_layers: must be a whole number, not 1.5"),
    "a width in words": (configure(hidden_size="wide"), "hidden_size: must be a whole number, not 'wide'"),
    "RoPE of nothing": (configure(rope_theta=0), "rope_theta: must be a number above 0"),
    "fewer vectors than tokens": (forget_tokens, "310 tokens do not fit a model of 300"),
    "another kind of model": (configure(model_type="bert"), "model_type: must be one of llama"),
    "a config that is no JSON": (lambda d: (d / "config.json").write_text("{"), "config.json is not JSON"),
    "a config that is a list": (lambda d: (d / "config.json").write_text("[]"), "config.json must hold a JSON object"),
    "no tokenizer": (lambda d: (d / "tokenizer_config.json").unlink(), "tokenizer_config.json is missing"),
    "a broken tokenizer": (
        lambda d: (d / "tokenizer.model").write_bytes(b"nonsense"),
        "tokenizer.model is not a sentencepiece model",
    ),
}


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line on standard error."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("case", CASES)
def test_import_refuses_a_hugging_face_directory_with(
    case: str, policy_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, message = CASES[case]
    export_huggingface(policy_directory, tmp_path / "hf")
    damage(tmp_path / "hf")
    if case == "no tokenizer":  # it need not be ours there
        (tmp_path / "hf/tokenizer.json").unlink()
        message = "tokenizer.json is missing: load the tokenizer with transformers and save it once"
    assert message in refused(capsys, "import", tmp_path / "hf", tmp_path / "new", "--language", "en")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_that_is_sealed_with_it_is_refused_too(
    case: str, policy_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its hashes are right: whoever made it was wrong."""
    damage, message = CASES[case]
    bad = resealed(policy_directory, tmp_path / "bad", damage)
    assert message in refused(capsys, "sample", bad, "the cat")
    assert message in refused(capsys, "export", bad, tmp_path / "out.gguf", "--format", "gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "copy"),
        ("sample", "copy", "the cat"),
        ("export", "copy", "out"),
        ("export", "copy", "out", "--format", "gguf"),
    ],
)
@pytest.mark.parametrize("damage", [flip_a_bit, truncate])
def test_a_flipped_bit_is_refused_by_every_command(
    damage: Damage,
    words: tuple[str, ...],
    policy_directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(policy_directory, tmp_path / "copy")
    damage(tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    assert "model.safetensors is corrupt: its SHA-256 is not the manifest's" in refused(capsys, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_a_run_from_a_model_with_a_flipped_bit_ends_before_it_begins(
    stage: str, policy_directory: Path, tmp_path: Path, train: Train
) -> None:
    shutil.copytree(policy_directory, tmp_path / "copy")
    flip_a_bit(tmp_path / "copy")
    done = train(stage, policy=str(tmp_path / "copy"))
    assert (done.code, done.result["error"]["kind"]) == (2, "bad_input")
    assert "model.safetensors is corrupt" in done.message and "\n" not in done.message
    assert not (done.out / "model").exists()
