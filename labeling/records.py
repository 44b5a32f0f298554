"""Records out of an uploaded JSON or JSONL file, one at a time: memory does not grow with the file. No ORM.

What cannot be read at all raises TableError with a sentence for the person who uploaded it. A record that cannot be
read comes with its problem, so that it costs only itself.
"""

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import PurePath
from typing import IO, Any, NamedTuple

from django.utils.translation import gettext_lazy as _

from labeling.tables import TableError, Words

SUFFIXES = (".jsonl", ".ndjson", ".json")
MAX_RECORD = 1024 * 1024  # bytes of a line, characters of an item of an array
CHUNK = 64 * 1024
GZIP = b"\x1f\x8b"
TOO_LONG = _("The record is longer than 1 MB.")
DAMAGED = _("The file breaks off or is damaged here. Nothing after this place was read.")


class Record(NamedTuple):
    place: int
    """Its line, or its number in the array, from 1."""
    value: Any = None
    problem: Words = ""


def check_name(name: str) -> None:
    """TableError where the ending of the file's name says that it is no file of records."""
    path = PurePath(name.lower())
    if (path.with_suffix("") if path.suffix == ".gz" else path).suffix not in SUFFIXES:
        raise TableError(_("Only JSONL (.jsonl) and JSON (.json) files are read here, also packed with gzip (.gz)."))


def records(file: IO[bytes]) -> Iterator[Record]:
    """Every record of `file`, which is at its beginning: items of an array, or lines that are objects."""
    start = file.read(2)
    file.seek(0)
    content: Any = gzip.GzipFile(fileobj=file) if start == GZIP else file
    try:
        yield from _records(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TableError(_("The packed file is damaged. Pack it again.")) from error


def _records(content: Any) -> Iterator[Record]:
    head = content.read(CHUNK)
    content.seek(0)
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text:
        raise TableError(_("The file is empty."))
    if text.startswith(b"["):
        yield from _items(content)
    elif text.startswith(b"{"):
        yield from _lines(content)
    else:
        raise TableError(_("The file holds neither a JSON array nor one JSON object a line."))


def _lines(content: Any) -> Iterator[Record]:
    number = 0
    while line := content.readline(MAX_RECORD + 1):
        number += 1
        if len(line) > MAX_RECORD and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = content.readline(MAX_RECORD)
            yield Record(number, problem=TOO_LONG)
            continue
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode())
        except UnicodeDecodeError:
            yield Record(number, problem=_("The line is not in UTF-8."))
        except (ValueError, RecursionError):
            yield Record(number, problem=_("The line is not JSON."))
        else:
            yield _record(number, value)


def _items(content: Any) -> Iterator[Record]:
    """Items of one array, decoded as they come: a whole array of an export may be larger than memory."""
    text = codecs.getreader("utf-8-sig")(content)
    decoder, buffer, number, is_over = json.JSONDecoder(), "", 0, False

    def more() -> bool:
        nonlocal buffer, is_over
        part = text.read(CHUNK)
        buffer, is_over = buffer + part, not part
        return bool(part)

    try:
        more()
        buffer = buffer.lstrip()[1:]
        while True:
            buffer = buffer.lstrip().removeprefix(",").lstrip()
            if not buffer and more():
                continue
            if buffer.startswith("]"):
                return
            try:
                value, end = decoder.raw_decode(buffer)
            except (ValueError, RecursionError):
                if is_over or len(buffer) > MAX_RECORD or not more():
                    yield Record(number + 1, problem=DAMAGED)
                    return
                continue
            number += 1
            buffer = buffer[end:]
            yield _record(number, value)
    except UnicodeDecodeError:
        yield Record(number + 1, problem=_("The file is not in UTF-8 from here on. Nothing after this place was read."))


def _record(place: int, value: Any) -> Record:
    return Record(place, value) if isinstance(value, dict) else Record(place, problem=_("This is no JSON object."))
