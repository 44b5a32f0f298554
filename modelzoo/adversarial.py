"""Adversarial training: the loss is also lowered at embeddings that were moved to raise it.

FGM (Miyato et al., 1605.07725) moves a sequence's embeddings along the loss's gradient by a set norm and trains on the
clean and the moved ones; FreeLB (Zhu et al., 1909.11764) takes several such steps from a random start and trains on
each; NEFTune (Jain et al., 2310.05914) adds uniform noise and costs nothing.

Shapes: B rows, T columns, D width. `segments` (B, T) numbers the sequences: tokens with one number are moved together,
those with -1 (pads) stay where they are.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from modelzoo.batches import seeded
from modelzoo.config import AdversarialConfig


def passes(embedding: nn.Embedding, segments: Tensor, config: AdversarialConfig, step: int) -> Iterator[float]:
    """The forward passes that a batch needs; each yields its share, by which to scale its loss before backward().

        for share in passes(model.embed_tokens, segments, config, step):
            (share * loss_of(batch)).backward()

    The shares sum to 1. In each pass the embedding layer must be asked once, for tokens (B, T). Noise is a function of
    the seed, the step and a sequence's own tokens: neither padding nor its company in the batch changes it.
    """
    method, size = config.adversarial, config.adversarial_epsilon
    if method == "none" or not size:
        yield 1.0
        return
    count = {"neftune": 1, "fgm": 2}.get(method, config.adversarial_steps)

    delta: Tensor | None = None

    def added(tokens: Tensor, embedded: Tensor) -> Tensor:
        if delta is not None:
            return delta
        if method == "fgm":
            return torch.zeros_like(embedded)
        return noise(tokens, embedded, segments, size, seeds=(config.seed, step))

    for number in range(count):
        with _moved(embedding, added) as used:
            yield 1 / count
        if number + 1 < count:
            delta = ascended(used[0], segments, length=size / (count - 1), radius=size)


@contextmanager
def _moved(embedding: nn.Embedding, added: Callable[[Tensor, Tensor], Tensor]) -> Iterator[list[Tensor]]:
    """Add what `added` makes of (tokens, embedded) to what the layer gives; the list holds it for its gradient."""
    used: list[Tensor] = []

    def move(layer: nn.Module, inputs: tuple[Tensor], embedded: Tensor) -> Tensor:
        used.append(added(inputs[0], embedded.detach()).requires_grad_(True))
        return embedded + used[-1]

    hook = embedding.register_forward_hook(move)
    try:
        yield used
    finally:
        hook.remove()


def noise(tokens: Tensor, embedded: Tensor, segments: Tensor, size: float, seeds: tuple[int, ...]) -> Tensor:
    """Uniform in ±size / sqrt(L D) for each sequence of L tokens; (B, T, D). Its norm is near size / sqrt(3)."""
    drawn = torch.zeros_like(embedded)
    width = embedded.shape[-1]
    for number in range(int(segments.max()) + 1):
        where = segments == number
        real: list[int] = tokens[where].tolist()
        if real:
            draw = torch.rand(len(real), width, generator=seeded(*seeds, "noise", *real)) * 2 - 1
            drawn[where] = (draw * (size / math.sqrt(len(real) * width))).to(drawn)
    return drawn


def ascended(delta: Tensor, segments: Tensor, *, length: float, radius: float) -> Tensor:
    """`delta` (B, T, D) moved along its gradient, each sequence by `length`, then held within `radius`; L2 norms."""
    if delta.grad is None:
        raise RuntimeError("backward() comes before the next pass")
    tiny = torch.finfo(delta.dtype).tiny
    moved = delta.detach() + length * delta.grad / norms(delta.grad, segments).clamp_min(tiny)
    return moved * (radius / norms(moved, segments).clamp_min(tiny)).clamp_max(1.0) * (segments >= 0)[..., None]


def norms(values: Tensor, segments: Tensor) -> Tensor:
    """The L2 norm of the sequence that each token belongs to, (B, T, 1)."""
    numbers = (segments + 1).flatten()  # 0 holds what belongs to none
    squares = values.square().sum(dim=-1).flatten()
    totals = squares.new_zeros(int(numbers.max()) + 1).index_add(0, numbers, squares)
    return totals.sqrt()[numbers].view(*segments.shape, 1)
