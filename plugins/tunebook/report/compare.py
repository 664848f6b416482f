"""Puts several runs side by side: ranked by each figure, tested in pairs, and where their set-ups differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.comparison.figures import SIGNIFICANT
from tunebook.comparison.wording import signed
from tunebook.report.agreement import Ranked, over_runs
from tunebook.report.differences import environments, settings
from tunebook.report.facts import fact
from tunebook.report.paired import Pairing, answers_of
from tunebook.report.records import Best, Comparison, Finding, RunReport
from tunebook.report.run_pairs import disagreements
from tunebook.report.significance import Ranking, rank
from tunebook.text import p_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tunebook.report.lines import Curves
    from tunebook.report.paired import Answers
    from tunebook.report.records import RunDisagreements


class _Entry(NamedTuple):
    """A run's best evaluation on one dataset."""

    report: RunReport
    best: Best
    answers: Answers


def compare_runs(runs: Sequence[RunReport], curves: Sequence[Curves]) -> Comparison:
    """The comparison of at least two runs.

    Runs that share a figure and a dataset are ranked by it, the best first, and tested in pairs.

    Args:
        runs: As reported.
        curves: The same runs as read, in the same order.
    """
    pairing = Pairing()
    entries = [
        _Entry(report, best, _answers(curve, best))
        for report, curve in zip(runs, curves, strict=True)
        for best in report.best
    ]
    rows: list[dict[str, Any]] = []
    remarks: list[str] = []
    findings: list[Finding] = []
    apart: list[RunDisagreements] = []
    for group in _groups(entries):
        ranking = rank([entry.answers for entry in group], pairing) if len(group) > 1 else None
        rows += [_row(entry.report, entry.best, ranking, place) for place, entry in enumerate(group)]
        if ranking is None:
            continue
        remarks += _remarks(group, ranking)
        for said in _loss_against_metric(group, ranking):
            if isinstance(said, Finding):
                findings.append(said)
            else:
                remarks.append(said)
        apart += disagreements([entry.answers for entry in group], group[0].best.figure, ranking)
    rows += [_row(run, None, None, 0) for run in runs if not run.best]
    return Comparison(
        rows=tuple(rows),
        common=_common(rows),
        differences=settings(runs),
        environment=environments(runs),
        remarks=tuple(remarks),
        findings=tuple(findings),
        disagreements=tuple(apart),
        settings_in_part=tuple(run.name for run in runs if run.recipe_text is None),
    )


def _common(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What is the same in every row need not be told in each."""
    columns = ("model", "method", "trained_on", "dataset", "figure")
    return {key: rows[0][key] for key in columns if rows[0][key] and len({row[key] for row in rows}) == 1}


def _answers(curves: Curves, best: Best) -> Answers:
    evaluation = next(
        (
            one.evaluation
            for one in curves.measured[best.figure.dataset]
            if one.evaluation.step == best.figure.step and one.evaluation.source == best.figure.source
        ),
        None,
    )
    return answers_of(curves.run, curves.name, evaluation, best.figure.name)


def _groups(entries: Sequence[_Entry]) -> list[list[_Entry]]:
    """Entries that share figure and dataset, the best first; groups in the order in which they appear."""
    found: dict[tuple[str, str], list[_Entry]] = {}
    for entry in entries:
        found.setdefault((entry.best.figure.dataset, entry.best.figure.name), []).append(entry)
    for group in found.values():
        sign = -1 if group[0].best.figure.larger_is_better else 1
        group.sort(key=lambda entry: sign * entry.best.figure.value)
    return list(found.values())


def _remarks(group: Sequence[_Entry], ranking: Ranking) -> Iterator[str]:
    figure = group[0].best.figure
    best, where = group[0].report.name, f" on {figure.dataset}" if figure.dataset else ""
    near = [group[p].report.name for p, d in ranking.against_best.items() if d.p_adjusted >= SIGNIFICANT]
    apart = len(ranking.against_best) - len(near)
    if ranking.against_best:
        one = next(iter(ranking.against_best.values()))
        by = figure.label if one.name == figure.name else f"{one.name.replace('_', ' ')} of single rows"
        yield (
            f"By {by}{where}, {_not_told_apart(best, near, apart)}. Tested in pairs on the rows that both "
            f"answered ({one.test}), p-values after Holm over {ranking.tests} "
            f"test{'s' if ranking.tests > 1 else ''}."
        )
        yield (
            "Each run stands at the step that was best on this very set, which flatters all of them; "
            "a set that chose nothing is the fairer judge."
        )
    reasons = list(dict.fromkeys(ranking.not_tested.values()))
    if reasons:
        untested = ", ".join(group[place].report.name for place in ranking.not_tested)
        yield f"Not tested against {best} by {figure.label}{where}: {untested}, since {'; '.join(reasons)}."


def _not_told_apart(best: str, near: Sequence[str], apart: int) -> str:
    if not near:
        return f"{best} is better than every other run that could be tested"
    told = f"; {apart} other{'s lie' if apart > 1 else ' lies'} below it" if apart else ""
    return f"{best} cannot be told apart from {', '.join(near)}{told}"


def _loss_against_metric(group: Sequence[_Entry], ranking: Ranking) -> Iterator[str | Finding]:
    figure = group[0].best.figure
    if figure.name in {"loss", "perplexity"}:
        return
    ranked = [
        Ranked(
            name=entry.report.name,
            value=entry.best.figure.value,
            loss=next((one.value for one in entry.best.beside if one.name == "loss"), None),
            against_best=ranking.against_best.get(place),
            source=entry.best.figure.source,
        )
        for place, entry in enumerate(group)
    ]
    yield from over_runs(ranked, figure.label, larger_is_better=figure.larger_is_better)


def _row(run: RunReport, best: Best | None, ranking: Ranking | None, place: int) -> dict[str, Any]:
    figure = best.figure if best else None
    interval = figure.interval if figure else None
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
        "loss": next((one.value for one in best.beside if one.name == "loss"), None) if best else None,
        **_standing(ranking, place),
        "seconds": fact(run.facts, "Training time").value,
        "gpu_hours": fact(run.facts, "GPU hours").value,
        "samples_per_second": fact(run.facts, "Speed").value,
        "tokens_per_second": fact(run.facts, "Tokens per second").value,
        "findings": len([finding for finding in run.findings if finding.level != "note"]),
    }


def _standing(ranking: Ranking | None, place: int) -> dict[str, Any]:
    """Where a run stands against the best: its letters, and in words."""
    if ranking is None:
        words = "no other run was measured by this figure"
        return {"group": None, "p_value": None, "difference": None, "verdict": None, "standing": words}
    found = ranking.against_best.get(place)
    if place == 0:
        words = "best"
    elif found is None:
        words = f"not tested: {ranking.not_tested[place]}"
    else:
        verdict = {"not distinguishable": "not told apart", "better": "better on the rows that both have"}
        words = verdict.get(found.verdict, found.verdict)
        words += f": {signed(found.difference)}, p {p_value(found.p_adjusted)}"
    return {
        "group": ranking.letters.get(place),
        "p_value": found.p_adjusted if found else None,
        "difference": found.difference if found else None,
        "verdict": found.verdict if found else None,
        "standing": words,
    }
