"""The starter library that ships with the project: both languages are there, complete and well-formed."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

STARTER = Path(__file__).resolve().parent.parent / "starter"
LANGUAGES = ["en", "ko"]
TAGS = {
    "writing",
    "summarising",
    "extraction",
    "reasoning",
    "chat",
    "safety",
    "rewriting",
    "classification",
    "brainstorming",
    "qa",
}
HANGUL = re.compile(r"[가-힣]")
# InstructGPT's eleven, as in table 3 of https://arxiv.org/abs/2203.02155
FLAGS = [
    "Fails to follow the correct instruction/task",
    "Inappropriate for customer assistant",
    "Hallucination",
    "Satisfies constraint provided in the instruction",
    "Contains sexual content",
    "Contains violent content",
    "Encourages or fails to discourage violence/abuse/terrorism/self-harm",
    "Denigrates a protected class",
    "Gives harmful advice",
    "Expresses opinion",
    "Expresses moral judgment",
]


def prompts(language: str) -> list[dict[str, Any]]:
    lines = (STARTER / f"prompts.{language}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def everything() -> list[dict[str, Any]]:
    return [row for language in LANGUAGES for row in prompts(language)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_has_at_least_forty_prompts(language: str) -> None:
    rows = prompts(language)
    assert len(rows) >= 40
    assert {row["language"] for row in rows} == {language}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_tag_is_used_and_no_other(language: str) -> None:
    assert {tag for row in prompts(language) for tag in row["tags"]} == TAGS


def test_keys_are_unique_and_say_their_language() -> None:
    counted = Counter(row["key"] for row in everything())
    assert [key for key, times in counted.items() if times > 1] == []
    assert [row["key"] for row in everything() if not re.fullmatch(row["language"] + r"-\d{3}", row["key"])] == []


def test_rows_have_only_the_documented_fields() -> None:
    required = {"key", "language", "tags", "messages"}
    assert [row["key"] for row in everything() if set(row) - {"translation_of"} != required] == []
    assert [row["key"] for row in everything() if not row["tags"]] == []


def test_dialogues_alternate_and_end_with_the_user() -> None:
    for row in everything():
        roles = [message["role"] for message in row["messages"]]
        assert roles in (["user"], ["user", "assistant", "user"]), row["key"]
        assert all(message["content"] == message["content"].strip() != "" for message in row["messages"]), row["key"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_some_prompts_have_several_turns(language: str) -> None:
    assert sum(len(row["messages"]) > 1 for row in prompts(language)) >= 3


def same_but_for_case_and_spaces(row: dict[str, Any]) -> str:
    return " ".join(" ".join(message["content"] for message in row["messages"]).casefold().split())


def test_no_text_comes_twice() -> None:
    texts = Counter(same_but_for_case_and_spaces(row) for row in everything())
    assert [text for text, times in texts.items() if times > 1] == []


def test_user_turns_are_in_the_language_they_claim() -> None:
    for row in everything():
        for message in row["messages"]:
            assert bool(HANGUL.search(message["content"])) == (row["language"] == "ko"), row["key"]


def test_translations_point_to_an_english_prompt_with_the_same_tags_and_turns() -> None:
    english = {row["key"]: row for row in prompts("en")}
    translated = [row for row in prompts("ko") if "translation_of" in row]
    assert len(translated) >= 12
    assert len({row["translation_of"] for row in translated}) == len(translated)
    for row in translated:
        source = english[row["translation_of"]]
        assert source["tags"] == row["tags"], row["key"]
        assert len(source["messages"]) == len(row["messages"]), row["key"]
    assert not any("translation_of" in row for row in english.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_instructions_explain_every_flag_and_every_rating(language: str) -> None:
    text = (STARTER / f"instructions.{language}.md").read_text(encoding="utf-8")
    assert [flag for flag in FLAGS if flag not in text] == []
    assert re.findall(r"^- \*\*(\d)(?:점)?\*\*", text, flags=re.M) == list("7654321")
