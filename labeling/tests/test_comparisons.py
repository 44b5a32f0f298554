"""From records of other programs to comparisons: every shape, and what is wrong with the rest."""

import gzip
import io
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from labeling.comparisons import Comparison, Options
from labeling.reading import read
from labeling.records import Record, records
from labeling.tables import TableError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
ORDER = [
    *("text-davinci-003", "text-davinci-002", "text-davinci-001", "davinci-self-instruct-and-superni-ft"),
    *("davinci-self-instruct", "davinci-superni-ft", "davinci-t0-ft", "davinci"),
]


def said(record: dict[str, Any], **options: Any) -> dict[str, dict[str, int]]:
    """annotator -> text -> tier"""
    found = read(record, Options(**options))
    return {each.annotator: dict(zip(found.texts, each.ranking.tiers, strict=True)) for each in found.said}


def asked(found: Comparison) -> list[str]:
    return [f"{turn['role']}: {turn['content']}" for turn in found.messages]


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


HH = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye?\n\nAssistant: Goodbye.",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye?\n\nAssistant: No.",
}


def test_hh_dialogues_share_their_prompt() -> None:
    found = read(HH, Options())
    assert asked(found) == ["user: Hi", "assistant: Hello", "user: Bye?"]
    assert said(HH) == {"": {"Goodbye.": 1, "No.": 2}}


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
        {"prompt": turns("Why?"), "chosen": turns("", "So.")[1:], "rejected": turns("", "No.")[1:]},
        {"prompt": "Why?", "chosen": turns("Why?", "So."), "rejected": turns("Why?", "No.")},
        {"chosen": turns("Why?", "So."), "rejected": turns("Why?", "No.")},
        {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": " So.", "rejected": " No."},
        {"prompt": "\n\nHuman: Why?", "chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "No."},
    ],
)
def test_pairs_of_trl_and_datasets(record: dict[str, Any]) -> None:
    assert asked(read(record, Options())) == ["user: Why?"]
    assert {text.strip(): tier for text, tier in said(record)[""].items()} == {"So.": 1, "No.": 2}


