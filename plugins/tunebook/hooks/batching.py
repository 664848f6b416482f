"""Which rows are computed together, decided before anything is dealt to ranks, shards or later starts.

What a model gives for a row depends, in its last digits, on the rows beside it. So batches are formed over
all rows of a set from their lengths and the settings alone. One rank or two, one job or several, a start
that was killed or one that was not: the same rows stand beside each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunebook.hooks.shards import FILLER, Rank


def form_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Group rows, longest first, so that a batch has little padding and one that does not fit fails at once.

    Args:
        lengths: Tokens of each row.
        batch_size: The most rows a batch may have.

    Returns:
        Places in `lengths`, each in exactly one batch.

    >>> form_batches([1, 9, 5], batch_size=2)
    [[1, 2], [0]]
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def deal_batches(batches: Sequence[list[int]], rank: Rank) -> list[list[int]]:
    """One rank's share of formed batches; a batch of one `FILLER` where another rank has one more.

    >>> deal_batches([[1, 2], [0], [3]], Rank(1, 2))
    [[0], [-1]]
    """
    own = list(batches[rank.number :: rank.world])
    share = -(-len(batches) // rank.world)
    return own + [[FILLER]] * (share - len(own))
