"""The fixed part of an evaluation set that is measured where not all of it is."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SEED = 0


def seeded_subset(rows: Sequence[int], wanted: int | None) -> list[int]:
    """Return `wanted` of the rows, ascending: the same ones at every evaluation and in every run.

    Args:
        rows: Row numbers, ascending.
        wanted: None for all.

    >>> seeded_subset(range(6), 3)
    [2, 3, 4]
    """
    if wanted is None or wanted >= len(rows):
        return list(rows)
    # By hash rather than random.sample, whose choice may change between Python versions.
    ranked = sorted(rows, key=lambda row: hashlib.sha256(f"{_SEED}:{row}".encode()).digest())
    return sorted(ranked[:wanted])
