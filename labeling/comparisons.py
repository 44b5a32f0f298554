"""From a record of another program to a comparison: a prompt, its completions, and who ranked them how. No ORM.

The shape of each record is told by its keys. Those of Label Studio and Argilla are read in `labeling/other_tools.py`.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from labeling.models.project import MAX_K
from labeling.models.prompt import clean_messages, content_hash
from labeling.rankings import FLAGS, Ranking, Verdict, clean_ranking, first_alike
from labeling.tables import is_dialogue
from labeling.text import is_storable

MAX_COMPLETION_CHARACTERS = 16_000
MAX_NAME_CHARACTERS = 120
TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
"""How the dialogues of HH-RLHF name who speaks."""
PROMPTS = ("prompt", "messages", "instruction", "question", "query")
COMPLETIONS = ("completions", "responses", "answers", "outputs", "generations")
TEXTS = ("text", "content", "response", "completion", "output", "answer")
MODELS = ("model", "model_name", "name")
SCORES = ("overall_score", "score", "rating")


@dataclass(frozen=True)
class Options:
    """What the person who imports has chosen, as far as it decides how records are read."""

    order: Sequence[str] = ()
    """Names of models, the best first: how completions are ranked that nobody has ranked."""
    suggestions: bool = False
    """Whether a model's suggestion counts where no person has answered."""


@dataclass(frozen=True)
class Said:
    annotator: str
    """As the source names them; empty where it does not."""
    ranking: Ranking


@dataclass(frozen=True)
class Comparison:
    messages: list[dict[str, str]]
    texts: list[str]
    models: list[str]
    cut: list[bool]
    """Which completions ended at the limit."""
    said: list[Said] = field(default_factory=list)
    language: str = ""
    split: str = ""

    @property
    def prompt_hash(self) -> str:
        return content_hash(self.messages)

    @property
    def digest(self) -> str:
        return digest(self.texts)


def digest(texts: Sequence[str]) -> str:
    """Equal for the same completions, whatever their order."""
    hashes = sorted(hashlib.sha256(text.encode()).hexdigest() for text in texts)
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


@dataclass
class Draft:
    """A record as it was read, before it is checked."""

    prompt: Any
    texts: list[Any]
    models: list[Any] = field(default_factory=list)
    cut: list[bool] = field(default_factory=list)
    said: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    """(annotator, payload as `clean_ranking` takes it), in the order of `texts`."""
    language: Any = ""
    split: Any = ""


def shape_of(record: dict[str, Any]) -> str:
    """What `record` looks like; "" where it is no comparison."""
    if "chosen" in record and "rejected" in record:
        return "pair"
    if isinstance(record.get("data"), dict) and isinstance(record.get("annotations"), list):
        return "label_studio"
    if isinstance(record.get("fields"), dict) or any(key.endswith((".responses", ".suggestion")) for key in record):
        return "argilla"
    if any(isinstance(record.get(name), list) for name in COMPLETIONS):
        return "ranking" if "tiers" in record else "several"
    return ""


def finish(draft: Draft) -> Comparison:
    """`draft` checked and put in an order that says nothing of the ranking. ValidationError."""
    messages = clean_messages(_messages(draft.prompt))
    texts = [_text(text) for text in draft.texts]
    if not 2 <= len(texts) <= MAX_K:
        raise ValidationError(
            _("There are %(count)s completions; a comparison has 2 to %(most)s."),
            params={"count": len(texts), "most": MAX_K},
        )
    if len({text.strip() for text in texts}) < 2:
        raise ValidationError(_("All completions are the same: there is nothing to prefer."))
    models = [name if isinstance(name, str) else "" for name in draft.models] or [""] * len(texts)
    cut = draft.cut or [False] * len(texts)
    # Of a pair the file has the better one first, always: a set must not tell by its order.
    order = sorted(range(len(texts)), key=lambda i: (hashlib.sha256(texts[i].encode()).digest(), models[i], i))
    texts = [texts[i] for i in order]
    said = []
    for annotator, payload in draft.said:
        moved = {name: [payload[name][i] for i in order] for name in ("tiers", "ratings") if payload.get(name)}
        ranking = clean_ranking({**payload, **moved}, texts, require_ratings=False)
        said.append(Said(_name(annotator, 200), ranking))
    return Comparison(
        messages,
        texts,
        [_name(models[i], MAX_NAME_CHARACTERS) for i in order],
        [cut[i] for i in order],
        said,
        language=draft.language if isinstance(draft.language, str) else "",
        split=draft.split if isinstance(draft.split, str) else "",
    )


