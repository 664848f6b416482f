"""Collects samples of GPUs by the clock, and joins what several files say of the same card."""

from __future__ import annotations

import re
from array import array
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook.runlog.files import utf8
from tunebook.runlog.records import Note, Sourced, TimeSeries, WatchedGpu

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from tunebook.runlog.files import RunFiles


class _Track:
    """One quantity of one card; 16 bytes a sample."""

    def __init__(self) -> None:
        self._at = array("d")
        self._values = array("d")

    def add(self, at: float, value: float) -> None:
        self._at.append(at)
        self._values.append(value)

    def series(self, source: str, start: float, *, exact_clock: bool) -> TimeSeries | None:
        at, values = np.array(self._at), np.array(self._values)
        kept = np.isfinite(values) & np.isfinite(at)
        if not kept.any():
            return None
        at, values = at[kept], values[kept]
        order = np.argsort(at, kind="stable")
        return TimeSeries(
            seconds=np.round(at[order] - start, 3),
            values=values[order],
            source=source,
            exact_clock=exact_clock,
        )

    def first(self) -> float | None:
        return min(self._at, default=None)


class Card:
    """The samples of one card."""

    def __init__(self) -> None:
        self.memory = _Track()
        self.utilization = _Track()
        self.power = _Track()
        self.name: str | None = None
        self.total_mib: float | None = None

    @property
    def tracks(self) -> tuple[_Track, _Track, _Track]:
        """Memory, utilisation, power."""
        return self.memory, self.utilization, self.power


class Samples:
    """The samples of one file, by card, in the order in which cards appear."""

    def __init__(self, source: str, *, exact_clock: bool = True) -> None:
        self.source = source
        self.exact_clock = exact_clock
        self.names: Mapping[int, tuple[str | None, float | None]] = {}
        """By number: name and memory in MiB, where they are given apart from the samples."""
        self._cards: dict[tuple[str | None, str], Card] = {}

    def card(self, host: str | None, index: str) -> Card:
        """The card of this number on this host."""
        return self._cards.setdefault((host, index), Card())

    def gpus(self) -> list[WatchedGpu]:
        """The cards with their series; seconds count from the first sample of the file."""
        firsts = [
            at for card in self._cards.values() for track in card.tracks if (at := track.first()) is not None
        ]
        start = min(firsts, default=0.0)
        found = []
        for (host, index), card in self._cards.items():
            memory, busy, power = (
                track.series(self.source, start, exact_clock=self.exact_clock) for track in card.tracks
            )
            if memory is None and busy is None and power is None:
                continue
            name, total = self.names.get(int(index), (None, None)) if index.isdigit() else (None, None)
            found.append(
                WatchedGpu(
                    host=host,
                    index=index,
                    name=card.name or name,
                    memory_total_mib=card.total_mib or total,
                    memory_mib=memory,
                    utilization_percent=busy,
                    power_w=power,
                    peak_memory_mib=peak(memory),
                )
            )
        return found


def peak(memory: TimeSeries | None) -> Sourced | None:
    """The largest sample and its file."""
    return Sourced(value=float(memory.values.max()), source=memory.source) if memory is not None else None


def fullest(gpus: Iterable[WatchedGpu]) -> Sourced | None:
    """The peak of the card that was fullest; None where no memory was watched."""
    peaks = [gpu.peak_memory_mib for gpu in gpus if gpu.peak_memory_mib is not None]
    return max(peaks, key=lambda one: one.value, default=None)


