"""What a check finds: where it is, which rule says so, and the step that fixes it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from tunebook import files
from tunebook.recipes import engine_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


Severity = Literal["error", "warning", "hint"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "hint")
"""The gravest first. An error stops a run, or makes it another run than the one written down; a warning is
likely to; a hint is for information and leaves a file clean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A mechanical fix: one part of one line, replaced."""

    line: int
    """From 1."""
    start: int
    """Column of the first character replaced, from 0."""
    end: int
    """Column after the last one."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fault, or one thing worth knowing, of one file."""

    file: str
    """Path as the user gave it; `command line` for a `key=value` override."""
    line: int | None = None
    """From 1; None where no line is at fault, as for a key that is missing."""
    key: str | None = None
    """Dotted, with list positions: `datasets[0].type`."""
    rule: str
    """Id of the rule; docs/check.md explains each."""
    severity: Severity = "error"
    message: str
    fix: str | None
    """The step that fixes it; None for a hint that asks for none."""
    text: str | None = None
    """The line at fault, without its indentation."""
    edit: Edit | None = None
    """Where the fix is mechanical."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """All findings of one file, in order of lines."""

    name: str
    """The recipe's name or the file's path."""
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether there is nothing but hints."""
        return all(finding.severity == "hint" for finding in self.findings)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop a run."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    """Sort by line, those without a line last, the gravest of a line first."""

    def place(finding: Finding) -> tuple[bool, bool, int, int]:
        nowhere = finding.line is None
        grave = SEVERITIES.index(finding.severity)
        return finding.severity == "hint" and nowhere, nowhere, finding.line or 0, grave

    return tuple(sorted(findings, key=place))


# Makes the mechanical fixes, and no others.


class Change(NamedTuple):
    """A file as it was and as it is now."""

    file: str
    before: str
    after: str


def apply_edits(findings: Iterable[Finding]) -> Iterator[Change]:
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
            tofile=f"{change.file} (fixed)",
            n=0,
        )
    )
