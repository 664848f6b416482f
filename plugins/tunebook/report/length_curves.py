"""Charts of a figure by the length of the reference: a curve for each range of lengths."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from tunebook.report import figures
from tunebook.report.chart_records import Chart
from tunebook.report.lines import about, evaluated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tunebook.report.lines import Curves

_NAME = re.compile(r"(?P<figure>.+)_ref_(?P<low>\d+)_(?P<high>\d+|up)")


class Bucket(NamedTuple):
    """A figure over the rows whose references have so many words or tokens."""

    figure: str
    low: int
    label: str


def by_length(name: str) -> Bucket | None:
    """What a figure's name says of lengths; None where it says nothing.

    >>> by_length("rougeL_ref_128_511")
    Bucket(figure='rougeL', low=128, label='128 to 511')
    >>> by_length("rougeL_ref_8192_up").label
    '8,192 and more'
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    low, high = int(match["low"]), match["high"]
    label = f"{low:,} and more" if high == "up" else f"{low:,} to {int(high):,}"
    return Bucket(match["figure"], low, label)


def length_charts(runs: Sequence[Curves], *, several: bool) -> Iterator[Chart]:
    """One chart for each figure that some evaluation has by length."""
    names = {
        name
        for run in runs
        for measured in run.measured.values()
        for m in measured
        for name in m.evaluation.values
    }
    buckets = sorted((bucket, name) for name in names if (bucket := by_length(name)) and bucket.figure != "n")
    for figure in dict.fromkeys(bucket.figure for bucket, _ in buckets):
        lines = []
        for bucket, name in buckets:
            if bucket.figure != figure:
                continue
            for run in runs:
                for line in evaluated(run, name, len(runs) * len(buckets), several=several):
                    kind = f"{bucket.label} words"
                    where = f"{line.label}, {kind}" if several or len(run.measured) > 1 else kind
                    lines.append(replace(line, key=line.key if several else where, label=where, dataset=kind))
        if not lines:
            continue
        known, label = figures.known(figure), figures.label(figure)
        yield Chart(
            id="by_length_" + re.sub(r"[^\w.-]", "_", figure),
            title=f"{label[0].upper()}{label[1:]} by length of the reference",
            y_label="",
            y_format=known.number_format,
            y_zero=known.from_zero,
            about=about(f"{label} by length of the reference", lines),
            last_step=0,
            lines=tuple(lines),
        )
