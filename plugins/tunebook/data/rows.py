"""Rows of a local data file, one at a time, in memory that does not grow with the file."""

from __future__ import annotations

import csv
import io
import json
from typing import IO, TYPE_CHECKING, Any

from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

READABLE = frozenset({".json", ".jsonl", ".csv"})
"""What `iter_rows` reads. LLaMA-Factory also takes arrow, parquet and txt, which need its own libraries."""

_CHUNK_CHARACTERS = 1 << 20
_BLANKS = " \t\r\n"
# Longest token of JSON whose cut end does not announce itself: `-Infinity`, `\ud83d\ude00`.
_TAIL_CHARACTERS = 16


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
            rows = _csv_rows(stream) if path.suffix == ".csv" else _json_values(stream, path)
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


def _csv_rows(stream: IO[str]) -> Iterator[dict[str, Any]]:
    # Python's limit of 131,072 characters a field is shorter than one long document.
    csv.field_size_limit(2**31 - 1)
    return csv.DictReader(stream)


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
        except json.JSONDecodeError as err:
            if at_end:
                if start >= len(buffer) and not in_array:
                    return
                raise _bad_row(path, number, err) from err
            if not _is_cut(err, len(buffer)):
                raise _bad_row(path, number, err) from err
            chunk = stream.read(max(_CHUNK_CHARACTERS, len(buffer) - start))
            at_end = not chunk
            buffer, start = buffer[start:] + chunk, 0
            continue
        yield value
        start, number = end, number + 1


def _skip(text: str, start: int, characters: str) -> int:
    while start < len(text) and text[start] in characters:
        start += 1
    return start


def _is_cut(err: json.JSONDecodeError, length: int) -> bool:
    """Whether more text could end the error: it is at the end of what has been read."""
    return err.msg.startswith("Unterminated string") or err.pos >= length - _TAIL_CHARACTERS


def _bad_row(path: Path, number: int, err: json.JSONDecodeError) -> TunebookError:
    return TunebookError(f"{path}, row {number}: is no JSON: {err.msg}", fix="correct or delete the row")
