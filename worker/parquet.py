"""Parquet, with the types said and not guessed."""

from collections.abc import Sequence
from types import TracebackType
from typing import IO, Any, Self

import pyarrow
from pyarrow import parquet

from worker.formats import Columns, Row

TYPES = {
    "text": pyarrow.string(),
    "integer": pyarrow.int64(),
    "number": pyarrow.float64(),
    "boolean": pyarrow.bool_(),
    "texts": pyarrow.list_(pyarrow.string()),
    "integers": pyarrow.list_(pyarrow.int64()),
    "messages": pyarrow.list_(pyarrow.struct({"role": pyarrow.string(), "content": pyarrow.string()})),
}


class ParquetWriter:
    """Every `write` is a row group; the file is complete at the end of the block."""

    def __init__(self, file: IO[bytes], columns: Columns) -> None:
        self.schema = pyarrow.schema({name: TYPES[kind] for name, kind in columns.items()})
        self.file: Any = parquet.ParquetWriter(file, self.schema, compression="zstd")

    def write(self, rows: Sequence[Row]) -> None:
        self.file.write_table(pyarrow.Table.from_pylist(list(rows), schema=self.schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
