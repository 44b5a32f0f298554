"""What a run will hold in memory, reckoned from its parameters before anything is loaded, and what there is."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modelzoo.checkpoint import CheckpointError, read_json
from modelzoo.config import ConfigError, FineTuningConfig, ModelConfig, PPOConfig, TrainingConfig
from modelzoo.config_json import config_from_json
from modelzoo.logprobs import CHUNK
from modelzoo.lora import adapted
from modelzoo.optimizer import trained
from modelzoo.pretrain_config import PretrainConfig
from modelzoo.spec import BadInput, Spec
from modelzoo.tokenizer import TokenizerError, load_tokenizer
from modelzoo.transformer import RewardModel, Transformer

FLOAT = 4  # bytes; trainers compute in float32
GIGABYTE = 1e9


class NotEnoughMemory(MemoryError):
    """The memory cannot hold what the run will allocate."""


@dataclass(frozen=True)
class Estimate:
    """Bytes. All but activations are certain: those are of the longest sequences that the parameters allow."""

    weights: int  # of all models
    training: int  # gradients and Adam's two moments
    activations: int  # what the backward pass needs of one micro-batch, and its logits
    gathered: int = 0  # the policy to sample with, whole in each process, where processes share the weights

    @property
    def certain(self) -> int:
        return self.weights + self.training


def require_fitting(spec: Spec[Any], device: torch.device, processes: int, warn: Callable[[str], None]) -> bool:
    """Whether the processes of a run have to share weights, gradients and Adam's moments among themselves.

    Raises NotEnoughMemory where these do not fit even so; warns where long sequences may not.

    Says nothing of inputs that cannot be read: the trainer will, in better words.
    """
    try:
        needs = estimate(spec, device.type)
    except (BadInput, CheckpointError, ConfigError, TokenizerError, OSError):
        return spec.config.sharding == "always" and processes > 1
    copies = processes if device.type == "cpu" else 1  # processes on one machine share its memory, but no card
    free = free_memory() if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    sharded = _sharded(spec, processes, fits=copies * needs.certain <= free)
    parts, gathered = (processes, copies * needs.gathered) if sharded else (1, 0)
    certain = copies * needs.certain // parts + gathered
    all_in_all = certain + copies * needs.activations
    if certain > free:
        lora = " or lora_rank" if isinstance(spec.config, FineTuningConfig) and not spec.config.lora_rank else ""
        raise NotEnoughMemory(
            f"The run needs {_gb(certain)} of memory (weights {_gb(copies * needs.weights // parts + gathered)}, "
            f"gradients and Adam's moments {_gb(copies * needs.training // parts)}) and {_gb(free)} are free; "
            f"close other programs, choose a smaller model{lora}."
        )
    if all_in_all > free:
        warn(
            f"Sequences as long as max_length ({spec.config.max_length}) would take {_gb(all_in_all)} in all, and "
            f"{_gb(free)} are free; should memory run out, lower micro_batch_size ({spec.config.micro_batch_size}) "
            "or max_length."
        )
    return sharded


def _sharded(spec: Spec[Any], processes: int, *, fits: bool) -> bool:
    """As the parameters want it, and whether it can be done."""
    if spec.config.sharding == "never" or processes == 1:
        return False
    adapters = isinstance(spec.config, FineTuningConfig) and spec.config.lora_rank > 0
    if spec.config.sharding == "always":
        if adapters:
            raise BadInput("sharding is for training all weights; with a lora_rank leave it at if_needed or never.")
        return True
    return not fits and not adapters


def estimate(spec: Spec[Any], device: str = "cpu") -> Estimate:
    """What one process of a run needs. Raises what reading its inputs raises."""
    config = spec.config
    if isinstance(config, PretrainConfig):
        shape = config.shape(load_tokenizer(spec.path("tokenizer")).vocab_size)
    else:
        shape = config_from_json(read_json(spec.path("policy"), "config.json"))
    weights, moving = _trained(Transformer, shape, config)
    if spec.stage == "reward":
        weights, moving = _trained(RewardModel, shape, config)
    training, gathered = 3 * moving, 0
    if isinstance(config, PPOConfig):
        judge = config_from_json(read_json(spec.path("reward_model"), "config.json"))
        value, value_moving = _trained(RewardModel, judge, config)
        apart = not config.lora_rank
        packed = weights if device == "cpu" else 0  # a copy to sample with, while there are no gradients
        gathered = weights
        training = 2 * (moving + value_moving) + max(moving, value_moving, packed)  # gradients of one model at a time
        weights = weights * (1 + (apart or spec.reference is not None)) + value * (1 + apart)
        weights += moving if config.ema_decay else 0
    return Estimate(weights, training, _activations(shape, config), gathered)


def _trained(kind: type[Transformer] | type[RewardModel], shape: ModelConfig, config: Any) -> tuple[int, int]:
    """Bytes of a model's weights, and of those that are trained."""
    with torch.device("meta"):
        model = kind(shape)
        weights = sum(weight.numel() for weight in model.parameters())
        learner = adapted(model, config) if isinstance(config, FineTuningConfig) else model
    return FLOAT * weights, FLOAT * sum(weight.numel() for weight in trained(learner))


def _activations(shape: ModelConfig, config: TrainingConfig) -> int:
    """What autograd keeps of a forward pass: the inputs of every layer's products and of its norms, and the logits."""
    tokens = config.micro_batch_size * min(config.max_length, shape.max_position_embeddings)
    heads = (shape.num_attention_heads + 2 * shape.num_key_value_heads) * shape.head_dim
    layer = 8 * shape.hidden_size + heads + 4 * shape.intermediate_size
    layers = shape.num_hidden_layers * layer
    if config.gradient_checkpointing:  # the inputs of all; of one everything, with gradients, as measured
        layers = shape.num_hidden_layers * shape.hidden_size + 4 * layer
    logits = 3 * min(tokens, CHUNK) * shape.vocab_size  # themselves, their softmax, their gradient
    return FLOAT * (tokens * layers + logits)


def _gb(size: int) -> str:
    return f"{size / GIGABYTE:.1f} GB"


def free_memory() -> int:
    """Bytes that this process may still allocate: what the machine has and, in a container, what its limit leaves."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():  # not Linux: the check is left to the system
        return 1 << 62
    free = int(re.findall(r"MemAvailable:\s+(\d+)", meminfo.read_text())[0]) * 1024
    group = Path("/sys/fs/cgroup")
    limit = group / "memory.max"
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        cached = int(re.findall(r"^file (\d+)", (group / "memory.stat").read_text(), re.M)[0])
        free = min(free, int(most) - int((group / "memory.current").read_text()) + cached)
    return free
