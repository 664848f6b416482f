"""`tunebook report`: the files of runs, as one report."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.report.records import Report
    from tunebook.report.watch import ReadRuns

_SILENT = 3600
"""A run that shows no state and has written nothing for so many seconds is taken as ended."""


@click.command("report")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--all", "all_runs", is_flag=True, help="One page of all runs below a folder, by default output/."
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for report.json, report.md and report.html; an older report in it is replaced. With --all: "
    "for index.html and the runs' pages.",
)
@click.option(
    "--template",
    "templates",
    multiple=True,
    type=click.Choice(["study", "slides"]),
    help="Also write study.md or slides.md: an outline with the measured numbers. May be repeated.",
)
@click.option("--watch", is_flag=True, help="Make it again until all runs have ended, or Ctrl-C.")
@click.option(
    "--every",
    type=click.FloatRange(min=1),
    default=30.0,
    metavar="SECONDS",
    show_default=True,
    help="With --watch: how often the runs are looked at.",
)
@click.option(
    "--evals",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of results of `tunebook eval`; eval_results in a run or beside it is found without.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def report(
    runs: tuple[Path, ...],
    output: Path,
    *,
    all_runs: bool,
    templates: tuple[str, ...],
    watch: bool,
    every: float,
    evals: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Report runs as report.json, report.md and report.html.

    A run is the output_dir of LLaMA-Factory or Axolotl, with or without tunebook in its training. Several
    runs are compared in one report.

    \b
    Example:
      tunebook report output/demo/lora -o reports/demo
      tunebook report output/lora output/full -o reports/methods --template study --template slides
      tunebook report output/demo/lora -o reports/demo --watch
      tunebook report --all output -o reports
    """
    if all_runs:
        _report_all(runs, output, every if watch else None, refused=[*templates, *evals], as_json=as_json)
        return
    if not runs:
        raise click.UsageError("Missing argument 'RUNS...': name a run, or give --all.")
    from tunebook.report.data import gather
    from tunebook.report.render import render, render_outlines, write_report

    if watch and evals:
        raise TunebookError(
            "--watch follows runs and not folders of results",
            fix="leave --evals out: eval_results in a run or beside it is found without",
        )
    if watch:
        gathered = _watch(runs, output, every, templates, quiet=as_json)
    else:
        gathered = gather(runs, evals=evals)
        write_report(render(gathered) | render_outlines(gathered, templates), output)
    if as_json:
        click.echo(_outcome(gathered, output, templates))
    else:
        _say(gathered, output, templates)


def _report_all(
    folders: Sequence[Path], output: Path, every: float | None, *, refused: Sequence[object], as_json: bool
) -> None:
    """The page of all runs, once or until Ctrl-C: new ones may begin at any time."""
    from tunebook.progress import count_progress
    from tunebook.report.index import MARK, PAGE, Index

    if refused or len(folders) > 1:
        raise TunebookError(
            "--all takes one folder, and neither --template nor --evals",
            fix="name one folder that holds the runs; make reports of some of them without --all",
        )
    root = folders[0] if folders else Path("output")
    if not root.is_dir():
        raise TunebookError(f"there is no folder {root}", fix="name a folder below which runs lie")
    index = Index(root, output)
    with count_progress("reading runs") as index.advance:
        found = index.look(every=every)
    index.advance = lambda *_: None
    with suppress(KeyboardInterrupt):
        while every is not None:
            if not as_json:
                said = f"{len(found.rows)} runs, {found.read} read; {output / PAGE}"
                click.echo(f"{_clock()} {said}", err=True)
            time.sleep(every)
            found = index.look(every=every)
    if every is not None:
        found = index.look()
    broken = [row for row in found.rows if row.state == "cannot be read"]
    if as_json:
        told = {
            "html": str(output / PAGE),
            "json": str(output / MARK),
            "runs": len(found.rows),
            "read": found.read,
            "broken": [{"name": row.name, "reason": row.detail} for row in broken],
        }
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    for row in broken:
        click.echo(f"warning: {row.name} cannot be read: {row.detail}", err=True)
    click.echo(
        f"{len(found.rows)} runs below {root}, of which {found.read} were read and the others unchanged"
    )
    click.echo(f"wrote {output / PAGE}, and {MARK} beside it")


def _watch(
    runs: Sequence[Path], output: Path, every: float, templates: Sequence[str], *, quiet: bool
) -> Report:
    from tunebook.report.watch import Watch

    for run in runs:
        if not run.exists():
            raise TunebookError(
                f"there is no file or folder {run}",
                fix="name the output_dir of a run; its folder must be there, its numbers need not yet",
            )
    watched = Watch(runs, output, every=every, templates=templates, is_going=_is_going)
    try:
        while going := watched.look():
            if not quiet:
                click.echo(f"{_clock()} {_outlook(watched.read, going, output)}", err=True)
            time.sleep(every)
    except KeyboardInterrupt:
        last = watched.give_up()
        if last is None:
            raise TunebookError(
                "no report was made, since no run has logged anything yet",
                fix="start it again later; `tunebook status` shows what the runs are doing",
            ) from None
        click.echo(f"stopped; {output} holds the last report, and the runs go on", err=True)
        return last
    return watched.finish()


def _outlook(read: ReadRuns, going: Sequence[Path], output: Path) -> str:
    on = f"{len(going)} run{'' if len(going) == 1 else 's'} going on"
    if read.report is None:
        return f"{on}, nothing logged yet"
    waiting = f", {len(read.unread)} without a number yet" if read.unread else ""
    return f"{on}{waiting}; {output / 'report.html'} has the numbers of {read.report.made_at[11:19]} UTC"


def _clock() -> str:
    return datetime.now(UTC).strftime("%H:%M:%S UTC")


def _is_going(run: Path) -> bool:
    """Whether a run may still write something: by its process, else by what its engine leaves at the end."""
    from tunebook.runs import live

    try:
        state = live.read_state(run)
    except TunebookError:
        # A single log, or a run of plain Axolotl: only its silence shows that it has ended.
        return _seconds_silent(run) < _SILENT
    if state.life != "unknown":
        return state.life == "running"
    return not (run / "train_results.json").is_file() and _seconds_silent(run) < _SILENT


def _seconds_silent(run: Path) -> float:
    newest = 0.0
    for path in (run, *run.rglob("*")):
        with suppress(OSError):  # gone since it was listed: checkpoints are rotated
            newest = max(newest, path.stat().st_mtime)
    return time.time() - newest


def _say(gathered: Report, output: Path, templates: Sequence[str]) -> None:
    """The headline, what a user should look at, and where the report is."""
    from tunebook.redact import redact_text
    from tunebook.report.render import OUTLINES

    click.echo(redact_text(gathered.headline))
    for run in gathered.runs:
        for finding in run.findings:
            if finding.level != "note":
                where = f"{run.name}: " if len(gathered.runs) > 1 else ""
                click.echo(redact_text(f"{finding.level}: {where}{finding.title}: {finding.evidence}"))
    beside = ["report.md", *(OUTLINES[name] for name in dict.fromkeys(templates)), "report.json"]
    click.echo(f"wrote {output / 'report.html'}, {', '.join(beside[:-1])} and {beside[-1]} beside it")


def _outcome(gathered: Report, output: Path, templates: Sequence[str]) -> str:
    from tunebook.redact import redact
    from tunebook.report.render import OUTLINES

    outcome = {
        "format": gathered.format,
        "headline": gathered.headline,
        "html": str(output / "report.html"),
        "markdown": str(output / "report.md"),
        "json": str(output / "report.json"),
        **{name: str(output / OUTLINES[name]) for name in templates},
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
