"""Tables out of bytes: whatever is uploaded, either a table comes back or a TableError that says what to do."""

import codecs
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.tables import MAX_COLUMNS, MAX_ROWS, TableError, encoding_of, flatten, format_of, read_table

CSV = "Q,A\n안녕,반가워요\n"


def rows(text: str | bytes, format: str = "csv") -> list[tuple[int, dict[str, object], str]]:
    data = text.encode() if isinstance(text, str) else text
    encoding = encoding_of(data)
    assert encoding
    return [(row.line, row.values, str(row.problem)) for row in read_table(data, format, encoding).rows]


@pytest.mark.parametrize(
    "data",
    [
        CSV.encode(),
        codecs.BOM_UTF8 + CSV.encode(),
        codecs.BOM_UTF16_LE + CSV.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + CSV.encode("utf-16-be"),
    ],
    ids=["UTF-8", "UTF-8 with BOM", "UTF-16 LE", "UTF-16 BE"],
)
def test_unicode_is_read_without_asking(data: bytes) -> None:
    assert rows(data) == [(2, {"Q": "안녕", "A": "반가워요"}, "")]


def test_korean_windows_encoding_is_never_guessed_silently() -> None:
    data = CSV.encode("cp949")
    assert encoding_of(data) is None
    assert read_table(data, "csv", "cp949").rows[0].values == {"Q": "안녕", "A": "반가워요"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b" \n\r\n ", "empty"),
        (codecs.BOM_UTF16_LE, "empty"),
        (b"\x00" * 400, "empty"),
        (b"PK\x03\x04 a spreadsheet", "no text file (zip, xlsx)"),
        (b"\x1f\x8b packed", "gzip"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "no text file"),
        (bytes(range(1, 32)) * 20, "no text file"),
        (b"caf\xe9,th\xe9\nol\xe9,a\n", "no encoding that is known"),
    ],
)
def test_what_is_no_text_is_refused_with_a_reason(data: bytes, words: str) -> None:
    with pytest.raises(TableError, match=words.replace("(", r"\(").replace(")", r"\)")):
        encoding_of(data)


@pytest.mark.parametrize(
    ("text", "format", "words"),
    [
        ("Q,A\n", "csv", "no rows"),
        ("\n\n", "csv", "empty"),
        ("a\x00b,c\nd,e\n" + "x" * 999, "csv", "no text file"),
        (",".join(f"c{i}" for i in range(MAX_COLUMNS + 1)) + "\n1\n", "csv", "columns, the limit is"),
        ("Q\n" + "a\n" * (MAX_ROWS + 1), "csv", "rows, the limit is"),
        ("hello\nworld\n", "jsonl", "JSON object"),
        ("[1]\n[2]\n", "jsonl", "JSON object"),
        (json.dumps({f"c{i}": 1 for i in range(MAX_COLUMNS + 1)}), "jsonl", "columns, the limit is"),
    ],
)
def test_what_is_no_table_is_refused_with_a_reason(text: str, format: str, words: str) -> None:
    with pytest.raises(TableError, match=words):
        read_table(text.encode(), format, "utf-8")


@pytest.mark.parametrize("name", ["data.xlsx", "data", "data.jsonl.gz", "data.json", ".csv.exe"])
def test_other_endings_are_refused(name: str) -> None:
    with pytest.raises(TableError):
        format_of(name)


@pytest.mark.parametrize(("name", "format"), [("a.CSV", "csv"), ("b.tsv", "csv"), ("c.ndjson", "jsonl")])
def test_endings_tell_the_format(name: str, format: str) -> None:
    assert format_of(name) == format


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_found(delimiter: str) -> None:
    text = f"Q{delimiter}A\n1, 2; 3{delimiter}x\n"
    text = text if delimiter in "\t|" else text.replace("1, 2; 3", "'one'")
    assert list(read_table(text.encode(), "csv", "utf-8").columns) == ["Q", "A"]


