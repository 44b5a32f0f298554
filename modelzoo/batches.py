"""Examples, the batches of tokens they make, and the order in which a run reads them."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from modelzoo.transformer import Attend

Item = TypeVar("Item")


class Example(NamedTuple):
    """A prompt, rendered with the chat template up to where the assistant speaks, and what it says."""

    prompt: list[int]
    response: list[int]

    @property
    def tokens(self) -> list[int]:
        return self.prompt + self.response


def length_of(example: Example) -> int:
    """Tokens of prompt and response."""
    return len(example.prompt) + len(example.response)


class Batch(NamedTuple):
    """Sequences padded on the right."""

    tokens: Tensor  # (B, T) long
    mask: Tensor  # (B, T) bool: real tokens
    response: Tensor  # (B, T) bool: tokens the assistant said, its end-of-turn token included

    @property
    def positions(self) -> None:
        """As they come: a row is one sequence."""

    @property
    def attend(self) -> None:
        """Causal attention."""

    @property
    def segments(self) -> Tensor:
        """(B, T) long: the number of the sequence that a token belongs to, -1 at pads."""
        return torch.where(self.mask, torch.arange(len(self.mask), device=self.mask.device)[:, None], -1)

    def trimmed(self) -> "Batch":
        """Without columns that are padding in every row."""
        length = int(self.mask.sum(dim=1).max())
        return Batch(*(tensor[:, :length] for tensor in self))


class Packed(NamedTuple):
    """Sequences one behind another in one row, without padding; `attend` keeps them apart."""

    tokens: Tensor  # (1, T) long
    response: Tensor  # (1, T) bool
    positions: Tensor  # (1, T) long: from 0 in each sequence
    attend: Attend

    @property
    def segments(self) -> Tensor:
        """(1, T) long: the number of the sequence that a token belongs to."""
        return (self.positions == 0).cumsum(dim=1) - 1


def collate(examples: Sequence[Example], pad_id: int, device: torch.device | str = "cpu") -> Batch:
    length = max(len(example.tokens) for example in examples)
    tokens = torch.full((len(examples), length), pad_id)
    mask = torch.zeros(len(examples), length, dtype=torch.bool)
    response = torch.zeros_like(mask)
    for row, example in enumerate(examples):
        end = len(example.tokens)
        tokens[row, :end] = torch.tensor(example.tokens)
        mask[row, :end] = True
        response[row, len(example.prompt) : end] = True
    return Batch(tokens.to(device), mask.to(device), response.to(device))


def micro_batches(items: Sequence[Item], size: int, length: Callable[[Item], int]) -> Iterator[list[Item]]:
    """The items in groups of `size`, alike in length so that little is padded. Nothing but speed depends on it."""
    ordered = sorted(items, key=length)
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


# Order ------------------------------------------------------------------------------------------------------------


def seeded(*parts: int | str) -> torch.Generator:
    """A generator whose state is a function of `parts`, so that no random state outlives a step or needs saving."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """Every index once, shuffled for this epoch."""
    order: list[int] = torch.randperm(count, generator=seeded(seed, "order", epoch)).tolist()
    return order


def step_indices(count: int, batch_size: int, seed: int, step: int) -> list[int]:
    """What step `step` (from 0) of an epochal run reads; the last step of an epoch may be smaller."""
    steps_per_epoch = -(-count // batch_size)
    epoch, place = divmod(step, steps_per_epoch)
    return epoch_order(count, seed, epoch)[place * batch_size : (place + 1) * batch_size]


def endless_indices(count: int, start: int, length: int, seed: int) -> list[int]:
    """`length` indices from place `start` of an endless row of shuffled epochs: every batch is full."""
    orders = {
        epoch: epoch_order(count, seed, epoch) for epoch in range(start // count, (start + length - 1) // count + 1)
    }
    return [orders[place // count][place % count] for place in range(start, start + length)]
