"""`tunebook stop`: ends runs after a checkpoint; a run is known by pid and start time."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunebook.cli.parts import say
from tunebook.errors import TunebookError
from tunebook.launch import LAUNCHERS, load
from tunebook.launch.plan import FOLDER, RECORD
from tunebook.runlog.tolerant_json import read_object
from tunebook.runs import live, processes

if TYPE_CHECKING:
    from tunebook.runs.live import RunState

_INTERRUPT_SECONDS = 2 * processes.GRACE_SECONDS + 5
"""How long a run may take to end its processes once it is interrupted; see `processes.run`."""


@click.command("stop")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--now", is_flag=True, help="Interrupt at once; what was trained since the last checkpoint is lost."
)
@click.option(
    "--wait",
    type=click.FloatRange(min=1),
    default=600.0,
    metavar="SECONDS",
    show_default=True,
    help="How long the checkpoint may take before the run is interrupted.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be ended, and leave it.")
@click.pass_context
def stop(ctx: click.Context, runs: tuple[Path, ...], now: bool, wait: float, dry_run: bool) -> None:
    """Stop runs: each writes a checkpoint at its next step and ends.

    A run that does not answer in time is interrupted as by Ctrl-C. The command that started it goes on from
    the checkpoint. Exit status 1 if a run could not be ended.

    \b
    Example:
      tunebook stop output/demo/recommend
    """
    folders = [folder for run in runs for folder in _folders(run, now=now, dry_run=dry_run)]
    states = [live.read_state(folder) for folder in dict.fromkeys(folders)]
    running = [state for state in states if _is_here(state, now=now)]
    if dry_run:
        for state in running:
            click.echo(f"would stop {state.folder}: process {state.pid}")
        return
    for state in running:
        say(f"{state.folder}: {'interrupting' if now else 'asking for a checkpoint'} (process {state.pid})")
        _signal(state, signal.SIGINT if now else signal.SIGUSR1)
    left = running if now else _wait(running, wait)
    if not now:
        for state in left:
            say(f"{state.folder}: has not answered in {wait:g} s; interrupting")
            _signal(state, signal.SIGINT)
    left = _wait(left, _INTERRUPT_SECONDS)
    for state in running:
        if state not in left:
            after, saved = live.read_state(state.folder), live.newest_checkpoint(state.folder)
            say(f"{state.folder}: {after.life} {after.detail}; last checkpoint: {saved or 'none'}")
    for state in left:
        say(f"{state.folder}: process {state.pid} is still there; end it with `kill -KILL {state.pid}`")
    unreachable = [
        state
        for state in states
        if state.life == "unknown" or (state.life == "running" and state not in running)
    ]
    ctx.exit(1 if left or unreachable else 0)


def _folders(run: Path, *, now: bool, dry_run: bool) -> list[Path]:
    """The runs at or below a folder; none where the launcher itself has stopped them."""
    record = _record(run)
    via = str(record.get("via"))
    said = load(via).stop(run, record, now=now, dry_run=dry_run) if via in LAUNCHERS else None
    if said is None:
        return live.find_runs(run) or [run]
    if dry_run:
        click.echo(said)
    else:
        say(said)
    return []


def _record(run: Path) -> dict[str, Any]:
    """How the launch below `run` was started; empty where `run` is no launch."""
    with suppress(OSError):
        return read_object(run / FOLDER / RECORD) or {}
    return {}


def _is_here(state: RunState, *, now: bool) -> bool:
    if state.life == "running" and state.by_engine and not now:
        # What asks a run of ours to save would end an engine at once.
        say(
            f"{state.folder}: was started by the engine's own command, which takes no requests; nothing was "
            f"done: interrupt it with `tunebook stop --now {state.folder}`"
        )
        return False
    if state.life == "running":
        return True
    if state.life == "unknown":
        where = f"tunebook stop {state.folder}" if state.detail.startswith("on ") else "its own terminal"
        say(f"{state.folder}: {state.detail}; nothing was done: end it there ({where})")
    else:
        say(f"{state.folder}: {state.life}, nothing to stop")
    return False


def _signal(state: RunState, number: signal.Signals) -> None:
    if state.pid is None:
        raise TunebookError(f"{state.folder}: its process is not known", fix="end it where it was started")
    # It may have ended since it was looked at; its pid is not reused within that moment.
    with suppress(ProcessLookupError):
        os.kill(state.pid, number)


def _wait(states: list[RunState], seconds: float) -> list[RunState]:
    """Wait for the end of these runs; returns those that have not ended."""
    deadline = time.monotonic() + seconds
    left = list(states)
    while left and time.monotonic() < deadline:
        time.sleep(0.2)
        left = [state for state in left if live.is_running(state.folder)]
    return left
