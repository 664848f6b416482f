"""Makes records, figures and files of finished answers, by the functions of the evaluation in training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook import __version__, metrics
from tunebook.evaluation.journal import Journal
from tunebook.files import write_atomic
from tunebook.scoring import figures as eval_figures
from tunebook.scoring import score
from tunebook.scoring.examples import scored
from tunebook.scoring.figures import metric_figures
from tunebook.types import EvalRecord, Metric

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tunebook.evaluation.journal import Finished
    from tunebook.evaluation.plan import EvalUnit
    from tunebook.evaluation.records import SetHeader, SetRow


FORMAT = 1
"""Version of the result's JSON; it rises when a key changes its meaning or goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """One model on one set."""

    records: list[EvalRecord]
    """One for each scored row, in the set's order."""
    values: dict[str, float]
    """Every figure by name, as `eval_metrics.jsonl` of a run has them."""
    stderr: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    """95 %, of the figures that have one."""
    n: int
    """Scored rows; rows with a loss where there is no metric."""
    n_unparsed: int
    unparsed_reasons: dict[str, int]
    answers_cut: int
    generated_tokens: int
    select_by: str
    larger_is_better: bool
    signatures: dict[str, str]
    by_prompt_length: list[Bucket]
    by_reference_length: list[Bucket]


def missing(header: SetHeader, rows: Sequence[SetRow], finished: Finished) -> int:
    """How many answers are still missing; 0 when results can be made."""
    return sum(
        (row.measured and row.index not in finished.answered)
        + (row.scored and header.mode == "generate" and row.index not in finished.generated)
        for row in rows
    )


def finalise(header: SetHeader, rows: Sequence[SetRow], finished: Finished, *, step: int) -> EvalResult:
    """Score every row and compute every figure.

    Args:
        header: How the set was measured.
        rows: Of the set, in order.
        finished: What the model gave for them.
        step: Optimizer steps of the weights.

    Raises:
        TunebookError: A metric cannot be loaded, or no row carries loss.
        ValueError: An answer is missing, or a metric cannot use a reference.
    """
    if count := missing(header, rows, finished):
        raise ValueError(f"{count} answers of {header.dataset} are missing")
    loaded = [metric for metric, _ in metrics.load_asked(header.metrics)]
    classes_of = next((metric for metric in loaded if metric.name == header.classes_of), None)
    records = [_record(header, row, finished, loaded, classes_of, step=step) for row in rows if row.scored]
    losses = [
        eval_figures.RowLoss(answered.nll, answered.tokens, answered.hits)
        for row in rows
        if row.measured and (answered := finished.answered.get(row.index)) is not None
    ]
    written = [finished.generated[row.index] for row in rows if row.index in finished.generated]
    answers_cut = sum(row.answer_cut for row in rows)
    values = eval_figures.set_figures(
        loaded,
        records,
        losses,
        loss_batch_size=header.loss_batch_size,
        answers_cut=answers_cut,
        generation_cuts=[one.cut for one in written],
    )
    reasons = eval_figures.unparsed_reasons(records)
    chosen = eval_figures.selection(loaded)
    # Nobody has counted the reference tokens of an endpoint's rows.
    reference_tokens = {index: answered.tokens or None for index, answered in finished.answered.items()}
    return EvalResult(
        records=records,
        values=values,
        stderr=eval_figures.standard_errors(loaded, records),
        intervals=_intervals(loaded, records, values),
        n=len(records) if loaded else len(losses),
        n_unparsed=sum(reasons.values()),
        unparsed_reasons=reasons,
        answers_cut=answers_cut,
        generated_tokens=sum(one.tokens for one in written),
        select_by=chosen.figure,
        larger_is_better=chosen.larger_is_better,
        signatures=eval_figures.signatures(loaded),
        by_prompt_length=by_length(
            loaded, _measured(records, {row.index: row.prompt_tokens for row in rows})
        ),
        by_reference_length=by_length(loaded, _measured(records, reference_tokens)),
    )


def _record(
    header: SetHeader,
    row: SetRow,
    finished: Finished,
    loaded: Sequence[Metric],
    classes_of: Metric | None,
    *,
    step: int,
) -> EvalRecord:
    answered, generated = finished.answered.get(row.index), finished.generated.get(row.index)
    wrote = generated if header.mode == "generate" else answered
    unscored = EvalRecord(
        dataset=header.dataset,
        index=row.index,
        step=step,
        prompt=row.prompt,
        prediction=wrote.prediction if wrote else "",
        reference=row.reference,
        mode=header.mode,
        scores={},
        nll=answered.nll if answered else None,
        reference_tokens=answered.tokens if answered else 0,
        answer_cut=row.answer_cut,
    )
    return scored(
        unscored,
        loaded,
        classes_of=classes_of,
        class_logprobs=answered.class_logprobs if answered else (),
        generation_cut=generated is not None and generated.cut,
    )


def _measured(records: Sequence[EvalRecord], tokens: Mapping[int, int | None]) -> list[RecordAndLength]:
    """The scored rows whose length is known."""
    return [
        RecordAndLength(record, count)
        for record in records
        if (count := tokens.get(record.index)) is not None
    ]


