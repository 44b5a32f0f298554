"""Rankings that may be mistakes: against the other labelers of the set and against the reward model. No ORM.

Two witnesses, for each alone is weak: the others may be the ones who are wrong, and a reward model knows little of what
it was not trained on (and may have learned the mistake itself).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labeling.pairs import preferred_pairs
from labeling.quality import Judgement, by_set
from labeling.uncertainty import preference


@dataclass(frozen=True)
class Contradiction:
    """Of two completions, by index: `better` was put above `worse`."""

    better: int
    worse: int
    others: int
    """Labelers who put them the other way round,"""
    alike: int
    """and those who put them the same way."""
    chance: float
    """That `worse` is better, under the reward model."""

    @property
    def weight(self) -> float:
        """0 to 1: how clearly both say otherwise."""
        return (2 * self.chance - 1) * (self.others - self.alike) / (self.others + self.alike)


@dataclass(frozen=True)
class Suspect:
    answer_id: int
    set_id: int
    labeler: str
    weight: float
    """0 to 1: the sum of its contradictions' over its pairs."""
    pairs: int
    """Pairs that it puts in an order."""
    contradictions: list[Contradiction]
    """The clearest first."""


def suspects(judgements: Sequence[Judgement], rewards: Mapping[int, Sequence[float | None]]) -> list[Suspect]:
    """Every ranking with a contradiction, the worst first. `rewards`: by set, those of its completions by index."""
    sets = by_set(judgements)
    found = []
    for judgement in judgements:
        others = [tiers for name, tiers in sets[judgement.set_id].items() if name != judgement.labeler]
        if others and judgement.set_id in rewards:
            pairs = preferred_pairs(judgement.tiers)
            against = contradictions(pairs, others, rewards[judgement.set_id])
            if against:
                weight = sum(each.weight for each in against) / len(pairs)
                facts = (judgement.answer_id, judgement.set_id, judgement.labeler)
                found.append(Suspect(*facts, weight, len(pairs), against))
    return sorted(found, key=lambda suspect: (-suspect.weight, suspect.answer_id))


def contradictions(
    pairs: Sequence[tuple[int, int]], others: Sequence[Sequence[int]], rewards: Sequence[float | None]
) -> list[Contradiction]:
    """Those of `pairs` that most of the `others` and the model put the other way round."""
    found = []
    for better, worse in pairs:
        high, low = rewards[better], rewards[worse]
        if high is None or low is None:
            continue
        against = sum(tiers[worse] < tiers[better] for tiers in others)
        alike = sum(tiers[better] < tiers[worse] for tiers in others)
        chance = preference(low, high)
        if against > alike and chance > 1 / 2:
            found.append(Contradiction(better, worse, against, alike, chance))
    return sorted(found, key=lambda each: -each.weight)
