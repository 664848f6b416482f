"""Puts several runs side by side: one row each, and the settings in which they differ."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tunebook.report.ranks import rank_correlation
from tunebook.report.records import Comparison, Difference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tunebook.report.records import Figure, Interval, RunReport

# Differ between any two runs and say nothing about them.
_NOT_COMPARED = frozenset({"output_dir", "run_name", "logging_dir", "overwrite_output_dir"})


def compare_runs(runs: Sequence[RunReport]) -> Comparison:
    """The comparison of at least two runs, the best first where they share a figure and a dataset."""
    rows = [_row(run) for run in runs]
    figures = [run.best[0].figure for run in runs if run.best]
    if figures and len({(figure.name, figure.dataset) for figure in figures}) == 1:
        sign = -1 if figures[0].larger_is_better else 1
        rows.sort(key=lambda row: (row["value"] is None, sign * (row["value"] or 0.0)))
    return Comparison(
        rows=tuple(rows),
        differences=_differences(runs),
        remarks=tuple(_remarks(runs)),
        settings_in_part=tuple(run.name for run in runs if run.recipe_text is None),
    )


def _remarks(runs: Sequence[RunReport]) -> Iterator[str]:
    """Said only of runs that share the figure and the dataset."""
    best = [(run, run.best[0]) for run in runs if run.best]
    if len(best) < 2 or len({(one.figure.name, one.figure.dataset) for _, one in best}) > 1:
        return
    sign = 1 if best[0][1].figure.larger_is_better else -1
    best.sort(key=lambda pair: -sign * pair[1].figure.value)
    top, interval = best[0][0], best[0][1].figure.interval
    label = best[0][1].figure.label
    if interval is not None:
        near = [run.name for run, one in best[1:] if _overlap(interval, one.figure.interval)]
        apart = len(best) - 1 - len(near)
        if near:
            yield (
                f"The 95 % interval of {top.name} overlaps with that of {', '.join(near)}: "
                f"by {label} they are not told apart."
            )
        if apart:
            yield f"{apart} of the other {len(best) - 1} lie apart from it."
    losses = [next((f.value for f in one.beside if f.name == "loss"), None) for _, one in best]
    pairs = [
        (loss, one.figure.value) for loss, (_, one) in zip(losses, best, strict=True) if loss is not None
    ]
    if best[0][1].figure.name != "loss" and len(pairs) >= 3:
        correlation = rank_correlation([-loss for loss, _ in pairs], [sign * value for _, value in pairs])
        if correlation is not None:
            verdict = "agree" if correlation > 0.5 else "disagree"
            yield (
                f"Evaluation loss and {label} {verdict} on which run is better: rank correlation "
                f"{correlation:+.2f} over {len(pairs)} runs."
            )


def _overlap(one: Interval, other: Interval | None) -> bool:
    return other is not None and one.low <= other.high and other.low <= one.high


def _row(run: RunReport) -> dict[str, Any]:
    figure: Figure | None = run.best[0].figure if run.best else None
    interval = figure.interval if figure else None
    facts = {fact.label: fact for fact in run.facts}
    return {
        "run": run.id,
        "name": run.name,
        "model": run.model,
        "method": run.method,
        "trained_on": run.trained_on,
        "dataset": figure.dataset if figure else None,
        "figure": figure.label if figure else None,
        "value": figure.value if figure else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "n": figure.n if figure else None,
        "step": figure.step if figure else None,
        "seconds": facts["Training time"].value,
        "samples_per_second": facts["Speed"].value,
        "findings": len([finding for finding in run.findings if finding.level != "note"]),
    }


def _differences(runs: Sequence[RunReport]) -> tuple[Difference, ...]:
    tables = {run.id: {setting.key: _text(setting.value) for setting in run.settings} for run in runs}
    found = []
    for key in dict.fromkeys(key for table in tables.values() for key in table):
        # Without a recipe, a key that is not written down may have any value: it is left out.
        values = {
            run.id: tables[run.id].get(key)
            for run in runs
            if key in tables[run.id] or run.recipe_text is not None
        }
        if key not in _NOT_COMPARED and len(set(values.values())) > 1:
            found.append(Difference(key=key, values=values))
    return tuple(found)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
