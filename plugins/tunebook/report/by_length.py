"""The chosen figure of one evaluation by the length of its rows, to show where it breaks down."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tunebook.report import intervals
from tunebook.report.row_records import ByLength, LengthRange
from tunebook.runlog.evaluations import read_examples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tunebook.report.records import Best, Figure, Interval
    from tunebook.runlog import Example, RunLog

_QUARTERS = (0.25, 0.5, 0.75)
_FEWEST_ROWS = 40
"""Fewer are not cut: the interval of ten rows says next to nothing."""
_SPREAD = 1.5
"""Rows whose longest is less than half again as long as the shortest are all alike."""


def by_length(run: RunLog, best: Sequence[Best]) -> tuple[ByLength, ...]:
    """The figure of single rows in quarters of their lengths, for each best evaluation that left records.

    Lengths are tokens of the reference where these differ, else characters of the prompt: answers of a word
    are all alike.
    """
    found = []
    for one in best:
        path = run.record_files.get((one.figure.dataset, one.figure.step))
        if path is None:
            continue
        source = f"{path.parent.name}/{path.name}"
        examples = read_examples(path, source).examples
        metrics = dict.fromkeys(name for example in examples for name in example.scores)
        cuts = (_cut(examples, metric, one.figure, source) for metric in metrics)
        found += [cut for cut in cuts if cut is not None]
    return tuple(found)


def _cut(examples: Sequence[Example], metric: str, best: Figure, source: str) -> ByLength | None:
    scored = [one for one in examples if isinstance(one.scores.get(metric, {}).get("values"), dict)]
    names = list(dict.fromkeys(name for one in scored for name in one.scores[metric]["values"]))
    if not names:
        return None
    # macro-F1 and its like are no means over rows: the first figure of single rows stands in.
    figure = best.name if best.name in names else names[0]
    rows = [e for e in scored if isinstance(e.scores[metric]["values"].get(figure), (int, float))]
    if len(rows) < _FEWEST_ROWS:
        return None
    by, lengths = _lengths(rows)
    values = np.array([float(e.scores[metric]["values"][figure]) for e in rows])
    unparsed = np.array([e.scores[metric].get("parsed") is None for e in rows])
    inner = [int(edge) for edge in np.quantile(lengths, _QUARTERS, method="lower")]
    edges = sorted({int(lengths.min()) - 1, *inner, int(lengths.max())})
    if len(edges) < 3 or lengths.max() < _SPREAD * lengths.min():
        return None
    ranges = []
    for low, high in pairwise(edges):
        members = (lengths > low) & (lengths <= high)
        ranges.append(_range(low + 1, high, values[members], int(unparsed[members].sum())))
    return ByLength(
        dataset=best.dataset,
        step=best.step,
        metric=metric,
        figure=figure,
        by=by,
        ranges=tuple(ranges),
        source=source,
    )


def _lengths(rows: Sequence[Example]) -> tuple[str, NDArray[np.int64]]:
    tokens = [row.reference_tokens for row in rows]
    known = [length for length in tokens if length is not None]
    if len(known) == len(rows) and max(known) >= 2 * max(1, min(known)) and max(known) > 8:
        return "tokens of the reference", np.array(known, dtype=np.int64)
    return "characters of the prompt", np.array([len(row.prompt) for row in rows], dtype=np.int64)


def _range(low: int, high: int, values: NDArray[np.float64], unparsed: int) -> LengthRange:
    n, mean = len(values), float(values.mean())
    return LengthRange(
        low=low, high=high, n=n, value=mean, interval=_interval(values, mean, n), n_unparsed=unparsed
    )


def _interval(values: NDArray[np.float64], mean: float, n: int) -> Interval | None:
    if np.isin(values, (0.0, 1.0)).all():
        return intervals.wilson(mean, n)
    return intervals.normal(mean, float(values.std(ddof=1)) / n**0.5) if n > 1 else None
