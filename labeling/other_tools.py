"""Exports of Label Studio (Ranker, Pairwise) and Argilla (RankingQuestion, RatingQuestion) as comparisons. No ORM.

Neither export holds the project's configuration, so what stands for what is told by names and values alone; what they
leave open is refused with the reason rather than guessed.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from labeling.comparisons import PROMPTS, Draft, Options, tiers_of

PROMPT_NAMES = (*PROMPTS, "input", "context", "chat", "dialogue", "conversation", "text", "user_prompt")
NUMBER = re.compile(r"\d+")
PAIR_NAMES = (("left", "right"), ("a", "b"), ("chosen", "rejected"))

# --- Label Studio ---------------------------------------------------------------------------------------------------


def read_label_studio(record: dict[str, Any]) -> Draft:
    """A task of the JSON export: `data`, and `annotations` whose results are of the Ranker or the Pairwise tag."""
    data = record["data"]
    results = list(_results(record["annotations"]))
    said: list[tuple[Any, dict[str, Any]]]
    items = next((value for value in data.values() if _is_items(value)), None)
    if items is not None:
        names = [str(item.get("id", number)) for number, item in enumerate(items)]
        texts = [item.get("body", item.get("html")) for item in items]
        models = [item.get("title") if isinstance(item.get("title"), str) else "" for item in items]
        said = [(who, {"tiers": _ranker(result, names)}) for who, result in results if result.get("type") == "ranker"]
    else:
        left, right = _pair_of(data, [result for _who, result in results])
        texts, models = [data[left], data[right]], [data.get(f"{name}_model", "") for name in (left, right)]
        said = [(who, {"tiers": _pairwise(result)}) for who, result in results if result.get("type") == "pairwise"]
    used = {id(text) for text in texts}
    return Draft(
        _prompt_among({key: value for key, value in data.items() if id(value) not in used}), texts, models, said=said
    )


def _results(annotations: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(annotator, result) of what people handed in and did not cancel."""
    for annotation in annotations:
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        who = annotation.get("completed_by", "")
        name = who.get("id", "") if isinstance(who, dict) else who
        for result in annotation.get("result") or ():
            if isinstance(result, dict):
                yield str(name), result


def _is_items(value: Any) -> bool:
    """What the List tag takes: objects with an id, a title and a body."""
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(item, dict) and ("body" in item or "html" in item) for item in value)
    )


def _ranker(result: dict[str, Any], names: Sequence[str]) -> list[int | None]:
    """Tiers out of an ordered list of ids, or of buckets whose names are numbered."""
    value = result.get("value")
    said = value.get("ranker") if isinstance(value, dict) else None
    buckets = {"_": said} if isinstance(said, list) else said
    if not isinstance(buckets, dict) or not all(isinstance(ids, list) for ids in buckets.values()):
        raise ValidationError(_("The result of the Ranker is not readable."))
    filled = {bucket: [str(each) for each in ids] for bucket, ids in buckets.items() if ids}
    if len(filled) == 1:
        order = next(iter(filled.values()))
        tier = {name: place for place, name in enumerate(order, start=1)}
    else:
        numbers = {bucket: NUMBER.search(bucket) for bucket in filled}
        if not all(numbers.values()):
            raise ValidationError(
                _("The names of the buckets do not say which is best. Only numbered ones (rank_1, rank_2) are read.")
            )
        ranks = sorted({int(found[0]) for found in numbers.values() if found})
        tier = {
            name: ranks.index(int(found[0])) + 1
            for bucket, found in numbers.items()
            if found
            for name in filled[bucket]
        }
    return [tier.get(name) for name in names]


def _pair_of(data: dict[str, Any], results: list[dict[str, Any]]) -> tuple[str, str]:
    """The keys of the two texts compared: what the result names, or two keys alike but for their end."""
    for result in results:
        names = result.get("to_name")
        named = names.split(",") if isinstance(names, str) else names if isinstance(names, list) else []
        if len(named) == 2 and all(isinstance(name, str) and isinstance(data.get(name), str) for name in named):
            return named[0], named[1]
    texts = [key for key, value in data.items() if isinstance(value, str)]
    for first in texts:
        for ends in (("1", "2"), *PAIR_NAMES):
            if first.casefold().endswith(ends[0]):
                second = first[: len(first) - len(ends[0])]
                other = next((key for key in texts if key.casefold() == f"{second}{ends[1]}".casefold()), None)
                if other:
                    return first, other
    raise ValidationError(_("No list of items and no two texts to compare were found in the task's data."))


def _pairwise(result: dict[str, Any]) -> list[int]:
    value = result.get("value")
    selected = value.get("selected") if isinstance(value, dict) else None
    if selected not in ("left", "right"):
        raise ValidationError(_("The result of the Pairwise tag is neither left nor right."))
    return [1, 2] if selected == "left" else [2, 1]


# --- Argilla --------------------------------------------------------------------------------------------------------


