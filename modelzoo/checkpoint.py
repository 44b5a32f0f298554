"""Checkpoints: directories that appear whole or not at all, and that are verified before they are used.

A model's checkpoint is a Hugging Face directory plus `manifest.json` (see docs/files.md); a training run's own state is
a directory of tensors and JSON with the same kind of manifest. No pickle anywhere.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from modelzoo.config import ConfigError, ModelConfig
from modelzoo.config_json import config_from_json, config_to_json
from modelzoo.tokenizer import Tokenizer, TokenizerError, load_tokenizer
from modelzoo.transformer import RewardModel, Transformer

POLICY_KINDS = ("base", "sft", "policy")
KINDS = (*POLICY_KINDS, "reward")


class CheckpointError(Exception):
    """A checkpoint that cannot be used, in one sentence for a person."""


class NoSpaceError(OSError):
    """The disk is full; nothing half-written was left behind."""


# --- Directories that appear whole -------------------------------------------------------------------------------


def write_directory_atomically(
    directory: Path | str, write: Callable[[Path], None], manifest: Mapping[str, Any] | None = None
) -> str:
    """Let `write` fill a directory, add manifest.json with every file's SHA-256, and make it appear whole.

    Returns the manifest's own SHA-256. Raises what `write_whole` raises.
    """
    text = ""

    def write_with_manifest(temporary: Path) -> None:
        nonlocal text
        write(temporary)
        files = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
        content = {"format": 1, "kind": "state", **(manifest or {}), "files": files}
        text = json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False) + "\n"
        (temporary / "manifest.json").write_text(text, encoding="utf-8")

    write_whole(directory, write_with_manifest)
    return hashlib.sha256(text.encode()).hexdigest()


def write_whole(directory: Path | str, write: Callable[[Path], None]) -> None:
    """Let `write` fill a directory that appears whole. Raises what `appearing_whole` raises."""
    with appearing_whole(directory) as temporary:
        temporary.mkdir()
        write(temporary)


@contextmanager
def appearing_whole(path: Path | str) -> Iterator[Path]:
    """A temporary name beside `path` for a file or a directory of files; then fsync it and rename it into place.

    Raises CheckpointError if `path` is there already, NoSpaceError on a full disk. Whatever is raised, nothing remains
    under either name.
    """
    path = Path(path)
    if path.exists():
        raise CheckpointError(f"{path} exists already; it is never written over")
    temporary = path.with_name(f".{path.name}.{token_hex(6)}.tmp")
    with _full_disk_named(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            for part in (*(temporary.iterdir() if temporary.is_dir() else ()), temporary):
                _fsync(part)
            temporary.rename(path)
            _fsync(path.parent)
        except BaseException:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)
            raise


def verify(directory: Path | str) -> dict[str, Any]:
    """Check every file against the manifest and return the manifest; CheckpointError names the first bad file."""
    directory = Path(directory)
    manifest = read_json(directory, "manifest.json")
    files = manifest.get("files")
    if manifest.get("format") != 1 or not isinstance(files, dict) or not files:
        raise CheckpointError(f"{directory / 'manifest.json'} is not a manifest of format 1")
    for name, expected in files.items():
        if Path(name).name != name:
            raise CheckpointError(f"{directory / 'manifest.json'} names a file outside the checkpoint: {name}")
        try:
            actual = _sha256(directory / name)
        except FileNotFoundError as error:
            raise CheckpointError(f"{directory / name} is missing") from error
        if actual != expected:
            raise CheckpointError(f"{directory / name} is corrupt: its SHA-256 is not the manifest's")
    return manifest


def manifest_hash(directory: Path | str) -> str:
    """A checkpoint's identity: the SHA-256 of its manifest, which holds those of all other files."""
    try:
        return _sha256(Path(directory) / "manifest.json")
    except FileNotFoundError as error:
        raise CheckpointError(f"{directory} is not a checkpoint: manifest.json is missing") from error


