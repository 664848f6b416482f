"""Data files as rows that can be copied unchanged: bytes of CSV, JSON and JSONL, row groups of Parquet."""

from __future__ import annotations

import csv
import io
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol

import orjson

from tunebook.data.rows import parse_json
from tunebook.errors import TunebookError
from tunebook.lengths.reading import ARROW
from tunebook.splits.checks import Checks
from tunebook.splits.rows import read_rows
from tunebook.splits.sources import SourceFile, check_unchanged, open_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_PARQUET_ROWS = 1000


class RawRows(Protocol):
    """Some rows in the order of the file, as values and as they are written there."""

    @property
    def count(self) -> int:
        """How many."""
        ...

    @property
    def parsed(self) -> list[dict[str, Any]]:
        """Each row's columns."""
        ...

    @property
    def size(self) -> int:
        """Bytes of the file that they take, in Parquet about."""
        ...


class Sink(Protocol):
    """A file that rows are copied to."""

    def write(self, rows: Any, stays: Sequence[bool]) -> None:
        """Copy those rows that stay."""
        ...


class RowFile(Protocol):
    """A file whose rows can be copied."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    def rows(self) -> Iterator[Any]:
        """Yield all rows, some at a time, as `RawRows`."""
        ...

    def takes(self, other: Any) -> bool:
        """Whether rows of `other` can be in one file with rows of this one."""
        ...

    def sink(self, path: Path) -> Any:
        """Return a context with the `Sink` that writes a file of this form to `path`."""
        ...


def open_rows(path: Path) -> RowFile:
    """Look at a file.

    Raises:
        TunebookError: It cannot be read, or its rows cannot be copied.
    """
    if path.suffix == ARROW:
        raise TunebookError(
            f"{path} is the cache of a dataset of the hub, which is not filtered",
            fix='write it to a file first: datasets.load_dataset(...)["train"].to_json("rows.jsonl")',
        )
    source = open_source(path)
    return ParquetFile(source) if source.format == "parquet" else TextFile(source)


@dataclass(frozen=True, slots=True)
class TextRows:
    """Rows of a text file."""

    file: TextFile
    texts: list[bytes]
    size: int

    @property
    def count(self) -> int:
        """How many; empty lines of a CSV file are none."""
        return len(self.parsed) if self.file.source.format == "csv" else len(self.texts)

    @property
    def parsed(self) -> list[dict[str, Any]]:
        """Each row's columns."""
        return self.file.parse(self.texts)


class TextFile:
    """CSV, JSON or JSONL."""

    def __init__(self, source: SourceFile) -> None:
        self.source, self.path = source, source.path

    def rows(self) -> Iterator[TextRows]:
        """Yield all rows; see `RowFile`."""
        for block in read_rows(self.source, Checks(parse_json=False, skip_bad=False)):
            texts = [bytes(row) for row in block.rows()]
            yield TextRows(self, texts, len(block.data))
        check_unchanged(self.source)

    def takes(self, other: RowFile) -> bool:
        """Whether the formats are the same, and the columns of a CSV file."""
        return (
            isinstance(other, TextFile)
            and other.source.format == self.source.format
            and other.source.columns == self.source.columns
        )

    @contextmanager
    def sink(self, path: Path) -> Iterator[TextSink]:
        """Open a file with this one's header; see `RowFile`."""
        array = self.source.format == "json"
        with path.open("wb") as stream:
            stream.write(b"[" if array else self.source.prefix)
            sink = TextSink(stream, array=array)
            yield sink
            stream.write(b"\n]\n" if array else b"")
            stream.flush()
            os.fsync(stream.fileno())

    def parse(self, texts: list[bytes]) -> list[dict[str, Any]]:
        """Return the columns of some rows.

        Raises:
            TunebookError: They are no UTF-8, or no JSON.
        """
        if self.source.format == "csv":
            return self._parse_csv(texts)
        try:
            return [_parse_json(text) for text in texts]
        except ValueError:
            # Read once more, for the number of the line.
            for _ in read_rows(self.source, Checks(parse_json=True, skip_bad=False)):
                pass
            raise

    def _parse_csv(self, texts: list[bytes]) -> list[dict[str, Any]]:
        # Python's limit of 131,072 characters a field is shorter than one long document.
        csv.field_size_limit(2**31 - 1)
        try:
            together = io.StringIO(b"".join(texts).decode("utf-8"), newline="")
        except UnicodeDecodeError as err:
            raise TunebookError(f"{self.path}: is not UTF-8 text", fix="save the file as UTF-8") from err
        records = csv.reader(together)
        return [dict(zip(self.source.columns, record, strict=True)) for record in records if record]


class TextSink:
    """Writes rows of text unchanged, with what belongs between them."""

    def __init__(self, stream: IO[bytes], *, array: bool) -> None:
        self._stream, self._array = stream, array
        self._between = b"\n" if array else b""

    def write(self, rows: TextRows, stays: Sequence[bool]) -> None:
        """Copy those rows that stay; see `Sink`."""
        for text, stay in zip(rows.texts, stays, strict=True):
            if stay:
                self._stream.write(self._between + text)
                # Only the last row of a file may lack its line ending, and another file may follow.
                self._between = b",\n" if self._array else b"" if text.endswith(b"\n") else b"\n"


@dataclass(frozen=True, slots=True)
class ParquetRows:
    """Rows of a Parquet file."""

    batch: Any
    size: int

    @property
    def count(self) -> int:
        """How many."""
        return int(self.batch.num_rows)

    @property
    def parsed(self) -> list[dict[str, Any]]:
        """Each row's columns."""
        rows: list[dict[str, Any]] = self.batch.to_pylist()
        return rows


class ParquetFile:
    """Parquet: values, types and metadata of the schema stay, the encoding is new."""

    def __init__(self, source: SourceFile) -> None:
        self.source, self.path = source, source.path

    def rows(self) -> Iterator[ParquetRows]:
        """Yield all rows; see `RowFile`."""
        from pyarrow import parquet

        with parquet.ParquetFile(self.path) as file:
            total = max(1, file.metadata.num_rows)
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                yield ParquetRows(batch, self.source.size * batch.num_rows // total)
        check_unchanged(self.source)

    def takes(self, other: RowFile) -> bool:
        """Whether the schemas are the same."""
        return isinstance(other, ParquetFile) and other._schema().equals(self._schema())

    @contextmanager
    def sink(self, path: Path) -> Iterator[ParquetSink]:
        """Open a file of the same schema; see `RowFile`."""
        from pyarrow import parquet

        with parquet.ParquetWriter(path, self._schema(), compression="zstd") as writer:
            yield ParquetSink(writer)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())

    def _schema(self) -> Any:
        from pyarrow import parquet

        return parquet.read_schema(self.path)


class ParquetSink:
    """Writes rows of Parquet."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, rows: ParquetRows, stays: Sequence[bool]) -> None:
        """Copy those rows that stay; see `Sink`."""
        import pyarrow

        if any(stays):
            self._writer.write_batch(rows.batch.filter(pyarrow.array(list(stays))))


def _parse_json(text: bytes) -> dict[str, Any]:
    try:
        row = orjson.loads(text)
    except orjson.JSONDecodeError:
        # orjson refuses NaN and very large numbers, which the engines read.
        row = parse_json(text)
    assert isinstance(row, dict)
    return row
