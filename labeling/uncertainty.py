"""How unsure reward models are of a set of completions, and the draw of the arm that ignores it. Pure functions."""

import hashlib
import math
from collections.abc import Sequence
from itertools import combinations


def preference(reward: float, other: float) -> float:
    """The probability, under a reward model, that the completion with `reward` is the better one (Bradley-Terry)."""
    return 1 / (1 + math.exp(min(700.0, other - reward)))


def uncertainty(rewards: Sequence[Sequence[float | None]], texts: Sequence[str]) -> float | None:
    """How much a ranking of these completions would tell, 0 to 1: a mean over their pairs.

    `rewards[m][i]` is what model m gives completion i, None where it cannot read it; None where no pair is left.

    One model: 4p(1 - p), 1 where it would toss a coin. Several: the mutual information of the model and its choice, in
    bits: high where each is sure of something else, low where all of them would toss a coin (Houlsby et al. 2011,
    "Bayesian Active Learning for Classification and Preference Learning"). Of two equal texts nothing is learned: 0.
    """
    read = [i for i in range(len(texts)) if all(model[i] is not None for model in rewards)]
    if not rewards or len(read) < 2:
        return None
    total, pairs = 0.0, 0
    for i, j in combinations(read, 2):
        pairs += 1
        if texts[i] != texts[j]:
            total += _of_pair([preference(model[i] or 0.0, model[j] or 0.0) for model in rewards])
    return total / pairs


def _of_pair(chances: Sequence[float]) -> float:
    if len(chances) == 1:
        return 4 * chances[0] * (1 - chances[0])
    together = sum(chances) / len(chances)
    return max(0.0, _entropy(together) - sum(map(_entropy, chances)) / len(chances))


def _entropy(chance: float) -> float:
    """Of a coin, in bits."""
    return -sum(part * math.log2(part) for part in (chance, 1 - chance) if part > 0)


def drawn(*parts: int | str) -> float:
    """A number from 0 to 1 (exclusive) that looks random and is the same for the same `parts`."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
