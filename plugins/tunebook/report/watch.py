"""Makes a report again and again while its runs go on."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunebook.errors import TunebookError
from tunebook.files import write_atomic
from tunebook.report.data import gather
from tunebook.report.records import Live
from tunebook.report.render import MARK, render, render_outlines, render_page, write_report
from tunebook.runlog import read_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tunebook.report.records import Report

PAGE = "report.html"
_SKIPPED = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
"""Weights, which no report reads."""


class ReadRuns(NamedTuple):
    """A report of the runs that have logged something, and the folders of those that have not."""

    report: Report | None
    readable: tuple[Path, ...]
    unread: tuple[Path, ...]


class Watch:
    """A report that is kept up to date.

    Args:
        runs: Run folders; they must exist, and need not have logged anything yet.
        output: The report's folder.
        every: Seconds between two looks, for the page to know.
        templates: Keys of `render.OUTLINES` to be written as well.
        is_going: Whether a run has not ended yet.
    """

    def __init__(
        self,
        runs: Sequence[Path],
        output: Path,
        *,
        every: float,
        templates: Sequence[str],
        is_going: Callable[[Path], bool],
    ) -> None:
        self.runs = runs
        self.output = output
        self.every = every
        self.templates = templates
        self.is_going = is_going
        self.read = ReadRuns(None, (), tuple(runs))
        self._seen: dict[str, tuple[int, int]] | None = None

    def look(self) -> tuple[Path, ...]:
        """Make the report again where a run has written something; else only renew the page's time.

        Returns:
            The runs that go on. Once it is empty, `finish` makes the last report.

        Raises:
            TunebookError: The report cannot be written.
        """
        going = tuple(run for run in self.runs if self.is_going(run))
        if not going:
            return ()
        seen = fingerprint(self.runs, without=self.output)
        changed = seen != self._seen
        if changed:
            self.read, self._seen = _read(self.runs), seen
        if self.read.report is not None:
            report = replace(self.read.report, live=self._live(self.read.report, going))
            files = self._files(report) if changed else {PAGE: render_page(report)}
            update_report(files, self.output, whole=changed)
        return going

    def finish(self) -> Report:
        """Make the last report, which is no longer marked as live.

        Raises:
            TunebookError: A run cannot be read, or the report cannot be written.
        """
        report = gather(self.runs)
        update_report(self._files(report), self.output, whole=True)
        return report

    def give_up(self) -> Report | None:
        """Take the live mark off the last report, without a look at the runs; None where there is none."""
        if self.read.report is not None:
            update_report(self._files(self.read.report), self.output, whole=True)
        return self.read.report

    def _live(self, report: Report, going: Sequence[Path]) -> Live:
        names = dict(zip(self.read.readable, (run.name for run in report.runs), strict=True))
        return Live(
            every=self.every,
            checked_at=datetime.now(UTC).isoformat(timespec="seconds"),
            going=tuple(names[run] for run in going if run in names),
            unread=tuple(run.name for run in self.read.unread),
        )

    def _files(self, report: Report) -> dict[str, bytes]:
        return render(report) | render_outlines(report, self.templates)


def _read(runs: Sequence[Path]) -> ReadRuns:
    """Gather the runs that can be read; one that has just begun has logged nothing yet."""
    with suppress(TunebookError):
        return ReadRuns(gather(runs), tuple(runs), ())
    readable = tuple(run for run in runs if _is_readable(run))
    unread = tuple(run for run in runs if run not in readable)
    return ReadRuns(gather(readable) if readable else None, readable, unread)


def _is_readable(run: Path) -> bool:
    try:
        read_run(run)
    except TunebookError:
        return False
    return True


def fingerprint(runs: Sequence[Path], *, without: Path) -> dict[str, tuple[int, int]]:
    """Time in ns and size of each file that a report could be read from, but for those in `without`."""
    found = {}
    for run in runs:
        for path in _files_below(run, without.resolve()):
            with suppress(OSError):  # gone since it was listed: checkpoints are rotated
                status = path.stat()
                found[str(path)] = (status.st_mtime_ns, status.st_size)
    return found


def _files_below(path: Path, without: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for folder, _, names in os.walk(path):
        here = Path(folder)
        if without not in (here.resolve(), *here.resolve().parents):
            yield from (here / name for name in names if not name.endswith(_SKIPPED))


def update_report(files: Mapping[str, bytes], folder: Path, *, whole: bool) -> None:
    """Bring a report's files up to date one by one, the page last.

    Unlike `write_report` it never takes the folder away, not even for a moment: a page that loads itself
    again must not find nothing, since nothing does not load itself again.

    Args:
        files: Contents by name.
        folder: The report's folder; where there is no report in it yet, `write_report` makes it.
        whole: `files` are all of the report: pictures of an older one are taken away.

    Raises:
        TunebookError: The folder holds something else, or cannot be written.
    """
    if not (folder / MARK).is_file():
        write_report(files, folder)
        return
    try:
        for name in sorted(files, key=lambda name: name == PAGE):
            path = folder / name
            if not path.is_file() or path.read_bytes() != files[name]:
                write_atomic(path, files[name])
        if whole:
            for path in folder.glob("*.png"):
                if path.name not in files:
                    path.unlink()
    except OSError as err:
        raise TunebookError(
            f"cannot write the report to {folder}: {err.strerror}",
            fix="make room, or name a folder with -o that you may write to",
        ) from err
