"""Scores of K completions in one forward that reads what they have in common once, with its gradient.

No token looks at what follows it, so the states of a prompt are the same in front of every completion. All columns of
a ranking stand in one row, the common beginning first, then what is left of each completion, without padding; only
attention knows whose columns are whose. A ranking costs P + sum(R_k) columns in place of K(P + max R_k). Exact: see
tests/test_shared_prefix.py. 2410.20305 does this for DPO's pairs.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from modelzoo.batches import Example
from modelzoo.transformer import Decoder, RewardModel


def shared_scores(reward_model: RewardModel, rankings: Sequence[Sequence[Example]]) -> list[Tensor]:
    """The scores (K,) of the completions of each ranking; all rankings go through the model together.

    Completions that share a longer beginning than their prompt share that too, a lone one shares all it has.
    """
    device = reward_model.score.weight.device
    tokens: list[int] = []
    positions: list[int] = []
    branches, last = [], []
    for examples in rankings:
        rows = [example.tokens for example in examples]
        start, prefix = len(tokens), common_prefix(rows)
        rests = [row[len(prefix) :] for row in rows]
        branches.append(Branches(reward_model.model, len(prefix), [len(rest) for rest in rests], device))
        tokens += prefix
        positions += range(len(prefix))
        for rest in rests:
            tokens += rest
            positions += range(len(prefix), len(prefix) + len(rest))
            last.append(len(tokens) - 1 if rest else start + len(prefix) - 1)
    states = reward_model.hidden(
        torch.tensor([tokens], device=device),
        positions=torch.tensor([positions], device=device),
        attend=SideBySide(branches),
    )
    return list(reward_model.scores(states[0, last]).split([len(examples) for examples in rankings]))


def segments(rankings: Sequence[Sequence[Example]], device: torch.device) -> Tensor:
    """Which column of the one row belongs to what, (1, N): a number for each beginning and each rest behind it."""
    lengths: list[int] = []
    for examples in rankings:
        prefix = len(common_prefix([example.tokens for example in examples]))
        lengths += [prefix, *(len(example.tokens) - prefix for example in examples)]
    sizes = torch.tensor(lengths, device=device)
    return torch.arange(len(lengths), device=device).repeat_interleave(sizes)[None]


def common_prefix(rows: Sequence[list[int]]) -> list[int]:
    """The longest beginning that all rows share."""
    length = 0
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        length += 1
    return rows[0][:length]


class Branches:
    """Attention of a prefix of P columns and of K branches that continue it, laid end to end: N columns in all."""

    def __init__(self, decoder: Decoder, prefix: int, branches: Sequence[int], device: torch.device) -> None:
        self.prefix, self.rows, self.longest = prefix, len(branches), max(branches)
        self.columns = prefix + sum(branches)
        lengths = torch.tensor(branches, device=device)[:, None]  # (K, 1)
        starts = lengths.cumsum(0) - lengths
        step = torch.arange(self.longest, device=device)  # (R,)
        # What fills a branch behind its end is some column that exists: no real column looks there.
        self.padded = (starts + step).clamp(max=sum(branches) - 1).flatten()  # (K * R,)
        self.real = (step < lengths).flatten().nonzero()[:, 0]  # (N - P,)
        column = torch.arange(prefix + self.longest, device=device)
        distance = column[:, None] - column
        self.visible = (distance >= 0)[None, None]
        self.sees_all = decoder.config.sees_all
        if not self.sees_all:
            self.visible = decoder.near(self.visible, distance[None, None])

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(1, H, N, E), (1, G, N, E) twice -> (1, H, N, E)."""
        parts = (queries, keys, values)
        mixed = []
        if self.prefix:
            before = None if self.sees_all else self.visible[:, :, : self.prefix, : self.prefix]
            beginning = (part[:, :, : self.prefix] for part in parts)
            mixed.append(_attention(*beginning, attn_mask=before, is_causal=before is None))
        if self.longest:
            own, own_keys, own_values = (self._spread(part[0, :, self.prefix :]) for part in parts)
            seen = (
                torch.cat([part[:, :, : self.prefix].expand(self.rows, -1, -1, -1), rest], dim=2)
                for part, rest in ((keys, own_keys), (values, own_values))
            )
            rows = _attention(own, *seen, attn_mask=self.visible[:, :, self.prefix :])  # (K, H, R, E)
            mixed.append(rows.transpose(0, 1).flatten(1, 2).index_select(1, self.real)[None])
        return torch.cat(mixed, dim=2)

    def _spread(self, part: Tensor) -> Tensor:
        """(heads, N - P, E) -> (K, heads, R, E), ragged ends filled."""
        heads, _, width = part.shape
        return part.index_select(1, self.padded).view(heads, self.rows, self.longest, width).transpose(0, 1)


class SideBySide:
    """Several groups of branches in one row, blind to each other."""

    def __init__(self, groups: Sequence[Branches]) -> None:
        self.groups = groups

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        sizes = [group.columns for group in self.groups]
        parts = zip(*(part.split(sizes, dim=2) for part in (queries, keys, values)), strict=True)
        return torch.cat([group(layer, *part) for group, part in zip(self.groups, parts, strict=True)], dim=2)


def _attention(queries: Tensor, keys: Tensor, values: Tensor, **options: Tensor | bool | None) -> Tensor:
    return F.scaled_dot_product_attention(queries, keys, values, enable_gqa=True, **options)  # type: ignore[arg-type]
