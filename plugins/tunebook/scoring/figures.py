"""From per-row results to the figures of one evaluation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import NamedTuple

from tunebook.errors import TunebookError
from tunebook.metrics.figures import GENERATION_CUT, LOSS_FIGURES
from tunebook.types import EvalRecord, Figure, Metric


class Loss(NamedTuple):
    """Teacher-forced figures over all rows of a set."""

    loss: float
    """What the stock evaluation of one process reports: the mean over batches of `batch_size` consecutive
    rows of the batch's token mean, a short last batch counting as much as a full one. It depends on the
    batch size; kept so that numbers stay comparable with runs of the unchanged engine."""
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


class Selection(NamedTuple):
    """The figure that checkpoints are chosen by."""

    figure: str
    """As it is reported."""
    larger_is_better: bool


def set_figures(
    metrics: Sequence[Metric],
    records: Sequence[EvalRecord],
    losses: Sequence[RowLoss],
    *,
    loss_batch_size: int,
    answers_cut: int,
    generation_cuts: Sequence[bool] = (),
) -> dict[str, float]:
    """Every figure of one evaluation of one set, by the name it is reported under.

    Args:
        metrics: Those of the set.
        records: One for each scored row.
        losses: One for each row, in the set's order; empty where no loss was measured.
        loss_batch_size: See `Loss.loss`.
        answers_cut: Rows that the engine cut at its length limit.
        generation_cuts: For each generated answer, whether it was cut by its limit of tokens.

    Raises:
        TunebookError: No row carries loss.
    """
    values: dict[str, float] = {}
    if losses:
        loss = loss_figures(losses, loss_batch_size)
        values |= {"loss": loss.loss, "token_accuracy": loss.token_accuracy}
        if loss.perplexity is not None:
            values["perplexity"] = loss.perplexity
    values |= metric_figures(metrics, records)
    values["answers_cut"] = float(answers_cut)
    if generation_cuts:
        values["generation_cut_rate"] = sum(generation_cuts) / len(generation_cuts)
    return values


def selection(metrics: Sequence[Metric]) -> Selection:
    """The first metric's own choice; the loss where there is no metric."""
    if not metrics:
        return Selection("loss", False)
    first = metrics[0]
    name = reported_names(metrics)[first.name][first.select_by]
    return Selection(name, first.select_by not in first.smaller_is_better)


def signatures(metrics: Sequence[Metric]) -> dict[str, str]:
    """What is to be published with the figures of each metric that says so."""
    return {metric.name: metric.signature() for metric in metrics if metric.signature is not None}


def reported_names(metrics: Sequence[Metric]) -> dict[str, dict[str, str]]:
    """By metric: the name each of its figures is reported under.

    Its own; where several metrics of a set have a figure of one name, `<metric>_<figure>`.
    """
    owners = Counter(figure for metric in metrics for figure in metric.names)
    return {
        metric.name: {
            figure: figure if owners[figure] == 1 else _prefixed(metric, figure) for figure in metric.names
        }
        for metric in metrics
    }


def reported_figures(metrics: Sequence[Metric], *, generates: bool) -> dict[str, Figure]:
    """Return every figure that an evaluation with these metrics reports, by the name it is reported under.

    Args:
        metrics: Those of the set.
        generates: Whether answers are generated.
    """
    found = {figure.name: figure for figure in LOSS_FIGURES}
    if generates:
        found[GENERATION_CUT.name] = GENERATION_CUT
    names = reported_names(metrics)
    for metric in metrics:
        for figure in metric.figures:
            name = names[metric.name][figure.name]
            shared = name != figure.name
            found[name] = (
                replace(figure, name=name, label=f"{figure.label} ({metric.name})") if shared else figure
            )
    return found


def _prefixed(metric: Metric, figure: str) -> str:
    return f"{metric.short_name}_{figure}"


def metric_figures(metrics: Sequence[Metric], records: Sequence[EvalRecord]) -> dict[str, float]:
    """All figures of all metrics over the records, under the names they are reported by."""
    names = reported_names(metrics)
    figures: dict[str, float] = {}
    for metric in metrics:
        for figure, value in metric.aggregate([record.scores[metric.name] for record in records]).items():
            name = names[metric.name].get(figure, figure)  # a user's function may return names of its own
            figures[name if name not in figures else _prefixed(metric, figure)] = value
    return figures


def standard_errors(metrics: Sequence[Metric], records: Sequence[EvalRecord]) -> dict[str, float]:
    """Standard error of each figure that is a plain mean of a per-example value of the same name."""
    names = reported_names(metrics)
    errors: dict[str, float] = {}
    for metric in metrics:
        samples = [record.scores[metric.name].values for record in records]
        for figure in metric.names:
            values = [sample[figure] for sample in samples if figure in sample]
            if len(values) > 1:
                errors[names[metric.name][figure]] = stdev(values) / math.sqrt(len(values))
    return errors


def unparsed_reasons(records: Sequence[EvalRecord]) -> dict[str, int]:
    """How many predictions could not be read, by reason, most frequent first."""
    reasons = Counter(
        score.reason or "unknown"
        for record in records
        for score in record.scores.values()
        if score.parsed is None
    )
    return dict(reasons.most_common())
