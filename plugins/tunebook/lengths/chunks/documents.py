"""Rows in, rows out: each long document becomes several rows, the rest of its row repeated on each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal

from tunebook.data import sources
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

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
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise TunebookError(
            f"row {number}: {column!r} holds half a character at {error.start}: {value[error.start]!r}",
            fix="mend the row: a \\ud83d needs its second half",
        ) from error
    return value
