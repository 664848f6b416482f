"""`tunebook report`: what runs left behind, as one report."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("report")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for report.json, report.md and report.html; an older report in it is replaced.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def report(runs: tuple[Path, ...], output: Path, *, as_json: bool) -> None:
    """Report runs as report.json, report.md and report.html.

    A run is the output_dir of LLaMA-Factory or Axolotl, with or without tunebook in its training. Several
    runs are compared in one report.

    \b
    Example:
      tunebook report output/demo/lora -o reports/demo
    """
    from tunebook.redact import redact, redact_text
    from tunebook.report.data import gather
    from tunebook.report.render import render, write_report

    gathered = gather(runs)
    write_report(render(gathered), output)
    if as_json:
        outcome = {
            "format": gathered.format,
            "headline": gathered.headline,
            "html": str(output / "report.html"),
            "markdown": str(output / "report.md"),
            "json": str(output / "report.json"),
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
        click.echo(json.dumps(redact(outcome), indent=2, ensure_ascii=False))
        return
    click.echo(redact_text(gathered.headline))
    for run in gathered.runs:
        for finding in run.findings:
            if finding.level != "note":
                where = f"{run.name}: " if len(gathered.runs) > 1 else ""
                click.echo(redact_text(f"{finding.level}: {where}{finding.title}: {finding.evidence}"))
    click.echo(f"wrote {output / 'report.html'}, report.md and report.json beside it")
