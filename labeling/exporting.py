"""Labels for other programs: the rows of an export, by its kind. Their shapes stand in `docs/files.md`.

No value is missing and no list empty, where it could be so for a long while at the beginning of a file: programs that
guess the types of JSONL or CSV from its first rows (Hugging Face datasets: from 10 MB) would fail at the first that has
one. So 0 stands for "none" among tiers, ratings and instruction versions, and an empty text for no text.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from typing import Any

from django.db.models import Prefetch, QuerySet

from labeling.export import CHUNK
from labeling.models import Answer, Demonstration, Export, Prompt, User
from labeling.models.demonstration import DemonstrationRevision
from labeling.pseudonyms import pseudonym, pseudonym_of
from labeling.rankings import FLAGS

Row = dict[str, Any]
Columns = dict[str, str]
"""Name of a column -> "text", "integer", "number", "boolean", "messages", "texts" or "integers"."""


@dataclass(frozen=True)
class Kind:
    columns: Columns
    labels: Callable[[Export], "QuerySet[Any]"]
    rows: Callable[[Export, Any], list[Row]]
    """Of one label."""


def columns(export: Export) -> Columns:
    """The columns of every row, in order."""
    chosen = dict(KINDS[export.kind].columns)
    if not _has_margin(export):
        chosen.pop("margin", None)
    return chosen


def count(export: Export) -> int:
    """How many labels the export goes through."""
    return KINDS[export.kind].labels(export).count()


def labels(export: Export) -> Iterator[list[Row]]:
    """The rows of each label, oldest first: one answer to one query, read in chunks, so that memory stays flat."""
    kind = KINDS[export.kind]
    for label in kind.labels(export).iterator(chunk_size=CHUNK):
        yield kind.rows(export, label)


def _rankings(export: Export) -> "QuerySet[Answer]":
    """Every ranking that stands, whatever its verdict and its review."""
    return _answers(export, Answer.objects.standing())


def _learnt_from(export: Export) -> "QuerySet[Answer]":
    """What reward models learn from: ranked, and not returned to the labeler."""
    return _answers(export, Answer.objects.trainable())


def _answers(export: Export, answers: "QuerySet[Answer]") -> "QuerySet[Answer]":
    chosen: dict[str, Any] = {"completion_set__project": export.project}
    if export.split:
        chosen["completion_set__prompt__split"] = export.split
    if export.language:
        chosen["completion_set__prompt__language"] = export.language
    related = answers.filter(**chosen).select_related("current", "labeler", "slot", "completion_set__prompt")
    return related.prefetch_related("completion_set__completions").order_by("pk")


def _demonstrations(export: Export) -> "QuerySet[Demonstration]":
    """Every demonstration that may be trained on."""
    chosen: dict[str, Any] = {"prompt__project": export.project}
    if export.split:
        chosen["prompt__split"] = export.split
    if export.language:
        chosen["prompt__language"] = export.language
    revisions = DemonstrationRevision.objects.defer("text").order_by("number")
    related = Demonstration.objects.usable().filter(**chosen).select_related("prompt", "author")
    return related.prefetch_related(Prefetch("revisions", revisions)).order_by("pk")


def _ranking_rows(export: Export, answer: Answer) -> list[Row]:
    completions, said = _completions(answer), _current(answer)
    rated = [rating or {} for rating in said.ratings]
    return [
        {
            "id": str(said),
            "prompt": answer.completion_set.prompt.messages,
            "completions": [completion.text for completion in completions],
            "tiers": said.tiers or [0] * len(completions),
            "ratings": [rating.get("overall") or 0 for rating in rated],
            "flags": [" ".join(rating.get("flags", [])) for rating in rated],
            "notes": [rating.get("note", "") for rating in rated],
            "verdict": said.verdict,
            "note": said.note,
            "models": [completion.model_name for completion in completions],
            "finish_reasons": [completion.finish_reason for completion in completions],
            "shown_order": said.shown_order,
            "active_seconds": said.active_seconds,
            "review": (answer.slot and answer.slot.review_state) or "none",
            "purpose": answer.slot.purpose if answer.slot else "label",
            "revision": said.number,
            **_facts(export, answer),
        }
    ]


def _pair_rows(export: Export, answer: Answer) -> list[Row]:
    """One row for each two completions, the better one chosen. Of two that say the same nothing is learnt."""
    completions, said = _completions(answer), _current(answer)
    facts = _facts(export, answer)
    found = []
    for i, j in combinations(range(len(completions)), 2):
        is_tie = said.tiers[i] == said.tiers[j]
        if completions[i].text == completions[j].text or (is_tie and export.ties == Export.Ties.DROP):
            continue
        better, worse = (i, j) if said.tiers[i] < said.tiers[j] else (j, i)
        # Of a tie each is chosen as often as the other, and the same one in every export.
        if is_tie and random.Random(f"{said.pk} {i} {j}").random() < 0.5:
            better, worse = worse, better
        row = {
            "id": f"{said}-{better}-{worse}",
            "prompt": answer.completion_set.prompt.messages,
            "chosen": _spoken(completions[better].text),
            "rejected": _spoken(completions[worse].text),
            "tie": is_tie,
            **_side("chosen", answer, completions, better),
            **_side("rejected", answer, completions, worse),
            **facts,
        }
        if _has_margin(export):
            row["margin"] = _margin(export.margin, row)
        found.append(row)
    return found


def _side(side: str, answer: Answer, completions: list[Any], index: int) -> Row:
    said = _current(answer)
    return {
        f"{side}_index": index,
        f"{side}_tier": said.tiers[index],
        f"{side}_rating": (said.ratings[index] or {}).get("overall") or 0,
        f"{side}_model": completions[index].model_name,
        f"{side}_finish_reason": completions[index].finish_reason,
    }


def _margin(policy: str, row: Row) -> float:
    """By how much the chosen one should win, at least 0; 0 for ties and where a rating is missing."""
    if policy == Export.Margin.TIERS:
        return float(row["rejected_tier"] - row["chosen_tier"])
    if policy == Export.Margin.STRENGTH:
        return float(row["strength"])
    is_rated = row["chosen_rating"] and row["rejected_rating"]
    if policy == Export.Margin.RATINGS and is_rated and not row["tie"]:
        return float(max(0, row["chosen_rating"] - row["rejected_rating"]))
    return 0.0


def _has_margin(export: Export) -> bool:
    return export.margin != Export.Margin.NONE or export.ties == Export.Ties.KEEP


def _rating_rows(export: Export, answer: Answer) -> list[Row]:
    said, facts = _current(answer), _facts(export, answer)
    return [
        {
            "id": f"{said}-{completion.index}",
            "prompt": answer.completion_set.prompt.messages,
            "completion": _spoken(completion.text),
            "overall": rating["overall"] or 0,
            **{flag: flag in rating["flags"] for flag in FLAGS},
            "note": rating["note"],
            "index": completion.index,
            "model": completion.model_name,
            "finish_reason": completion.finish_reason,
            "verdict": said.verdict,
            **facts,
        }
        for completion, rating in zip(_completions(answer), said.ratings, strict=True)
        if rating
    ]


def _rated(export: Export) -> "QuerySet[Answer]":
    """Whatever the verdict on the whole set, but for what was returned to the labeler."""
    return _rankings(export).exclude(slot__review_state="returned")


def _demonstration_rows(export: Export, demonstration: Demonstration) -> list[Row]:
    newest = list(demonstration.revisions.all())[-1]
    return [
        {
            "id": f"demo-{demonstration.pk}-{newest.pk}",
            "messages": [*demonstration.prompt.messages, *_spoken(demonstration.text)],
            "origin": demonstration.origin,
            "source": demonstration.source,
            "labeler": _name(export, demonstration.author) if demonstration.author else "",
            "active_seconds": newest.active_seconds,
            "revision": newest.number,
            "instruction_version": newest.instruction_version or 0,
            "created_at": _moment(newest.created_at),
            **_place(demonstration.prompt),
        }
    ]


def _facts(export: Export, answer: Answer) -> Row:
    """What every row of a ranking tells of it."""
    said = _current(answer)
    return {
        "labeler": answer.by if export.identities == Export.Identities.USERNAMES else pseudonym_of(answer),
        "source": answer.source,
        "repeat": answer.repeat,
        "strength": said.strength or 0,
        "instruction_version": said.instruction_version or 0,
        "created_at": _moment(said.created_at),
        "set_id": str(answer.completion_set_id),
        "arm": answer.completion_set.arm,
        **_place(answer.completion_set.prompt),
    }


def _place(prompt: Prompt) -> Row:
    return {"prompt_id": str(prompt.pk), "split": prompt.split, "language": prompt.language}


def _name(export: Export, person: User) -> str:
    return person.username if export.identities == Export.Identities.USERNAMES else pseudonym(person.pk)


def _moment(when: datetime) -> str:
    """Always with microseconds, or a reader that guesses would take whole seconds for another type."""
    return when.isoformat(timespec="microseconds")


def _spoken(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _completions(answer: Answer) -> list[Any]:
    return list(answer.completion_set.completions.all())


def _current(answer: Answer) -> Any:
    assert answer.current is not None  # submit() makes both
    return answer.current


PLACE = {"prompt_id": "text", "split": "text", "language": "text"}
FACTS = {
    "labeler": "text",
    "source": "text",
    "repeat": "integer",
    "strength": "integer",
    "instruction_version": "integer",
    "created_at": "text",
    "set_id": "text",
    "arm": "text",
    **PLACE,
}
SIDES = {
    f"{side}_{name}": kind
    for side in ("chosen", "rejected")
    for name, kind in {
        "index": "integer",
        "tier": "integer",
        "rating": "integer",
        "model": "text",
        "finish_reason": "text",
    }.items()
}
KINDS = {
    Export.Kind.RANKINGS.value: Kind(
        {
            "id": "text",
            "prompt": "messages",
            "completions": "texts",
            "tiers": "integers",
            "ratings": "integers",
            "flags": "texts",
            "notes": "texts",
            "verdict": "text",
            "note": "text",
            "models": "texts",
            "finish_reasons": "texts",
            "shown_order": "integers",
            "active_seconds": "number",
            "review": "text",
            "purpose": "text",
            "revision": "integer",
            **FACTS,
        },
        _rankings,
        _ranking_rows,
    ),
    Export.Kind.PAIRS.value: Kind(
        {
            "id": "text",
            "prompt": "messages",
            "chosen": "messages",
            "rejected": "messages",
            "margin": "number",
            "tie": "boolean",
            **SIDES,
            **FACTS,
        },
        _learnt_from,
        _pair_rows,
    ),
    Export.Kind.RATINGS.value: Kind(
        {
            "id": "text",
            "prompt": "messages",
            "completion": "messages",
            "overall": "integer",
            **dict.fromkeys(FLAGS, "boolean"),
            "note": "text",
            "index": "integer",
            "model": "text",
            "finish_reason": "text",
            "verdict": "text",
            **FACTS,
        },
        _rated,
        _rating_rows,
    ),
    Export.Kind.DEMONSTRATIONS.value: Kind(
        {
            "id": "text",
            "messages": "messages",
            "origin": "text",
            "source": "text",
            "labeler": "text",
            "active_seconds": "number",
            "revision": "integer",
            "instruction_version": "integer",
            "created_at": "text",
            **PLACE,
        },
        _demonstrations,
        _demonstration_rows,
    ),
}
