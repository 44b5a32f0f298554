"""From the rows of a table to prompts: what is taken, what is a duplicate, what is refused and why. No ORM."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from labeling.models.demonstration import clean_demonstration
from labeling.models.prompt import clean_messages, content_hash
from labeling.tables import Row, Table, Words, is_dialogue

ROLES = ("prompt", "input", "demonstration")
"""What a column can be mapped to."""
GUESSES = {
    "prompt": ["prompt", "messages", "instruction", "question", "q", "conversations", "query", "질문", "지시"],
    "input": ["input", "context", "instances.0.input", "passage", "입력"],
    "demonstration": [
        *("demonstration", "completion", "output", "response", "answer", "a"),
        *("instances.0.output", "답변", "응답", "정답"),
    ],
}
HANGUL = re.compile("[가-힣]")


@dataclass(frozen=True)
class Candidate:
    """What would become of one row."""

    line: int
    messages: list[dict[str, str]] = field(default_factory=list)
    demonstration: str = ""
    hash: str = ""
    problem: Words = ""
    duplicate_of: Words = ""

    @property
    def kind(self) -> str:
        if self.problem:
            return "refused"
        return "duplicate" if self.duplicate_of else "taken"


def guess_mapping(columns: Sequence[str]) -> dict[str, str]:
    """Columns whose names say what they hold."""
    by_name = {column.casefold(): column for column in reversed(columns)}
    guessed = {role: next((by_name[name] for name in names if name in by_name), "") for role, names in GUESSES.items()}
    return {role: column for role, column in guessed.items() if column}


def guess_language(table: Table, column: str, languages: Sequence[str]) -> str:
    """Korean where half of the first rows hold Hangul, else the first other language of the project."""
    texts = [str(row.values.get(column, "")) for row in table.rows[:200]]
    korean = sum(bool(HANGUL.search(text)) for text in texts) * 2 >= max(1, len(texts))
    return next((code for code in languages if (code == "ko") == korean), languages[0] if languages else "")


def candidates(table: Table, mapping: dict[str, str], known: set[str]) -> list[Candidate]:
    """Every row of `table`, judged. `known` holds the hashes of the project's prompts in the language chosen."""
    seen: dict[str, int] = {}
    judged = []
    for row in table.rows:
        candidate = _judge(row, mapping)
        if not candidate.problem and candidate.hash in known:
            candidate = Candidate(
                row.line, candidate.messages, candidate.demonstration, duplicate_of=_("a prompt of the project")
            )
        elif not candidate.problem and candidate.hash in seen:
            where = _("line %(line)s of the file") % {"line": seen[candidate.hash]}
            candidate = Candidate(row.line, candidate.messages, candidate.demonstration, duplicate_of=where)
        elif not candidate.problem:
            seen[candidate.hash] = row.line
        judged.append(candidate)
    return judged


def _judge(row: Row, mapping: dict[str, str]) -> Candidate:
    if row.problem:
        return Candidate(row.line, problem=row.problem)
    try:
        messages, demonstration = _dialogue(row.values.get(mapping["prompt"]))
        if "demonstration" in mapping:
            demonstration = _text(row.values.get(mapping["demonstration"]))
        passage = _text(row.values.get(mapping["input"])) if "input" in mapping else ""
        if passage.strip() and messages:
            last = messages[-1]
            messages = [*messages[:-1], {**last, "content": f"{_text(last['content'])}\n\n{passage}"}]
        messages = clean_messages(messages)
        demonstration = clean_demonstration(demonstration) if demonstration.strip() else ""
    except ValidationError as error:
        return Candidate(row.line, problem=error.messages[0])
    return Candidate(row.line, messages, demonstration, content_hash(messages))


def _dialogue(value: Any) -> tuple[list[dict[str, Any]], str]:
    """The messages of a prompt column, and the answer where the dialogue ends with one."""
    if not is_dialogue(value):
        text = _text(value)
        if not text.strip():
            raise ValidationError(_("The prompt is empty."))
        return [{"role": "user", "content": text}], ""
    if value[-1]["role"] == "assistant" and len(value) > 1:
        return value[:-1], _text(value[-1]["content"])
    return value, ""


def _text(value: Any) -> str:
    """A single value as text. ValidationError for lists and objects."""
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return str(value)
    if not isinstance(value, str):
        raise ValidationError(_("The value is a list or an object, not text. Choose a column inside it."))
    return value
