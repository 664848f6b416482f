"""Reads rows as both engines do, without one: for characters, and for rows that are written anew."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import paths
from tunebook.data.rows import iter_table
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Row = dict[str, Any]

ARROW = ".arrow"
"""Suffix of the files in which the library `datasets` keeps a dataset of the hub."""

# datasets/naming.py: a name's capitals in the cache.
_CAPITALS = (re.compile(r"([A-Z]+)([A-Z][a-z])"), re.compile(r"([a-z\d])([A-Z])"))

# What pandas, with which both engines read CSV, takes for an empty cell: STR_NA_VALUES in its parsers.pyx.
_EMPTY_CELLS = frozenset(
    {
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
        *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    }
)
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*|(?i:true|false|[+-]?inf(inity)?)")
# What Arrow, with which both engines read JSONL, takes for a date or a time.
_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d(:\d\d(:\d\d)?)?(Z|[+-]\d\d(:?\d\d)?)?)?")
_GUESSED = {".csv": (_NUMBER, "numbers"), ".jsonl": (_DATE, "dates")}
"""Texts that the engines read as something else where a column of such a file holds nothing else."""
_LOOKED_AT = 10_000
"""Rows from which the engines guess what a column holds."""


def as_engine_reads(row: Mapping[str, Any]) -> Row:
    """Return a row of a CSV file as both engines read it: some words mean an empty cell.

    >>> as_engine_reads({"question": "Which group?", "answer": "NA"})
    {'question': 'Which group?', 'answer': None}
    """
    return {key: None if value in _EMPTY_CELLS else value for key, value in row.items()}


class FileReading:
    """Reads the rows of one file as the engine does, and finds what stops it in a whole column.

    Args:
        file: The engines guess types for the columns of CSV and JSONL.
        columns: Without one of these the engine stops.
        name: Of the set, for messages.
    """

    def __init__(self, file: Path, columns: Sequence[str], name: str) -> None:
        self._file, self._name = file, name
        self._missing = set(columns)
        self._csv = file.suffix == ".csv"
        self._guessed = _GUESSED.get(file.suffix)
        self._columns = tuple(columns) if self._guessed else ()
        self._texts, self._others = set[str](), set[str]()
        self._rows = 0

    def read(self, row: Row) -> Row:
        """Return a row as the engine sees it.

        Raises:
            TunebookError: A column of text holds nothing that the engine reads as text.
        """
        self._rows += 1
        if self._missing:
            self._missing -= row.keys()
        if self._csv:
            row = as_engine_reads(row)
        if self._rows <= _LOOKED_AT:
            self._look(row)
        return row

    def finish(self) -> None:
        """Look at the file as a whole.

        Raises:
            TunebookError: A column is missing from every row, or as in `read`.
        """
        if self._rows and self._missing:
            raise TunebookError(
                f"{self._file} has no column {', '.join(sorted(self._missing))}, without which the engine "
                "stops",
                fix=f"name the columns it has where {self._name} is described",
            )
        self._refuse()

    def _look(self, row: Row) -> None:
        if self._guessed is None:
            return
        for name in self._columns:
            value = row.get(name)
            if isinstance(value, str) and name not in self._texts:
                (self._others if self._guessed[0].fullmatch(value) else self._texts).add(name)
        if self._rows == _LOOKED_AT:
            self._refuse()

    def _refuse(self) -> None:
        found = sorted(self._others - self._texts)
        if found and self._guessed is not None:
            kind = self._guessed[1]
            raise TunebookError(
                f"{self._file}: the column {found[0]!r} holds nothing but {kind}, so the engines read it as "
                f"{kind}, and drop the rows or stop",
                fix="convert the file to Parquet, with a column of text",
            )


def read_rows(
    files: Sequence[Path],
    columns: Sequence[str],
    name: str,
    *,
    limit: int | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Iterator[Row]:
    """Yield the rows of a set as the engine sees them, in order.

    Args:
        files: Of the set.
        columns: Without one of these the engine stops.
        name: Of the set, for messages.
        limit: Rows to read, from the first.
        on_bytes: Called with the bytes read so far.

    Raises:
        TunebookError: A file cannot be read, a column is missing, or a row stops the engine.
    """
    done = count = 0
    for file in files:
        reading = FileReading(file, columns, name)

        def report(read: int, at_start: int = done) -> None:
            if on_bytes is not None:
                on_bytes(at_start + read)

        source = iter_arrow(file) if file.suffix == ARROW else iter_table(file, on_bytes=report)
        for row in source:
            if limit is not None and count >= limit:
                return
            count += 1
            yield reading.read(row)
        reading.finish()
        done += file.stat().st_size


def cached_files(name: str, *, subset: str | None, split: str, key: str) -> tuple[Path, ...]:
    """Return the files in which the library `datasets` keeps a split that it has loaded, in order.

    Args:
        name: On the hub, e.g. `openai/gsm8k`.
        subset: Its configuration; None for the only one that was loaded.
        split: E.g. `train`.
        key: What names it, for messages.

    Raises:
        TunebookError: It was never loaded on this machine, or several of its subsets were.
    """
    owner, _, last = name.rpartition("/")
    for capitals in _CAPITALS:
        last = capitals.sub(r"\1_\2", last)
    folder = _cache() / (f"{owner}___{last.lower()}" if owner else last.lower())
    # <subset>/<version>/<hash>/<name>-<split>[-00000-of-00002].arrow
    pattern = re.compile(rf"{re.escape(last.lower())}-{re.escape(split)}(-\d+-of-\d+)?\.arrow")
    found: dict[Path, list[Path]] = {}
    for file in folder.glob(f"{subset or '*'}/*/*/*.arrow"):
        if pattern.fullmatch(file.name):
            found.setdefault(file.parent, []).append(file)
    if len({place.parents[1] for place in found}) > 1:
        names = sorted({place.parents[1].name for place in found})
        raise TunebookError(f"{key}: {name} has several subsets here: {', '.join(names)}", fix="name one")
    if not found:
        arguments = ", ".join(map(repr, [name, *([subset] if subset else [])]))
        raise TunebookError(
            f"{key}: the data of {name} is on the hub, and no engine has loaded it on this machine yet",
            fix=f'load it once: python -c "from datasets import load_dataset; load_dataset({arguments})"',
        )
    newest = max(found, key=lambda place: place.stat().st_mtime)
    return tuple(sorted(found[newest]))


def iter_arrow(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of that cache.

    Raises:
        TunebookError: It cannot be read, or pyarrow is not installed.
    """
    try:
        import pyarrow
    except ImportError as err:
        raise TunebookError(
            f"reading {path} needs pyarrow, which is not installed",
            fix="`pip install pyarrow`, or run this in an engine's environment",
        ) from err
    try:
        with pyarrow.memory_map(str(path)) as source:
            for batch in pyarrow.ipc.open_stream(source):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowInvalid) as err:
        raise TunebookError(f"cannot read {path}: {err}", fix="load the dataset again") from err


def _cache() -> Path:
    return Path(os.environ.get("HF_DATASETS_CACHE") or paths.hub_home() / "datasets").expanduser()
