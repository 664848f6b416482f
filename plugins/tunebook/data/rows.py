"""Rows of a local data file, one at a time, in memory that does not grow with the file.

`iter_rows` reads text files strictly; `iter_table` reads Parquet too, and can pass over broken lines.
"""

from __future__ import annotations

import csv
import io
import json
import re
from typing import IO, TYPE_CHECKING, Any

from tunebook import files
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


READABLE = frozenset({".json", ".jsonl", ".csv"})
"""What `iter_rows` reads. LLaMA-Factory also takes arrow, parquet and txt, which need its own libraries."""
TABLE_SUFFIXES = READABLE | {".parquet"}
"""What `iter_table` reads."""

_CHUNK_CHARACTERS = 1 << 20
_BLANKS = " \t\r\n"
# Longest token of JSON whose cut end does not announce itself: `-Infinity`, `\ud83d\ude00`.
_TAIL_CHARACTERS = 16
# Half of a character beyond the first 65,536, which may lack its other half.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def iter_rows(
    path: Path, *, errors: str = "strict", on_bytes: Callable[[int], None] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a `.json` (one array, or one object after another), `.jsonl` or `.csv` file.

    Rows count from 1 in messages, blank lines and the header of a CSV file not counted.

    Args:
        path: The file.
        errors: What is done with bytes that are no UTF-8, as `open` takes it.
        on_bytes: Called before each row with the number of bytes read so far.

    Raises:
        TunebookError: The file cannot be read, or a row is no object.
        ValueError: The suffix is none of `READABLE`.
    """
    if path.suffix not in READABLE:
        raise ValueError(f"cannot read rows of {path.suffix!r} files")
    try:
        with (
            path.open("rb") as raw,
            io.TextIOWrapper(raw, encoding="utf-8-sig", errors=errors, newline="") as stream,
        ):
            strict = errors == "strict"
            rows = (
                _csv_rows(stream, path, strict=strict)
                if path.suffix == ".csv"
                else _json_values(stream, path)
            )
            for number, row in enumerate(rows, 1):
                if on_bytes is not None:
                    on_bytes(raw.tell())
                if not isinstance(row, dict):
                    raise TunebookError(
                        f"{path}, row {number}: is a {type(row).__name__}, not an object",
                        fix='write each row as {"column": value, ...}',
                    )
                yield row
    except OSError as err:
        raise TunebookError(
            f"{path}: cannot be read: {err.strerror}", fix="check the path and its rights"
        ) from err
    except UnicodeDecodeError as err:
        raise TunebookError(f"{path}: is not UTF-8 text", fix="save the file as UTF-8") from err
    except csv.Error as err:
        raise TunebookError(f"{path}: is no CSV: {err}", fix="correct the line") from err


def parse_json(text: bytes | str) -> Any:
    """Return the JSON value of `text`, as the engines read it: NaN and very large numbers too.

    Raises:
        ValueError: It is none, is nested too deeply, or holds half a character, on which the engines stop.
    """
    value = files.parse_json(text)
    _refuse_half_characters(value)
    return value


def _refuse_half_characters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ValueError(f"it holds half a character, {half!r}, whose other half is missing") from None


def refuse_twice(path: Path, header: Sequence[str]) -> None:
    """Refuse a header that names a column twice: the engines read the first one, and rename the other.

    Raises:
        TunebookError: It does.
    """
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise TunebookError(
            f"{path}, line 1: the column {twice[0]!r} stands twice in the header",
            fix="give each column its own name",
        )


def _csv_rows(stream: IO[str], path: Path, *, strict: bool) -> Iterator[dict[Any, Any]]:
    """Rows under the names of the header; fields beyond it are refused, or stand under None."""
    # Python's limit of 131,072 characters a field is shorter than one long document.
    csv.field_size_limit(2**31 - 1)
    ended = False

    def lines() -> Iterator[str]:
        nonlocal ended
        yield from stream
        ended = True

    reader = csv.reader(lines())
    header = next(reader, None) or []
    refuse_twice(path, header)
    before = reader.line_num
    for record in reader:
        if ended:  # the reader asked for more lines within a record
            raise TunebookError(
                f"{path}, line {before + 1}: a quote is opened and never closed", fix="close the quote"
            )
        before = reader.line_num
        if record:
            row: dict[Any, Any] = dict(zip(header, record, strict=False))
            if len(record) > len(header):
                if strict:
                    raise TunebookError(
                        f"{path}, line {before}: a row of {len(record)} fields under a header of "
                        f"{len(header)}",
                        fix="quote fields that hold commas or lines",
                    )
                row[None] = record[len(header) :]
            else:
                row.update(dict.fromkeys(header[len(record) :]))
            yield row


def _json_values(stream: IO[str], path: Path) -> Iterator[Any]:
    """Yield the elements of one JSON array, or JSON values that follow each other."""
    decoder = json.JSONDecoder()
    buffer = stream.read(_CHUNK_CHARACTERS)
    at_end, number = len(buffer) < _CHUNK_CHARACTERS, 1
    start = _skip(buffer, 0, _BLANKS)
    in_array = buffer[start : start + 1] == "["
    if in_array:
        start += 1
    while True:
        start = _skip(buffer, start, _BLANKS + "," if in_array else _BLANKS)
        if in_array and buffer[start : start + 1] == "]":
            return
        try:
            value, end = decoder.raw_decode(buffer, start)
        except RecursionError:
            raise _bad_row(path, number, "it is nested too deeply") from None
        except json.JSONDecodeError as err:
            if at_end:
                if start >= len(buffer) and not in_array:
                    return
                raise _bad_row(path, number, err.msg) from err
            if not _is_cut(err, len(buffer)):
                raise _bad_row(path, number, err.msg) from err
            chunk = stream.read(max(_CHUNK_CHARACTERS, len(buffer) - start))
            at_end = not chunk
            buffer, start = buffer[start:] + chunk, 0
            continue
        if _HALF.search(buffer, start, end):
            try:
                _refuse_half_characters(value)
            except ValueError as err:
                raise _bad_row(path, number, str(err)) from None
        yield value
        start, number = end, number + 1


def _skip(text: str, start: int, characters: str) -> int:
    while start < len(text) and text[start] in characters:
        start += 1
    return start


def _is_cut(err: json.JSONDecodeError, length: int) -> bool:
    """Whether more text could end the error: it is at the end of what has been read."""
    return err.msg.startswith("Unterminated string") or err.pos >= length - _TAIL_CHARACTERS


def _bad_row(path: Path, number: int, why: str) -> TunebookError:
    return TunebookError(f"{path}, row {number}: is no JSON: {why}", fix="correct or delete the row")


def iter_table(
    path: Path,
    *,
    on_bytes: Callable[[int], None] | None = None,
    on_broken: Callable[[int, str], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file.

    Args:
        path: Its name ends in one of `TABLE_SUFFIXES`.
        on_bytes: Called before each row with the bytes of the file read so far; Parquet's are estimated
            from its rows.
        on_broken: Called with the line number and what is wrong with a line of JSONL that is no object. The
            line is left out, and bytes that are no UTF-8 are replaced in any text file. None: both are
            errors.

    Raises:
        TunebookError: The file cannot be read, or a row is no object; names file and row.
    """
    if path.suffix not in TABLE_SUFFIXES:
        raise TunebookError(
            f"cannot read rows from {path}: its name ends in {path.suffix!r}",
            fix=f"convert it to one of {', '.join(sorted(TABLE_SUFFIXES))}",
        )
    if path.suffix == ".parquet":
        return parquet_rows(path, on_bytes=on_bytes)
    if path.suffix == ".jsonl":
        return _jsonl_rows(path, on_bytes, on_broken)
    errors = "strict" if on_broken is None else "replace"
    return iter_rows(path, errors=errors, on_bytes=on_bytes)


