"""`tunebook report`: what runs left behind, as one report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.report.records import Report


@click.command("report")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for report.json, report.md and report.html; an older report in it is replaced.",
)
@click.option(
    "--template",
    "templates",
    multiple=True,
    type=click.Choice(["study", "slides"]),
    help="Write study.md or slides.md as well, filled with what was measured. May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def report(runs: tuple[Path, ...], output: Path, *, templates: tuple[str, ...], as_json: bool) -> None:
    """Report runs as report.json, report.md and report.html.

    A run is the output_dir of LLaMA-Factory or Axolotl, with or without tunebook in its training. Several
    runs are compared in one report.

    \b
    Example:
      tunebook report output/demo/lora -o reports/demo
      tunebook report output/lora output/full -o reports/methods --template study --template slides
    """
    from tunebook.report.data import gather
    from tunebook.report.render import render, write_report
    from tunebook.report.study import TEMPLATES, render_templates

    gathered = gather(runs)
    write_report(render(gathered) | render_templates(gathered, templates), output)
    if as_json:
        click.echo(_outcome(gathered, output, templates))
        return
    _say(gathered)
    beside = ["report.md", *(TEMPLATES[name] for name in dict.fromkeys(templates)), "report.json"]
    click.echo(f"wrote {output / 'report.html'}, {', '.join(beside[:-1])} and {beside[-1]} beside it")


def _say(gathered: Report) -> None:
    """The headline and what a user should look at."""
    from tunebook.redact import redact_text

    click.echo(redact_text(gathered.headline))
    for run in gathered.runs:
        for finding in run.findings:
            if finding.level != "note":
                where = f"{run.name}: " if len(gathered.runs) > 1 else ""
                click.echo(redact_text(f"{finding.level}: {where}{finding.title}: {finding.evidence}"))


def _outcome(gathered: Report, output: Path, templates: Sequence[str]) -> str:
    from tunebook.redact import redact
    from tunebook.report.study import TEMPLATES

    outcome = {
        "format": gathered.format,
        "headline": gathered.headline,
        "html": str(output / "report.html"),
        "markdown": str(output / "report.md"),
        "json": str(output / "report.json"),
        **{name: str(output / TEMPLATES[name]) for name in templates},
        "runs": [
            {
                "name": run.name,
                "best": [
                    {
                        "dataset": best.figure.dataset,
                        "figure": best.figure.name,
                        "value": best.figure.value,
                        "step": best.figure.step,
                    }
                    for best in run.best
                ],
                "findings": [finding.title for finding in run.findings],
            }
            for run in gathered.runs
        ],
    }
    return json.dumps(redact(outcome), indent=2, ensure_ascii=False)
