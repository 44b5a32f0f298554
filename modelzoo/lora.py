"""LoRA (Hu et al., 2106.09685): small trained matrices beside frozen ones.

A layer computes W x + (alpha / r) B A x (equation 3). B starts at 0, so an adapted model is, bit for bit, the model it
was made from. Both share the frozen weights: the plain model is the adapted one with its adapters off, and needs no
memory of its own.
"""

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelzoo.batches import seeded
from modelzoo.config import FineTuningConfig
from modelzoo.linear import Linear

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
LAYERS = {"attention": ATTENTION, "all": (*ATTENTION, "gate_proj", "up_proj", "down_proj")}

Model = TypeVar("Model", bound=nn.Module)


class LoRALinear(Linear):
    """A frozen linear layer, whose weight it shares, and what is added to it."""

    def __init__(self, base: Linear, rank: int, alpha: float, generator: torch.Generator) -> None:
        with torch.device("meta"):  # no memory: the weights are those of `base`
            super().__init__(base.in_features, base.out_features, bias=base.bias is not None)
        self.weight, self.bias = base.weight, base.bias
        draw = torch.rand(rank, base.in_features, generator=generator, device=generator.device) * 2 - 1
        self.lora_A = nn.Parameter((draw * base.in_features**-0.5).to(base.weight))  # (r, in)
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))  # (out, r)
        self.scaling = alpha / rank

    def forward(self, input: Tensor) -> Tensor:
        added = F.linear(F.linear(input, self.lora_A), self.lora_B)
        return super().forward(input) + self.scaling * added

    @torch.no_grad()
    def matrix(self) -> Tensor:
        return self.weight + self.scaling * (self.lora_B @ self.lora_A)

    @torch.no_grad()
    def merged(self) -> Linear:
        """The plain layer that computes the same."""
        with torch.device("meta"):
            plain = Linear(self.in_features, self.out_features, bias=self.bias is not None)
        plain.weight, plain.bias = nn.Parameter(self.matrix()), self.bias
        return plain


def adapted(model: Model, config: FineTuningConfig) -> Model:
    """What is trained in place of `model`: itself where `lora_rank` is 0, else a model that shares its weights.

    They are frozen then; what learns are the adapters and, in a reward or value model, a score head of its own.
    """
    if not config.lora_rank:
        return model
    model.requires_grad_(False)
    trunk = {id(weight): weight for name, weight in model.named_parameters() if not name.startswith("score.")}
    learner = copy.deepcopy(model, trunk)  # what the memo holds is not copied
    for path, parent in list(learner.named_modules()):
        for name, layer in list(parent.named_children()):
            if name in LAYERS[config.lora_layers] and isinstance(layer, Linear):
                generator = seeded(config.seed, "adapter", path, name)
                setattr(parent, name, LoRALinear(layer, config.lora_rank, config.lora_alpha, generator))
    for name, weight in learner.named_parameters():
        if name.startswith("score."):
            weight.requires_grad_(True)
    return learner


def merged(model: Model) -> Model:
    """A plain model that computes the same, for export. What has no adapter is shared with `model`."""
    if not any(isinstance(layer, LoRALinear) for layer in model.modules()):
        return model
    plain = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
    for parent in list(plain.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, LoRALinear):
                setattr(parent, name, layer.merged())
    return plain
