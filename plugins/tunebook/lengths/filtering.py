"""Leaves out the rows of a set that are too long or too short, and copies the others byte by byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from tunebook.errors import TunebookError
from tunebook.lengths import batches
from tunebook.lengths.measuring import FileReading, measured
from tunebook.lengths.row_files import RowFile, open_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tunebook.lengths.row_files import RawRows
    from tunebook.lengths.sets import RowSet

Part = Literal["total", "prompt", "answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What a row has to fulfil to stay, in tokens or characters; None asks for nothing."""

    on: Part = "total"
    """Which length `least` and `most` bound."""
    least: int | None = None
    most: int | None = None
    most_answer: int | None = None
    """Of the answer, beside the others."""

    def fault(self, sizes: Size) -> str | None:
        """Return why a row is to go; None where it is to stay."""
        length = getattr(sizes, self.on)
        if self.most is not None and length > self.most:
            return f"{self.on} above {self.most}"
        if self.least is not None and length < self.least:
            return f"{self.on} below {self.least}"
        if self.most_answer is not None and sizes.answer > self.most_answer:
            return f"answer above {self.most_answer}"
        return None


class Size(NamedTuple):
    """Lengths of one row, in tokens or characters."""

    prompt: int
    answer: int
    total: int


class Dropped(NamedTuple):
    """A row that goes."""

    row: int
    """From 1, over all files of the set."""
    reason: str
    size: Size | None
    """None where the engine leaves the row out anyway, so that it has no length."""


class Sorted(NamedTuple):
    """Some rows of a file, and which of them stay."""

    file: RowFile
    rows: RawRows
    stays: list[bool]
    dropped: list[Dropped]


def sort_rows(rows: RowSet, condition: Condition, *, on_bytes: Callable[[int], None]) -> Iterator[Sorted]:
    """Yield all rows of a set in order, some at a time, with the verdict on each.

    Args:
        rows: The set; the engine's own limit on its rows is not applied.
        condition: What a row has to fulfil.
        on_bytes: Called with the bytes read so far.

    Raises:
        TunebookError: A file cannot be read, its files differ in form, or a row cannot be measured.
    """
    first, done = 1, 0
    form: RowFile | None = None
    for path in rows.files:
        file = open_rows(path)
        if form is not None and not form.takes(file):
            raise TunebookError(
                f"{rows.name}: {path} and {form.path} are not of the same form", fix="filter them one by one"
            )
        form = form or file
        reading = FileReading(path, rows.columns, rows.name)
        for raw in file.rows():
            parsed = [reading.read(row) for row in raw.parsed]
            yield _verdicts(file, raw, rows, parsed, condition, first)
            first += len(parsed)
            done += raw.size
            on_bytes(done)
        reading.finish()
    if first == 1:
        raise TunebookError(f"{rows.name} has no rows", fix="name a file with rows")


def _verdicts(
    file: RowFile,
    raw: RawRows,
    rows: RowSet,
    parsed: list[dict[str, object]],
    condition: Condition,
    first: int,
) -> Sorted:
    batch = measured(rows, parsed, first)
    reasons = {row: Dropped(row, f"left out by the engine: {reason}", None) for row, reason in batch.skipped}
    if len(batch.rows):
        lengths = zip(*(part.tolist() for part in batches.sizes(batch, rows.measure.form)), strict=True)
        for row, size in zip(batch.rows.tolist(), map(Size._make, lengths), strict=True):
            reason = condition.fault(size)
            if reason is not None:
                reasons[row] = Dropped(row, reason, size)
    stays = [number not in reasons for number in range(first, first + len(parsed))]
    return Sorted(file, raw, stays, [reasons[row] for row in sorted(reasons)])
