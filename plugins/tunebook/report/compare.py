"""Puts several runs side by side: ranked by each figure, tested in pairs, and where their set-ups differ."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.checks.names import twins
from tunebook.comparison.disagreements import AnswerTexts, disagreements_of, flips_of, read_texts
from tunebook.comparison.figures import SIGNIFICANT
from tunebook.comparison.rows import Columns
from tunebook.report.agreement import RankedRun, over_runs
from tunebook.report.facts import fact
from tunebook.report.objective import objective_of
from tunebook.report.records import Best, Difference, RunComparison, RunDisagreements, RunFinding, RunReport
from tunebook.report.significance import Pairing, TestedRanking, answers_of, rank_runs
from tunebook.text import p_value, signed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tunebook.report.lines import Curves
    from tunebook.report.records import MeasuredFigure, RunReport
    from tunebook.report.significance import Answers, TestedRanking
    from tunebook.runlog import RunLog


class _Entry(NamedTuple):
    """A run's best evaluation on one dataset."""

    report: RunReport
    best: Best
    answers: Answers
    run: RunLog

    @property
    def same(self) -> Same:
        return same_of(self.report, self.best, self.run, ours=bool(self.answers.metrics))


class Same(NamedTuple):
    """What two figures are the same in, or not; None where it does not matter."""

    figure: str
    dataset: str
    """`` where no file names the set."""
    model: str | None
    objective: str | None

    def why_apart(self, other: Same) -> str | None:
        """Why the two are not to be ranked; None where they may be."""
        if self.figure != other.figure:
            return "they were measured by different figures"
        if not self.dataset or not other.dataset:
            return "no file names the set that they were evaluated on"
        if self.dataset != other.dataset:
            return "they were measured on different sets"
        if self.objective != other.objective:
            names = " and ".join(one.objective or "language modelling" for one in (self, other))
            return f"their objectives differ ({names})"
        if self.model != other.model:
            return "losses of different base models do not compare"
        return (
            "no file names the base model, and losses of different ones do not compare"
            if self.model == ""
            else None
        )


def same_of(report: RunReport, best: Best, run: RunLog, *, ours: bool) -> Same:
    """What has to be equal for two figures to be ranked.

    Args:
        report: The run.
        best: Its figure.
        run: As read.
        ours: Whether our metrics made the figure: they read answers alone.
    """
    figure = best.figure
    is_loss = figure.name == "perplexity" or figure.name.endswith("loss")
    return Same(
        figure=figure.name,
        dataset=figure.dataset or evaluated_set(run.settings),
        # A loss counts tokens, which each model cuts otherwise.
        model=(report.model or "").rsplit("/", 1)[-1] if is_loss else None,
        objective=None if ours else objective_of(run).name,
    )


def evaluated_set(settings: Mapping[str, Any]) -> str:
    """What names the set that an engine evaluated without a name; `` where the settings do not."""
    for key in ("eval_dataset", "test_datasets"):
        if settings.get(key):
            return _text(settings[key])
    held_out = settings.get("val_size") or settings.get("val_set_size")
    data = settings.get("dataset") or settings.get("datasets")
    return f"{_text(held_out)} of {_text(data)}, seed {settings.get('seed', 42)}" if held_out and data else ""


def compare_runs(runs: Sequence[RunReport], curves: Sequence[Curves]) -> RunComparison:
    """The comparison of at least two runs.

    Runs that share a figure and a dataset are ranked by it, the best first, and tested in pairs.

    Args:
        runs: As reported.
        curves: The same runs as read, in the same order.
    """
    pairing = Pairing()
    entries = [
        _Entry(report, best, _answers(curve, best), curve.run)
        for report, curve in zip(runs, curves, strict=True)
        for best in report.best
    ]
    rows: list[dict[str, Any]] = []
    remarks: list[str] = []
    findings: list[RunFinding] = []
    apart: list[RunDisagreements] = []
    groups = _groups(entries)
    for number, group in enumerate(groups):
        ranking = rank_runs([entry.answers for entry in group], pairing) if len(group) > 1 else None
        alone = _why_alone(group[0], entries) if ranking is None else None
        rows += [
            _row(entry.report, entry.best, ranking, place) | {"ranked_with": number} | (alone or {})
            for place, entry in enumerate(group)
        ]
        if ranking is None:
            continue
        remarks += _remarks(group, ranking)
        for said in _loss_against_metric(group, ranking):
            if isinstance(said, RunFinding):
                findings.append(said)
            else:
                remarks.append(said)
        apart += disagreements([entry.answers for entry in group], group[0].best.figure, ranking)
    rows += [_row(run, None, None, 0) | {"ranked_with": None} for run in runs if not run.best]
    return RunComparison(
        rows=tuple(rows),
        common=_common(rows),
        differences=different_settings(runs),
        environment=different_environments(runs),
        remarks=tuple(remarks),
        findings=tuple(findings),
        disagreements=tuple(apart),
        not_ranked=tuple(dict.fromkeys(_why_apart([group[0] for group in groups]))),
        settings_in_part=tuple(run.name for run in runs if run.recipe_text is None),
    )