def read_argilla(record: dict[str, Any], options: Options) -> Draft:
    """A record of `records.to_json` (nested), of `records.to_datasets` (flat), or of a FeedbackDataset of Argilla 1."""
    fields = record["fields"] if isinstance(record.get("fields"), dict) else record
    people, models = _answers(record)
    answered = dict(people) or (dict(models) if options.suggestions else {})
    rankings = {who: found for who, said in answered.items() if (found := _ranked(said, fields))}
    names = list(next(iter(rankings.values()), {})) or _completion_fields(fields)
    if not names:
        raise ValidationError(_("No question of this record ranks or rates its fields."))
    if not people and models and not options.suggestions:
        raise ValidationError(_("Nobody has answered this record; there is only a model's suggestion."))
    texts = [fields[name] for name in names]
    said = []
    for who, tiers in rankings.items():
        if set(tiers) != set(names):
            raise ValidationError(_("Two annotators have ranked different fields of this record."))
        said.append((who, {"tiers": [tiers[name] for name in names]}))
    prompt = _prompt_among({key: value for key, value in fields.items() if key not in names})
    return Draft(prompt, texts, _models(record, names), said=said)


Questions = dict[str, Any]
"""Name of a question -> what was answered."""


def _answers(record: dict[str, Any]) -> tuple[dict[str, Questions], dict[str, Questions]]:
    """What people answered and what models suggested, by who, by question. Not drafts, not what was discarded."""
    people: dict[str, Questions] = defaultdict(dict)
    models: dict[str, Questions] = defaultdict(dict)
    responses, suggestions = record.get("responses"), record.get("suggestions")
    if isinstance(responses, dict):  # Argilla 2: by question
        for question, given in responses.items():
            for each in given if isinstance(given, list) else ():
                if isinstance(each, dict):
                    people[str(each.get("user_id", ""))][question] = each.get("value")
    elif isinstance(responses, list):  # Argilla 1: by person
        for each in responses:
            if isinstance(each, dict) and each.get("status", "submitted") == "submitted":
                for question, value in (each.get("values") or {}).items():
                    people[str(each.get("user_id", ""))][question] = (
                        value.get("value") if isinstance(value, dict) else value
                    )
    for question, said in suggestions.items() if isinstance(suggestions, dict) else ():
        if isinstance(said, dict):
            models[f"suggestion {said.get('agent') or ''}".strip()][question] = said.get("value")
    for said in suggestions if isinstance(suggestions, list) else ():
        if isinstance(said, dict):
            models[f"suggestion {said.get('agent') or ''}".strip()][str(said.get("question_name"))] = said.get("value")
    for key, value in record.items():  # flat columns
        if key.endswith(".responses") and isinstance(value, list):
            question = key.removesuffix(".responses")
            users, states = record.get(f"{key}.users") or [], record.get(f"{key}.status") or []
            for number, each in enumerate(value):
                if number >= len(states) or states[number] in (None, "submitted"):
                    people[str(users[number]) if number < len(users) else str(number)][question] = each
        elif key.endswith(".suggestion") and value is not None:
            agent = record.get(f"{key}.agent") or ""
            models[f"suggestion {agent}".strip()][key.removesuffix(".suggestion")] = value
    return people, models


def _ranked(said: Questions, fields: dict[str, Any]) -> dict[str, int]:
    """Field -> tier, out of the one question that ranks fields, or of those that rate one field each."""
    by_key = {_key(name): name for name in fields}
    for value in said.values():
        if isinstance(value, list) and value:
            items = [each if isinstance(each, dict) else {"value": each} for each in value]
            names = [by_key.get(_key(item.get("value"))) for item in items]
            if all(names) and len(set(names)) == len(names) > 1:
                ranks = [item.get("rank") or place for place, item in enumerate(items, start=1)]
                return {str(name): int(rank) for name, rank in zip(names, ranks, strict=True)}
    rated: dict[str, Any] = {}
    for question, value in said.items():
        found = [name for key, name in by_key.items() if key and re.search(rf"(^|_){key}(_|$)", _key(question))]
        if len(found) == 1 and isinstance(value, int | float) and not isinstance(value, bool):
            rated[found[0]] = value
    if len(rated) < 2:
        return {}
    texts = [fields[name] for name in rated]
    return dict(zip(rated, tiers_of(texts, list(rated.values())), strict=True))


def _key(name: Any) -> str:
    """Names of values and of fields differ in such signs: response-1 and response_1."""
    return re.sub(r"[^0-9a-z]+", "_", str(name).casefold()).strip("_")


def _completion_fields(fields: dict[str, Any]) -> list[str]:
    """Texts whose names are alike but for a number: what is there to compare where nobody has answered yet."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, value in fields.items():
        if isinstance(value, str) and NUMBER.search(name):
            groups[NUMBER.sub("", name)].append(name)
    return max(groups.values(), key=len, default=[])


def _models(record: dict[str, Any], names: list[str]) -> list[str]:
    """What the metadata says of who wrote each field, as `response-1-model` or `response_1_model`."""
    metadata = record.get("metadata")
    known = {_key(key): value for key, value in metadata.items()} if isinstance(metadata, dict) else {}
    return [str(known.get(f"{_key(name)}_model") or "") for name in names]


def _prompt_among(values: dict[str, Any]) -> Any:
    """The value whose name says that it is the prompt, else the only text there is."""
    by_name = {key.casefold(): value for key, value in reversed(values.items())}
    for name in PROMPT_NAMES:
        if by_name.get(name):
            return by_name[name]
    texts = [value for value in values.values() if isinstance(value, str) and value.strip()]
    if len(texts) == 1:
        return texts[0]
    raise ValidationError(_("No field is called prompt, instruction or the like: the prompt was not found."))