# --- Shapes ---------------------------------------------------------------------------------------------------------


def read_pair(record: dict[str, Any]) -> Draft:
    """{chosen, rejected} with the prompt inside both, as in HH-RLHF, or beside them, as in TRL and our exports."""
    chosen, rejected = record["chosen"], record["rejected"]
    prompt = next((record[name] for name in PROMPTS if record.get(name)), None)
    if prompt is not None:
        prompt = _messages(prompt)
        sides = [_answer(chosen, prompt), _answer(rejected, prompt)]
    else:
        prompt, sides = _part(_dialogue(chosen), _dialogue(rejected))
    is_tie = record.get("tie") is True
    marks = [record.get(f"{side}_rating") for side in ("chosen", "rejected")]
    payload = {"tiers": [1, 1 if is_tie else 2], "ratings": [_rating(mark) for mark in marks]}
    return Draft(
        prompt,
        sides,
        models=[record.get(f"{side}_model") or "" for side in ("chosen", "rejected")],
        cut=[record.get(f"{side}_finish_reason") == "length" for side in ("chosen", "rejected")],
        said=[(record.get("labeler") or record.get("annotator"), payload)],
        language=record.get("language"),
        split=record.get("split"),
    )


def read_ranking(record: dict[str, Any]) -> Draft:
    """A row of our own export of rankings, or of a snapshot."""
    if record.get("review") == "returned":
        raise ValidationError(_("This ranking had been returned to its labeler when it was exported."))
    if record.get("purpose") in ("screening", "gold", "repeat"):
        raise ValidationError(_("This ranking was a check of its labeler, not a label."))
    texts = _list(record, COMPLETIONS)
    count, tiers = len(texts), record["tiers"]
    ratings = record.get("ratings") or []
    if ratings and not any(isinstance(rating, dict) for rating in ratings):
        flags, notes = record.get("flags") or [""] * count, record.get("notes") or [""] * count
        if not len(ratings) == len(flags) == len(notes) == count:
            raise ValidationError(_("There must be one rating for each completion."))
        ratings = [_rating(*said) for said in zip(ratings, flags, notes, strict=True)]
    payload = {
        "tiers": [tier or None for tier in tiers] if isinstance(tiers, list) and len(tiers) == count else tiers,
        "ratings": ratings or [None] * count,
        "note": record.get("note") or "",
        "verdict": record.get("verdict") or Verdict.RANKED,
    }
    if len(payload["ratings"]) != count or not isinstance(tiers, list) or len(tiers) != count:
        raise ValidationError(_("There must be one tier and one rating for each completion."))
    reasons, models = record.get("finish_reasons") or [], record.get("models") or []
    return Draft(
        _prompt(record),
        texts,
        models=models if isinstance(models, list) and len(models) == count else [],
        cut=[reason == "length" for reason in reasons] if len(reasons) == count else [],
        said=[(record.get("labeler"), payload)],
        language=record.get("language"),
        split=record.get("split"),
    )


def read_several(record: dict[str, Any], options: Options) -> Draft:
    """A prompt and what several models answered, with or without scores (`instructions_8_models`, UltraFeedback)."""
    items = _list(record, COMPLETIONS)
    rows = [item if isinstance(item, dict) else {"text": item} for item in items]
    texts = [next((row[name] for name in TEXTS if name in row), None) for row in rows]
    models = [next((row[name] for name in MODELS if row.get(name)), "") for row in rows]
    draft = Draft(_prompt(record), texts, models)
    scores = [next((row[name] for name in SCORES if _is_number(row.get(name))), None) for row in rows]
    if all(score is not None for score in scores):
        draft.said = [("", {"tiers": tiers_of(texts, scores)})]
    elif options.order:
        if unknown := [name for name in models if name not in options.order]:
            raise ValidationError(
                _("The order of the models does not say where “%(model)s” stands."), params={"model": unknown[0]}
            )
        tiers = tiers_of(texts, [-options.order.index(name) for name in models])
        draft.said = [("order of models", {"tiers": tiers})]
    return draft