# What `nvidia-smi --query-gpu=... --format=csv` writes, once or in a loop, with or without a header. With
# units a cell is `40536 MiB`, `98 %` or `301.25 W`; what a card does not say is `[N/A]`, `[Not Supported]` or
# an error in brackets. Timestamps are `2026/11/20 23:06:29.123`, in local time.
_HEAD = 1 << 16
_MOST_CARDS = 16
"""A whole number from here on is no index, but e.g. a temperature, which has no unit either."""
_MIB = {"": 1.0, "MiB": 1.0, "GiB": 1024.0, "KiB": 1 / 1024, "B": 1 / (1 << 20), "bytes": 1 / (1 << 20)}
_TIME = re.compile(r"(\d{4})[/-](\d\d)[/-](\d\d) (\d\d):(\d\d):(\d\d)(\.\d{1,6})?")
_CELL = re.compile(r"(\d+(?:\.\d+)?) ?(MiB|GiB|KiB|bytes|B|W|%)?")
_UUID = re.compile(r"(?:GPU|MIG)-[0-9a-f-]{8,}")
_BUS = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d")
_IDENTITY = {"index": re.compile(r"\d{1,2}"), "uuid": _UUID, "bus": _BUS}
_NAMES = {
    "timestamp": "time",
    "index": "index",
    "name": "name",
    "gpu_name": "name",
    "uuid": "uuid",
    "gpu_uuid": "uuid",
    "pci.bus_id": "bus",
    "gpu_bus_id": "bus",
    "memory.used": "memory",
    "memory.total": "total",
    "utilization.gpu": "busy",
    "power.draw": "power",
    "power.draw.instant": "power",
    "power.draw.average": "power",
}
_MEASURED = frozenset({"memory", "busy", "power"})
_NUMBERS = ("memory", "total", "busy", "power")
_UNITS = {"busy": ("", "%"), "power": ("", "W")}


class GpuLog(NamedTuple):
    """Cards, and what was lost of their file or files."""

    gpus: list[WatchedGpu]
    notes: list[Note]


def read_gpu_logs(files: RunFiles) -> GpuLog:
    """Read every log of nvidia-smi; other CSV files are passed over.

    Raises:
        OSError: A file cannot be read.
    """
    read = [log for path in files.gpu_logs if (log := read_gpu_csv(path, files.name(path))) is not None]
    return GpuLog([gpu for log in read for gpu in log.gpus], [note for log in read for note in log.notes])


