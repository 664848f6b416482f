"""Which rows are held out for evaluation: those with the smallest keys, so neither order nor nodes matter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tunebook.splits.hashing import row_keys

_BLOCK_ROWS = 1 << 20


def choose_rows(rows: int, wanted: int, seed: int) -> npt.NDArray[np.int64]:
    """Return `wanted` of `rows` rows, ascending. Memory grows with `wanted`, not with `rows`."""
    best_keys = np.empty(0, np.uint64)
    best_rows = np.empty(0, np.int64)
    for start in range(0, rows if wanted else 0, _BLOCK_ROWS):
        keys = row_keys(seed, start, min(start + _BLOCK_ROWS, rows))
        full = len(best_keys) == wanted
        good = np.flatnonzero(keys < best_keys.max()) if full else np.arange(len(keys))
        best_keys = np.concatenate((best_keys, keys[good]))
        best_rows = np.concatenate((best_rows, start + good))
        if len(best_keys) > wanted:
            # Stable, so that of two rows with one key the earlier one is taken.
            kept = np.argsort(best_keys, kind="stable")[:wanted]
            best_keys, best_rows = best_keys[kept], best_rows[kept]
    return np.sort(best_rows)


def choose_groups(rows_of: npt.NDArray[np.int64], wanted: int, seed: int) -> npt.NDArray[np.bool_]:
    """Return which groups are held out: whole ones in random order, as long as they fit into `wanted` rows.

    Args:
        rows_of: Rows of each group; 0 for a group that is not there.
        wanted: Rows to hold out; fewer are where the last ones would need part of a group.
        seed: Decides the order.
    """
    chosen = np.zeros(len(rows_of), np.bool_)
    left = wanted
    for group in np.argsort(row_keys(seed, 0, len(rows_of)), kind="stable").tolist():
        size = int(rows_of[group])
        if 0 < size <= left:
            chosen[group] = True
            left -= size
        if not left:
            break
    return chosen
