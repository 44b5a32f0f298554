"""A policy with its matrices laid out for decoding, where a step has few rows and waits for weights to be read.

float32 laid out for `native.cpp`, or by oneDNN, gives the same numbers up to rounding. int8 weights, a scale for 64 of
them, read a quarter of the bytes; inputs are rounded to 8 bits too, which changes what is said a little: an option for
sets that people rank, never for PPO's own rollouts.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from modelzoo.linear import ONEDNN, Linear
from modelzoo.native import NativeInt8Linear, NativeLinear, NativeNorm, library, rotated, swiglu
from modelzoo.transformer import MLP, Attention, RMSNorm, Transformer, rotate

Product = Callable[[Tensor], Tensor]
"""(..., I) to (..., O) by a matrix that does not change."""
Pack = Callable[[Tensor, Tensor | None], Product]


class PackedLinear(nn.Module):
    def __init__(self, product: Product) -> None:
        super().__init__()
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x)


def packed(policy: Transformer, weights: str = "float32") -> Transformer:
    """The policy for inference with `weights` of "float32" or "int8"; what is no matrix is shared with it.

    Where there is nothing to gain (a GPU, another precision) float32 is the policy itself. Raises ValueError where int8
    cannot be had.
    """
    weight = policy.model.embed_tokens.weight
    usable = weight.device.type == "cpu" and weight.dtype == torch.float32
    if weights == "float32":
        if not (usable and (ONEDNN or library())):
            return policy
        pack = _float32
    elif weights == "int8":
        if not usable:
            raise ValueError(f"int8 weights are for float32 models on CPUs, not {weight.dtype} on {weight.device}")
        if library() is None:
            raise ValueError("int8 weights need a C++ compiler: install g++, or take float32")
        pack = _int8
    else:
        raise ValueError(f"weights must be float32 or int8, not {weights!r}")
    return cast(Transformer, _packed(policy, pack, {}))


def _packed(module: nn.Module, pack: Pack, done: dict[int, nn.Module]) -> nn.Module:
    """A copy that shares what it does not pack. Layers that were one stay one."""
    if id(module) in done:
        return done[id(module)]
    if isinstance(module, Linear):
        return done.setdefault(id(module), PackedLinear(pack(module.matrix(), module.bias)))
    native = library()
    if isinstance(module, RMSNorm) and native is not None:
        return done.setdefault(id(module), NativeNorm(native, module.weight, module.eps))
    twin = done[id(module)] = copy.copy(module)
    methods, packed_already = _methods(module, pack)
    vars(twin).update(methods)
    twin._modules = {
        name: child if name == "embed_proj" else child and _packed(child, pack, done)  # a tied head reads its weight
        for name, child in module._modules.items()
        if name not in packed_already
    }
    return twin


def _methods(module: nn.Module, pack: Pack) -> tuple[dict[str, Callable[..., Any]], list[str]]:
    """Methods that products take the place of, and the submodules that are in those products."""
    if isinstance(module, Attention):
        names = ["q_proj", "k_proj", "v_proj"]
        together, parts = _side_by_side(module, names, pack)
        if not isinstance(module.q_norm, nn.Identity):
            return {"projections": lambda x: together(x).split(parts, dim=-1)}, names
        keys_end, width = (parts[0] + parts[1]) // module.head_dim, module.head_dim
        counts, native = [part // width for part in parts], library()

        def heads(x: Tensor, angles: tuple[Tensor, Tensor] | None) -> Sequence[Tensor]:
            queries_keys, values = together(x).unflatten(-1, (-1, width)).tensor_split([keys_end], dim=2)
            if angles is not None:
                queries_keys = rotated(native, queries_keys, angles) if native else rotate(queries_keys, angles)
            return *queries_keys.split(counts[:2], dim=2), values

        return {"heads": heads}, names
    if isinstance(module, MLP) and module.gated:
        names = ["gate_proj", "up_proj"]
        (both, parts), activation, native = _side_by_side(module, names, pack), module.activation, library()

        def inner(x: Tensor) -> Tensor:
            gates_ups = both(x)
            if native is not None:
                return swiglu(native, gates_ups)
            gate, up = gates_ups.split(parts, dim=-1)
            return activation(gate).mul_(up)

        return {"inner": inner}, names
    if isinstance(module, Transformer):
        config = module.config
        if config.tie_word_embeddings and config.embedding_size == config.hidden_size:
            return {"logits": pack(module.model.embed_tokens.weight, None)}, []
    return {}, []


def _side_by_side(module: nn.Module, names: Sequence[str], pack: Pack) -> tuple[Product, list[int]]:
    """Several matrices that read the same input as one, and how wide the result of each is."""
    parts = [cast(Linear, module._modules[name]) for name in names]
    weight = torch.cat([part.matrix() for part in parts])
    bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
    return pack(weight, bias), [part.out_features for part in parts]


def _float32(weight: Tensor, bias: Tensor | None) -> Product:
    native = library()
    if native is not None:
        return NativeLinear(native, weight, bias)
    layout = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
    bias = None if bias is None else bias.detach()

    def product(x: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, layout, bias, "none", [], "")
        return result

    return product


def _int8(weight: Tensor, bias: Tensor | None) -> Product:
    native = library()
    assert native is not None  # `packed` made sure
    return NativeInt8Linear(native, weight, bias)
