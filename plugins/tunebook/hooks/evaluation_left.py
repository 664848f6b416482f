"""What an evaluation leaves in the run's folder and in the log."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunebook.hooks import leavings
from tunebook.hooks.preparation import Prepared
from tunebook.scoring import figures
from tunebook.types import EvalRecord


def leave(
    trainer: Any,
    output_dir: Path,
    prepared: Prepared,
    found: Sequence[EvalRecord],
    values: Mapping[str, float],
    step: int,
    seconds: float,
) -> None:
    """Write the line of figures and the records of one evaluation, and say the figures that matter.

    Args:
        trainer: Whose evaluation it was.
        output_dir: The run's folder.
        prepared: The set.
        found: The records, by row.
        values: The figures.
        step: Optimizer steps behind the weights.
        seconds: How long the evaluation took.
    """
    stderr = figures.standard_errors(prepared.metrics, found)
    reasons = figures.unparsed_reasons(found)
    first = prepared.metrics[0] if prepared.metrics else None
    names = figures.reported_names(prepared.metrics)[first.name] if first else {}
    chosen = figures.selection(prepared.metrics)
    n = len(found) if first else len(prepared.rows)
    leavings.append_figures(
        output_dir,
        {
            "dataset": prepared.chosen.name,
            "step": step,
            "epoch": trainer.state.epoch,
            "in_training": trainer.is_in_train,
            "mode": prepared.mode,
            "n": n,
            "n_unparsed": sum(reasons.values()),
            "unparsed_reasons": reasons,
            "answers_cut": int(values["answers_cut"]),
            "metric": [metric.name for metric in prepared.metrics],
            "signatures": figures.signatures(prepared.metrics),
            "select_by": chosen.figure,
            "larger_is_better": chosen.larger_is_better,
            "values": {name: value for name, value in values.items() if math.isfinite(value)},
            "not_finite": [name for name, value in values.items() if not math.isfinite(value)],
            "stderr": stderr,
            "seconds": round(seconds, 3),
            "tokens": sum(row.length for row in prepared.rows),
        },
    )
    leavings.write_records(output_dir, prepared.chosen.name, step, found)
    lead = [chosen.figure, *list(names.values())[:2], "loss"] if first else ["loss", "perplexity"]
    line = leavings.headline(values, stderr, lead, n, seconds)
    leavings.say(f"step {step}, {prepared.chosen.name}: {line}")
