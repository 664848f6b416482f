"""One pass over the sources: builds the row index, checks every row, counts tokens and groups where asked."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import xxhash

from tunebook.errors import TunebookError
from tunebook.splits.checks import BadRow, Checks
from tunebook.splits.index import ROW, ArrayWriter, RowIndex, keep_freed_memory
from tunebook.splits.plan import GROUP_TABLE, PARSE_JSON_UP_TO, SplitOptions
from tunebook.splits.rows import read_rows
from tunebook.splits.sources import OnBytes, SourceFile, check_unchanged
from tunebook.text import normalised

CountTokens = Callable[[Sequence[str]], list[int]]
Numbers = npt.NDArray[Any]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """What a scan found, besides the row index."""

    rows: int
    hashes: dict[str, str]
    """xxh3-128 of each source, by path, in hexadecimal."""
    bad: tuple[BadRow, ...]
    """Rows that are left out; the first thousand."""
    n_bad: int
    notes: tuple[str, ...]
    """What the user should know: files that needed the slower reader."""


class Where(NamedTuple):
    """A source, and the number of rows in the sources before it."""

    path: Path
    rows_before: int


class IndexBuilder:
    """Writes the row index as blocks are read; a context manager.

    Args:
        index: Where to; the folder exists.
        options: They decide which arrays are wanted.
        columns: Columns whose tokens are counted; empty for all.
        count_tokens: Needed for `balance="tokens"`.
    """

    def __init__(
        self,
        index: RowIndex,
        options: SplitOptions,
        *,
        columns: tuple[str, ...],
        count_tokens: CountTokens | None,
        asked: tuple[str, ...] = (),
    ) -> None:
        self.rows = 0
        self._asked = asked
        self._group_by, self._columns, self._count = options.group_by, columns, count_tokens
        self._spans = ArrayWriter(index.lengths, index.kinds)
        grouped = options.group_by or options.holds_out
        self._groups = ArrayWriter(index.groups) if grouped else None
        self._tokens = ArrayWriter(index.tokens) if options.balance == "tokens" else None
        self._stack = ExitStack()

    def __enter__(self) -> IndexBuilder:
        for writer in (self._spans, self._groups, self._tokens):
            if writer is not None:
                self._stack.enter_context(writer)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def add(
        self, lengths: Numbers, kinds: Numbers, parsed: Callable[[], Iterable[Row]], where: Where
    ) -> None:
        """Append spans.

        Args:
            lengths: Bytes of each.
            kinds: Of each.
            parsed: Gives the rows among them, parsed; called only where their content matters.
            where: Names a row in messages.

        Raises:
            TunebookError: A row lacks the column of groups.
        """
        self._spans.append(lengths, kinds)
        if self._groups is not None or self._tokens is not None:
            rows = list(parsed())
            if self._groups is not None:
                first = self.rows - where.rows_before + 1
                found = [
                    _group_of(row, self._group_by, f"{where.path}, row {number}")
                    if self._group_by is not None
                    else prompt_group(row, self._asked)
                    for number, row in enumerate(rows, first)
                ]
                self._groups.append(np.array(found, np.uint32))
            if self._tokens is not None:
                assert self._count is not None
                counts = self._count([_text_of(row, self._columns) for row in rows])
                self._tokens.append(np.array(counts, np.uint32))
        self.rows += int((kinds == ROW).sum())


def scan_text(
    sources: Sequence[SourceFile], options: SplitOptions, builder: IndexBuilder, on_bytes: OnBytes
) -> Scanned:
    """Read each source once, in order, and add its spans to the row index.

    Raises:
        TunebookError: A row is bad and is not to be skipped; the files differ; one changes meanwhile.
    """
    keep_freed_memory()
    _check_alike(sources)
    checks = checks_for(sources, options)
    hashes: dict[str, str] = {}
    for source in sources:
        hasher, where = xxhash.xxh3_128(), Where(source.path, builder.rows)
        for block in read_rows(source, checks):
            hasher.update(block.data)
            builder.add(block.lengths, block.kinds, partial(parse_rows, source, block.rows()), where)
            on_bytes(len(block.data))
        check_unchanged(source)
        hashes[str(source.path)] = hasher.hexdigest()
    return Scanned(
        rows=builder.rows,
        hashes=hashes,
        bad=tuple(checks.bad),
        n_bad=checks.n_bad,
        notes=tuple(checks.slow),
    )


def checks_for(sources: Sequence[SourceFile], options: SplitOptions) -> Checks:
    """Return the checks of rows that the options ask for."""
    parse = options.parse_json
    if parse is None:
        parse = sum(source.size for source in sources) <= PARSE_JSON_UP_TO
    return Checks(parse_json=parse, skip_bad=options.skip_bad)


def _check_alike(sources: Sequence[SourceFile]) -> None:
    """Raise unless the files have one format and, for CSV, one header."""
    first = sources[0]
    for other in sources[1:]:
        if other.format != first.format:
            raise TunebookError(
                f"{other.path} is {other.format} and {first.path} is {first.format}",
                fix="split files of one format at a time",
            )
        if other.columns != first.columns:
            raise TunebookError(
                f"{other.path} has the columns {', '.join(other.columns)}, where {first.path} has "
                f"{', '.join(first.columns)}",
                fix="give all files the same columns in the same order",
            )


def parse_rows(source: SourceFile, rows: Iterable[memoryview]) -> Iterator[Row]:
    """Yield each row as a mapping of its columns. The rows are those of a checked block.

    Raises:
        TunebookError: A row is no UTF-8 text, or no JSON after all.
    """
    try:
        if source.format == "csv":
            csv.field_size_limit(2**31 - 1)
            for fields in csv.reader(str(row, "utf-8") for row in rows):
                yield dict(zip(source.columns, fields, strict=True))
        else:
            for row in rows:
                yield orjson.loads(row)
    except UnicodeDecodeError as err:
        raise TunebookError(f"{source.path}: is not UTF-8 text", fix="save the file as UTF-8") from err
    except orjson.JSONDecodeError as err:
        raise TunebookError(
            f"{source.path}: a row is no JSON: {err}", fix="correct the row; --check-json full shows its line"
        ) from err


def _group_of(row: Row, column: str, where: str) -> int:
    """Return the group of a row, below `GROUP_TABLE`. Values are equal when their JSON is: 7 is not "7"."""
    if column not in row:
        raise TunebookError(
            f"{where}: there is no column {column!r} among {', '.join(map(repr, row))}",
            fix="name a column of every row with --group-by",
        )
    return xxhash.xxh3_64_intdigest(orjson.dumps(row[column], default=str)) % GROUP_TABLE


def prompt_group(row: Row, columns: tuple[str, ...]) -> int:
    """The group of what is asked: the same for prompts that differ in blanks, case or Unicode form alone.

    Args:
        row: The row.
        columns: Those that the model is asked with; where none is there, the whole row counts.
    """
    values = [row[column] for column in columns if row.get(column)]
    asked = [_without_answer(value) for value in values] if values else list(row.values())
    found: list[str] = []
    _collect(asked, found)
    return xxhash.xxh3_64_intdigest(normalised("\n".join(found)).encode()) % GROUP_TABLE


def _without_answer(value: Any) -> Any:
    """Of a conversation, all before its last message where that is an answer; any other value as it is."""
    if isinstance(value, list) and len(value) > 1 and all(isinstance(one, dict) for one in value):
        last = value[-1]
        said = str(last.get("role", last.get("from", ""))).lower() not in ("user", "human")
        return [one.get("content", one.get("value")) for one in (value[:-1] if said else value)]
    return value


def _text_of(row: Row, columns: tuple[str, ...]) -> str:
    """Return the texts of a row, one a line: of `columns`, or of all where none are named."""
    values = [row.get(column) for column in columns] if columns else row.values()
    found: list[str] = []
    for value in values:
        _collect(value, found)
    return "\n".join(found)


def _collect(value: Any, found: list[str]) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            _collect(item, found)
    elif isinstance(value, list):
        for item in value:
            _collect(item, found)
