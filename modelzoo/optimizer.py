"""Adam, gradient clipping that refuses NaN, and the moving average of weights."""

import copy
import math
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from modelzoo.config import TrainingConfig

BETAS = (0.9, 0.95)  # InstructGPT, appendix C

Model = TypeVar("Model", bound=nn.Module)


class NonFinite(ArithmeticError):
    """A loss, gradient or weight is NaN or infinite."""


def trained(model: nn.Module) -> list[Tensor]:
    """The weights that learn: all of them, or adapters beside frozen ones."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def adamw(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Decoupled weight decay (1711.05101) on matrices, none on gains."""
    weights = trained(model)
    groups = [
        {"params": [weight for weight in weights if weight.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [weight for weight in weights if weight.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=BETAS, eps=config.adam_eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def clip_gradients(model: nn.Module, max_norm: float, what: str) -> float:
    """Scale the gradients to at most `max_norm` and return the norm they had. Raises NonFinite."""
    total = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    norm = float(getattr(total, "full_tensor", lambda: total)())  # where gradients are spread over processes
    if not math.isfinite(norm):
        broken = (name for name, weight in model.named_parameters() if not _is_finite(weight.grad))
        raise NonFinite(f"the gradients of the {what} are not numbers any more (first {next(broken, 'in their sum')})")
    return norm


def _is_finite(tensor: Tensor | None) -> bool:
    return tensor is None or bool(torch.isfinite(tensor).all())


def require_finite(models: Iterable[nn.Module]) -> None:
    """Raises NonFinite where a weight is NaN or infinite, so that such weights are never saved."""
    for model in models:
        for name, weight in model.named_parameters():
            if not _is_finite(weight):
                raise NonFinite(f"the weights {name} are not numbers any more")


def independent(model: Model) -> Model:
    """A copy that goes its own way: what is trained is copied, what is frozen is shared."""
    frozen = {id(weight): weight for weight in model.parameters() if not weight.requires_grad}
    return copy.deepcopy(model, frozen)  # what the memo holds is not copied


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, *, decay: float, updates: int) -> None:
    """Move `average` towards `model` after the `updates`-th optimizer step (from 1).

    The decay starts low, min(decay, (1 + n) / (10 + n)), and grows to its full value: with a fixed 0.992 the average
    of a run of a few dozen steps would still be mostly the policy the run began with.
    """
    decay = min(decay, (1 + updates) / (10 + updates))
    torch._foreach_lerp_(trained(average), trained(model), 1 - decay)