def tiers_of(texts: Sequence[Any], scores: Sequence[Any]) -> list[int]:
    """Tiers by score, the highest first; completions with one text share the best tier of any of them."""
    alike = first_alike([str(text) for text in texts])
    best: dict[int, float] = {}
    for first, score in zip(alike, scores, strict=True):
        best[first] = max(score, best.get(first, score))
    ranks = {score: rank for rank, score in enumerate(sorted(set(best.values()), reverse=True), start=1)}
    return [ranks[best[first]] for first in alike]


# --- Values ---------------------------------------------------------------------------------------------------------


def _prompt(record: dict[str, Any]) -> Any:
    """What is asked, with a passage below it where there is one."""
    prompt = next((record[name] for name in PROMPTS if record.get(name)), None)
    passage = record.get("input")
    if isinstance(prompt, str) and isinstance(passage, str) and passage.strip():
        return f"{prompt}\n\n{passage}"
    return prompt


def _messages(prompt: Any) -> Any:
    if isinstance(prompt, str):
        turns = _turns(prompt)
        if turns and turns[-1] == {"role": "assistant", "content": ""}:
            turns.pop()  # a prompt that ends in "Assistant:"
        return turns or [{"role": "user", "content": prompt}]
    if prompt is None:
        raise ValidationError(_("The prompt is empty."))
    return prompt


def _answer(side: Any, prompt: Any) -> Any:
    """The text of one side: as it stands, the last message, or what follows the prompt that it repeats."""
    if is_dialogue(side):
        if side[-1]["role"] != "assistant":
            raise ValidationError(_("A completion must be the assistant's."))
        if len(side) > 1 and _plain(side[:-1]) != _plain(prompt):
            raise ValidationError(_("The two dialogues part before the last answer."))
        return side[-1]["content"]
    turns = _turns(side) if isinstance(side, str) else []
    return turns[-1]["content"] if turns and _plain(turns[:-1]) == _plain(prompt) else side


def _dialogue(side: Any) -> list[dict[str, Any]]:
    turns = side if is_dialogue(side) else _turns(side) if isinstance(side, str) else []
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        raise ValidationError(_("Chosen and rejected are dialogues that end with the assistant's answer."))
    return turns


def _part(chosen: list[dict[str, Any]], rejected: list[dict[str, Any]]) -> tuple[Any, list[Any]]:
    """The prompt that both dialogues share, and the last answer of each."""
    if _plain(chosen[:-1]) != _plain(rejected[:-1]):
        raise ValidationError(_("The two dialogues part before the last answer."))
    return chosen[:-1], [chosen[-1]["content"], rejected[-1]["content"]]


def _plain(turns: Any) -> list[Any]:
    if not is_dialogue(turns):
        return []
    return [(turn["role"], turn["content"].strip() if isinstance(turn["content"], str) else None) for turn in turns]


def _turns(text: str) -> list[dict[str, Any]]:
    """The turns of an HH dialogue, or none where `text` is not one."""
    cut = TURN.split(text)
    if len(cut) < 3 or cut[0].strip():
        return []
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[who], "content": said.strip()} for who, said in zip(cut[1::2], cut[2::2], strict=True)]


def _list(record: dict[str, Any], names: Sequence[str]) -> list[Any]:
    return next(record[name] for name in names if isinstance(record.get(name), list))


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise ValidationError(_("A completion is missing, or is no text."))
    if not is_storable(text):
        raise ValidationError(_("The text holds characters that cannot be stored (NUL or half a surrogate pair)."))
    if len(text) > MAX_COMPLETION_CHARACTERS:
        raise ValidationError(
            _("A completion has %(length)s characters, the limit is %(limit)s."),
            params={"length": len(text), "limit": MAX_COMPLETION_CHARACTERS},
        )
    return text


def _name(name: Any, limit: int) -> str:
    text = "" if name is None else name if isinstance(name, str) else json.dumps(name)
    if not is_storable(text) or len(text) > limit:
        raise ValidationError(_("The name of an annotator or a model is too long, or cannot be stored."))
    return text


def _rating(overall: Any, flags: Any = "", note: Any = "") -> dict[str, Any] | None:
    """One rating out of the columns of our exports, where 0 and "" stand for nothing."""
    known = [flag for flag in flags.split() if flag in FLAGS] if isinstance(flags, str) else []
    whole = isinstance(overall, int) and not isinstance(overall, bool) and 1 <= overall <= 7
    return {"overall": overall if whole else None, "flags": known, "note": note}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
