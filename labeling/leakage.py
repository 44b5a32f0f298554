"""Prompts that say nearly the same on both sides of the split. Pure functions: no ORM.

Likeness is the Jaccard index of character 5-grams: the share of them that two texts have in common. Case, punctuation,
accents and white space count for nothing; Hangul is taken apart into its letters, so that a changed particle or ending
costs a few 5-grams and not whole words. A translation is not found: it shares no letters with its source.

Every pair above a threshold is found: two sets that share enough must share one of their rarest members, so
only those are looked up (prefix filtering: Chaudhuri et al. 2006; Bayardo et al. 2007, "Scaling Up All Pairs
Similarity Search"). Memory grows with the held-out texts alone.
"""

import heapq
import math
import unicodedata
import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

GRAM = 5
ALIKE = 0.7
COUNTED = 2000  # texts from which it is learned what is rare; where that is wrong it takes longer, no more


@dataclass(frozen=True)
class Leak:
    likeness: float
    train: int
    heldout: int


def grams(text: str) -> frozenset[int]:
    """The text's 5-grams, each as its CRC-32; of a shorter text the whole of it."""
    letters = unicodedata.normalize("NFKD", text).casefold()
    plain = " ".join("".join(c if c.isalnum() else " " for c in letters if not unicodedata.combining(c)).split())
    if not plain:
        return frozenset()
    return frozenset(zlib.crc32(plain[i : i + GRAM].encode()) for i in range(max(1, len(plain) - GRAM + 1)))


def likeness(a: str, b: str) -> float:
    return _jaccard(grams(a), grams(b))


def _jaccard(a: frozenset[int], b: Iterable[int]) -> float:
    others = len(b) if isinstance(b, Sequence | frozenset) else sum(1 for _ in b)
    common = len(a.intersection(b))
    return common / (len(a) + others - common) if common else 0.0


def leaks(heldout: Iterable[tuple[int, str]], train: Iterable[tuple[int, str]], *, alike: float = ALIKE) -> list[Leak]:
    """For each held-out text that has one, the training text that it is most like; the likest first.

    Texts come with their keys; `train` is gone through once.
    """
    index = _Index(heldout, alike)
    best: dict[int, Leak] = {}
    for key, text in train:
        for leak in index.like(key, text):
            if leak.heldout not in best or leak.likeness > best[leak.heldout].likeness:
                best[leak.heldout] = leak
    return sorted(best.values(), key=lambda leak: (-leak.likeness, leak.heldout))


class _Index:
    """Held-out texts by their rarest 5-grams."""

    def __init__(self, texts: Iterable[tuple[int, str]], alike: float) -> None:
        self.alike = alike
        self.keys: list[int] = []
        self.grams: list[array[int]] = []
        for key, text in texts:
            self.keys.append(key)
            self.grams.append(array("I", sorted(grams(text))))
        frequent = Counter(gram for members in islice(self.grams, COUNTED) for gram in members)
        self.frequency = {gram: count for gram, count in frequent.items() if count > 1}
        self.places: dict[int, list[int]] = defaultdict(list)
        for place, members in enumerate(self.grams):
            for gram in self._rarest(members):
                self.places[gram].append(place)

    def _rarest(self, members: Sequence[int]) -> list[int]:
        """As many that two sets which share enough cannot miss each other in them. The order is the same for all."""
        count = len(members) - math.ceil(self.alike * len(members)) + 1 if members else 0
        return heapq.nsmallest(count, members, key=lambda gram: (self.frequency.get(gram, 0), gram))

    def like(self, key: int, text: str) -> Iterator[Leak]:
        own = grams(text)
        met = {place for gram in self._rarest(list(own)) for place in self.places.get(gram, ())}
        for place in met:
            other = self.grams[place]
            if self.alike * len(own) <= len(other) and self.alike * len(other) <= len(own):
                share = _jaccard(own, other)
                if share >= self.alike:
                    yield Leak(share, key, self.keys[place])
