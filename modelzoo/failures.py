"""How a run can end before its time, in the words of result.json, and the checks that see it coming."""

import errno
import re
import shutil
from pathlib import Path

import torch

from modelzoo.chat_template import ChatTemplateError
from modelzoo.checkpoint import CheckpointError
from modelzoo.config import ConfigError, TrainingConfig
from modelzoo.data import SnapshotError
from modelzoo.memory import GIGABYTE, NotEnoughMemory
from modelzoo.optimizer import NonFinite
from modelzoo.spec import BadInput
from modelzoo.state import step_checkpoints
from modelzoo.tokenizer import TokenizerError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Stopped(Exception):
    """The run was asked to stop and stands between two steps."""


class SelfCheckError(RuntimeError):
    """The models do not behave as training needs them to; the message says which check failed."""


class NotEnoughSpace(OSError):
    """The disk cannot hold what the run will write."""


def explained(error: BaseException, out: Path, config: TrainingConfig | None, step: int) -> tuple[str, str]:
    """The kind of a failure and one sentence for a person, saying what to do."""
    if isinstance(error, NotEnoughSpace):
        return "no_space", str(error)
    if isinstance(error, NotEnoughMemory):
        return "out_of_memory", str(error)
    if _is_full_disk(error):
        return (
            "no_space",
            f"The disk is full at {out}; free some space and resume: the checkpoints written so far are kept.",
        )
    if _is_out_of_memory(error):
        size = f" (now {config.micro_batch_size})" if config else ""
        return (
            "out_of_memory",
            f"There was not enough memory; lower micro_batch_size{size} or max_length and start again.",
        )
    if isinstance(error, NonFinite | FloatingPointError):
        rate = f" (now {config.learning_rate:g})" if config else ""
        good = step_checkpoints([out / "checkpoints"])
        kept = (
            f"the state after step {int(good[0].name[-8:])} is kept in {good[0]}" if good else "nothing was saved yet"
        )
        return "non_finite", f"After step {step} {error}; {kept}. Start a new run with a lower learning_rate{rate}."
    if isinstance(error, BadInput | SnapshotError):
        return "bad_input", str(error)
    if isinstance(error, ChatTemplateError):
        return (
            "bad_input",
            f"The snapshot holds a conversation that cannot be used ({error}); correct it and freeze again.",
        )
    if isinstance(error, CheckpointError | TokenizerError | ConfigError):
        return "bad_input", f"A checkpoint cannot be used: {error}; choose another model or import it again."
    if isinstance(error, SelfCheckError):
        return "crash", str(error)
    if isinstance(error, PermissionError):
        return "bad_input", f"Permission denied at {error.filename}; let this user read the inputs and write to {out}."
    return "crash", f"The trainer broke ({type(error).__name__}: {error}); please report it with the log above."


def _is_full_disk(error: BaseException | None) -> bool:
    """Whether any exception in the chain says so; safetensors writes from Rust and has only its text."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if any(int(number) in FULL for number in re.findall(r"os error (\d+)", str(error))):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and ("not enough memory" in str(error) or "allocate memory" in str(error))


def require_space(folder: Path, needed: int) -> None:
    """Raises NotEnoughSpace where `needed` bytes do not fit on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NotEnoughSpace(
            f"The run writes about {needed / GIGABYTE:.1f} GB and {folder} has {free / GIGABYTE:.1f} GB free; "
            "free some space and start again."
        )
