"""Leaves out the rows of a set that are too long or too short, and copies the others byte by byte.

What it writes (data, list of what went, manifest, registry entry) appears whole or not at all.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

from tunebook.data.registry import LOCATION_KEYS, REGISTRY_FILE, load_registry, write_entry
from tunebook.errors import TunebookError
from tunebook.files import sha256_of, temporary_beside, write_json
from tunebook.lengths import batches
from tunebook.lengths.characters import CharacterMeasure
from tunebook.lengths.reading import FileReading
from tunebook.lengths.row_files import RowFile, open_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from tunebook.lengths.batches import Batch
    from tunebook.lengths.row_files import RawRows
    from tunebook.lengths.sets import RowSet

Part = Literal["total", "prompt", "answer"]

_LISTED = 100

# Where and how much of the data; the new entry has a file of its own.
_OF_THE_SOURCE = (*LOCATION_KEYS, "num_samples")


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
        rows: The set; where tokens count, the engine has been asked for all of its rows.
        condition: What a row has to fulfil.
        on_bytes: Called with the bytes read so far.

    Raises:
        TunebookError: A file cannot be read, its files differ in form, or the engine has read other rows.
    """
    first, done = 1, 0
    form: RowFile | None = None
    by_tokens = None if rows.counted is None else _faults(rows.counted.batches(), rows, condition)
    measure = CharacterMeasure(rows.entry)
    for path in _in_order(rows):
        file = open_rows(path)
        if form is not None and not form.takes(file):
            raise TunebookError(
                f"{rows.name}: {path} and {form.path} are not of the same form", fix="filter them one by one"
            )
        form = form or file
        reading = FileReading(path, (), rows.name)
        for raw in file.rows():
            if by_tokens is None:
                batch = measure([reading.read(row) for row in raw.parsed], first)
                faults: Mapping[int, Dropped] = _faults([batch], rows, condition)
            else:
                faults = by_tokens
            numbers = range(first, first + raw.count)
            dropped = [faults[number] for number in numbers if number in faults]
            yield Sorted(file, raw, [number not in faults for number in numbers], dropped)
            first += raw.count
            done += raw.size
            on_bytes(done)
    if first == 1:
        raise TunebookError(f"{rows.name} has no rows", fix="name a file with rows")
    if rows.counted is not None and rows.counted.rows != first - 1:
        raise TunebookError(
            f"{rows.name}: the engine reads {rows.counted.rows} rows, and the files hold {first - 1}: it is "
            "not known which is which",
            fix="write the data as JSONL, a row a line, and filter that",
        )


def _in_order(rows: RowSet) -> list[Path]:
    """The files of a set, in the order in which the engine numbers their rows."""
    files = {path.name: path for path in rows.files}
    names = rows.counted.files if rows.counted is not None else ()
    return [files[name] for name in names] if set(names) == set(files) else list(rows.files)


def _faults(found: Iterable[Batch], rows: RowSet, condition: Condition) -> dict[int, Dropped]:
    """The rows that go, by number."""
    skipped = rows.counted.skipped if rows.counted is not None else ()
    faults = {}
    for batch in found:
        skipped = [*skipped, *batch.skipped]
        lengths = zip(*(part.tolist() for part in batches.sizes(batch, rows.form)), strict=True)
        for row, size in zip(batch.rows.tolist(), map(Size._make, lengths), strict=True):
            reason = condition.fault(size)
            if reason is not None:
                faults[row] = Dropped(row, reason, size)
    return faults | {row: Dropped(row, f"left out by the engine: {why}", None) for row, why in skipped}


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of a set's rows."""

    name: str
    """Of the new entry."""
    source: str
    """Of the set."""
    rows: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Rows that went, by reason."""
    first: list[int] = field(default_factory=list)
    """The first rows that went, from 1."""
    file: Path | None = None
    """The data, once it is written."""

    @property
    def dropped(self) -> int:
        """Rows that went."""
        return self.rows - self.kept

    def count(self, part: Sorted) -> None:
        """Count some rows."""
        self.rows += len(part.stays)
        self.kept += sum(part.stays)
        self.reasons.update(one.reason for one in part.dropped)
        self.first += [one.row for one in part.dropped[: _LISTED - len(self.first)]]


def new_name(source: str, condition: Condition) -> str:
    """Return what the entry is called, by what its rows fulfil.

    >>> new_name("legal", Condition(most=8192, least=16, most_answer=512))
    'legal_min16_max8192_answer512'
    """
    on = "" if condition.on == "total" else condition.on
    parts = [("min", condition.least), ("max", condition.most), ("answer", condition.most_answer)]
    tags = [f"{on if tag != 'answer' else ''}{tag}{bound}" for tag, bound in parts if bound is not None]
    return "_".join([source, *tags])


def refuse_existing(folder: Path, name: str) -> None:
    """Stop where the output would replace something.

    Raises:
        TunebookError: The folder has such an entry or such files, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise TunebookError(f"{folder} is a file", fix="give -o a folder")
    registry = folder / REGISTRY_FILE
    there = [path.name for path in folder.glob(f"{name}.*")] if folder.is_dir() else []
    if there or (registry.is_file() and name in load_registry(registry).values):
        raise TunebookError(
            f"{folder} already has {there[0] if there else f'an entry {name!r}'}",
            fix="choose another --name or another folder, or delete it",
        )


