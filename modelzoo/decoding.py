"""Rows in the making: what they remember, and one step of all of them.

The keys and values of a prompt are kept once, however many rows continue it; each row keeps those of what it said. A
step attends to both with plain matrix products, so K completions read their prompt once. Rows leave when they are done
and others join at any step. Shapes: S prompts, B rows, L layers, G key-value heads, J query heads for each of them,
E dimensions a head, P columns of the longest prompt, R of the longest row, M rows of the prompt that has most, V
vocabulary.
"""

import math
from collections.abc import Sequence
from ctypes import CDLL
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor

from modelzoo.native import HEAD_WIDTHS, Step, library
from modelzoo.packing import Apart
from modelzoo.transformer import Attend, Transformer


class Decoding:
    """Every method keeps the order of rows; where rows leave, `leave` says what it becomes."""

    def __init__(self, model: Transformer) -> None:
        self.model, self.config = model, model.config
        weight = model.model.embed_tokens.weight
        config, self.device = model.config, weight.device
        usable = weight.device.type == "cpu" and weight.dtype == torch.float32 and config.sees_all
        usable = usable and not torch.is_autocast_enabled("cpu")
        self.native = library() if usable and config.head_dim in HEAD_WIDTHS else None
        self.scale = 1 / math.sqrt(config.head_dim)
        # A tensor for each layer, as memories grow layer by layer: only one is there twice at a time.
        nothing = weight.new_empty(0, config.num_key_value_heads, 0, config.head_dim)
        layers = config.num_hidden_layers
        self.prompt_keys, self.prompt_values = ([nothing] * layers for _ in range(2))  # (S, G, P, E)
        self.keys, self.values = ([nothing] * layers for _ in range(2))  # (B or more, G, R or more, E)
        self.prompt_lengths = torch.zeros(0, dtype=torch.long, device=weight.device)  # (S,)
        self.prompt_of = torch.zeros(0, dtype=torch.long, device=weight.device)  # (B,)
        self.said = torch.zeros(0, dtype=torch.long, device=weight.device)  # (B,) tokens in a row's own memory
        self.bias: Tensor | None = None  # on scores

    @property
    def rows(self) -> int:
        return len(self.said)

    def room(self, *shape: int) -> Tensor:
        """Memory to be filled. What is not seen yet must be a number, as its weight is 0; native code skips it."""
        weight = self.model.model.embed_tokens.weight
        return weight.new_zeros(shape) if self.native is None else weight.new_empty(shape)

    def join(self, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> Tensor:
        """Read prompts, each once and without padding, and add rows[i] rows behind prompt i; their first logits."""
        lengths = [len(prompt) for prompt in prompts]
        reading = _Reading(self, lengths)
        tokens = torch.tensor([[token for prompt in prompts for token in prompt]], device=self.device)
        positions = torch.cat([torch.arange(length) for length in lengths])[None].to(self.device)
        states = self.model.hidden(tokens, positions=positions, attend=reading)[0]
        ends = torch.tensor(lengths, device=self.device).cumsum(0) - 1
        for memory, read in ((self.prompt_keys, reading.keys), (self.prompt_values, reading.values)):
            for layer, new in enumerate(read):
                memory[layer], read[layer] = _stacked(memory[layer], new), new[:0]
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
        attend: Attend = self._attend
        if self.native is None:
            self.bias = self._bias(positions, if_needed=True)
        else:
            attend = self._natively(self.native)
        states = self.model.hidden(tokens[:, None], positions=positions, attend=attend)[:, 0]
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
                for memory in (*self.keys, *self.values):
                    memory[new, :, :length] = memory[old, :, :length]
        self.said, self.prompt_of = self.said[order], self.prompt_of[order]
        needed, self.prompt_of = self.prompt_of.unique(return_inverse=True)
        if len(needed) < len(self.prompt_lengths):
            self.prompt_lengths = self.prompt_lengths[needed]
            longest = int(self.prompt_lengths.max()) if len(needed) else 0
            for memories in (self.prompt_keys, self.prompt_values):
                memories[:] = [memory[needed, :, :longest].contiguous() for memory in memories]
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
        """Own memory for every row's next column, grown by a quarter: few copies, little waste."""
        rows, groups, columns, width = self.keys[0].shape
        self.longest = int(self.said.max()) + 1
        if self.rows > rows or self.longest > columns:
            wider = columns if self.longest <= columns else columns + max(32, columns // 4)
            for memories in (self.keys, self.values):
                for layer, old in enumerate(memories):
                    memories[layer] = self.room(max(rows, self.rows), groups, wider, width)
                    memories[layer][:rows, :, :columns] = old
            columns = wider
        heads = torch.arange(self.rows * groups, device=self.device).view(-1, groups)
        self.next = (heads * columns + self.said[:, None]).flatten()  # (B * G,) where a row's next column is

    @overload
    def _bias(self, positions: Tensor) -> Tensor: ...

    @overload
    def _bias(self, positions: Tensor, *, if_needed: bool) -> Tensor | None: ...

    def _bias(self, positions: Tensor, *, if_needed: bool = False) -> Tensor | None:
        """What each row may look at, as a bias on its scores (B, 1 or G, 1 or J, P + R); None if that is everything."""
        before = torch.arange(self.prompt_keys[0].shape[2], device=self.device)
        own = torch.arange(self.longest, device=self.device)
        lengths = self.prompt_lengths[self.prompt_of][:, None]  # (B, 1)
        visible = torch.cat([before < lengths, own <= self.said[:, None]], dim=1)[:, None, None]  # (B, 1, 1, P + R)
        if not self.config.sees_all:
            keys = torch.cat([before.expand(self.rows, -1), lengths + own], dim=1)  # (B, P + R) positions
            visible = self.model.model.near(visible, positions[:, None, :, None] - keys[:, None, None])
        elif if_needed and visible.all():
            return None
        if visible.dtype == torch.bool:
            visible = torch.zeros(visible.shape, dtype=self.keys[0].dtype, device=self.device).masked_fill_(
                ~visible, -math.inf
            )
        groups = self.config.num_key_value_heads
        bias: Tensor = visible.unflatten(1, (groups, -1) if visible.shape[1] > 1 else (1, 1)).squeeze(3)
        return bias

    def _attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(B, H, 1, E), (B, G, 1, E) twice -> (B, H, 1, E); the new keys and values are remembered."""
        rows, heads, _, width = queries.shape
        groups = keys.shape[1]
        own_keys = self._remembered(self.keys[layer], keys)  # (B * G, R, E)
        own_values = self._remembered(self.values[layer], values)
        queries = queries.mul(self.scale).view(rows, groups, -1, width)  # (B, G, J, E)
        before = self._apart(self._together(queries) @ self.prompt_keys[layer].mT)  # (B, G, J, P)
        own = queries.view(rows * groups, -1, width).bmm(own_keys.mT)  # (B * G, J, R)
        scores = torch.cat([before, own.view(*before.shape[:3], -1)], dim=-1)  # (B, G, J, P + R)
        if self.bias is not None:
            scores += self.bias
        weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
        of_prompt, of_own = weights.tensor_split([before.shape[-1]], dim=-1)
        mixed = self._apart(self._together(of_prompt) @ self.prompt_values[layer])  # (B, G, J, E)
        result = mixed.reshape(rows * groups, -1, width).baddbmm(of_own.flatten(0, 1), own_values)
        return result.view(rows, heads, 1, width)

    def _natively(self, native: CDLL) -> Attend:
        """`_attend` in one call for each layer, where nothing needs a bias."""
        _, groups, columns, width = self.keys[0].shape
        heads, threads = self.config.num_attention_heads, torch.get_num_threads()
        step = Step(
            prompt_lengths=self.prompt_lengths.data_ptr(),
            prompt_of=self.prompt_of.data_ptr(),
            said=self.said.data_ptr(),
            rows=self.rows,
            heads=heads,
            groups=groups,
            prompt_columns=self.prompt_keys[0].shape[2],
            own_columns=columns,
            scale=self.scale,
        )

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            mixed = queries.new_empty(len(queries), heads, 1, width)
            step.mixed, step.queries, step.keys, step.values = (
                part.data_ptr() for part in (mixed, queries, keys, values)
            )
            step.query_stride, step.key_stride, step.value_stride = queries.stride(0), keys.stride(0), values.stride(0)
            step.prompt_keys, step.prompt_values, step.own_keys, step.own_values = (
                memory[layer].data_ptr() for memory in (self.prompt_keys, self.prompt_values, self.keys, self.values)
            )
            native.attend(step, width, threads)
            return mixed

        return attend

    def _remembered(self, memory: Tensor, new: Tensor) -> Tensor:
        """Write each row's next column (B, G, 1, E) to memory (rows, G, columns, E); what is seen (B * G, R, E)."""
        memory.view(-1, memory.shape[-1]).index_copy_(0, self.next, new.flatten(0, 2).to(memory.dtype))
        return memory[: len(new)].flatten(0, 1)[:, : self.longest]

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
        shape = (len(lengths), config.num_key_value_heads, max(lengths), config.head_dim)
        self.keys, self.values = ([decoding.room(*shape) for _ in range(config.num_hidden_layers)] for _ in range(2))
        self.lengths = lengths
        self.apart = Apart(lengths, decoding.model.model, decoding.device)

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        for memory, part in ((self.keys, keys), (self.values, values)):
            for prompt, columns in enumerate(part[0].split(self.lengths, dim=1)):
                memory[layer][prompt, :, : columns.shape[1]] = columns
        return self.apart(layer, queries, keys, values)


def _stacked(first: Tensor, second: Tensor) -> Tensor:
    """(S, G, P, E) of some prompts and of some more, the shorter ones padded."""
    columns = max(first.shape[2], second.shape[2])
    both = first.new_zeros(len(first) + len(second), first.shape[1], columns, first.shape[3])
    both[: len(first), :, : first.shape[2]] = first
    both[len(first) :, :, : second.shape[2]] = second
    return both
