"""What more labels would buy: a learning curve through past reward models, and what overlap does. No ORM."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from labeling.agreement import Interval

EXPONENTS = [step / 20 for step in range(1, 31)]
DRAWS = 400
LEAST_POINTS, LEAST_SPREAD = 3, 2.0


@dataclass(frozen=True)
class Point:
    """A reward model: trained on so many rankings, right about such a share of pairs from so many held-out rankings."""

    rankings: int
    accuracy: float
    heldout: int


@dataclass(frozen=True)
class Curve:
    """accuracy = limit - scale * rankings ** -exponent: a power law (Hestness et al. 2017, arXiv 1712.00409)."""

    limit: float
    scale: float
    exponent: float

    def at(self, rankings: float) -> float:
        return self.limit - self.scale * math.pow(rankings, -self.exponent)


@dataclass(frozen=True)
class Forecast:
    curve: Curve
    draws: list[Curve]

    def interval(self, rankings: float) -> Interval:
        values = sorted(curve.at(rankings) for curve in self.draws)
        tail = int(0.025 * len(values))
        return values[tail], values[-1 - tail]


def fits(points: Sequence[Point]) -> bool:
    """Whether a curve through them says anything: three sizes or more, the largest at least twice the smallest."""
    sizes = {point.rankings for point in points}
    return len(sizes) >= LEAST_POINTS and max(sizes) >= LEAST_SPREAD * min(sizes)


def fit(points: Sequence[Point]) -> Curve:
    """Least squares, each point weighing as much as its held-out rankings.

    More data never harm, and at best all is right: for each exponent of a grid, scale and limit follow by linear
    regression, with scale >= 0 and limit <= 1.
    """
    fitted = (_fit_scale(points, exponent) for exponent in EXPONENTS)
    return min(fitted, key=lambda curve: _loss(points, curve))


def _fit_scale(points: Sequence[Point], exponent: float) -> Curve:
    total = sum(point.heldout for point in points)
    xs = [point.rankings**-exponent for point in points]
    mean_x = sum(point.heldout * x for point, x in zip(points, xs, strict=True)) / total
    mean_y = sum(point.heldout * point.accuracy for point in points) / total
    spread = sum(point.heldout * (x - mean_x) ** 2 for point, x in zip(points, xs, strict=True))
    slope = sum(point.heldout * (x - mean_x) * (point.accuracy - mean_y) for point, x in zip(points, xs, strict=True))
    scale = max(0.0, -slope / spread) if spread else 0.0
    limit = mean_y + scale * mean_x
    if limit > 1:  # the line through (0, 1) that is nearest
        squares = sum(point.heldout * x * x for point, x in zip(points, xs, strict=True))
        scale = sum(point.heldout * x * (1 - point.accuracy) for point, x in zip(points, xs, strict=True)) / squares
        limit = 1.0
    return Curve(limit, scale, exponent)


def _loss(points: Sequence[Point], curve: Curve) -> float:
    return sum(point.heldout * (point.accuracy - curve.at(point.rankings)) ** 2 for point in points)


def forecast(points: Sequence[Point], *, draws: int = DRAWS, seed: int = 0) -> Forecast:
    """The curve, and others through points that might as well have come of it.

    Each point's accuracy is drawn anew as if every held-out ranking were one independent comparison: its pairs hang
    together. What it cannot know: other data, another model or other settings.
    """
    chance = random.Random(seed)
    curve = fit(points)
    others = []
    for _ in range(draws):
        moved = [
            Point(
                point.rankings, min(1.0, max(0.0, chance.gauss(curve.at(point.rankings), _error(point)))), point.heldout
            )
            for point in points
        ]
        others.append(fit(moved))
    return Forecast(curve, others)


def _error(point: Point) -> float:
    """Standard error of the accuracy, never 0: all right of few says little."""
    share = (point.accuracy * point.heldout + 1) / (point.heldout + 2)
    return math.sqrt(share * (1 - share) / point.heldout)


def wilson(share: float, count: int) -> Interval:
    """95% interval of a share of `count` separate things (Wilson 1927)."""
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / (1 + z * z / count)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def ceiling(agreement: float) -> Interval:
    """How often the best possible model can agree with one labeler, given how often two labelers agree (at least 1/2).

    If a share q of labelers prefers one completion, two agree with probability q^2 + (1 - q)^2, and who sides with the
    majority agrees with one with probability max(q, 1 - q) = (1 + sqrt(2 a - 1)) / 2. That is concave in a, so of pairs
    that are not all alike the best model's rate lies between the agreement itself and this.
    """
    a = max(0.5, agreement)
    return a, (1 + math.sqrt(2 * a - 1)) / 2


def majority(right: float, labelers: int) -> float:
    """How often most of `labelers` (odd) are right where each is so alone with probability `right`, independently."""
    return sum(
        math.comb(labelers, count) * right**count * (1 - right) ** (labelers - count)
        for count in range(labelers // 2 + 1, labelers + 1)
    )


def narrowed(interval: Interval, times: float) -> float:
    """Half the width of `interval` with so many times as many sets: it shrinks with the square root."""
    return (interval[1] - interval[0]) / 2 / math.sqrt(times)
