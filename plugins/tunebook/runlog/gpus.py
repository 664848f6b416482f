"""Collects samples of GPUs by the clock, and joins what several files say of the same card."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from tunebook.runlog.records import Gpu, Sourced, TimeSeries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


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
        """By number: name and memory in MiB, where they stand apart from the samples."""
        self._cards: dict[tuple[str | None, str], Card] = {}

    def card(self, host: str | None, index: str) -> Card:
        """The card of this number on this host."""
        return self._cards.setdefault((host, index), Card())

    def gpus(self) -> list[Gpu]:
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
                Gpu(
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


def fullest(gpus: Iterable[Gpu]) -> Sourced | None:
    """The peak of the card that was fullest; None where no memory was watched."""
    peaks = [gpu.peak_memory_mib for gpu in gpus if gpu.peak_memory_mib is not None]
    return max(peaks, key=lambda one: one.value, default=None)
