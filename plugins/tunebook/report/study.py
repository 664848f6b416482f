"""The study: what was asked, set up, measured, and what the numbers say, as Markdown."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tunebook.redact import redact
from tunebook.report import study_opening as opening
from tunebook.report import study_setup as setup
from tunebook.report import study_tables as tables
from tunebook.report.render import duration, environment
from tunebook.report.study_contrasts import contrasts
from tunebook.report.study_discussion import against_baselines, between_runs, warnings
from tunebook.report.study_limits import limits, not_measured, widths
from tunebook.report.study_losses import loss_and_metric
from tunebook.report.study_records import Commands, Picture, Study, Topic
from tunebook.report.study_results import method_of, number_of, results_of
from tunebook.report.study_words import listed, optional

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.report.records import Report, RunReport

TEMPLATES = {"study": "study.md", "slides": "slides.md"}
"""What `--template` takes, and the file that it makes."""


_PICTURES = 8
"""Those that a reader asks for first; `report.md` shows all."""


def render_templates(report: Report, wanted: Sequence[str]) -> dict[str, bytes]:
    """The files of the wanted templates by name; they show the pictures that lie beside `report.md`.

    Args:
        report: What was gathered of the runs.
        wanted: Keys of `TEMPLATES`.
    """
    data = redact(asdict(study_of(report)))
    return {TEMPLATES[name]: _rendered(f"{TEMPLATES[name]}.j2", data) for name in dict.fromkeys(wanted)}


def _rendered(template: str, data: Mapping[str, Any]) -> bytes:
    text = environment().get_template(template).render(study=data)
    return re.sub(r"\n{3,}", "\n\n", text).encode()


def study_of(report: Report) -> Study:
    """Say what the report's numbers support, and of the rest that it was not measured."""
    runs, results = report.runs, results_of(report)
    settings = setup.settings_tables(runs)
    baselines, between = against_baselines(results), between_runs(results)
    topics = [
        Topic("Against the baselines", tuple(baselines)),
        Topic("Between the runs", tuple(between)),
        *(Topic(f"By {contrast.axis}", tuple(contrast.sentences)) for contrast in contrasts(results)),
        Topic("Loss and task metric", tuple(loss_and_metric(results, runs))),
        Topic("Time and speed", tuple(_speed(runs))),
    ]
    discussion = tuple(topic for topic in topics if topic.sentences)
    again = ["tunebook", "report", *(run.path for run in runs), "--template", "study", "-o", "study"]
    return Study(
        title=opening.title(runs),
        made_by=report.made_by,
        made_at=report.made_at,
        format=report.format,
        summary=tuple(opening.summary(report, results, between, list(widths(results)))),
        task=opening.task(runs),
        data=opening.data(runs, results),
        models=opening.known("model", [run.model for run in runs]),
        methods=opening.known("method", [method_of(run) for run in runs]),
        questions=tuple(opening.questions(runs, results, [topic.title for topic in discussion])),
        runs=setup.runs_table(runs),
        data_sets=setup.data_table(runs),
        shared=settings.shared,
        different=settings.different,
        how_answered=tuple(opening.how_answered(runs)),
        hardware=tuple(setup.hardware(runs)),
        versions=setup.versions_table(runs),
        results=tables.results_table(runs, results),
        costs=tables.costs_table(runs),
        expected=tables.expected_table(runs),
        pictures=tuple(
            Picture(chart.title, f"{chart.id}.png", chart.about)
            for chart in report.charts
            if not chart.secondary
        )[:_PICTURES],
        discussion=discussion,
        warnings=tuple(warnings(runs)),
        limits=tuple(limits(report, results)),
        not_measured=tuple(not_measured(report, results)),
        commands=tuple(_commands(run) for run in runs),
        again=shlex.join(again),
    )


def _speed(runs: Sequence[RunReport]) -> list[str]:
    known = []
    for run in runs:
        seconds, speed = number_of(run, "Training time"), number_of(run, "Speed")
        if seconds is not None:
            rate = "" if speed is None else f" ({optional(speed)} samples a second)"
            known.append(f"{run.name} {duration(seconds)}{rate}")
    if not known:
        return []
    return [
        f"Training took: {listed(known, limit=12)}.",
        "Each time was measured once, on a machine that may have had other work to do.",
    ]


def _commands(run: RunReport) -> Commands:
    """What started the run: with tunebook, and with the engine alone from the recipe in its folder."""
    provenance = run.provenance or {}
    recipe, lines = provenance.get("recipe"), []
    if recipe and recipe.get("name"):
        changes: list[str] = []
        for change in recipe["overlays"]:
            # Overlays and `key=value` overrides stand in one list, in the order in which they were merged.
            changes += [change] if "=" in change else ["-o", change]
        lines.append(shlex.join(["tunebook", "train", recipe["name"], *changes]))
    if provenance.get("command"):
        lines.append(shlex.join(provenance["command"]))
    return Commands(run.name, tuple(lines))