def test_a_single_column_with_commas_in_quotes_is_one_column() -> None:
    assert rows('prompt\n"Dear Ann, dear Bob"\n') == [(2, {"prompt": "Dear Ann, dear Bob"}, "")]


def test_quoted_fields_may_span_lines_and_hold_quotes() -> None:
    assert rows('Q,A\n"say ""hi""\nplease",ok\nb,c\n') == [
        (2, {"Q": 'say "hi"\nplease', "A": "ok"}, ""),
        (4, {"Q": "b", "A": "c"}, ""),
    ]


def test_a_damaged_row_costs_only_itself() -> None:
    found = rows('Q,A\n"never closed,1\ngood,2\n"he said "no"",3\n1,2,3\nshort\n\nlast,4\n')
    assert [(line, values) for line, values, problem in found if not problem] == [
        (3, {"Q": "good", "A": "2"}),
        (8, {"Q": "last", "A": "4"}),
    ]
    problems = {line: problem for line, _values, problem in found if problem}
    assert set(problems) == {2, 4, 5, 6}
    assert "quotation mark" in problems[2] and "quotation mark" in problems[4]
    assert "3 fields, the header has 2" in problems[5]


def test_empty_columns_left_by_a_spreadsheet_do_no_harm() -> None:
    assert rows("Q,A\n1,2,,\n") == [(2, {"Q": "1", "A": "2"}, "")]


def test_columns_of_the_same_name_are_told_apart() -> None:
    assert read_table(b"Q,Q,\n1,2,3\n", "csv", "utf-8").columns == ["Q", "Q (2)", "3"]


def test_jsonl_rows_that_are_broken_cost_only_themselves() -> None:
    found = rows('{"q": 1}\nnot json\n[1]\n\n{"q": 2, "more": null}\n', "jsonl")
    assert [(line, bool(problem)) for line, _values, problem in found] == [(1, False), (2, True), (3, True), (5, False)]


def test_nested_fields_become_columns() -> None:
    record = {"instances": [{"input": "x", "output": "y"}, {"input": "z"}], "meta": {"by": {"name": "Kim"}}}
    assert flatten(record) == {
        "instances.0.input": "x",
        "instances.0.output": "y",
        "instances.1.input": "z",
        "meta.by.name": "Kim",
    }


def test_a_dialogue_stays_one_column() -> None:
    dialogue = [{"role": "user", "content": "Hi"}]
    assert flatten({"messages": dialogue}) == {"messages": dialogue}


def test_column_names_can_be_stored() -> None:
    table = read_table(json.dumps({"a\x00\ud800": 1}).encode(), "jsonl", "utf-8")
    assert table.columns == ["a\ufffd\ufffd"]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["csv", "jsonl"]))
def test_no_bytes_whatever_raise_anything_else(data: bytes, format: str) -> None:
    try:
        encoding = encoding_of(data) or "cp949"
        table = read_table(data, format, encoding)
    except TableError as error:
        assert str(error)
    else:
        assert table.rows and table.columns
        assert all(set(row.values) <= set(table.columns) for row in table.rows)


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("ab\",;\n\r\t|'é한 ", max_size=12), max_size=12), st.sampled_from([",", ";", "\t"]))
def test_no_csv_whatever_raises_anything_else(lines: list[str], delimiter: str) -> None:
    text = f"Q{delimiter}A\n" + "\n".join(lines)
    try:
        table = read_table(text.encode(), "csv", "utf-8")
    except TableError as error:
        assert str(error)
    else:
        assert all(1 <= row.line <= text.count("\n") + text.count("\r") + 1 for row in table.rows)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | CELLS, lambda inner: st.lists(inner) | st.dictionaries(CELLS, inner)
    )
)
def test_no_json_whatever_raises_anything_else(value: object) -> None:
    try:
        read_table((json.dumps({"q": value}) + "\n" + json.dumps(value)).encode(), "jsonl", "utf-8")
    except TableError as error:
        assert str(error)
