"""The tapes of one split: what a scan leaves of the sources, and what the plan adds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunebook.splits.spans import ROW, Tape


@dataclass(frozen=True, slots=True, kw_only=True)
class Tapes:
    """Numbers of each span and of each row, in one folder."""

    folder: Path

    @property
    def lengths(self) -> Tape:
        """Bytes of each span."""
        return Tape(path=self.folder / "lengths", dtype="<u4")

    @property
    def kinds(self) -> Tape:
        """Kind of each span."""
        return Tape(path=self.folder / "kinds", dtype="u1")

    @property
    def groups(self) -> Tape:
        """Group of each row."""
        return Tape(path=self.folder / "groups", dtype="<u4")

    @property
    def tokens(self) -> Tape:
        """Tokens of each row."""
        return Tape(path=self.folder / "tokens", dtype="<u4")

    @property
    def destinations(self) -> Tape:
        """Of each span: its node, or what `deal` names besides."""
        return Tape(path=self.folder / "destinations", dtype="<u2")

    def row_bytes(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the bytes of each row, in blocks."""
        for lengths, kinds in zip(self.lengths.blocks(), self.kinds.blocks(), strict=True):
            yield lengths[kinds == ROW]

    def row_destinations(self) -> Iterator[npt.NDArray[np.uint16]]:
        """Yield the destination of each row, in blocks."""
        for destinations, kinds in zip(self.destinations.blocks(), self.kinds.blocks(), strict=True):
            yield destinations[kinds == ROW]
