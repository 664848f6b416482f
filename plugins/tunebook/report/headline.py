"""Says the outcome of a run, and of several, in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.report import figures, setup
from tunebook.text import number, p_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.report.records import Best, Comparison, Expected, Figure, RunReport
    from tunebook.runlog import RunLog


def run_headline(run: RunLog, best: Sequence[Best], expected: Sequence[Expected]) -> str:
    """What was trained on what, the best figure with its interval, the baseline, and the promise."""
    subject = _subject(run)
    if not best and run.evaluations:
        return f"{subject}, was evaluated {len(run.evaluations)} times without a finite result."
    if not best:
        return f"{subject}, was never evaluated."
    first = best[0]
    sentence = f"{subject}, reached {_figure(first.figure)}"
    if first.figure.name == "loss":
        sentence = f"{subject}, came down to {_figure(first.figure)}; no task metric was measured"
    baseline = _beside(first, figures.BASELINE)
    accuracy = first.figure if first.figure.name == "accuracy" else _beside(first, "accuracy")
    if baseline and accuracy:
        share = "" if accuracy is first.figure else f"accuracy {number(accuracy.value)} "
        sentence += f"; {share}against {number(baseline.value)} for always giving the commoner answer"
    base = first.base.figure
    if base is not None:
        chance = f" (p {p_value(first.base.p_value)})" if first.base.p_value is not None else ""
        sentence += f"; before training it was {number(base.value)}{chance}"
    return f"{sentence}.{_promise(expected)}"


def _subject(run: RunLog) -> str:
    """What was trained how on what; what no file says is said to be missing."""
    model = setup.model(run.settings)
    method = setup.method(run.settings)
    data = setup.trained_on(run.settings)
    parts = [model or "A model", method or "", f"trained on {data}" if data else "trained"]
    known = {"model": model, "method": method, "training data": data}
    missing = [name for name, value in known.items() if value is None]
    text = ", ".join(part for part in parts if part)
    return f"{text} ({' and '.join(missing)} named in no file)" if missing else text


def _beside(best: Best, name: str) -> Figure | None:
    return next((figure for figure in best.beside if figure.name == name), None)


def _figure(figure: Figure) -> str:
    where = f" on {figure.dataset}" if figure.dataset else ""
    text = f"{figure.label} {number(figure.value)}"
    if figure.interval:
        text += f" (95 % interval {number(figure.interval.low)} to {number(figure.interval.high)}"
        text += f", n {figure.n})" if figure.n else ")"
    elif figure.n:
        text += f" (n {figure.n}, no interval)"
    return f"{text}{where} at step {figure.step:,}"


def _promise(expected: Sequence[Expected]) -> str:
    judged = [one for one in expected if one.measured]
    if not judged:
        return ""
    parts = {
        "met": "which meets the recipe's claim",
        "within error": "which is within the error of the recipe's claim",
        "missed": "which is below the recipe's claim",
        "above": "which is above the recipe's claim",
    }
    one = judged[0]
    assert one.measured is not None
    text = f" {one.measured.label} {number(one.measured.value)}, {parts[one.verdict]} of {one.text}."
    return text[0] + text[1].upper() + text[2:]


def report_headline(runs: Sequence[RunReport], comparison: Comparison | None) -> str:
    """The sentence over the whole report."""
    if comparison is None:
        return runs[0].headline
    ranked = [(run, run.best[0].figure) for run in runs if run.best]
    if not ranked:
        return f"{len(runs)} runs, none of which was ever evaluated."
    same = {(figure.name, figure.dataset) for _, figure in ranked}
    if len(same) > 1:
        return f"{len(runs)} runs, measured by different figures or on different sets: see each."
    sign = 1 if ranked[0][1].larger_is_better else -1
    run, top = max(ranked, key=lambda pair: sign * pair[1].value)
    left = len(runs) - len(ranked)
    missing = f" {left} of them {'has' if left == 1 else 'have'} no evaluation." if left else ""
    return f"Of {len(runs)} runs, {run.name} is best by {_figure(top)}{_beside_it(comparison, top)}.{missing}"


def _beside_it(comparison: Comparison, top: Figure) -> str:
    """Whether the others are shown to be worse than the best."""
    others = [row for row in comparison.rows if row["dataset"] == top.dataset and row["standing"] != "best"]
    near = [row["name"] for row in others if row["standing"].startswith("not told apart")]
    untested = len([row for row in others if row["standing"].startswith("not tested")])
    said = []
    if near:
        said.append(f"it is not told apart from {', '.join(near)}")
    elif others and not untested:
        said.append("shown to be better than every other")
    if untested:
        said.append(f"{untested} could not be tested against it")
    return "; " + "; ".join(said) if said else ""
