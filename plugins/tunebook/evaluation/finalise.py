"""From what is finished to records and figures, by the functions that the evaluation in training uses."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tunebook import __version__, metrics
from tunebook.evaluation.journal import Journal
from tunebook.evaluation.records import RawResult
from tunebook.files import write_atomic
from tunebook.scoring import figures as eval_figures
from tunebook.scoring import score
from tunebook.scoring.by_length import Bucket, RecordAndLength, by_length
from tunebook.scoring.examples import record_of
from tunebook.types import EvalRecord, Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tunebook.evaluation.journal import Finished
    from tunebook.evaluation.plan import Unit
    from tunebook.evaluation.records import SetHeader, SetRow
    from tunebook.types import EvalRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
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
    """How many answers are still to come; 0 when results can be made."""
    return sum(
        (row.measured and row.index not in finished.answered)
        + (row.scored and header.mode == "generate" and row.index not in finished.generated)
        for row in rows
    )


def raw_results(header: SetHeader, rows: Sequence[SetRow], finished: Finished) -> list[RawResult]:
    """Put together what is known of each row.

    Raises:
        ValueError: Something is missing.
    """
    if missing(header, rows, finished):
        raise ValueError(f"{missing(header, rows, finished)} answers of {header.dataset} are missing")
    found = []
    for row in rows:
        answered, generated = finished.answered.get(row.index), finished.generated.get(row.index)
        wrote = generated if header.mode == "generate" else answered
        found.append(
            RawResult(
                index=row.index,
                prompt=row.prompt,
                prediction=wrote.prediction if wrote else "",
                reference=row.reference,
                mode=header.mode,
                nll=answered.nll if answered else None,
                tokens=answered.tokens if answered else 0,
                hits=answered.hits if answered else 0,
                class_logprobs=answered.class_logprobs if answered else (),
                generation_cut=generated is not None and generated.cut,
                answer_cut=row.answer_cut,
                prompt_tokens=row.prompt_tokens,
                generated_tokens=generated.tokens if generated else None,
                measured=row.measured,
                scored=row.scored,
            )
        )
    return found


def finalise(header: SetHeader, raws: Sequence[RawResult], *, step: int) -> Outcome:
    """Score every row and compute every figure.

    Args:
        header: How was measured.
        raws: One for each row, in the set's order.
        step: Optimizer steps behind the weights.

    Raises:
        TunebookError: A metric cannot be loaded, or no row carries loss.
        ValueError: A metric cannot use a reference.
    """
    loaded = [metric for metric, _ in metrics.load_asked(header.metrics)]
    classes_of = next((metric for metric in loaded if metric.name == header.classes_of), None)
    records = [
        record_of(
            dataset=header.dataset,
            step=step,
            index=raw.index,
            prompt=raw.prompt,
            prediction=raw.prediction,
            reference=raw.reference,
            mode=raw.mode,
            metrics=loaded,
            classes_of=classes_of,
            nll=raw.nll,
            reference_tokens=raw.tokens,
            class_logprobs=raw.class_logprobs,
            generation_cut=raw.generation_cut,
            answer_cut=raw.answer_cut,
        )
        for raw in raws
        if raw.scored
    ]
    losses = [
        eval_figures.RowLoss(raw.nll, raw.tokens, raw.hits)
        for raw in raws
        if raw.measured and raw.nll is not None
    ]
    written = [raw for raw in raws if raw.generated_tokens is not None]
    answers_cut = sum(raw.answer_cut for raw in raws)
    values = eval_figures.set_figures(
        loaded,
        records,
        losses,
        loss_batch_size=header.loss_batch_size,
        answers_cut=answers_cut,
        generation_cuts=[raw.generation_cut for raw in written],
    )
    reasons = eval_figures.unparsed_reasons(records)
    chosen = eval_figures.selection(loaded)
    return Outcome(
        records=records,
        values=values,
        stderr=eval_figures.standard_errors(loaded, records),
        intervals=_intervals(loaded, records, values),
        n=len(records) if loaded else len(losses),
        n_unparsed=sum(reasons.values()),
        unparsed_reasons=reasons,
        answers_cut=answers_cut,
        generated_tokens=sum(raw.generated_tokens or 0 for raw in written),
        select_by=chosen.figure,
        larger_is_better=chosen.larger_is_better,
        signatures=eval_figures.signatures(loaded),
        by_prompt_length=by_length(loaded, _measured(records, raws, lambda raw: raw.prompt_tokens)),
        # Of an endpoint's rows nobody has counted the reference's tokens.
        by_reference_length=by_length(loaded, _measured(records, raws, lambda raw: raw.tokens or None)),
    )


def _measured(
    records: Sequence[EvalRecord], raws: Sequence[RawResult], tokens: Callable[[RawResult], int | None]
) -> list[RecordAndLength]:
    """The scored rows whose length is known."""
    known = {raw.index: count for raw in raws if (count := tokens(raw)) is not None}
    return [RecordAndLength(record, known[record.index]) for record in records if record.index in known]


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


# Results of an evaluation as files: figures and records of one model on one set.

FORMAT = 1
"""Version of the result's JSON; it rises when a key changes its meaning or goes."""


def write_result(unit: Unit, folder: Path) -> dict[str, Any] | None:
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
    outcome = finalise(header, raw_results(header, rows, finished), step=unit.subject.step)
    result = as_data(unit, header, outcome)
    write_atomic(folder / result["records"], _lines(outcome.records))
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(folder / f"{unit.name}.json", text)
    return result


def as_data(unit: Unit, header: SetHeader, outcome: Outcome) -> dict[str, Any]:
    """Return what the JSON of a result holds."""
    finite = {name: value for name, value in outcome.values.items() if math.isfinite(value)}
    return {
        "format": FORMAT,
        "made_by": f"tunebook {__version__}",
        "model": asdict(unit.subject),
        "dataset": header.dataset,
        "rows": header.rows,
        "mode": header.mode,
        "metric": [spec.name for spec in header.metrics],
        "max_new_tokens": header.max_new_tokens if header.mode == "generate" else None,
        "select_by": outcome.select_by,
        "larger_is_better": outcome.larger_is_better,
        "n": outcome.n,
        "n_unparsed": outcome.n_unparsed,
        "unparsed_reasons": outcome.unparsed_reasons,
        "answers_cut": outcome.answers_cut,
        "generated_tokens": outcome.generated_tokens,
        "values": finite,
        "not_finite": sorted(set(outcome.values) - set(finite)),
        "stderr": outcome.stderr,
        "intervals": {name: list(bounds) for name, bounds in outcome.intervals.items()},
        "signatures": outcome.signatures,
        "by_prompt_length": [bucket._asdict() for bucket in outcome.by_prompt_length],
        "by_reference_length": [bucket._asdict() for bucket in outcome.by_reference_length],
        "loss_batch_size": header.loss_batch_size or None,
        "notes": list(header.notes),
        "settings": unit.about,
        "records": f"{unit.name}.jsonl",
    }


def _lines(records: list[EvalRecord]) -> str:
    return "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)