def save_state(directory: Path | str, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> str:
    """Write a training run's own state: named tensors and what JSON can hold. Returns the manifest's SHA-256."""

    def write(temporary: Path) -> None:
        save_tensors(temporary / "state.safetensors", tensors)
        text = json.dumps(state, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
        (temporary / "state.json").write_text(text, encoding="utf-8")

    return write_directory_atomically(directory, write)


def load_state(directory: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_state` wrote, verified first."""
    directory = Path(directory)
    verify(directory)
    return load_tensors(directory / "state.safetensors"), read_json(directory, "state.json")


# --- Models ------------------------------------------------------------------------------------------------------


def save_checkpoint(
    directory: Path | str,
    model: Transformer | RewardModel,
    tokenizer: Tokenizer,
    *,
    kind: str,
    parents: Sequence[str] = (),
    snapshot: str | None = None,
    languages: Sequence[str] = (),
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> str:
    """Write a model and its tokenizer; returns the manifest's SHA-256. Raises CheckpointError on NaN weights."""
    if kind not in KINDS or (kind == "reward") != isinstance(model, RewardModel):
        raise CheckpointError(f"a {type(model).__name__} cannot be saved as {kind!r}")
    if tokenizer.vocab_size > model.config.vocab_size:
        raise CheckpointError(f"{tokenizer.vocab_size} tokens do not fit a model of {model.config.vocab_size}")
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    _require_finite(tensors, "the model")

    def write(temporary: Path) -> None:
        text = json.dumps(config_to_json(model, tokenizer), indent=2) + "\n"
        (temporary / "config.json").write_text(text, encoding="utf-8")
        tokenizer.save(temporary)
        save_tensors(temporary / "model.safetensors", tensors)

    manifest = {
        "kind": kind,
        "parents": list(parents),
        "snapshot": snapshot,
        "languages": list(languages),
        "code_version": code_version(),
        "seed": seed,
        "params": dict(params or {}),
        "metrics": dict(metrics or {}),
    }
    return write_directory_atomically(directory, write, manifest)


def load_policy(
    directory: Path | str, dtype: torch.dtype = torch.float32
) -> tuple[Transformer, Tokenizer, dict[str, Any]]:
    """A verified checkpoint of kind base, sft or policy. Raises CheckpointError."""
    config, _, tensors, tokenizer, manifest = _load(Path(directory), POLICY_KINDS, dtype)
    with torch.device("meta"):
        model = Transformer(config)
    _assign(model, tensors, Path(directory))
    return model, tokenizer, manifest


def load_reward_model(
    directory: Path | str, dtype: torch.dtype = torch.float32
) -> tuple[RewardModel, Tokenizer, dict[str, Any]]:
    """A verified checkpoint of kind reward. Raises CheckpointError."""
    config, raw, tensors, tokenizer, manifest = _load(Path(directory), ("reward",), dtype)
    with torch.device("meta"):
        model = RewardModel(config, float(raw.get("score_offset", 0.0)))
    _assign(model, tensors, Path(directory))
    return model, tokenizer, manifest


def _load(
    directory: Path, kinds: Sequence[str], dtype: torch.dtype
) -> tuple[ModelConfig, dict[str, Any], dict[str, Tensor], Tokenizer, dict[str, Any]]:
    manifest = verify(directory)
    if manifest.get("kind") not in kinds:
        raise CheckpointError(f"{directory} is of kind {manifest.get('kind')!r}; needed is {' or '.join(kinds)}")
    raw = read_json(directory, "config.json")
    try:
        config = config_from_json(raw)
        tokenizer = load_tokenizer(directory)
    except (ConfigError, TokenizerError) as error:
        raise CheckpointError(f"{directory}: {error}") from error
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(f"{directory}: {tokenizer.vocab_size} tokens do not fit a model of {config.vocab_size}")
    tensors = load_tensors(directory / "model.safetensors")
    _require_finite(tensors, str(directory / "model.safetensors"))
    return config, raw, {name: tensor.to(dtype) for name, tensor in tensors.items()}, tokenizer, manifest


def _assign(model: nn.Module, tensors: dict[str, Tensor], directory: Path) -> None:
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{directory}: the weights are not those of config.json: {reason[:300]}") from error


# --- Files -------------------------------------------------------------------------------------------------------


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file; equal tensors give equal bytes."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(plain, path, metadata={"format": "pt"})
    path.chmod(0o644)  # the library makes it private; web and worker may run as different users


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; CheckpointError if it is missing or anything else, a pickle for example."""
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except SafetensorError as error:
        with path.open("rb") as file:
            start = file.read(4)
        if start[:2] == b"\x80\x02" or start == b"PK\x03\x04":
            raise CheckpointError(f"{path} is a pickle under another name; only safetensors are read") from error
        raise CheckpointError(f"{path} is not a complete safetensors file: {error}") from error


def _require_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{where}: {name} holds values that are not finite (NaN or infinity)")


def read_json(directory: Path, name: str) -> dict[str, Any]:
    """A JSON object from a checkpoint's file; CheckpointError names the file that is missing or anything else."""
    path = directory / name
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: {directory} is not a complete checkpoint") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _full_disk_named(directory: Path) -> Iterator[None]:
    """Turn every library's way of saying that the disk is full into NoSpaceError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            message = f"no space left for {directory}: free some on that disk, then run this again"
            raise NoSpaceError(errno.ENOSPC, message) from error
        raise


@cache
def code_version() -> str:
    """SHA-256 (first 12 digits) of this package's sources: two checkpoints made by the same code say the same."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
