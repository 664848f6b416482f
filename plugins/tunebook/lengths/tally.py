"""Collects lengths as one count for each length: memory grows with the longest row, not with the rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tunebook.lengths import batches
from tunebook.lengths.cutting import LOSSES, losses

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tunebook.lengths.batches import Batch, Form, Lengths, Skipped
    from tunebook.lengths.cutting import Rule

PARTS = ("prompt", "answer", "total")
PERCENTILES = (50, 90, 95, 99, 100)
LISTED_ROWS = 100
"""Rows that are named for each thing that happens to rows; all of them are counted."""

CUTOFFS = tuple(128 * 2**power for power in range(14))
"""Limits of the retention curve, 128 to 1,048,576 tokens."""

_KEEPS = 0.99
_ROUND_TO = 64


@dataclass(slots=True)
class Rows:
    """Rows that something happens to: how many, and the first of them."""

    count: int = 0
    first: list[int] = field(default_factory=list)
    """Row numbers from 1, at most `LISTED_ROWS`."""

    def add(self, numbers: Iterable[int]) -> None:
        """Count rows."""
        for number in numbers:
            self.count += 1
            if len(self.first) < LISTED_ROWS:
                self.first.append(int(number))


class Histogram:
    """How many rows have each length."""

    def __init__(self) -> None:
        self.counts: Lengths = np.zeros(0, np.int64)

    def add(self, lengths: Lengths) -> None:
        """Count rows of those lengths."""
        self._add_counts(np.bincount(lengths).astype(np.int64))

    def merge(self, other: Histogram) -> None:
        """Count the rows of `other` as well."""
        self._add_counts(other.counts)

    def _add_counts(self, counts: Lengths) -> None:
        if len(counts) > len(self.counts):
            # Doubled, so that ever longer rows do not copy it each time.
            grown = np.zeros(max(len(counts), 2 * len(self.counts)), np.int64)
            grown[: len(self.counts)] = self.counts
            self.counts = grown
        self.counts[: len(counts)] += counts

    @property
    def n(self) -> int:
        """Rows counted."""
        return int(self.counts.sum())

    @property
    def tokens(self) -> int:
        """Sum of all lengths."""
        return int((self.counts * np.arange(len(self.counts))).sum())

    def at_most(self, length: int) -> int:
        """Return how many rows are no longer than `length`."""
        return int(self.counts[: length + 1].sum())

    def percentile(self, percent: float) -> int:
        """Return the smallest length that at least `percent` of the rows do not exceed.

        Raises:
            ValueError: There are no rows.
        """
        if self.n == 0:
            raise ValueError("there are no rows to take a percentile of")
        needed = max(1, int(np.ceil(self.n * percent / 100 - 1e-9)))
        return int(np.searchsorted(np.cumsum(self.counts), needed))

    def summary(self) -> dict[str, float]:
        """Return min, max, mean and the percentiles p50 to p100, each of which is the length of a row."""
        found: dict[str, float] = {"min": int(np.flatnonzero(self.counts)[0]), "max": self.percentile(100)}
        found["mean"] = round(self.tokens / self.n, 2)
        return found | {f"p{percent}": self.percentile(percent) for percent in PERCENTILES}

    def bins(self, width: int) -> list[int]:
        """Return the rows of `[0, width)`, `[width, 2 width)` and so on, up to the longest."""
        used = np.trim_zeros(self.counts, "b")
        padded = np.zeros(-(-max(1, len(used)) // width) * width, np.int64)
        padded[: len(used)] = used
        return [int(count) for count in padded.reshape(-1, width).sum(axis=1)]


class Tally:
    """The figures of a set of rows.

    Args:
        form: How its rows are built.
        rule: What its engine does to long rows; None where nothing is cut, as when characters are counted.
        limit: The recipe's limit on tokens; None where there is none.
    """

    def __init__(self, form: Form, rule: Rule | None, limit: int | None) -> None:
        self.form, self.rule, self.limit = form, rule, limit
        self.lengths = {part: Histogram() for part in PARTS}
        self.skipped: dict[str, Rows] = {}
        self.losses = {loss: Rows() for loss in LOSSES}
        self._lost_at: dict[int, Counter[str]] = {limit: Counter() for limit in self.limits}
        self._kept_at: Counter[int] = Counter()

    @property
    def limits(self) -> list[int]:
        """Limits of the retention curve."""
        return sorted({*CUTOFFS, *([self.limit] if self.limit else [])})

    def add(self, batch: Batch) -> None:
        """Count the rows of a batch."""
        self.skip(batch.skipped)
        if not len(batch.rows):
            return
        whole = batches.sizes(batch, self.form)
        for part, lengths in zip(PARTS, whole, strict=True):
            self.lengths[part].add(lengths)
        if self.rule is None:
            return
        shortest, longest = int(whole.total.min()), int(whole.total.max())
        for limit in self.limits:
            if limit < longest or shortest < 2 or limit == self.limit:
                self._cut(batch, limit)
            else:
                self._kept_at[limit] += int(whole.total.sum())

    def skip(self, rows: Iterable[Skipped]) -> None:
        """Count rows that the engine leaves out."""
        for row, reason in rows:
            self.skipped.setdefault(reason, Rows()).add([row])

    def _cut(self, batch: Batch, limit: int) -> None:
        assert self.rule is not None
        kept = self.rule.keep(batch, limit)
        lost = losses(batch, kept, self.form)
        self._lost_at[limit].update({loss: int(flags.sum()) for loss, flags in lost.items()})
        stays = ~lost["dropped"]
        self._kept_at[limit] += int((batches.sizes(kept, self.form).total * stays).sum())
        if limit == self.limit:
            for loss, flags in lost.items():
                self.losses[loss].add(batch.rows[flags])

    def merge(self, other: Tally) -> None:
        """Count the rows of another set with the same rule and limit; rows are no longer named."""
        for part, histogram in self.lengths.items():
            histogram.merge(other.lengths[part])
        for mine, theirs in ((self.skipped, other.skipped), (self.losses, other.losses)):
            for name, rows in theirs.items():
                mine.setdefault(name, Rows()).count += rows.count
        for limit, counts in other._lost_at.items():
            self._lost_at.setdefault(limit, Counter()).update(counts)
        self._kept_at.update(other._kept_at)

    def retention(self) -> list[dict[str, Any]]:
        """Return for each limit up to the longest row what would stay whole, and what rows would lose."""
        total = self.lengths["total"]
        if total.n == 0 or self.rule is None:
            return []
        longest = total.percentile(100)
        above = next((limit for limit in CUTOFFS if limit >= longest), CUTOFFS[-1])
        return [
            {
                "limit": limit,
                "whole": total.at_most(limit),
                "whole_share": round(total.at_most(limit) / total.n, 6),
                "tokens_share": round(self._kept_at[limit] / max(1, total.tokens), 6),
                **{loss: self._lost_at[limit][loss] for loss in LOSSES},
            }
            for limit in self.limits
            if limit <= above or limit == self.limit
        ]

    def suggested(self) -> dict[str, Any] | None:
        """Return a limit that keeps 99 % of the rows whole, or all of them at a quarter more at most.

        None where there are no rows.
        """
        total = self.lengths["total"]
        if total.n == 0:
            return None
        most, every = (
            -(-total.percentile(percent) // _ROUND_TO) * _ROUND_TO for percent in (100 * _KEEPS, 100)
        )
        limit = every if every <= 1.25 * most else most
        return {"limit": limit, "whole_share": round(total.at_most(limit) / total.n, 6)}

    def histogram(self, width: int | None = None) -> dict[str, Any]:
        """Return the rows by total length, in bins of `width` or of a round width that makes some twenty."""
        total = self.lengths["total"]
        if width is None:
            width = round_width(total.percentile(100) if total.n else 1)
        return {"width": width, "counts": total.bins(width)}


def round_width(longest: int, bins: int = 24) -> int:
    """Return a width of 1, 2 or 5 times a power of ten, with which `longest` needs at most `bins` bins."""
    power = 1
    while True:
        for step in (1, 2, 5):
            if longest < step * power * bins:
                return step * power
        power *= 10


def rows_of(found: Mapping[str, Rows], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return counts and first row numbers, as JSON takes them, of those `names` that happened to any row."""
    return {
        name: {"rows": found[name].count, "first": found[name].first}
        for name in names
        if name in found and found[name].count
    }