def _jsonl_rows(
    path: Path, on_bytes: Callable[[int], None] | None, on_broken: Callable[[int, str], None] | None
) -> Iterator[dict[str, Any]]:
    # Here, since most commands read no JSONL, and its import takes longer than all of this module.
    from orjson import loads

    done = 0
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                done += len(line)
                if on_bytes is not None:
                    on_bytes(done)
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if not line.strip():
                    continue
                fault, row = _object(line, loads, tolerant=on_broken is not None)
                if fault is None:
                    yield row
                elif on_broken is not None:
                    on_broken(number, fault)
                else:
                    raise TunebookError(f"{path}, line {number}: {fault}", fix="correct or delete the line")
    except OSError as error:
        raise TunebookError(
            f"{path}: cannot be read: {error.strerror}", fix="check the path and its rights"
        ) from error


def _object(
    line: bytes, loads: Callable[[bytes], Any], *, tolerant: bool
) -> tuple[str | None, dict[str, Any]]:
    """What is wrong with a line, and the object it holds."""
    try:
        value = loads(line)
    except ValueError:
        # orjson refuses NaN, lone surrogates and very large numbers, all of which the engines read.
        try:
            value = parse_json(line.decode("utf-8", errors="replace" if tolerant else "strict"))
        except UnicodeDecodeError as error:
            return f"is not UTF-8 text at byte {error.start} of the line", {}
        except ValueError as error:
            return f"is no JSON: {error}", {}
    if not isinstance(value, dict):
        return f"holds a {type(value).__name__}, not an object", {}
    return None, value


def parquet_rows(
    path: Path, *, rows_at_a_time: int = 256, on_bytes: Callable[[int], None] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file.

    Args:
        path: The file.
        rows_at_a_time: How many are decoded together: some rows are whole books.
        on_bytes: Called before each row with the bytes read so far, estimated from the rows.

    Raises:
        TunebookError: pyarrow is not installed, or the file is no Parquet.
    """
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise TunebookError(
            f"reading {path} needs pyarrow, which is not installed",
            fix="`pip install pyarrow`, or convert the file to .jsonl",
        ) from error
    try:
        size = path.stat().st_size
        with parquet.ParquetFile(path) as table:
            total, done = max(1, table.metadata.num_rows), 0
            for batch in table.iter_batches(batch_size=rows_at_a_time):
                for row in batch.to_pylist():
                    done += 1
                    if on_bytes is not None:
                        on_bytes(size * done // total)
                    yield row
    except (OSError, ArrowInvalid) as error:
        raise TunebookError(
            f"{path}: is no readable Parquet: {error}", fix="name a whole Parquet file"
        ) from error