def read_gpu_csv(path: Path, source: str) -> GpuLog | None:
    """Read one file.

    Returns:
        None where it is no log of nvidia-smi, as any other CSV file.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(_HEAD)
    # PowerShell's `>` writes UTF-16, with a mark.
    encoding = "utf-16" if utf8(start[:2]) != start[:2] else "utf-8"
    head = start.decode(encoding, "replace")
    columns = _columns(head)
    if columns is None:
        return None
    reader = _Reader(source, columns)
    with path.open(encoding=encoding, errors="replace", newline="") as lines:
        reader.read(lines)
    gpus = reader.samples.gpus()
    if not gpus:
        return None
    notes = []
    if reader.bad:
        message = f"{reader.bad} lines are damaged and were left out"
        notes.append(Note(kind="lost", file=source, message=message))
    if "time" not in columns:
        message = "no timestamps were asked for: the axis counts the samples"
        notes.append(Note(kind="read", file=source, message=message))
    if "name" in columns and not {"index", "uuid", "bus"}.intersection(columns):
        message = "neither index nor uuid was asked for: cards of one name are told apart by their order"
        notes.append(Note(kind="read", file=source, message=message))
    return GpuLog(gpus, notes)


def _columns(head: str) -> list[str] | None:
    """What each column holds, by the header, else by the cells of the first whole line."""
    lines = [_cells(line) for line in head.splitlines()[:20]]
    named = next((names for cells in lines if (names := _header(cells))), None)
    return named or next((guessed for cells in lines if (guessed := _guessed(cells))), None)


def _header(cells: Sequence[str]) -> list[str] | None:
    """What the columns hold, where this line is a header that names something measured."""
    names = [_NAMES.get(cell.split(" [")[0], "") for cell in cells]
    return names if _MEASURED.intersection(names) else None


def _guessed(cells: Sequence[str]) -> list[str] | None:
    """Columns of a log without header: only units show what a number is, so `nounits` cannot be read."""
    columns = []
    for cell in cells:
        match = _CELL.fullmatch(cell)
        unit = match[2] if match else None
        if _TIME.fullmatch(cell):
            columns.append("time")
        elif _UUID.fullmatch(cell):
            columns.append("uuid")
        elif _BUS.fullmatch(cell):
            columns.append("bus")
        elif unit in ("MiB", "GiB"):
            columns.append("memory")
        elif unit == "%":
            columns.append("busy")
        elif unit == "W":
            columns.append("power")
        elif cell.isdigit() and int(cell) < _MOST_CARDS and "index" not in columns:
            columns.append("index")
        else:
            columns.append("")
    known = [name for name in columns if name in _MEASURED]
    if not known or ("time" not in columns and len(known) < 2):
        return None
    return _once(columns, cells)


def _once(columns: list[str], cells: Sequence[str]) -> list[str] | None:
    """Of two memories the larger is the total; two percentages or powers could be anything."""
    memories = [place for place, name in enumerate(columns) if name == "memory"]
    if len(memories) == 2:
        first, second = (float(cells[place].split()[0]) for place in memories)
        columns[memories[0] if first > second else memories[1]] = "total"
    elif len(memories) > 2:
        return None
    for name in ("busy", "power"):
        if columns.count(name) > 1:
            columns = ["" if column == name else column for column in columns]
    return columns if _MEASURED.intersection(columns) else None


class _Reader:
    def __init__(self, source: str, columns: list[str]) -> None:
        self.bad = 0
        self.samples = Samples(source, exact_clock="time" in columns)
        self._columns = columns
        self._by = next((name for name in ("index", "uuid", "bus") if name in columns), None)
        self._seen: list[str] = []
        self._sample = -1
        self._last_time: str | None = None
        self._units: dict[str, str] = {}

    def read(self, lines: Iterable[str]) -> None:
        for line in lines:
            cells = _cells(line)
            if not any(cells):
                continue
            if header := _header(cells):
                # Of a loop that was started again into the same file.
                self._columns = header
            # The last number of a line that was cut off may lack digits; zero bytes are missing lines.
            elif len(cells) != len(self._columns) or not line.endswith("\n") or "\0" in line:
                self.bad += 1
            else:
                self._line(cells)

    def _line(self, cells: list[str]) -> None:
        row = dict(zip(self._columns, cells, strict=True))
        try:
            numbers = {name: self._number(row[name], name) for name in _NUMBERS if name in row}
            at = _seconds(row["time"]) if "time" in row else None
            index = self._index(row)
        except ValueError:
            self.bad += 1
            return
        card = self.samples.card(None, index)
        moment = float(self._sample) if at is None else at
        card.name = row.get("name") or card.name
        card.total_mib = numbers.get("total") or card.total_mib
        for name, track in (("memory", card.memory), ("busy", card.utilization), ("power", card.power)):
            number = numbers.get(name)
            if number is not None:
                track.add(moment, number)

    def _number(self, cell: str, name: str) -> float | None:
        """The number in MiB, percent or W; None where the card does not say.

        Raises:
            ValueError: The cell is damaged: what it holds, or that it has a unit where others have none.
        """
        match = _CELL.fullmatch(cell)
        if match is None:
            if cell.startswith("[") or cell in ("N/A", ""):
                return None
            raise ValueError(cell)
        number, unit = float(match[1]), match[2] or ""
        if unit != self._units.setdefault(name, unit):
            raise ValueError(cell)
        if name in ("memory", "total"):
            return number * _MIB[unit]
        if unit not in _UNITS[name] or (name == "busy" and number > 100):
            raise ValueError(cell)
        return number

    def _index(self, row: dict[str, str]) -> str:
        """The card of a row; where nothing numbers cards, its place within the sample.

        Raises:
            ValueError: The row does not say it as others do.
        """
        if self._by is not None:
            index = row[self._by]
            if not _IDENTITY[self._by].fullmatch(index):
                raise ValueError(index)
            if not self._seen:
                self._seen = [index]
            self._sample += index == self._seen[0]
            return index
        # One query prints its cards within some milliseconds, and each with a time of its own.
        time = row.get("time", "")[:19]
        if "time" not in row or time != self._last_time:
            self._sample, self._seen = self._sample + 1, []
        self._last_time = time
        self._seen.append("")
        return str(len(self._seen) - 1)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split(",")]


def _seconds(text: str) -> float:
    """Seconds on a clock of no known zone: differences are all that is used.

    Raises:
        ValueError: It is no timestamp.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(text)
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    whole = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    return whole.timestamp() + float(match[7] or 0)
