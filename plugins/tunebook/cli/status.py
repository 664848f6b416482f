"""`tunebook status`: the state of runs, once or until they end."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunebook.errors import TunebookError
from tunebook.runs import live

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

_OUTPUT = Path("output")


@click.command("status")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--watch", is_flag=True, help="Draw the table again until every run has ended, or Ctrl-C.")
@click.option("--interval", type=click.FloatRange(min=0.2), default=2.0, metavar="SECONDS", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON list on stdout.")
def status(runs: tuple[Path, ...], watch: bool, interval: float, as_json: bool) -> None:
    """Show the state of runs: step, loss, metrics, speed, time left.

    RUNS are run folders, or folders that hold some; without any, those below output/. What is shown comes
    from the files of a run and from its process, known by pid and start time.

    \b
    Example:
      tunebook status output/demo/recommend --watch
    """
    folders = _folders(runs)
    if as_json:
        states = [live.read_state(folder) for folder in folders]
        click.echo(json.dumps([_plain(state) for state in states], indent=2))
        return
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 200
    if not watch:
        console.print(_table([live.read_state(folder) for folder in folders]))
        return
    _watch(console, runs, interval)


def _watch(console: Any, runs: tuple[Path, ...], interval: float) -> None:
    from rich.live import Live

    states = [live.read_state(folder) for folder in _folders(runs)]
    with Live(_table(states), console=console, auto_refresh=False) as screen:
        while any(state.life in ("running", "unknown") for state in states):
            time.sleep(interval)
            # Looked for again: a launch makes its nodes' folders one after the other.
            states = [live.read_state(folder) for folder in _folders(runs)]
            screen.update(_table(states), refresh=True)


def _folders(runs: tuple[Path, ...]) -> list[Path]:
    folders: list[Path] = []
    for root in runs or (_OUTPUT,):
        if not root.is_dir() and runs:
            raise TunebookError(f"there is no folder {root}", fix="name the output_dir of a run")
        found = live.find_runs(root)
        # An engine's own run has no mark of ours; the state says whether it is one.
        folders += found or ([root] if runs else [])
    if not folders:
        raise TunebookError("there are no runs below output/", fix="name the output_dir of a run")
    return list(dict.fromkeys(folders))


def _table(states: Sequence[live.RunState]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold")
    table.add_column("state")
    table.add_column("step", justify="right", no_wrap=True)
    table.add_column("loss", justify="right", no_wrap=True)
    table.add_column("last evaluation")
    table.add_column("speed", justify="right", no_wrap=True)
    table.add_column("left", justify="right", no_wrap=True)
    if any(state.gpus for state in states):
        table.add_column("GPU", justify="right")
    for state in states:
        cells = [
            str(state.folder),
            _state(state),
            _step(state),
            "" if state.loss is None else f"{state.loss:.4g}",
            _figures(state),
            _speed(state),
            "" if state.seconds_left is None else str(timedelta(seconds=round(state.seconds_left))),
        ]
        if len(table.columns) > len(cells):
            cells.append(_gpus(state))
        table.add_row(*cells)
    return table


_STYLES = {"running": "cyan", "finished": "green", "failed": "red", "killed": "red", "stopped": "yellow"}


def _state(state: live.RunState) -> str:
    words: str = state.life
    if state.life == "running":
        words = state.phase or "starting"
        if state.part:
            words += f" {state.part[0]}/{state.part[1]}"
    elif state.life == "unknown" and state.phase:
        words = f"{state.phase}?"
    if state.detail:
        words += f" ({state.detail})"
    if state.life == "unknown" and state.seconds_silent is not None:
        words += f", last written {_ago(state.seconds_silent)} ago"
    style = _STYLES.get(state.life)
    return f"[{style}]{words}[/]" if style else words


def _step(state: live.RunState) -> str:
    if state.step is None:
        return ""
    return f"{state.step}" + (f"/{state.total_steps}" if state.total_steps else "")


def _figures(state: live.RunState) -> str:
    name = next(iter(state.figures), None)
    return "" if name is None else f"{name} {state.figures[name]:.4g} at {state.figures_step}"


def _speed(state: live.RunState) -> str:
    parts = []
    if state.rows_per_second:
        parts.append(f"{state.rows_per_second:,.3g} rows/s")
    if state.tokens_per_second:
        parts.append(f"{state.tokens_per_second:,.0f} tokens/s")
    return "\n".join(parts)


def _gpus(state: live.RunState) -> str:
    lines = []
    for gpu in state.gpus:
        busy = "" if gpu.utilization is None else f" {gpu.utilization:.0f} %"
        held = gpu.run_mib if gpu.run_mib is not None else gpu.used_mib
        memory = (
            "" if held is None or not gpu.total_mib else f" {held / 1024:.1f}/{gpu.total_mib / 1024:.0f} GiB"
        )
        lines.append(f"{gpu.number}:{busy}{memory}")
    return "\n".join(lines)


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _plain(state: live.RunState) -> dict[str, Any]:
    plain = asdict(state)
    plain["folder"] = str(state.folder)
    plain["log"] = state.log and str(state.log)
    plain["checkpoint"] = live.newest_checkpoint(state.folder)
    plain["gpus"] = [gpu._asdict() for gpu in state.gpus]
    return plain
