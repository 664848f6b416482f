"""Two lists of tokens side by side, where they begin to differ."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Pair(NamedTuple):
    """One line of an alignment; None on the side that has no such token."""

    trained: int | None
    served: int | None

    @property
    def equal(self) -> bool:
        """Whether both sides have this token."""
        return self.trained == self.served


def align(trained: Sequence[int], served: Sequence[int]) -> list[Pair]:
    """Align two lists of token ids by their longest common runs.

    >>> [tuple(pair) for pair in align([1, 2, 3], [1, 3])]
    [(1, 1), (2, None), (3, 3)]
    """
    pairs: list[Pair] = []
    for _, begin, end, other, until in SequenceMatcher(None, trained, served, autojunk=False).get_opcodes():
        left, right = list(trained[begin:end]), list(served[other:until])
        width = max(len(left), len(right))
        padding: list[int | None] = [None] * width
        pairs += [
            Pair(a, b)
            for a, b in zip(
                [*left, *padding][:width] if left else padding,
                [*right, *padding][:width] if right else padding,
                strict=True,
            )
        ]
    return pairs


def first_difference(trained: Sequence[int], served: Sequence[int]) -> int | None:
    """Return the position at which two lists begin to differ; None where they are equal.

    >>> first_difference([1, 2], [1, 2, 3])
    2
    """
    for place, (left, right) in enumerate(zip(trained, served, strict=False)):
        if left != right:
            return place
    return None if len(trained) == len(served) else min(len(trained), len(served))
