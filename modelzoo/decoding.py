"""Rows in the making: what they remember, and one step of all of them.

The keys and values of a prompt are kept once, however many rows continue it; each row keeps those of what it said. A
step attends to both with plain matrix products, so K completions read their prompt once. Rows leave when they are done
and others join at any step. Shapes: S prompts, B rows, L layers, G key-value heads, J query heads for each of them,
E dimensions a head, P columns of the longest prompt, R of the longest row, M rows of the prompt that has most, V
vocabulary.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from modelzoo.packing import Apart
from modelzoo.transformer import Transformer


class Decoding:
    """Every method keeps the order of rows; where rows leave, `leave` says what it becomes."""

    def __init__(self, model: Transformer) -> None:
        self.model, self.config = model, model.config
        weight = model.model.embed_tokens.weight
        config, self.device = model.config, weight.device
        self.scale = 1 / math.sqrt(config.head_dim)
        heads = (config.num_hidden_layers, 0, config.num_key_value_heads, 0, config.head_dim)
        self.prompt_keys = self.prompt_values = torch.empty(heads, dtype=weight.dtype, device=weight.device)
        self.keys = self.values = torch.empty(heads, dtype=weight.dtype, device=weight.device)
        self.prompt_lengths = torch.zeros(0, dtype=torch.long, device=weight.device)  # (S,)
        self.prompt_of = torch.zeros(0, dtype=torch.long, device=weight.device)  # (B,)
        self.said = torch.zeros(0, dtype=torch.long, device=weight.device)  # (B,) tokens in a row's own memory

    @property
    def rows(self) -> int:
        return len(self.said)

    def join(self, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> Tensor:
        """Read prompts, each once and without padding, and add rows[i] rows behind prompt i; their first logits."""
        lengths = [len(prompt) for prompt in prompts]
        reading = _Reading(self, lengths)
        tokens = torch.tensor([[token for prompt in prompts for token in prompt]], device=self.device)
        positions = torch.cat([torch.arange(length) for length in lengths])[None].to(self.device)
        states = self.model.hidden(tokens, positions=positions, attend=reading)[0]
        ends = torch.tensor(lengths, device=self.device).cumsum(0) - 1
        self.prompt_keys = _stacked(self.prompt_keys, reading.keys)
        self.prompt_values = _stacked(self.prompt_values, reading.values)
        counts = torch.tensor(rows, device=self.device)
        source = torch.arange(len(prompts), device=self.device).repeat_interleave(counts)
        self.prompt_of = torch.cat([self.prompt_of, source + len(self.prompt_lengths)])
        self.prompt_lengths = torch.cat([self.prompt_lengths, torch.tensor(lengths, device=self.device)])
        self.said = torch.cat([self.said, self.said.new_zeros(len(source))])
        self._arrange()
        return self.model.logits(states[ends])[source]

    def step(self, tokens: Tensor) -> Tensor:
        """Each row says its token (B,); the logits (B, V) of what comes next."""
        self._make_room()
        positions = (self.prompt_lengths[self.prompt_of] + self.said)[:, None]  # (B, 1)
        self._see(positions)
        states = self.model.hidden(tokens[:, None], positions=positions, attend=self._attend)[:, 0]
        self.said = self.said + 1
        return self.model.logits(states)

    def leave(self, finished: Sequence[int]) -> list[int]:
        """Forget some rows; others move into their places. Returns the old index of each row that is left."""
        order = list(range(self.rows))
        for gap in sorted(finished, reverse=True):
            last = order.pop()
            if gap < len(order):
                order[gap] = last
        for new, old in enumerate(order):
            length = int(self.said[old])
            if new != old and length:  # `old` lies behind all that are kept: nothing is read that was overwritten
                self.keys[:, new, :, :length] = self.keys[:, old, :, :length]
                self.values[:, new, :, :length] = self.values[:, old, :, :length]
        self.said, self.prompt_of = self.said[order], self.prompt_of[order]
        needed, self.prompt_of = self.prompt_of.unique(return_inverse=True)
        if len(needed) < len(self.prompt_lengths):
            self.prompt_lengths = self.prompt_lengths[needed]
            longest = int(self.prompt_lengths.max()) if len(needed) else 0
            self.prompt_keys = self.prompt_keys[:, needed, :, :longest]
            self.prompt_values = self.prompt_values[:, needed, :, :longest]
        self._arrange()
        return order

    def _arrange(self) -> None:
        """Find each row's place among those of its prompt, so that the queries of a prompt are one matrix."""
        counts = self.prompt_of.bincount(minlength=len(self.prompt_lengths))
        self.most = int(counts.max()) if len(counts) else 0
        order = self.prompt_of.argsort(stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=self.device) - (counts.cumsum(0) - counts)[self.prompt_of[order]]
        self.place = self.prompt_of * self.most + rank  # (B,) in S * M
        self.member = torch.zeros(len(counts) * self.most, dtype=torch.long, device=self.device)  # (S * M,)
        index = torch.arange(self.rows, device=self.device)
        self.member[self.place] = index
        self.in_order = len(self.place) == len(self.member) and bool((self.place == index).all())

    def _make_room(self) -> None:
        """Own memory for every row's next column, grown by half as much again: few copies, little waste."""
        rows, columns = self.keys.shape[1], self.keys.shape[3]
        self.longest = int(self.said.max()) + 1
        self.level = bool((self.said == self.longest - 1).all())
        if self.rows <= rows and self.longest <= columns:
            return
        columns = columns if self.longest <= columns else max(32, columns * 3 // 2)
        shape = (self.keys.shape[0], max(rows, self.rows), self.keys.shape[2], columns, self.keys.shape[4])
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            new = old.new_zeros(shape)  # what is not seen yet must be a number: its weight is 0
            new[:, :rows, :, : old.shape[3]] = old
            setattr(self, name, new)

    def _see(self, positions: Tensor) -> None:
        """What each row may look at, as a bias on its scores (B, 1 or H, 1, P + R); None where that is everything."""
        before = torch.arange(self.prompt_keys.shape[3], device=self.device)
        own = torch.arange(self.longest, device=self.device)
        lengths = self.prompt_lengths[self.prompt_of][:, None]  # (B, 1)
        visible = torch.cat([before < lengths, own <= self.said[:, None]], dim=1)[:, None, None]  # (B, 1, 1, P + R)
        self.bias: Tensor | None = None
        if not self.config.sees_all:
            keys = torch.cat([before.expand(self.rows, -1), lengths + own], dim=1)  # (B, P + R) positions
            visible = self.model.model.near(visible, positions[:, None, :, None] - keys[:, None, None])
        elif visible.all():
            return
        if visible.dtype == torch.bool:
            visible = torch.zeros(visible.shape, dtype=self.keys.dtype, device=self.device).masked_fill_(
                ~visible, -math.inf
            )
        groups = self.config.num_key_value_heads
        self.bias = visible.unflatten(1, (groups, -1) if visible.shape[1] > 1 else (1, 1)).squeeze(
            3
        )  # (B, G, J, P + R)

    def _attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(B, H, 1, E), (B, G, 1, E) twice -> (B, H, 1, E); the new keys and values are remembered."""
        rows, heads, _, width = queries.shape
        own_keys, own_values = self.keys[layer, :rows], self.values[layer, :rows]  # (B, G, columns, E)
        if self.level:
            own_keys[:, :, self.longest - 1], own_values[:, :, self.longest - 1] = keys[:, :, 0], values[:, :, 0]
        else:
            index = torch.arange(rows, device=self.device)
            own_keys[index, :, self.said], own_values[index, :, self.said] = keys[:, :, 0], values[:, :, 0]
        own_keys, own_values = own_keys[:, :, : self.longest], own_values[:, :, : self.longest]
        queries = queries.view(rows, keys.shape[1], -1, width) * self.scale  # (B, G, J, E)
        before = self._apart(self._together(queries) @ self.prompt_keys[layer].mT)  # (B, G, J, P)
        scores = torch.cat([before, queries @ own_keys.mT], dim=-1)  # (B, G, J, P + R)
        if self.bias is not None:
            scores += self.bias
        weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
        columns = before.shape[-1]
        mixed = self._apart(self._together(weights[..., :columns]) @ self.prompt_values[layer])
        mixed = mixed + weights[..., columns:] @ own_values
        result: Tensor = mixed.reshape(rows, heads, 1, width)
        return result

    def _together(self, rows: Tensor) -> Tensor:
        """(B, G, J, X) -> (S, G, M * J, X): the rows of each prompt in one matrix, places without a row filled."""
        rows = rows if self.in_order else rows[self.member]
        together: Tensor = rows.unflatten(0, (-1, self.most)).transpose(1, 2).flatten(2, 3)
        return together

    def _apart(self, prompts: Tensor) -> Tensor:
        """(S, G, M * J, X) -> (B, G, J, X)."""
        rows: Tensor = prompts.unflatten(2, (self.most, -1)).transpose(1, 2).flatten(0, 1)
        return rows if self.in_order else rows[self.place]


class _Reading:
    """Attention within each of several prompts that stand in one row; keeps their keys and values."""

    def __init__(self, decoding: Decoding, lengths: list[int]) -> None:
        config = decoding.config
        heads = (config.num_key_value_heads, max(lengths), config.head_dim)
        self.keys = decoding.keys.new_zeros(config.num_hidden_layers, len(lengths), *heads)  # (L, S, G, P, E)
        self.values = torch.zeros_like(self.keys)
        self.lengths = lengths
        self.apart = Apart(lengths, decoding.model.model, decoding.device)

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        for memory, part in ((self.keys, keys), (self.values, values)):
            for prompt, columns in enumerate(part[0].split(self.lengths, dim=1)):
                memory[layer, prompt, :, : columns.shape[1]] = columns
        return self.apart(layer, queries, keys, values)


def _stacked(first: Tensor, second: Tensor) -> Tensor:
    """(L, S, G, P, E) of some prompts and of some more, the shorter ones padded."""
    columns = max(first.shape[3], second.shape[3])
    both = first.new_zeros(first.shape[0], first.shape[1] + second.shape[1], first.shape[2], columns, first.shape[4])
    both[:, : first.shape[1], :, : first.shape[3]] = first
    both[:, first.shape[1] :, :, : second.shape[3]] = second
    return both