def test_the_order_of_the_completions_tells_nothing() -> None:
    swapped = {"prompt": "Why?", "chosen": "No.", "rejected": "So."}
    one, other = read({"prompt": "Why?", "chosen": "So.", "rejected": "No."}, Options()), read(swapped, Options())
    assert one.texts == other.texts and one.digest == other.digest
    assert [each.ranking.tiers for each in one.said] != [each.ranking.tiers for each in other.said]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"chosen": "x", "rejected": "y"}, "end with the assistant's answer"),
        ({**HH, "rejected": "\n\nHuman: Else?\n\nAssistant: No."}, "part before the last answer"),
        ({"prompt": "Why?", "chosen": "So.", "rejected": " So. "}, "nothing to prefer"),
        ({"prompt": "Why?", "chosen": "So.", "rejected": None}, "is missing"),
        ({"prompt": "", "chosen": "So.", "rejected": "No."}, "end with the assistant's answer"),
        ({"prompt": "Why\0?", "chosen": "So.", "rejected": "No."}, "cannot be stored"),
        ({"prompt": "Why?", "chosen": "\ud800", "rejected": "No."}, "cannot be stored"),
        ({"prompt": "Why?", "chosen": "x" * 16_001, "rejected": "No."}, "16001 characters"),
        ({"prompt": {"a": 1}, "chosen": "So.", "rejected": "No."}, "at least one message"),
        ({"instruction": "Why?", "completions": list("0123456789")}, "There are 10 completions"),
        ({"completions": ["a", "b"]}, "prompt is empty"),
        ({"prompt": "Why?", "completions": ["a", "b"], "tiers": [1]}, "one tier and one rating"),
        ({"prompt": "Why?", "completions": ["a", "a", "b"], "tiers": [1, 2, 3]}, "same tier"),
        ({"prompt": "Why?", "completions": ["a", "b"], "tiers": [1, 2], "review": "returned"}, "had been returned"),
        ({"text": "hello"}, "no comparison"),
        ({"data": {"text": "hello"}, "annotations": []}, "no two texts"),
        ({"fields": {"text": "hello"}, "responses": {}}, "ranks or rates"),
    ],
)
def test_what_is_wrong_is_said(record: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        read(record, Options())


def test_models_are_ranked_only_in_an_order_that_was_given() -> None:
    record = {
        "instruction": "Add.",
        "input": "1 + 1",
        "completions": [{"model": m, "text": t} for m, t in ("a2", "b3")],
    }
    assert asked(read(record, Options())) == ["user: Add.\n\n1 + 1"] and said(record) == {}
    assert said(record, order=["b", "a"]) == {"order of models": {"3": 1, "2": 2}}
    with pytest.raises(ValidationError, match="“b”"):
        read(record, Options(order=["a"]))


def test_scores_make_tiers_and_equal_texts_share_the_best() -> None:
    scored = [("x", 3), ("y", 5), ("x", 5), ("z", 1)]
    record = {"instruction": "?", "completions": [{"response": t, "overall_score": s} for t, s in scored]}
    assert said(record) == {"": {"x": 1, "y": 1, "z": 2}}


# --- Label Studio ---------------------------------------------------------------------------------------------------

ITEMS = [
    {"id": f"m{i}", "title": f"Model {i}", "body": text} for i, text in enumerate(("one", "two", "three"), start=1)
]


def task(data: dict[str, Any], *values: Any, kind: str = "ranker") -> dict[str, Any]:
    annotations = [
        {"id": i, "completed_by": i, "was_cancelled": False, "result": [{"type": kind, "value": value, "to_name": "x"}]}
        for i, value in enumerate(values, start=1)
    ]
    return {"id": 1, "data": data, "annotations": annotations, "predictions": []}


def test_label_studio_ranker_lists_the_best_first() -> None:
    record = task(
        {"prompt": "Count.", "items": ITEMS}, {"ranker": ["m2", "m1", "m3"]}, {"ranker": {"_": ["m1", "m2", "m3"]}}
    )
    assert asked(read(record, Options())) == ["user: Count."]
    assert said(record) == {"1": {"two": 1, "one": 2, "three": 3}, "2": {"one": 1, "two": 2, "three": 3}}


def test_label_studio_numbered_buckets_are_tiers_and_others_are_refused() -> None:
    numbered = {"ranker": {"_": [], "rank_2": ["m1", "m3"], "rank_1": ["m2"]}}
    assert said(task({"prompt": "?", "items": ITEMS}, numbered)) == {"1": {"two": 1, "one": 2, "three": 2}}
    with pytest.raises(ValidationError, match="do not say which is best"):
        read(task({"prompt": "?", "items": ITEMS}, {"ranker": {"biased": ["m1"], "relevant": ["m2", "m3"]}}), Options())


def test_label_studio_pairwise_and_cancelled_annotations() -> None:
    record = task(
        {"prompt": "?", "answer1": "yes", "answer2": "no"}, {"selected": "right"}, {"selected": "left"}, kind="pairwise"
    )
    record["annotations"][1]["was_cancelled"] = True
    assert said(record) == {"1": {"no": 1, "yes": 2}}


def test_label_studio_tasks_nobody_did_are_work() -> None:
    found = read({"data": {"prompt": "?", "items": ITEMS}, "annotations": []}, Options())
    assert (sorted(found.texts), found.said) == (["one", "three", "two"], [])


# --- Argilla --------------------------------------------------------------------------------------------------------

FIELDS = {"instruction": "Why?", "response-1": "one", "response-2": "two"}


def test_argilla_2_ranking_by_each_annotator() -> None:
    answers = [
        {"value": ["response-2", "response-1"], "user_id": "u1"},
        {"value": ["response-1", "response-2"], "user_id": "u2"},
    ]
    record = {
        "id": "1",
        "fields": FIELDS,
        "metadata": {"response-1-model": "m"},
        "suggestions": {},
        "responses": {"rank": answers},
    }
    assert said(record) == {"u1": {"two": 1, "one": 2}, "u2": {"one": 1, "two": 2}}
    found = read(record, Options())
    assert dict(zip(found.texts, found.models, strict=True)) == {"one": "m", "two": ""}


def test_argilla_ranks_may_repeat_and_ratings_become_tiers() -> None:
    ranks = [{"rank": 1, "value": "response_1"}, {"rank": 1, "value": "response_2"}]
    answers = [
        {"user_id": "u1", "status": "submitted", "values": {"rank": {"value": ranks}}},
        {"user_id": "u2", "status": "discarded", "values": {"rank": {"value": ranks}}},
        {
            "user_id": "u3",
            "status": "submitted",
            "values": {"rating-response-1": {"value": 2}, "response_2_rating": {"value": 4}},
        },
    ]
    record = {"fields": FIELDS, "responses": answers}
    assert said(record) == {"u1": {"one": 1, "two": 1}, "u3": {"two": 1, "one": 2}}


def test_argilla_flat_records() -> None:
    record = {"id": "1", **FIELDS, "rank.responses": [["response-2", "response-1"]], "rank.responses.users": ["u1"]}
    assert said({**record, "rank.responses.status": ["submitted"]}) == {"u1": {"two": 1, "one": 2}}
    assert said({**record, "rank.responses.status": ["draft"]}) == {}


def test_argilla_suggestions_count_only_where_that_is_wished() -> None:
    suggestion = {"rank": {"value": ["response-2", "response-1"], "score": 0.9, "agent": "gpt"}}
    record = {"fields": FIELDS, "responses": {}, "suggestions": suggestion}
    with pytest.raises(ValidationError, match="only a model's suggestion"):
        read(record, Options())
    assert said(record, suggestions=True) == {"suggestion gpt": {"two": 1, "one": 2}}


# --- Real files, hostile files --------------------------------------------------------------------------------------


def each(name: str) -> Iterable[Record]:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with path.open("rb") as file:
        yield from records(file)


def test_real_hh_is_read_but_for_dialogues_that_part_early() -> None:
    counts: Counter[str] = Counter()
    for record in each("hh_harmless.jsonl.gz"):
        try:
            counts[f"{len(read(record.value, Options()).texts)}"] += 1
        except ValidationError as error:
            counts[error.messages[0]] += 1
    assert counts == {"2": 1152, "The two dialogues part before the last answer.": 4}


def test_real_answers_of_eight_models_are_read() -> None:
    found = [read(record.value, Options(order=ORDER)) for record in each("instructions_8_models.jsonl.gz")]
    assert len(found) == 160 and all(len(each.texts) == 8 and len(each.said) == 1 for each in found)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text("ab\0\n", max_size=8)
    | st.sampled_from(["left", "response-1", "m1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "value", "rank", "ranker", "id", "body", "text", "model"]), inner
        )
    ),
    max_leaves=6,
)
NAMES = (
    "prompt chosen rejected tie labeler completions tiers ratings flags data annotations fields responses q.responses"
)


