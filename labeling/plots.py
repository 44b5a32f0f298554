"""Plots drawn on the server: where things stand in an SVG. Coordinates are texts, with a point in every language."""

import math
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 44, 16, 12, 36
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Tick:
    at: str
    label: str


@dataclass(frozen=True)
class Dot:
    x: str
    y: str
    low: str
    high: str


@dataclass(frozen=True)
class Plot:
    """A curve of shares over a logarithmic axis, with the band that it may lie in and the points it goes through."""

    line: str
    band: str
    dots: list[Dot]
    across: list[Tick]
    up: list[Tick]
    reached: str
    """Where the largest of the points stands: to its right all is forecast."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def learning_plot(runs: list[dict[str, Any]], line: list[dict[str, Any]]) -> Plot:
    """`runs` and `curve["line"]` of a readiness report."""
    sizes = [each["rankings"] for each in line]
    seen = [value for each in runs for value in each["interval"]] + [each["accuracy"] for each in line]
    seen += [value for each in line for value in each["interval"]]
    low, high = min(seen), max(seen)
    step = next((step for step in STEPS if (high - low) / step <= 6), STEPS[-1])
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step

    def x(size: float) -> str:
        share = math.log(size / sizes[0]) / math.log(sizes[-1] / sizes[0])
        return f"{LEFT + 12 + share * (WIDTH - LEFT - RIGHT - 24):.1f}"

    def y(value: float) -> str:
        return f"{TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM):.1f}"

    upper = [f"{x(each['rankings'])},{y(each['interval'][1])}" for each in line]
    lower = [f"{x(each['rankings'])},{y(each['interval'][0])}" for each in reversed(line)]
    return Plot(
        line=" ".join(f"{x(each['rankings'])},{y(each['accuracy'])}" for each in line),
        band=" ".join(upper + lower),
        dots=[
            Dot(x(each["rankings"]), y(each["accuracy"]), y(each["interval"][0]), y(each["interval"][1]))
            for each in runs
        ],
        across=[Tick(x(size), f"{size:,.0f}") for size in _round_sizes(sizes[0], sizes[-1])],
        up=[Tick(y(low + n * step), f"{100 * (low + n * step):.0f}%") for n in range(round((high - low) / step) + 1)],
        reached=x(runs[-1]["rankings"]),
    )


def _round_sizes(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within the range."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [size for power in powers for part in (1, 2, 5) if low <= (size := part * 10**power) <= high]
