"""A look over a project's labels: figures and facts from which `labeling.advice` says whether to train on them.

Plain JSON, no words. The newest rankings, as the quality page takes them; counts are of all.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from django.db.models import QuerySet

from labeling import quality
from labeling.agreement import Agreement, Interval, bootstrap_interval
from labeling.leakage import Leak, leaks
from labeling.learning import Point, fits, forecast, wilson
from labeling.models import Answer, CompletionSet, Demonstration, Project, Prompt, RewardModel, Score
from labeling.models.prompt import BATCH
from labeling.pairs import preferred_pairs
from labeling.quality import Judgement
from labeling.suspects import Suspect, suspects

NEWEST = 5000  # rankings that agreement and suspects are reckoned from
HELDOUT_MOST, TRAIN_MOST = 5000, 100_000  # prompts that are compared with each other, the newest
NAMED = 15  # suspects and leaks that are kept by name
CHUNK = 2000
MEASURES = ("prompts", "sets", "rankings", "pairs", "demonstrations")

Rewards = dict[int, list[float | None]]
Report = dict[str, Any]


def look_over(project: Project, on_progress: Callable[[int, int], None] = lambda step, total: None) -> Report:
    """Everything that the page shows."""
    steps = 5
    on_progress(0, steps)
    report: Report = {"volume": volume(project)}
    on_progress(1, steps)
    judgements = Answer.objects.filter(completion_set__project=project).judgements(NEWEST)
    agreement = quality.whole(judgements).agreement
    report |= {"reckoned": len(judgements), "overlap": project.ranking_overlap, "agreement": asdict(agreement)}
    on_progress(2, steps)
    report |= _of_reward_models(project, judgements)
    on_progress(3, steps)
    report |= _leaks(project)
    on_progress(4, steps)
    report["runs"], report["curve"] = _learning(project)
    on_progress(steps, steps)
    return report


# --- How much there is --------------------------------------------------------------------------------------------


def volume(project: Project) -> Report:
    """Counts by part, language and tag: `{"splits": {"train": {"prompts": 3, ...}}, "languages": ..., "tags": ...}`."""
    counts: dict[str, dict[str, Counter[str]]] = {
        name: defaultdict(Counter) for name in ("splits", "languages", "tags")
    }

    def add(measures: Counter[str], split: str, language: str, tags: Sequence[str]) -> None:
        counts["splits"][split] += measures
        counts["languages"][language] += measures
        for tag in tags:
            counts["tags"][tag] += measures

    def facts(rows: "QuerySet[Any]", path: str, *more: str) -> Iterable[Any]:
        names = (f"{path}split", f"{path}language", f"{path}tags", *more)
        return rows.order_by().values_list(*names).iterator(chunk_size=CHUNK)

    for row in facts(Prompt.objects.filter(project=project).approved(), ""):
        add(Counter(prompts=1), *row)
    for row in facts(CompletionSet.objects.filter(project=project).sampled(), "prompt__"):
        add(Counter(sets=1), *row)
    answers = Answer.objects.trainable().filter(completion_set__project=project)
    for *row, tiers in facts(answers, "completion_set__prompt__", "current__tiers"):
        add(Counter(rankings=1, pairs=len(preferred_pairs(tiers))), *row)
    for row in facts(Demonstration.objects.usable().filter(prompt__project=project), "prompt__"):
        add(Counter(demonstrations=1), *row)
    for split in Prompt.Split.values:
        counts["splits"].setdefault(split, Counter())
    return {
        name: {key: {measure: each[measure] for measure in MEASURES} for key, each in _largest(groups)}
        for name, groups in counts.items()
    }


def _largest(groups: dict[str, Counter[str]]) -> list[tuple[str, Counter[str]]]:
    return sorted(groups.items(), key=lambda item: (-item[1]["rankings"], -item[1]["prompts"], item[0]))[:40]


# --- What reward models say ---------------------------------------------------------------------------------------


def _of_reward_models(project: Project, judgements: Sequence[Judgement]) -> Report:
    """How far the newest reward model is right on held-out rankings, and which rankings it calls mistakes."""
    model = project.reward_models.judges().first()
    if model is None:
        return {"model": None, "accuracy": None, "suspects": [], "suspects_total": 0}
    rewards = rewards_of(model, {judgement.set_id for judgement in judgements})
    heldout = _heldout(project, judgements)
    rewards |= rewards_of(model, {judgement.set_id for judgement in heldout} - set(rewards))
    found = suspects(judgements, rewards)
    return {
        "model": model.name,
        "scored": len(rewards),
        "accuracy": accuracy(heldout, rewards),
        "train_accuracy": accuracy([each for each in judgements if each.split == Prompt.Split.TRAIN], rewards),
        "suspects": [_named(each) for each in found[:NAMED]],
        "suspects_total": len(found),
    }


def _heldout(project: Project, judgements: Sequence[Judgement]) -> list[Judgement]:
    """The newest held-out rankings, which among the newest of all may be few."""
    if len(judgements) == NEWEST:
        return Answer.objects.filter(
            completion_set__project=project, completion_set__prompt__split=Prompt.Split.HELDOUT
        ).judgements(NEWEST)
    return [each for each in judgements if each.split == Prompt.Split.HELDOUT]


def rewards_of(model: RewardModel, sets: Iterable[int]) -> Rewards:
    """By set, what `model` gives its completions by index. Sets that it has not scored are left out."""
    keys = sorted(sets)
    found: Rewards = defaultdict(list)
    for start in range(0, len(keys), BATCH):
        scores = Score.objects.filter(model=model, completion__completion_set__in=keys[start : start + BATCH])
        ordered = scores.order_by("completion__completion_set", "completion__index")
        for key, reward in ordered.values_list("completion__completion_set", "reward"):
            found[key].append(reward)
    return dict(found)


def accuracy(judgements: Iterable[Judgement], rewards: Rewards) -> Report:
    """How often the rewards order two completions as a labeler did, equal rewards counting half; over sets."""
    by_set: dict[int, Agreement] = defaultdict(Agreement)
    for judgement in judgements:
        given = rewards.get(judgement.set_id)
        if given:
            by_set[judgement.set_id] += _right(judgement, given)
    counted = [each for each in by_set.values() if each.pairs]
    total = sum(counted, Agreement())
    interval = bootstrap_interval(counted)
    return {"rate": total.rate, "interval": interval, "pairs": total.pairs // 2, "sets": len(counted)}


def _right(judgement: Judgement, given: Sequence[float | None]) -> Agreement:
    """Each pair counts twice, so that half a pair is a whole number."""
    right = pairs = 0
    for better, worse in preferred_pairs(judgement.tiers):
        high, low = given[better], given[worse]
        if high is not None and low is not None:
            right += 2 if high > low else int(high == low)
            pairs += 2
    return Agreement(right, pairs)


def _named(suspect: Suspect) -> Report:
    first = suspect.contradictions[0]
    return {
        "answer": suspect.answer_id,
        "labeler": suspect.labeler,
        "weight": suspect.weight,
        "contradictions": len(suspect.contradictions),
        "pairs": suspect.pairs,
        "better": first.better,
        "worse": first.worse,
        "others": first.others,
        "alike": first.alike,
        "chance": first.chance,
    }


# --- Where the split leaks ----------------------------------------------------------------------------------------


def _leaks(project: Project) -> Report:
    heldout = _texts(project, Prompt.Split.HELDOUT, HELDOUT_MOST)
    found = leaks(heldout, _texts(project, Prompt.Split.TRAIN, TRAIN_MOST))
    return {"leaks": [asdict(leak) for leak in found[:NAMED]], "leaks_total": len(found)}


def _texts(project: Project, split: str, most: int) -> Iterable[tuple[int, str]]:
    prompts = Prompt.objects.filter(project=project, split=split).approved().order_by("-pk")
    return prompts.values_list("pk", "searchable")[:most].iterator(chunk_size=CHUNK)


def still_there(found: Iterable[Report]) -> list[tuple[Leak, Prompt, Prompt]]:
    """Of the leaks of a report, those that nobody has mended since, with their prompts (training, held out)."""
    rows = [Leak(**each) for each in found]
    prompts = Prompt.objects.in_bulk({key for row in rows for key in (row.train, row.heldout)})
    pairs = [(row, prompts.get(row.train), prompts.get(row.heldout)) for row in rows]
    return [
        (row, one, other)
        for row, one, other in pairs
        if one and other and one.split != other.split and {one.state, other.state} == {Prompt.State.APPROVED}
    ]


# --- What more would buy ------------------------------------------------------------------------------------------


def _learning(project: Project) -> tuple[list[Report], Report | None]:
    """The project's reward models by how much they were trained on, and a curve through them where that makes sense."""
    models = project.reward_models.exclude(heldout_accuracy=None).filter(train_rankings__gt=0, heldout_rankings__gt=0)
    points = [
        Point(model.train_rankings, model.heldout_accuracy or 0.0, model.heldout_rankings) for model in models[:50]
    ]
    points.sort(key=lambda point: point.rankings)
    runs = [{**asdict(point), "interval": wilson(point.accuracy, point.heldout)} for point in points]
    if not fits(points):
        return runs, None
    seen = forecast(points)
    largest = points[-1].rankings
    sizes = [points[0].rankings * (4 * largest / points[0].rankings) ** (step / 24) for step in range(25)]
    intervals: list[Interval] = [seen.interval(size) for size in sizes]
    return runs, {
        "line": [
            {"rankings": size, "accuracy": seen.curve.at(size), "interval": interval}
            for size, interval in zip(sizes, intervals, strict=True)
        ],
        "now": {"accuracy": seen.curve.at(largest), "interval": seen.interval(largest), "rankings": largest},
        "double": {"accuracy": seen.curve.at(2 * largest), "interval": seen.interval(2 * largest)},
    }
