"""Sequences of unequal length in one row without padding: nothing is computed for pads, and nothing leaks between them.

Linear layers see one long row. Attention goes through the sequences one by one, so no score between two of them is
computed, let alone masked, and each has the bits it would have alone.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from modelzoo.batches import Example, Packed, length_of
from modelzoo.transformer import Decoder

Item = TypeVar("Item")


def best_fit(items: Sequence[Item], size: int, length: Callable[[Item], int]) -> list[list[Item]]:
    """The items in few groups, each with room for `size` of the longest.

    Best-fit decreasing: the longest first, each into the fullest group that still has room. So no group takes more
    memory than `size` padded sequences would, and there are never more groups than of those.
    """
    room = size * max(map(length, items), default=0)
    groups: list[list[Item]] = []
    free: list[int] = []
    for item in sorted(items, key=length, reverse=True):
        fitting = [index for index, left in enumerate(free) if left >= length(item)]
        index = min(fitting, key=free.__getitem__, default=len(groups))
        if index == len(groups):
            groups.append([])
            free.append(room)
        groups[index].append(item)
        free[index] -= length(item)
    return groups


def pack(examples: Sequence[Example], decoder: Decoder) -> Packed:
    """One row of all examples. A first token is never a response: nothing is predicted from another sequence."""
    lengths = [length_of(example) for example in examples]
    device = decoder.embed_tokens.weight.device
    positions = torch.cat([torch.arange(length) for length in lengths])
    prompts = torch.tensor([max(1, len(example.prompt)) for example in examples])
    return Packed(
        tokens=torch.tensor([token for example in examples for token in example.tokens], device=device)[None],
        response=(positions >= prompts.repeat_interleave(torch.tensor(lengths))).to(device)[None],
        positions=positions.to(device)[None],
        attend=Apart(lengths, decoder, device),
    )


class Apart:
    """Causal attention within each of several sequences that stand in one row."""

    def __init__(self, lengths: list[int], decoder: Decoder, device: torch.device) -> None:
        self.lengths = lengths
        ends = torch.tensor([0, *lengths]).cumsum(0)
        self.bounds = ends.to(device=device, dtype=torch.int32)  # (sequences + 1,)
        self.masks: list[Tensor] = []  # empty: plainly causal
        if not decoder.config.sees_all:
            column = torch.arange(max(lengths), device=device)
            distance = (column[:, None] - column)[None, None]
            mask = decoder.near(distance >= 0, distance)  # (1, 1 or H, longest, longest)
            self.masks = [mask[:, :, :length, :length] for length in lengths]

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(1, H, T, E), (1, G, T, E) twice -> (1, H, T, E)."""
        if queries.is_cuda and queries.dtype in (torch.bfloat16, torch.float16) and not self.masks:
            return self._in_one_kernel(queries, keys, values)
        parts = (part.split(self.lengths, dim=2) for part in (queries, keys, values))
        masks: Sequence[Tensor | None] = self.masks or [None] * len(self.lengths)
        mixed = [
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True)
            for q, k, v, mask in zip(*parts, masks, strict=True)
        ]
        return torch.cat(mixed, dim=2)

    def _in_one_kernel(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """FlashAttention for ragged sequences; it wants (T, heads, E)."""
        from torch.nn.attention.varlen import varlen_attn  # takes seconds to import

        longest = max(self.lengths)
        mixed = varlen_attn(
            queries[0].transpose(0, 1),
            keys[0].transpose(0, 1),
            values[0].transpose(0, 1),
            cu_seq_q=self.bounds,
            cu_seq_k=self.bounds,
            max_q=longest,
            max_k=longest,
            window_size=(-1, 0),  # causal
            enable_gqa=True,
        )
        assert isinstance(mixed, Tensor)
        return mixed.transpose(0, 1)[None]
