"""Keys and values of tokens already seen. Shapes: B rows, T columns, G key-value heads, E dimensions each, L layers."""

from collections.abc import Iterable

import torch
from torch import Tensor

from modelzoo.config import ModelConfig


class KVCache:
    """Keys and values of columns already seen, preallocated, so that a new token costs one column.

    Every row has the same `length` of columns; shorter prompts are padded on the left and `mask` tells pads apart.
    """

    def __init__(
        self, config: ModelConfig, rows: int, capacity: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (config.num_hidden_layers, rows, config.num_key_value_heads, capacity, config.head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)  # (L, B, G, capacity, E)
        self.values = torch.empty(shape, dtype=dtype, device=device)  # (L, B, G, capacity, E)
        self.mask = torch.zeros(rows, capacity, dtype=torch.bool, device=device)
        self.real = torch.zeros(rows, dtype=torch.long, device=device)  # real tokens so far: the next position
        self.length = 0
        self.padded = False

    @property
    def rows(self) -> int:
        return self.mask.shape[0]

    @property
    def capacity(self) -> int:
        return self.mask.shape[1]

    def select(self, rows: Tensor, capacity: int | None = None) -> "KVCache":
        """A cache of the given row indices (N,), in that order, repeats allowed, with room for `capacity` columns."""
        capacity = self.capacity if capacity is None else capacity
        chosen = KVCache.__new__(KVCache)
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            layers, _, groups, _, head_dim = old.shape
            new = old.new_empty(layers, len(rows), groups, capacity, head_dim)
            for layer in range(layers):  # one layer at a time: no second copy of the whole cache
                new[layer, :, :, : self.length] = old[layer, :, :, : self.length].index_select(0, rows)
            setattr(chosen, name, new)
        chosen.mask = self.mask.new_zeros(len(rows), capacity)
        chosen.mask[:, : self.length] = self.mask[rows, : self.length]
        chosen.real, chosen.length, chosen.padded = self.real[rows], self.length, self.padded
        return chosen

    def expand(self, k: int, capacity: int | None = None) -> "KVCache":
        """Each row K times, neighbours first: prompts that went through the model once become K rows each."""
        return self.select(torch.arange(self.rows, device=self.mask.device).repeat_interleave(k), capacity)

    def drop(self, rows: Iterable[int]) -> list[int]:
        """Forget some rows; rows from the end move into the gaps. Returns the old index of each row that is left."""
        order = list(range(self.rows))
        for gap in sorted(rows, reverse=True):
            last = order.pop()
            if gap < len(order):
                order[gap] = last
        for new, old in enumerate(order):
            if new != old:  # `old` lies behind every row that is kept, so nothing is read after it was overwritten
                self.keys[:, new, :, : self.length] = self.keys[:, old, :, : self.length]
                self.values[:, new, :, : self.length] = self.values[:, old, :, : self.length]
        self.keys, self.values = self.keys[:, : len(order)], self.values[:, : len(order)]
        self.mask, self.real = self.mask[order], self.real[order]
        return order

    def admit(self, mask: Tensor) -> None:
        """Announce new columns (B, T) of real tokens or pads; each layer then stores its part of them with `append`."""
        rows, columns = mask.shape
        if rows != self.rows or self.length + columns > self.capacity:
            raise ValueError(
                f"{rows} rows with {self.length} + {columns} columns do not fit a cache of "
                f"{self.rows} rows, {self.capacity} columns"
            )
        self.mask[:, self.length : self.length + columns] = mask
        self.real = self.real + mask.sum(1)
        self.padded = self.padded or not bool(mask.all())
        self.length += columns

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, G, T, E) for the columns admitted last and return those of every column so far."""
        start = self.length - keys.shape[2]
        self.keys[layer, :, :, start : self.length] = keys
        self.values[layer, :, :, start : self.length] = values
        return self.keys[layer, :, :, : self.length], self.values[layer, :, :, : self.length]
