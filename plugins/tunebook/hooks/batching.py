"""Which rows are computed together, decided before anything is dealt to ranks, shards or later starts.

What a model gives for a row depends, in its last digits, on the rows beside it. So batches are formed over
all rows of a set from their lengths and the settings alone. One rank or two, one job or several, a start
that was killed or one that was not: the same rows stand beside each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunebook.hooks.shards import FILLER, Rank


def form_batches(
    lengths: Sequence[int], batch_size: int | None, batch_tokens: int | None = None
) -> list[list[int]]:
    """Group rows, longest first, so that a batch has little padding and one that does not fit fails at once.

    Args:
        lengths: Tokens of each row.
        batch_size: The most rows a batch may have; None for any number.
        batch_tokens: The most tokens a batch may have, padding included; a longer row stands alone.

    Returns:
        Places in `lengths`, each in exactly one batch.

    >>> form_batches([1, 9, 5], batch_size=2)
    [[1, 2], [0]]
    >>> form_batches([2, 9, 5, 2, 4, 1], batch_size=None, batch_tokens=8)
    [[1], [2], [4, 0], [3, 5]]
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        most = len(lengths) if batch_size is None else batch_size
        if batches and batch_tokens is not None:
            # The first row of a batch is its longest.
            most = min(most, batch_tokens // max(lengths[batches[-1][0]], 1))
        if batches and len(batches[-1]) < most:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def deal_batches(batches: Sequence[list[int]], rank: Rank) -> list[list[int]]:
    """One rank's share of formed batches; a batch of one `FILLER` where another rank has one more.

    >>> deal_batches([[1, 2], [0], [3]], Rank(1, 2))
    [[0], [-1]]
    """
    own = list(batches[rank.number :: rank.world])
    share = -(-len(batches) // rank.world)
    return own + [[FILLER]] * (share - len(own))
