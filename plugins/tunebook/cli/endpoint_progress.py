"""Shows how far the questions to a server are."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tunebook.evaluation.endpoint_run import Progress

_LINE_SECONDS = 10.0


@contextmanager
def progress() -> Iterator[Callable[[Progress], None]]:
    """Show how far it is: a bar with rate and time left in a terminal, now and then a line elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    began: dict[str, float] = {}
    told = time.monotonic()

    def rate(now: Progress) -> float:
        seconds = time.monotonic() - began.setdefault(now.dataset, time.monotonic())
        return (now.done - now.kept) / seconds if seconds > 0 else 0.0

    def line(now: Progress) -> None:
        nonlocal told
        speed = rate(now)
        if time.monotonic() - told < _LINE_SECONDS or not speed:
            return
        told = time.monotonic()
        left = (now.total - now.done - now.failed) / speed
        failed = f", {now.failed} without an answer" if now.failed else ""
        say(
            f"{now.dataset}: {now.done} of {now.total} rows{failed}, {speed:.1f} a second, "
            f"about {left:.0f} s left"
        )

    if not console.is_terminal:
        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    tasks: dict[str, Any] = {}
    with Bar(*columns, console=console, transient=True) as bar:

        def move(now: Progress) -> None:
            if now.dataset not in tasks:
                tasks[now.dataset] = bar.add_task(now.dataset, total=now.total, completed=now.kept, rate="")
            failed = f", {now.failed} failed" if now.failed else ""
            bar.update(
                tasks[now.dataset],
                completed=now.done + now.failed,
                rate=f"{rate(now):.1f} rows/s{failed}",
            )

        yield move


def say(line: str) -> None:
    """Print a line on stderr."""
    click.echo(f"tunebook: {line}", err=True)
