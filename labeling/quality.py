"""What rankings say of their labelers: how far they agree, and by what else than the text they may choose.

Pure functions of `Judgement`s, the rows that `Answer.objects.judgements()` reads. Every figure is a `Figure`: a rate,
its 95% interval over sets, and how many comparisons of two completions it rests on.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import combinations
from statistics import median
from typing import TypeVar

from labeling.agreement import (
    Agreement,
    Interval,
    bootstrap_interval,
    kendall_tau_b,
    kendall_w,
    krippendorff_alpha,
    pair_agreement,
    pair_units,
)
from labeling.consensus import dispute
from labeling.pairs import preferred_pairs

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Judgement:
    """One ranking: `tiers` and `lengths` (characters) by completion index, `shown_order` the indices as shown."""

    set_id: int
    labeler: str
    tiers: list[int]
    shown_order: list[int]
    lengths: list[int]
    seconds: float
    day: date
    language: str
    tags: list[str]
    answer_id: int = 0
    split: str = ""
    arm: str = ""


@dataclass(frozen=True)
class Figure:
    rate: float | None
    interval: Interval | None
    pairs: int
    sets: int

    @classmethod
    def of(cls, counts: Iterable[Agreement]) -> "Figure":
        """From what each set says."""
        counted = [each for each in counts if each.pairs]
        total = sum(counted, Agreement())
        return cls(total.rate, bootstrap_interval(counted), total.pairs, len(counted))


@dataclass(frozen=True)
class Whole:
    """What all labelers together say."""

    agreement: Figure
    agreement_with_ties: Figure
    alpha: float | None
    tau: float | None
    w: float | None


@dataclass(frozen=True)
class Labeler:
    name: str
    rankings: int
    agreement: Figure
    first_shown: Figure
    """How often, of two that are not tied, the one shown earlier is preferred; 1/2 without a habit."""
    longer: Figure
    """How often the longer one is preferred. Compare with everybody's: longer answers may well be better."""
    tied: float
    untouched: float
    """The share of rankings that put all completions in the order shown."""
    seconds: float | None
    characters_per_second: float | None


def whole(judgements: Sequence[Judgement]) -> Whole:
    sets = [ranked for ranked in by_set(judgements).values() if len(ranked) > 1]
    rankings = [list(ranked.values()) for ranked in sets]
    taus = [kendall_tau_b(a, b) for several in rankings for a, b in combinations(several, 2)]
    return Whole(
        agreement=Figure.of(map(pair_agreement, rankings)),
        agreement_with_ties=Figure.of(pair_agreement(several, ties=True) for several in rankings),
        alpha=krippendorff_alpha(pair_units(sets), "nominal"),
        tau=_mean(taus),
        w=_mean([kendall_w(several) for several in rankings]),
    )


def disputed(judgements: Sequence[Judgement], most: int) -> list[tuple[int, float]]:
    """Keys of the sets whose labelers are furthest apart, and how far (0 to 1), the most disputed first."""
    sets = ((key, dispute(list(ranked.values()))) for key, ranked in by_set(judgements).items() if len(ranked) > 1)
    return sorted((pair for pair in sets if pair[1] > 0), key=lambda pair: (-pair[1], pair[0]))[:most]


def by_group(judgements: Sequence[Judgement], keys: Callable[[Judgement], Iterable[Key]]) -> dict[Key, Figure]:
    """Agreement within each group; a judgement may belong to several, such as to each of its tags."""
    groups: dict[Key, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        for key in keys(judgement):
            groups[key].append(judgement)
    return {key: _agreement(members) for key, members in sorted(groups.items(), key=lambda item: str(item[0]))}


def week(judgement: Judgement) -> list[date]:
    """The Monday of its week."""
    return [judgement.day - timedelta(days=judgement.day.weekday())]


def labelers(judgements: Sequence[Judgement]) -> list[Labeler]:
    """Every labeler, the one with the most rankings first."""
    sets, own = by_set(judgements), defaultdict(list)
    for judgement in judgements:
        own[judgement.labeler].append(judgement)
    rows = [_labeler(name, ranked, sets) for name, ranked in own.items()]
    return sorted(rows, key=lambda row: (-row.rankings, row.name))


def labeler_pairs(judgements: Sequence[Judgement]) -> dict[tuple[str, str], Figure]:
    """Agreement of every two labelers who ranked the same sets."""
    counts: dict[tuple[str, str], list[Agreement]] = defaultdict(list)
    for ranked in by_set(judgements).values():
        for a, b in combinations(sorted(ranked), 2):
            counts[a, b].append(pair_agreement([ranked[a], ranked[b]]))
    return {pair: Figure.of(each) for pair, each in sorted(counts.items())}


def with_others(judgements: Sequence[Judgement], name: str) -> Figure:
    """How far one labeler agrees with each other labeler of the same sets."""
    return Figure.of(
        sum((pair_agreement([ranked[name], tiers]) for other, tiers in ranked.items() if other != name), Agreement())
        for ranked in by_set(judgements).values()
        if name in ranked
    )


def retests(repeats: Iterable[tuple[list[int], list[int]]]) -> Figure:
    """How far one labeler says the same of a set again: of each the first ranking and the repeat."""
    return Figure.of(pair_agreement(both) for both in repeats)


def _labeler(name: str, own: Sequence[Judgement], sets: dict[int, dict[str, list[int]]]) -> Labeler:
    others = (
        sum((pair_agreement([each.tiers, t]) for who, t in sets[each.set_id].items() if who != name), Agreement())
        for each in own
    )
    timed = [each for each in own if each.seconds > 0]
    all_pairs = sum(len(each.tiers) * (len(each.tiers) - 1) // 2 for each in own)
    strict = sum(len(preferred_pairs(each.tiers)) for each in own)
    return Labeler(
        name=name,
        rankings=len(own),
        agreement=Figure.of(others),
        first_shown=Figure.of(map(_first_shown, own)),
        longer=Figure.of(map(_longer, own)),
        tied=1 - strict / all_pairs,
        untouched=sum(_is_untouched(each) for each in own) / len(own),
        seconds=median(each.seconds for each in timed) if timed else None,
        characters_per_second=median(sum(each.lengths) / each.seconds for each in timed) if timed else None,
    )


def _first_shown(judgement: Judgement) -> Agreement:
    place = {index: number for number, index in enumerate(judgement.shown_order)}
    pairs = preferred_pairs(judgement.tiers)
    return Agreement(sum(place[better] < place[worse] for better, worse in pairs), len(pairs))


def _longer(judgement: Judgement) -> Agreement:
    lengths = judgement.lengths
    pairs = [(a, b) for a, b in preferred_pairs(judgement.tiers) if lengths[a] != lengths[b]]
    return Agreement(sum(lengths[better] > lengths[worse] for better, worse in pairs), len(pairs))


def _is_untouched(judgement: Judgement) -> bool:
    tiers = [judgement.tiers[index] for index in judgement.shown_order]
    return tiers == list(range(1, len(tiers) + 1))


def _agreement(judgements: Sequence[Judgement]) -> Figure:
    return Figure.of(pair_agreement(list(ranked.values())) for ranked in by_set(judgements).values())


def by_set(judgements: Iterable[Judgement]) -> dict[int, dict[str, list[int]]]:
    """Tiers by set and labeler."""
    sets: dict[int, dict[str, list[int]]] = defaultdict(dict)
    for judgement in judgements:
        sets[judgement.set_id].setdefault(judgement.labeler, judgement.tiers)  # a hidden repeat is no second labeler
    return sets


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
