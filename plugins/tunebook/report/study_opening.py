"""The opening of a study: its title, its summary, what was asked, and how answers were obtained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.report.study_results import comparable, distinct, method_of
from tunebook.report.study_setup import training_data
from tunebook.report.study_words import capital, counted, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.report.records import Report, RunReport
    from tunebook.report.study_results import Result

_TASKS = {
    "yes_no": "questions that are answered with Yes or No",
    "gsm8k": "word problems whose answer is a number",
    "rouge": "texts that are compared with a reference by ROUGE",
    "bleu": "texts that are compared with a reference by BLEU",
    "chrf": "texts that are compared with a reference by chrF",
    "perplexity": "texts whose every token is predicted",
}


def title(runs: Sequence[RunReport]) -> str:
    """The method, the model and the data, as far as they are known."""
    methods = distinct(method_of(run) for run in runs)
    models, data = distinct(run.model for run in runs), distinct(training_data(run) for run in runs)
    what = f"{listed(methods, limit=3)} fine-tuning" if methods else "fine-tuning"
    of = f" of {listed(models, limit=3)}" if models else ""
    if len(runs) > 1:
        return f"{len(runs)} runs compared: {what}{of}"
    return capital(f"{what}{of}{f' on {data[0]}' if data else ''}")


def summary(
    report: Report, results: Sequence[Result], between: Sequence[str], bounds: Sequence[str]
) -> list[str]:
    """What was done and what came of it, in a few sentences.

    Args:
        report: The report of the runs.
        results: The results in it.
        between: What the figures say of the runs against each other.
        bounds: How well the figures are known.
    """
    runs = report.runs
    if len(runs) == 1:
        said = [runs[0].headline]
    else:
        engines = distinct(run.engine for run in runs)
        by = f" with {listed(engines)}" if engines else ""
        sets = distinct(one.set_name for one in results)
        on = f", evaluated on {listed(sets)}" if sets else ""
        said = [
            f"{counted(len(runs), 'training run')}{by}{on}, are put side by side.",
            *between,
            *bounds,
        ]
    problems = sum(finding.level == "problem" for run in runs for finding in run.findings)
    if problems:
        said.append(f"{counted(problems, 'problem')} in the training itself stand under Warnings.")
    if not results:
        said.append("No evaluation was made, so that nothing is known of how good the outcome is.")
    return said


def task(runs: Sequence[RunReport]) -> str:
    """What the models had to do, by the metrics that were at work."""
    metrics = distinct(name for run in runs for row in run.evaluations for name in row.metrics)
    if not metrics:
        return "no task metric was at work; the evaluation tells the loss on held-out rows"
    known = [_TASKS[name] for name in metrics if name in _TASKS]
    others = [f"what the metric {name} measures" for name in metrics if name not in _TASKS]
    return listed([*known, *others])


def data(runs: Sequence[RunReport], results: Sequence[Result]) -> str:
    """What was trained and evaluated on."""
    trained = known("training data", [training_data(run) for run in runs])
    sets = distinct(one.figure.dataset for one in results)
    evaluated = f"evaluated on {listed(sets)}" if sets else "the evaluation set is named in no file"
    return f"trained on {trained}; {evaluated if results else 'never evaluated'}"


def known(what: str, values: Sequence[str | None]) -> str:
    """The distinct values, and of how many runs none is known."""
    found = distinct(values)
    missing = sum(value is None for value in values)
    if not found:
        return f"{what} not written down"
    return listed(found) + (f" ({what} of {counted(missing, 'run')} not written down)" if missing else "")


def questions(runs: Sequence[RunReport], results: Sequence[Result], topics: Sequence[str]) -> list[str]:
    """The questions that these runs can answer."""
    asked = []
    if results:
        asked.append("How good is the outcome, how sure is that, and is it better than doing without?")
    if any(len(group) > 1 for group in comparable(results)):
        asked.append("Which of the runs can be told apart, and which is better?")
    asked += [
        f"What does another {topic.removeprefix('By ')} change?"
        for topic in topics
        if topic.startswith("By ")
    ]
    if "Loss and task metric" in topics:
        asked.append("Does the evaluation loss tell which model answers better?")
    asked.append(
        "What did the training take in time?" if len(runs) == 1 else "What did each training take in time?"
    )
    return asked


_MODES = {
    "answer": "read from one forward pass, at the places of the reference; for an answer that is the first "
    "thing said, as here, greedy decoding gives the same",
    "generate": "generated greedily",
}


def how_answered(runs: Sequence[RunReport]) -> list[str]:
    """How answers were obtained and the reported step was chosen."""
    found = []
    modes: dict[tuple[str, str], None] = {}
    for run in runs:
        for row in run.evaluations:
            if row.metrics and row.mode in _MODES:
                modes[row.dataset, row.mode] = None
    for dataset, mode in modes:
        found.append(f"Answers on {dataset} were {_MODES[mode]}.")
    chosen = distinct(best.chosen_by for run in runs for best in run.best)
    if chosen:
        found.append(f"The step of a run that is reported is its best by {listed(chosen)}.")
    return found
