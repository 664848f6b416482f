"""Mends what is mechanical, and nothing else."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunebook import files
from tunebook.recipes import engine_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tunebook.checks.findings import Edit, Finding


class Change(NamedTuple):
    """A file as it was and as it is now."""

    file: str
    before: str
    after: str


def mend(findings: Iterable[Finding]) -> Iterator[Change]:
    """Write every file whose findings have edits, each at once and atomically; yield what changed.

    Raises:
        TunebookError: A file cannot be read.
    """
    edits: dict[str, list[Edit]] = {}
    for finding in findings:
        if finding.edit is not None:
            edits.setdefault(finding.file, []).append(finding.edit)
    for file, wanted in edits.items():
        before = engine_yaml.read_text(Path(file))
        after = edited(before, wanted)
        if after != before:
            files.write_atomic(Path(file), after)
            yield Change(file, before, after)


def edited(text: str, edits: Iterable[Edit]) -> str:
    """Return `text` with `edits` made; of two that overlap, the one further left."""
    lines = text.splitlines(keepends=True)
    done: dict[int, int] = {}
    # From the right, so that the columns of what is left of an edit stay true.
    for edit in sorted(set(edits), key=lambda edit: (edit.line, edit.start, edit.end), reverse=True):
        line = lines[edit.line - 1]
        if edit.end <= done.get(edit.line, len(line)):
            lines[edit.line - 1] = line[: edit.start] + edit.text + line[edit.end :]
            done[edit.line] = edit.start
    return "".join(lines)


def diff_of(change: Change) -> str:
    """Return a change as a unified diff."""
    return "".join(
        difflib.unified_diff(
            change.before.splitlines(keepends=True),
            change.after.splitlines(keepends=True),
            fromfile=change.file,
            tofile=f"{change.file} (mended)",
            n=0,
        )
    )