@given(st.dictionaries(st.sampled_from([*NAMES.split(), "suggestions", "messages", "verdict"]), values))
def test_no_record_breaks_the_reader(record: dict[str, Any]) -> None:
    try:
        found = read(record, Options(order=["m1"], suggestions=True))
    except ValidationError:
        return
    assert 2 <= len(found.texts) <= 9 and all(len(each.ranking.ratings) == len(found.texts) for each in found.said)


def places(data: bytes) -> list[tuple[int, str]]:
    return [(record.place, str(record.problem)) for record in records(io.BytesIO(data))]


def test_lines_and_arrays_give_the_same_records() -> None:
    rows = [{"n": n, "text": "안녕 " * 30_000} for n in range(4)]  # longer than what is read at a time
    array = json.dumps(rows, ensure_ascii=False, indent=1).encode()
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    for data in (array, b"\xef\xbb\xbf" + array, lines, gzip.compress(lines, mtime=0)):
        assert [record.value for record in records(io.BytesIO(data))] == rows


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            b'{"a": 1}\nno\n\n[1]\n{"a": "\xff"}\n{"a": 2}',
            [(1, ""), (2, "not JSON"), (4, "no JSON object"), (5, "UTF-8"), (6, "")],
        ),
        (b'{"a": "' + b"x" * 1_100_000 + b'"}\n{"a": 2}', [(1, "longer than 1 MB"), (2, "")]),
        (b'[{"a": 1}, 5, {"a": ', [(1, ""), (2, "no JSON object"), (3, "damaged here")]),
        (b'[{"a": 1}, {"b": "\xff\xff"}]', [(1, "UTF-8")]),
        (b"[" * 5000, [(1, "damaged here")]),
        (b"[]", []),
    ],
)
def test_a_damaged_record_costs_itself(data: bytes, expected: list[tuple[int, str]]) -> None:
    found = places(data)
    assert [place for place, _problem in found] == [place for place, _words in expected]
    assert all(words in problem for (_p, problem), (_q, words) in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"a,b\n1,2\n", "neither"),
        (gzip.compress(b'{"a": 1}', mtime=0)[:-9], "damaged"),
        (b"\x1f\x8bxxxx", "damaged"),
    ],
)
def test_what_is_no_file_of_records_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(TableError, match=words):
        places(data)
