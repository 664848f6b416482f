"""Each long document becomes several rows, the rest of its row repeated, in a file with a registry entry."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal

import orjson

from tunebook.data import sources
from tunebook.data.registry import LOCATION_KEYS, REGISTRY_FILE, load_registry, write_entry
from tunebook.errors import TunebookError
from tunebook.files import open_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from tunebook.lengths.chunks.cutting import Cutter
    from tunebook.types import DatasetEntry


Form = Literal["same", "pretrain"]

SOURCE_COLUMNS = ("source_row", "source_start", "source_end", "source_overlap")
"""What is added to each row: the row of the source, from 1; the span in characters of its document; and how
many of the first of these the row before holds too."""
TEXT_COLUMN = "text"
"""The one column of rows for continued pre-training."""

_BATCH_CHARACTERS = 1 << 20
"""Characters of documents that are cut together."""
_ROWS_LOOKED_AT = 100


@dataclass(slots=True)
class Tally:
    """What has been done so far."""

    rows: int = 0
    """Read."""
    pieces: int = 0
    """Written."""
    cut: int = 0
    """Rows that became several."""
    empty: int = 0
    """Rows without text that were left out."""
    tokens: int = 0
    """Of all pieces."""
    longest: int = 0
    """Tokens of the longest piece."""
    stopped_at_token: int = 0
    """Pieces that end inside a word, or between two signs of a script without blanks."""


def choose_column(
    rows: Iterable[Mapping[str, Any]], entry: DatasetEntry
) -> tuple[str, Iterator[Mapping[str, Any]]]:
    """Return the column that holds most of what the model is asked, and the rows, none of them taken away.

    Raises:
        TunebookError: The rows are conversations, or none of the columns that the entry names holds text.
    """
    if sources.is_chat(entry):
        raise TunebookError(
            f"{entry.name}: its rows are conversations, whose turns are not cut",
            fix="name a column of text with --column, or cut the documents before making conversations",
        )
    iterator = iter(rows)
    head = list(islice(iterator, _ROWS_LOOKED_AT))
    named = [sources.column(entry, key) for key in ("query", "prompt", "system")]
    sizes = {
        name: sum(len(row[name]) for row in head if isinstance(row.get(name), str)) for name in named if name
    }
    if not any(sizes.values()):
        raise TunebookError(
            f"{entry.name}: no text in the column {' or '.join(map(repr, sizes))} of its first rows",
            fix="name the column with --column",
        )
    return max(sizes, key=lambda name: sizes[name]), chain(head, iterator)


def chunk_rows(
    rows: Iterable[Mapping[str, Any]], column: str, cutter: Cutter, form: Form, tally: Tally
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the pieces.

    Args:
        rows: The source's.
        column: Holds the documents.
        cutter: Cuts them.
        form: `same`: the piece takes the document's place in its row. `pretrain`: the piece becomes
            `TEXT_COLUMN`, and no other column is kept; rows without text are left out.
        tally: Is kept up to date.

    Raises:
        TunebookError: A row has no such column or no text in it, or has one of `SOURCE_COLUMNS` already.
    """
    batch: list[tuple[int, Mapping[str, Any], str]] = []
    size = 0
    for number, row in enumerate(rows, 1):
        batch.append((number, row, _document(row, column, number)))
        size += len(batch[-1][2])
        if size >= _BATCH_CHARACTERS:
            yield from _pieces(batch, column, cutter, form, tally)
            batch, size = [], 0
    yield from _pieces(batch, column, cutter, form, tally)


def _pieces(
    batch: list[tuple[int, Mapping[str, Any], str]], column: str, cutter: Cutter, form: Form, tally: Tally
) -> Iterator[dict[str, Any]]:
    try:
        cuts = cutter.cut([text for _, _, text in batch])
    except ValueError as error:
        raise TunebookError(str(error), fix="raise --max-tokens") from error
    for (number, row, text), pieces in zip(batch, cuts, strict=True):
        tally.rows += 1
        if form == "pretrain" and not text.strip():
            tally.empty += 1
            continue
        tally.cut += len(pieces) > 1
        for piece in pieces:
            tally.pieces += 1
            tally.tokens += piece.tokens
            tally.longest = max(tally.longest, piece.tokens)
            source = dict(zip(SOURCE_COLUMNS, (number, piece.start, piece.end, piece.overlap), strict=True))
            part = text[piece.start : piece.end]
            tally.stopped_at_token += _is_inside_word(text, piece.end)
            yield ({TEXT_COLUMN: part} if form == "pretrain" else {**row, column: part}) | source


def _is_inside_word(text: str, end: int) -> bool:
    return 0 < end < len(text) and text[end - 1].isalnum() and text[end].isalnum()


def _document(row: Mapping[str, Any], column: str, number: int) -> str:
    taken = [name for name in SOURCE_COLUMNS if name in row]
    if taken:
        raise TunebookError(
            f"row {number} already has the column {', '.join(taken)}: it is a piece of a document",
            fix="cut the documents themselves, or rename these columns",
        )
    if column not in row:
        raise TunebookError(
            f"row {number} has no column {column!r} among {', '.join(map(str, row))}",
            fix="name the column of the documents with --column",
        )
    value = row[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TunebookError(
            f"row {number}: {column!r} is a {type(value).__name__}, not text",
            fix="name a column of text with --column",
        )
    return value


def new_entry(entry: DatasetEntry, file_name: str, form: Form) -> dict[str, Any]:
    """Return what the registry is to say of the pieces: the same columns and metric, another file.

    Rows for pre-training have no answer, so neither has their entry a metric.
    """
    if form == "pretrain":
        return {"file_name": file_name, "columns": {"prompt": TEXT_COLUMN}}
    kept = {key: value for key, value in entry.values.items() if key not in (*LOCATION_KEYS, "num_samples")}
    return {"file_name": file_name, **kept}


def refuse_existing(folder: Path, name: str) -> None:
    """Stop where the output would replace something.

    Raises:
        TunebookError: The folder has such a data file or such an entry, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise TunebookError(f"{folder} is a file", fix="give -o a folder")
    registry = folder / REGISTRY_FILE
    data = folder / f"{name}.jsonl"
    if (registry.is_file() and name in load_registry(registry).values) or data.exists():
        raise TunebookError(
            f"{folder} already has {data.name if data.exists() else f'an entry {name!r}'}",
            fix="choose another --name or another folder",
        )


def write_pieces(
    folder: Path, name: str, rows: Iterable[Mapping[str, Any]], values: Mapping[str, Any]
) -> Path:
    """Write `<folder>/<name>.jsonl`, then the entry `name` into the registry of `folder`.

    The data file appears when it is whole, and the entry after it.

    Args:
        folder: Is made where there is none; a registry in it keeps its other entries.
        name: Of the entry.
        rows: Of the data file.
        values: Of the entry.

    Returns:
        The data file.

    Raises:
        TunebookError: There is no room or no right to write, or a row cannot be read.
    """
    made = not folder.exists()
    path = folder / f"{name}.jsonl"
    try:
        with open_atomic(path, "wb") as stream:
            for row in rows:
                stream.write(_line(row))
            refuse_existing(folder, name)
        write_entry(folder, name, values)
    except OSError as error:
        raise TunebookError(
            f"{folder}: cannot write: {error.strerror}", fix="make room, or give -o a folder you may write to"
        ) from error
    finally:
        if made:
            with suppress(OSError):
                folder.rmdir()  # only if it is empty: nothing came of it
    return path


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # Very large numbers, which orjson refuses; dates of Parquet as text.
        return (json.dumps(row, default=str) + "\n").encode()
