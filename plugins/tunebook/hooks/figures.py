"""From per-row results to the figures of one evaluation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from tunebook.errors import TunebookError
from tunebook.types import EvalRecord, Metric, Score


class Loss(NamedTuple):
    """Teacher-forced figures over all rows of a set."""

    loss: float
    """What the stock evaluation of one process reports: the mean over batches of `batch_size` consecutive
    rows of the batch's token mean, a short last batch counting as much as a full one. It depends on the
    batch size; kept so that numbers stay comparable with runs of the engine alone."""
    perplexity: float | None
    """exp of the token-weighted mean over the whole set; None where it overflows a float."""
    token_accuracy: float
    """Mean over rows of the share of supervised tokens that the argmax gets right, as LLaMA-Factory's
    `compute_accuracy` counts. It rises with the share of easy tokens and says little about answers."""


class RowLoss(NamedTuple):
    """One row's sums."""

    nll: float
    tokens: int
    hits: int


def loss_figures(rows: Sequence[RowLoss], batch_size: int) -> Loss:
    """Combine rows, in dataset order.

    Raises:
        TunebookError: No row carries loss.
    """
    labelled = [row for row in rows if row.tokens]
    if not labelled:
        raise TunebookError(
            "no evaluation row has a supervised token: there is nothing to measure",
            fix="check the dataset's response column, and that prompts are shorter than the length limit",
        )
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    sums = [(sum(row.nll for row in batch), sum(row.tokens for row in batch)) for batch in batches]
    mean = sum(row.nll for row in labelled) / sum(row.tokens for row in labelled)
    return Loss(
        loss=fmean(nll / tokens for nll, tokens in sums if tokens),
        perplexity=math.exp(mean) if mean < math.log(1e300) else None,
        token_accuracy=fmean(row.hits / row.tokens for row in labelled),
    )


def metric_figures(metrics: Sequence[Metric], records: Sequence[EvalRecord]) -> dict[str, float]:
    """All figures of all metrics over the records.

    Raises:
        TunebookError: Two metrics of the set give a figure the same name.
    """
    figures: dict[str, float] = {}
    for metric in metrics:
        scores = [record.scores[metric.name] for record in records if metric.name in record.scores]
        if not scores:
            continue
        for name, value in metric.aggregate(scores).items():
            if name == "unparsed_rate":  # every metric has one; the set's is the worst of them
                value = max(value, figures.get(name, 0.0))
            elif name in figures:
                raise TunebookError(
                    f"two metrics of one dataset both report {name!r}; one of them is {metric.name!r}",
                    fix='leave one of them in the dataset\'s "metric"',
                )
            figures[name] = value
    return figures


def standard_errors(records: Sequence[EvalRecord], figures: Mapping[str, float]) -> dict[str, float]:
    """Standard error of each figure that is a plain mean of a per-example value of the same name."""
    samples: dict[str, list[float]] = {}
    for record in records:
        for score in record.scores.values():
            for name, value in score.values.items():
                samples.setdefault(name, []).append(value)
    return {
        name: stdev(values) / math.sqrt(len(values))
        for name, values in samples.items()
        if name in figures and len(values) > 1
    }


def unparsed_reasons(records: Sequence[EvalRecord]) -> dict[str, int]:
    """How many predictions could not be read, by reason, most frequent first."""
    reasons = Counter(
        score.reason or "unknown"
        for record in records
        for score in record.scores.values()
        if score.parsed is None
    )
    return dict(reasons.most_common())


def count_unparsed(scores: Sequence[Score]) -> int:
    """Predictions that nothing could be read out of."""
    return sum(score.parsed is None for score in scores)
