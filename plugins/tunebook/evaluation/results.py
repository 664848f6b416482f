"""Results of an evaluation as files: figures and records of one model on one set."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tunebook import __version__
from tunebook.evaluation.finalise import Outcome, finalise, missing, raw_results
from tunebook.evaluation.journal import Journal
from tunebook.files import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from tunebook.evaluation.plan import Unit
    from tunebook.evaluation.records import SetHeader
    from tunebook.types import EvalRecord

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
