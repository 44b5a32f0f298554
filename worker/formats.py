"""Rows into files: JSONL, CSV, Parquet. What each does to a value stands in `docs/files.md`."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, Protocol

Row = dict[str, Any]
Columns = Mapping[str, str]

# Some programs take these for the end of a line. json escapes the others.
LINE_ENDS = re.compile("[\u0085\u2028\u2029]")
# A cell that begins so is a formula to a spreadsheet program; the wide forms are to those of East Asia.
FORMULA = tuple("=+-@\t\r\n＝＋－＠")
MARK = "'"


class Writer(Protocol):
    def write(self, rows: Sequence[Row]) -> None: ...


@contextmanager
def writer(format: str, file: IO[bytes], columns: Columns) -> Iterator[Writer]:
    """Writes rows of `columns` to `file`; what is buffered is there at the end of the block."""
    if format == "parquet":
        from worker.parquet import ParquetWriter  # the one format that needs a package of its own

        with ParquetWriter(file, columns) as parquet:
            yield parquet
    elif format == "csv":
        text = io.TextIOWrapper(file, "utf-8-sig", newline="")  # with the mark by which Excel knows UTF-8
        yield CsvWriter(text, columns)
        text.detach()
    else:
        yield JsonlWriter(file)


class JsonlWriter:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            line = LINE_ENDS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(row, ensure_ascii=False))
            self.file.write(line.encode() + b"\n")


class CsvWriter:
    """Nested values as JSON; text that a spreadsheet program would run as a formula with an apostrophe before it."""

    def __init__(self, file: io.TextIOWrapper, columns: Columns) -> None:
        self.columns = columns
        self.rows = csv.writer(file)
        self.rows.writerow(columns)

    def write(self, rows: Sequence[Row]) -> None:
        self.rows.writerows([cell(row[name], kind) for name, kind in self.columns.items()] for row in rows)


def cell(value: Any, kind: str) -> str:
    if kind == "text":
        return harmless(value)
    if kind == "boolean":
        return "true" if value else "false"
    return str(value) if kind in ("integer", "number") else json.dumps(value, ensure_ascii=False)


def harmless(text: str) -> str:
    """`text`, not a formula. To undo it take one apostrophe off where there is one."""
    return MARK + text if text.startswith((*FORMULA, MARK)) else text
