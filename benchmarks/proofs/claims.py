"""What every proof ends with: claims that hold or do not, a table, and a picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.loop.outcome import Interval


@dataclass(frozen=True)
class Claim:
    text: str
    holds: bool


@dataclass(frozen=True)
class Proof:
    """`prove(seed, folder, ...)` gives the outcome of one seed; the other functions take the outcomes of all."""

    seeds: int
    prove: Callable[..., Any]
    table: Callable[[Sequence[Any]], str]
    claims: Callable[[Sequence[Any]], list[Claim]]
    draw: Callable[[Sequence[Any], Path], None]
    epochs: int = 0  # above 0 `prove` also takes a policy of the toy world that learned its language for so long


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows)]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def said(interval: Interval) -> str:
    return f"{interval.mean:+.2f}, 95% interval {interval.low:+.2f} to {interval.high:+.2f}"
