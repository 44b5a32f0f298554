"""The completions of a prompt, ranked: what is learned from them (equations as pure functions) and how they are cut."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from modelzoo.batches import Example, length_of


class Ranking(NamedTuple):
    """The completions of one prompt with the tier of each; 1 is best."""

    examples: list[Example]
    tiers: list[int]


class HasExamples(Protocol):
    @property
    def examples(self) -> list[Example]: ...


Ranked = TypeVar("Ranked", bound=HasExamples)


def tokens_of(ranked: HasExamples) -> int:
    """Tokens of all completions with their prompts."""
    return sum(map(length_of, ranked.examples))


def whole_rankings(rankings: Sequence[Ranked], size: int) -> Iterator[list[Ranked]]:
    """Groups of whole rankings with at most `size` completions in all, or of one ranking with more."""
    group: list[Ranked] = []
    for ranking in rankings:
        if group and sum(len(member.examples) for member in [*group, ranking]) > size:
            yield group
            group = []
        group.append(ranking)
    if group:
        yield group


def ranking_loss(scores: Tensor, tiers: Tensor, *, margin: float = 0.0, ties: str = "drop") -> Tensor:
    """Mean over all pairs of one prompt of -log sigmoid(r_w - r_l - margin) (InstructGPT, equation 1).

    `scores` (K,), `tiers` (K,) with 1 for the best. Tied pairs are left out (`ties="drop"`) or, with `ties="model"`,
    count as half a win for each side: -1/2 [log sigmoid(d) + log sigmoid(-d)], smallest where the scores are equal.
    The margin is Llama 2's (2307.09288, section 3.2.2). Raises ValueError where no pair is left.
    """
    difference = scores[:, None] - scores[None, :]  # (K, K): row minus column
    won = tiers[:, None] < tiers[None, :]
    losses = -F.logsigmoid(difference[won] - margin)
    if ties == "model":
        tied = (tiers[:, None] == tiers[None, :]).triu(diagonal=1)
        losses = torch.cat([losses, -(F.logsigmoid(difference[tied]) + F.logsigmoid(-difference[tied])) / 2])
    if not len(losses):
        raise ValueError("every completion is tied with every other, so there is no pair to learn from")
    return losses.mean()


def pair_accuracy(scores: Tensor, tiers: Tensor) -> tuple[float, int]:
    """How many untied pairs the scores (K,) order as the tiers do, equal scores counting half, and of how many."""
    difference = (scores[:, None] - scores[None, :])[tiers[:, None] < tiers[None, :]]
    return float((difference > 0).sum() + 0.5 * (difference == 0).sum()), len(difference)
