"""Pairs that follow from a tiered ranking. Pure functions: no ORM."""

from collections.abc import Iterable, Sequence
from itertools import combinations


def preferred_pairs(tiers: Sequence[int]) -> list[tuple[int, int]]:
    """(better, worse) indices of every pair that is not tied."""
    return [
        (i, j) if tiers[i] < tiers[j] else (j, i) for i, j in combinations(range(len(tiers)), 2) if tiers[i] != tiers[j]
    ]


def tied_pairs(tiers: Sequence[int]) -> list[tuple[int, int]]:
    return [(i, j) for i, j in combinations(range(len(tiers)), 2) if tiers[i] == tiers[j]]


def wins(rankings: Iterable[Sequence[int]], k: int) -> list[list[int]]:
    """`wins[i][j]` of the rankings put completion i above j. ValueError where one is not of `k` completions."""
    table = [[0] * k for _ in range(k)]
    for tiers in rankings:
        if len(tiers) != k:
            raise ValueError(f"a ranking of {len(tiers)} completions among rankings of {k}")
        for better, worse in preferred_pairs(tiers):
            table[better][worse] += 1
    return table
