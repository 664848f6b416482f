"""Progress bars on stderr, where that is a terminal."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO


@contextmanager
def byte_progress(
    label: str, total: int | None, *, to: TextIO | None = None
) -> Iterator[Callable[[int], None]]:
    """Show a bar, and yield the function that takes how many bytes have been read so far.

    Args:
        label: What is being done, e.g. `checking`.
        total: Bytes in all; None where that is not known.
        to: Where to show it; None for stderr.
    """
    with progress_bar(to) as progress:
        task = progress.add_task(label, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def count_progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of things done on stderr, and yield the function that takes how many of how many are."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def progress_bar(to: TextIO | None = None) -> Progress:
    """Return a bar whose tasks count bytes and are called by their descriptions."""
    console = Console(file=to, stderr=to is None, highlight=False)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