def _intervals(
    loaded: Sequence[Metric], records: Sequence[EvalRecord], values: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    if not records:
        return found
    names = eval_figures.reported_names(loaded)
    for metric in loaded:
        scores = [record.scores[metric.name] for record in records]
        figures: dict[str, Any] = {
            figure: values[name] for figure, name in names[metric.name].items() if name in values
        }
        for figure, one in score.with_intervals(metric.aggregate, scores, figures).items():
            if one.interval is not None:
                found[names[metric.name][figure]] = (one.interval.low, one.interval.high)
    return found


def write_result(unit: EvalUnit, folder: Path) -> dict[str, Any] | None:
    """Write `<name>.jsonl`, the records, and `<name>.json`, the figures.

    The same answers give the same bytes: no time and no date is in them.

    Returns:
        What the JSON holds; None where an answer is missing, and nothing is written.
    """
    journal = Journal(unit.journal)
    header = journal.header()
    if header is None:
        return None
    rows, finished = journal.rows(), journal.finished()
    if missing(header, rows, finished):
        return None
    found = finalise(header, rows, finished, step=unit.candidate.step)
    result = as_data(unit, header, found)
    write_atomic(folder / result["records"], _lines(found.records))
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(folder / f"{unit.name}.json", text)
    return result


def as_data(unit: EvalUnit, header: SetHeader, found: EvalResult) -> dict[str, Any]:
    """Return what the JSON of a result holds."""
    finite = {name: value for name, value in found.values.items() if math.isfinite(value)}
    return {
        "format": FORMAT,
        "made_by": f"tunebook {__version__}",
        "model": asdict(unit.candidate),
        "dataset": header.dataset,
        "rows": header.rows,
        "mode": header.mode,
        "metric": [spec.name for spec in header.metrics],
        "max_new_tokens": header.max_new_tokens if header.mode == "generate" else None,
        "select_by": found.select_by,
        "larger_is_better": found.larger_is_better,
        "n": found.n,
        "n_unparsed": found.n_unparsed,
        "unparsed_reasons": found.unparsed_reasons,
        "answers_cut": found.answers_cut,
        "generated_tokens": found.generated_tokens,
        "values": finite,
        "not_finite": sorted(set(found.values) - set(finite)),
        "stderr": found.stderr,
        "intervals": {name: list(bounds) for name, bounds in found.intervals.items()},
        "signatures": found.signatures,
        "by_prompt_length": [bucket._asdict() for bucket in found.by_prompt_length],
        "by_reference_length": [bucket._asdict() for bucket in found.by_reference_length],
        "loss_batch_size": header.loss_batch_size or None,
        "notes": list(header.notes),
        "settings": unit.about,
        "records": f"{unit.name}.jsonl",
    }


def _lines(records: list[EvalRecord]) -> str:
    return "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)


# The figures of an evaluation by the length of what was asked and of what was wanted.

BOUNDS = (512, 2_048, 8_192, 32_768)
"""Tokens at which a bucket ends; the last one has no end."""


class RecordAndLength(NamedTuple):
    """A scored row with a length."""

    record: EvalRecord
    tokens: int


class Bucket(NamedTuple):
    """The figures of the rows of some lengths."""

    name: str
    """`<512`, `512-2k`, `2k-8k`, `8k-32k` or `32k+`."""
    n: int
    n_unparsed: int
    """Answers in which some metric found nothing to read; they count as wrong in the figures."""
    values: dict[str, float]
    """By the name a figure is reported under; one that these rows leave undefined is left out."""


def bucket_name(tokens: int, bounds: Sequence[int] = BOUNDS) -> str:
    """The bucket that a number of tokens belongs to.

    >>> [bucket_name(tokens) for tokens in (511, 512, 2_048, 32_767, 32_768)]
    ['<512', '512-2k', '2k-8k', '8k-32k', '32k+']
    """
    place = sum(tokens >= bound for bound in bounds)
    if place == 0:
        return f"<{_short(bounds[0])}"
    if place == len(bounds):
        return f"{_short(bounds[-1])}+"
    return f"{_short(bounds[place - 1])}-{_short(bounds[place])}"


def by_length(
    metrics: Sequence[Metric], rows: Iterable[RecordAndLength], bounds: Sequence[int] = BOUNDS
) -> list[Bucket]:
    """Compute every figure of every metric over the rows of each bucket.

    Args:
        metrics: Those of the set.
        rows: In any order.
        bounds: Where buckets end, ascending.

    Returns:
        Shortest first; a bucket that no row falls into is left out.
    """
    found: dict[int, list[EvalRecord]] = {}
    for row in rows:
        found.setdefault(sum(row.tokens >= bound for bound in bounds), []).append(row.record)
    starts = (0, *bounds)
    return [
        Bucket(
            name=bucket_name(starts[place], bounds),
            n=len(records),
            n_unparsed=sum(any(score.parsed is None for score in one.scores.values()) for one in records),
            values=_values(metrics, records),
        )
        for place, records in sorted(found.items())
    ]


def _values(metrics: Sequence[Metric], records: Sequence[EvalRecord]) -> dict[str, float]:
    return {name: value for name, value in metric_figures(metrics, records).items() if math.isfinite(value)}


def _short(tokens: int) -> str:
    return f"{tokens // 1024}k" if tokens >= 1024 and tokens % 1024 == 0 else str(tokens)