def _common(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What is the same in every row, so that it need not be said in each."""
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
    """Entries that may be ranked, the best first; groups in the order in which they appear."""
    found: list[list[_Entry]] = []
    for entry in entries:
        group = next((one for one in found if one[0].same.why_apart(entry.same) is None), None)
        if group is None:
            found.append([entry])
        else:
            group.append(entry)
    for group in found:
        sign = -1 if group[0].best.figure.larger_is_better else 1
        group.sort(key=lambda entry: sign * entry.best.figure.value)
    return found


def _why_apart(entries: Sequence[_Entry]) -> Iterator[str]:
    for place, one in enumerate(entries):
        for other in entries[place + 1 :]:
            if one.report.id != other.report.id and (why := one.same.why_apart(other.same)):
                yield why


def _why_alone(entry: _Entry, entries: Sequence[_Entry]) -> dict[str, str] | None:
    """In words, where another run has the figure and is not ranked with this one."""
    whys = [
        why
        for other in entries
        if other.report.id != entry.report.id
        and other.best.figure.name == entry.best.figure.name
        and (why := entry.same.why_apart(other.same))
    ]
    return {"standing": f"not ranked: {whys[0]}"} if whys else None


def _remarks(group: Sequence[_Entry], ranking: TestedRanking) -> Iterator[str]:
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
            "Each run is shown at the step that was best on this set, so all figures are a little too good; "
            "use a set that chose nothing to judge."
        )
    reasons = list(dict.fromkeys(ranking.not_tested.values()))
    if reasons:
        untested = ", ".join(group[place].report.name for place in ranking.not_tested)
        yield f"Not tested against {best} by {figure.label}{where}: {untested}, since {'; '.join(reasons)}."


def _not_told_apart(best: str, near: Sequence[str], apart: int) -> str:
    if not near:
        return f"{best} is better than every other run that could be tested"
    below = f"; {apart} other{'s lie' if apart > 1 else ' lies'} below it" if apart else ""
    return f"{best} is not distinguishable from {', '.join(near)}{below}"


def _loss_against_metric(group: Sequence[_Entry], ranking: TestedRanking) -> Iterator[str | RunFinding]:
    figure = group[0].best.figure
    if figure.name in {"loss", "perplexity"}:
        return
    ranked = [
        RankedRun(
            name=entry.report.name,
            value=entry.best.figure.value,
            loss=next((one.value for one in entry.best.beside if one.name == "loss"), None),
            against_best=ranking.against_best.get(place),
            source=entry.best.figure.source,
        )
        for place, entry in enumerate(group)
    ]
    yield from over_runs(ranked, figure.label, larger_is_better=figure.larger_is_better)


def _row(run: RunReport, best: Best | None, ranking: TestedRanking | None, place: int) -> dict[str, Any]:
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


def _standing(ranking: TestedRanking | None, place: int) -> dict[str, Any]:
    """How a run compares with the best: its letters, and in words."""
    if ranking is None:
        words = "no other run was measured by this figure"
        return {"group": None, "p_value": None, "difference": None, "verdict": None, "standing": words}
    found = ranking.against_best.get(place)
    if place == 0:
        words = "best"
    elif found is None:
        words = f"not tested: {ranking.not_tested[place]}"
    else:
        verdict = {"better": "better on the rows that both have"}
        words = verdict.get(found.verdict, found.verdict)
        words += f": {signed(found.difference)}, p {p_value(found.p_adjusted)}"
    return {
        "group": ranking.letters.get(place),
        "p_value": found.p_adjusted if found else None,
        "difference": found.difference if found else None,
        "verdict": found.verdict if found else None,
        "standing": words,
    }


# Where the set-ups of several runs differ: settings of their recipes, environments, data.

# Differ between any two runs and say nothing about them.
_NOT_COMPARED = frozenset({"output_dir", "run_name", "wandb_name", "logging_dir", "overwrite_output_dir"})

# Beside the keys that `check` knows for one another: ours, and what the engines call their processes.
_TWINS = (
    *twins(),
    ("dataset_dir", "tunebook_dataset_dir"),
    ("preprocessing_num_workers", "dataset_num_proc"),
)
_SPELT_TWICE = {key: ", ".join(twin) for twin in _TWINS for key in twin}


def different_settings(runs: Sequence[RunReport]) -> tuple[Difference, ...]:
    """The settings in which the runs differ; of runs of both engines, under the names of both."""
    names = _SPELT_TWICE if len({run.engine for run in runs if run.engine}) > 1 else {}
    tables = {
        run.id: {
            names.get(setting.key, setting.key): _text(setting.value)
            for setting in run.settings
            if setting.key not in _NOT_COMPARED
        }
        for run in runs
    }
    found = []
    for key in dict.fromkeys(key for table in tables.values() for key in table):
        # Without a recipe, a key that is not written down may have any value: it is left out.
        values = {
            run.id: tables[run.id].get(key)
            for run in runs
            if key in tables[run.id] or run.recipe_text is not None
        }
        if len(set(values.values())) > 1:
            found.append(Difference(key=key, values=values))
    return tuple(found)


def different_environments(runs: Sequence[RunReport]) -> tuple[Difference, ...]:
    """Versions, machine, commit and data in which the runs that wrote them down differ."""
    tables = {run.id: _environment(run.provenance) for run in runs if run.provenance}
    found = []
    for key in dict.fromkeys(key for table in tables.values() for key in table):
        values = {run: table.get(key) for run, table in tables.items()}
        # Data that only one of them used is shown with the settings.
        if key.startswith("data "):
            values = {run: value for run, value in values.items() if value is not None}
        if len(set(values.values())) > 1:
            found.append(Difference(key=key, values=values))
    return tuple(found)


def _environment(provenance: Mapping[str, Any]) -> dict[str, str]:
    git = provenance["git"]
    commit = f"{str(git['commit'])[:12]}{' with changes' if git['dirty'] else ''}" if git else None
    gpus = provenance["gpus"]
    found = {
        "host": provenance["host"],
        "GPUs": None if gpus is None else ", ".join(gpus) or "none",
        "git commit": commit,
        **{f"version of {name}": version for name, version in provenance["versions"].items()},
        **{
            f"data {name}": f"sha256 {facts['sha256'][:12]}"
            for name, facts in provenance["datasets"].items()
            if isinstance(facts["sha256"], str)
        },
    }
    return {key: value for key, value in found.items() if value is not None}


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # one engine's recipe says 3.0, the other's 3
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


# Rows on which the best run and another one disagree, as examples.

PAIRS = 3
"""Runs that are shown against the best, those nearest to it."""
EACH_WAY = 4
"""Examples of either direction."""


def disagreements(
    answers: Sequence[Answers], figure: MeasuredFigure, ranking: TestedRanking
) -> Iterator[RunDisagreements]:
    """The rows that the best run and those next to it answered differently well.

    Args:
        answers: Ranked, the best first.
        figure: What they are ranked by.
        ranking: The tests against the best.
    """
    for place, outcome in list(ranking.outcomes.items())[:PAIRS]:
        assert outcome.difference is not None
        assert outcome.verdicts is not None
        assert outcome.metric is not None
        by = outcome.difference.name
        if by not in outcome.verdicts.first:  # macro-F1 and its like: rows are right or wrong
            by = next((name for name in outcome.metric.names if name in outcome.verdicts.first), "")
        if not by:
            continue
        larger = by not in outcome.metric.smaller_is_better
        flips = flips_of(outcome.verdicts, by, larger_is_better=larger)
        shown = [*flips.worse[:EACH_WAY].tolist(), *flips.better[:EACH_WAY].tolist()]
        first, second = (_told(answers[at], set(shown)) for at in (0, place))
        yield RunDisagreements(
            first=answers[0].name,
            second=answers[place].name,
            dataset=figure.dataset,
            figure=by,
            n=len(outcome.verdicts.index),
            only_first=len(flips.worse),
            only_second=len(flips.better),
            examples=disagreements_of(
                shown, set(flips.better.tolist()), first, second, outcome.metric, by, recorded=True
            ),
        )


def _told(answers: Answers, wanted: set[int]) -> AnswerTexts:
    assert answers.path is not None
    return AnswerTexts(answers.path, read_texts(answers.path, Columns(), None, wanted))
