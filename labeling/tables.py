"""Tables out of uploaded bytes: encoding, delimiter, columns, rows. Pure functions: no ORM.

What cannot be read at all raises TableError with a sentence for the person who uploaded it. A row that cannot be read
stays in the table with its problem, so that it costs only itself.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from labeling.text import is_storable

Words = str | Promise

JSONL_SUFFIXES, CSV_SUFFIXES = (".jsonl", ".ndjson"), (".csv", ".tsv", ".txt")
KOREAN_WINDOWS = "cp949"  # holds EUC-KR
DELIMITERS = ",;\t|"
MAX_ROWS, MAX_COLUMNS, MAX_COLUMN_CHARACTERS = 100_000, 200, 100
NESTING, LIST_ITEMS = 3, 3
FOREIGN = {b"PK\x03\x04": "zip, xlsx", b"\x1f\x8b": "gzip", b"%PDF": "PDF", b"\xd0\xcf\x11\xe0": "xls", b"BZh": "bzip2"}
BAD_QUOTES = _("A quotation mark is not closed, or stands in a quoted field without being doubled.")
TOO_LONG = _("A field has more than 131,072 characters. Is a quotation mark not closed?")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


class TableError(Exception):
    """The file is no table that can be read; `str()` says why and what to do."""

    def __init__(self, words: Words) -> None:
        super().__init__(words)
        self.words = words

    def __str__(self) -> str:
        return str(self.words)


@dataclass(frozen=True)
class Row:
    line: int
    """Where it begins in the file, from 1."""
    values: dict[str, Any] = field(default_factory=dict)
    problem: Words = ""


@dataclass(frozen=True)
class Table:
    columns: list[str]
    rows: list[Row]


def format_of(name: str) -> str:
    """jsonl or csv, by the ending of the file's name."""
    suffix = PurePath(name).suffix.lower()
    if suffix in JSONL_SUFFIXES:
        return "jsonl"
    if suffix in CSV_SUFFIXES:
        return "csv"
    if suffix == ".json":
        raise TableError(_("JSON files are not read. Save it as JSONL: one object a line, with the ending .jsonl."))
    raise TableError(_("Only JSONL (.jsonl) and CSV (.csv, .tsv, .txt) files are read. Save the table as one of them."))


def encoding_of(data: bytes) -> str | None:
    """The encoding, or None where the bytes are text, but not in Unicode: then a person has to look."""
    if not data.strip(b"\x00 \t\r\n\xef\xbb\xbf\xff\xfe"):
        raise TableError(_("The file is empty."))
    for magic, kind in FOREIGN.items():
        if data.startswith(magic):
            raise TableError(
                _("This is no text file (%(kind)s). Unpack it, or save the table as CSV in UTF-8.") % {"kind": kind}
            )
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _decodable(data, "utf-16")
    if data.startswith(b"\xef\xbb\xbf"):
        return _decodable(data, "utf-8-sig")
    try:
        _decodable(data, "utf-8")
    except TableError:
        _decodable(data, KOREAN_WINDOWS)
        return None
    return "utf-8"


def decode(data: bytes, encoding: str) -> str:
    """The text of the file. TableError where it is not in that encoding, or no text at all."""
    try:
        text = data.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise TableError(
            _("The file is in no encoding that is known here. Save it in UTF-8 (in a spreadsheet: “CSV UTF-8”).")
        ) from error
    if not text.strip():
        raise TableError(_("The file is empty."))
    if len(CONTROL.findall(text)) > len(text) / 100 or CONTROL.search(text.lstrip()[:1]):
        raise TableError(_("This is no text file. Save the table as CSV or JSONL in UTF-8."))
    return text


def read_table(data: bytes, format: str, encoding: str) -> Table:
    """Columns and rows of the file. TableError where there is nothing in it that could be used."""
    text = decode(data, encoding)
    table = _read_jsonl(text) if format == "jsonl" else _read_csv(text)
    if not table.rows:
        raise TableError(_("The file has a header, but no rows."))
    if len(table.rows) > MAX_ROWS:
        raise TableError(
            _("The file has %(count)s rows, the limit is %(limit)s. Split it and import the parts.")
            % {"count": len(table.rows), "limit": MAX_ROWS}
        )
    return table


