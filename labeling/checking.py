"""Checks of labelers: when one comes due, and how an answer compares with the known one. Pure functions: no ORM."""

import hashlib
from collections.abc import Iterable, Sequence

from labeling.agreement import Agreement
from labeling.pairs import preferred_pairs


def draw(*about: object) -> float:
    """A number from [0, 1) that depends on `about` alone: the same in every tab, and for nobody to foresee.

    A check must not become likelier by reloading a page.
    """
    digest = hashlib.sha256(" ".join(map(str, about)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def right_pairs(known: Sequence[int], tiers: Sequence[int] | None) -> Agreement:
    """Of the pairs that the known answer orders, how many `tiers` orders alike; tying them is not right.

    None, for somebody who did not rank, has none right.
    """
    pairs = preferred_pairs(known)
    right = sum(tiers[better] < tiers[worse] for better, worse in pairs) if tiers else 0
    return Agreement(right, len(pairs))


def has_passed(counts: Iterable[Agreement], percent: int) -> bool:
    """Whether at least `percent` of all pairs are right. Without a pair nothing is shown."""
    rate = sum(counts, Agreement()).rate
    return rate is not None and 100 * rate >= percent