def count(parts: Iterable[Sorted], outcome: Outcome, report: IO[str] | None) -> None:
    """Go through all rows and write nothing but the report of those that went."""
    for part in parts:
        outcome.count(part)
        if report is not None:
            report.writelines(map(_line, part.dropped))


def write(
    parts: Iterable[Sorted], rows: RowSet, outcome: Outcome, folder: Path, facts: dict[str, Any]
) -> None:
    """Write the rows that stay, and what there is to know of the others; the registry entry comes last.

    Args:
        parts: All rows of the set.
        rows: The set.
        outcome: Is filled in.
        folder: Is made where there is none; a registry in it keeps its other entries.
        facts: What the manifest says of how lengths were counted.

    Raises:
        TunebookError: No row stays, or there is no room or no right to write.
    """
    made = not folder.exists()
    suffix = rows.files[0].suffix.lower()
    data, listed = folder / f"{outcome.name}{suffix}", folder / f"{outcome.name}.dropped.jsonl"
    manifest = folder / f"{outcome.name}.manifest.json"
    temporary = {path: temporary_beside(path) for path in (data, listed)}
    placed: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _copy(parts, outcome, temporary[data], temporary[listed])
        if outcome.kept == 0:
            raise TunebookError(f"{rows.name}: no row meets the condition", fix="look with --dry-run first")
        refuse_existing(folder, outcome.name)
        for path, written in temporary.items():
            written.replace(path)
            placed.append(path)
        placed.append(manifest)
        write_json(manifest, _manifest(rows, outcome, data, listed, facts))
        _register(rows, outcome, folder, data)
        placed = []
    except OSError as err:
        raise TunebookError(
            f"{folder}: cannot write: {err.strerror}", fix="make room, or give -o a folder you may write to"
        ) from err
    finally:
        for path in (*temporary.values(), *placed):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        if made:
            with suppress(OSError):
                folder.rmdir()  # only if it is empty: nothing came of it
    outcome.file = data


def _copy(parts: Iterable[Sorted], outcome: Outcome, data: Path, listed: Path) -> None:
    with ExitStack() as stack:
        report = stack.enter_context(listed.open("w", encoding="utf-8"))
        sink = None
        for part in parts:
            sink = sink or stack.enter_context(part.file.sink(data))
            sink.write(part.rows, part.stays)
            outcome.count(part)
            report.writelines(map(_line, part.dropped))


def _line(one: Dropped) -> str:
    size = one.size._asdict() if one.size is not None else {}
    return json.dumps({"row": one.row, "reason": one.reason, **size}, ensure_ascii=False) + "\n"


def _manifest(
    rows: RowSet, outcome: Outcome, data: Path, listed: Path, facts: dict[str, Any]
) -> dict[str, Any]:
    return {
        "source": [{"file": str(file), "sha256": sha256_of(file)} for file in rows.files],
        "dataset": rows.name,
        **facts,
        "rows": outcome.rows,
        "kept": outcome.kept,
        "dropped": dict(outcome.reasons),
        "dropped_rows": listed.name,
        "file": data.name,
        "sha256": sha256_of(data),
    }


def _register(rows: RowSet, outcome: Outcome, folder: Path, data: Path) -> None:
    values = {key: value for key, value in rows.entry.values.items() if key not in _OF_THE_SOURCE}
    samples = rows.entry.values.get("num_samples")
    if isinstance(samples, int) and samples <= outcome.kept:
        values["num_samples"] = samples  # of fewer rows the engine would repeat some
    write_entry(folder, outcome.name, {"file_name": data.name, **values})


def facts_of(condition: Condition, counted: dict[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of a filter: the condition, and how lengths were counted."""
    return {"condition": asdict(condition), **counted}