def is_dialogue(value: Any) -> bool:
    """Whether `value` is a list of messages with a role and a content."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in value)
    )


def flatten(value: Any, name: str = "", depth: int = 0) -> dict[str, Any]:
    """Nested objects and the first items of lists as columns such as `instances.0.input`; dialogues stay whole."""
    if depth <= NESTING and isinstance(value, dict):
        inner = list(value.items())
    elif depth <= NESTING and isinstance(value, list) and not is_dialogue(value):
        inner = list(enumerate(value[:LIST_ITEMS]))
    else:
        return {_column_name(name): value}
    prefix = f"{name}." if name else ""
    columns: dict[str, Any] = {}
    for key, item in inner:
        for path, leaf in flatten(item, f"{prefix}{key}", depth + 1).items():
            columns.setdefault(path, leaf)
    return columns


def _decodable(data: bytes, encoding: str) -> str:
    decode(data, encoding)
    return encoding


def _check_width(count: int) -> None:
    if count > MAX_COLUMNS:
        raise TableError(
            _("The file has %(count)s columns, the limit is %(limit)s. Is it a table?")
            % {"count": count, "limit": MAX_COLUMNS}
        )


def _column_name(name: str) -> str:
    short = " ".join(name.split())[:MAX_COLUMN_CHARACTERS]
    return short if is_storable(short) else re.sub("[\x00\ud800-\udfff]", "\ufffd", short)


def _lines(text: str) -> list[str]:
    """Lines with their ends, as every editor counts them."""
    return io.StringIO(text, newline="").readlines()


def _read_jsonl(text: str) -> Table:
    columns: dict[str, None] = {}
    rows = []
    for number, line in enumerate(_lines(text), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            rows.append(Row(number, problem=_("The line is not JSON.")))
            continue
        if not isinstance(record, dict):
            rows.append(Row(number, problem=_("The line holds no JSON object.")))
            continue
        values = flatten(record)
        columns.update(dict.fromkeys(values))
        _check_width(len(columns))
        rows.append(Row(number, values))
    if rows and not columns:
        raise TableError(_("No line of the file is a JSON object. A JSONL file has one object a line."))
    return Table(list(columns), rows)


def _read_csv(text: str) -> Table:
    lines = _lines(text)
    records = _records(lines, _delimiter(lines))
    header: list[str] = next((fields for _line, fields, _problem in records if fields), [])
    if any("\x00" in name for name in header):
        raise TableError(_("This is no text file. Save the table as CSV or JSONL in UTF-8."))
    if not header:
        raise TableError(_("The first line of a CSV file names its columns. None could be read here."))
    _check_width(len(header))
    columns = _unique(header)
    rows = []
    for line, fields, problem in records:
        if not problem and len(fields) > len(columns) and not any(fields[len(columns) :]):
            fields = fields[: len(columns)]  # spreadsheets leave empty columns behind
        if not problem and len(fields) != len(columns):
            problem = _("The row has %(found)s fields, the header has %(expected)s.") % {
                "found": len(fields),
                "expected": len(columns),
            }
        rows.append(Row(line, problem=problem) if problem else Row(line, dict(zip(columns, fields, strict=True))))
    return Table(columns, rows)


def _delimiter(lines: list[str]) -> str:
    """The delimiter that cuts the first lines into the most columns, all rows alike; a comma where none does."""

    def score(delimiter: str) -> tuple[int, int]:
        widths = [len(fields) for _line, fields, problem in _records(lines[:50], delimiter) if not problem]
        header = widths[0] if widths else 1
        return (sum(width == header for width in widths) if header > 1 else 0, header)

    return max(DELIMITERS, key=score)


def _records(lines: list[str], delimiter: str) -> Iterator[tuple[int, list[str], Words]]:
    """(line, fields, problem) of every record that is not blank. After a damaged one, reading goes on one line on."""
    position = 0

    def feed() -> Iterator[str]:
        nonlocal position
        while position < len(lines):
            position += 1
            yield lines[position - 1]

    while position < len(lines):
        start = position
        try:
            fields = next(csv.reader(feed(), delimiter=delimiter, strict=True))
        except StopIteration:
            return
        except csv.Error as error:
            position = start + 1
            yield start + 1, [], TOO_LONG if "limit" in str(error) else BAD_QUOTES
            continue
        if any(value.strip() for value in fields):
            yield start + 1, fields, ""


def _unique(header: list[str]) -> list[str]:
    columns: list[str] = []
    for position, raw in enumerate(header, start=1):
        name = stem = _column_name(raw) or str(position)
        number = 2
        while name in columns:
            name, number = f"{stem} ({number})", number + 1
        columns.append(name)
    return columns
