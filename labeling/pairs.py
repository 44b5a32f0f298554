"""Pairs that follow from a tiered ranking. Pure functions: no ORM."""

from itertools import combinations


def preferred_pairs(tiers: list[int]) -> list[tuple[int, int]]:
    """(better, worse) indices of every pair that is not tied."""
    return [
        (i, j) if tiers[i] < tiers[j] else (j, i) for i, j in combinations(range(len(tiers)), 2) if tiers[i] != tiers[j]
    ]


def tied_pairs(tiers: list[int]) -> list[tuple[int, int]]:
    return [(i, j) for i, j in combinations(range(len(tiers)), 2) if tiers[i] == tiers[j]]
