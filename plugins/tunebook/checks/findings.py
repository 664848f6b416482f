"""What a check finds: where it is, which rule says so, and the step that ends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "hint"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "hint")
"""The gravest first. An error stops a run, or makes it another run than the one written down; a warning is
likely to; a hint is for information and leaves a file clean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A mechanical mend: one stretch of one line, replaced."""

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
    line: int | None
    """From 1; None where no line is at fault, as for a key that is missing."""
    key: str | None
    """Dotted, with list positions: `datasets[0].type`."""
    rule: str
    """Id of the rule; docs/check.md explains each."""
    severity: Severity
    message: str
    fix: str | None
    """The step that ends it; None for a hint that asks for none."""
    text: str | None = None
    """The line at fault, without its indentation."""
    edit: Edit | None = None
    """Where the mend is mechanical."""


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
        """The findings that stand in the way of a run."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    """Sort by line, those without a line last, the gravest of a line first."""
    return tuple(
        sorted(
            findings,
            key=lambda finding: (
                finding.severity == "hint" and finding.line is None,
                finding.line is None,
                finding.line or 0,
                SEVERITIES.index(finding.severity),
            ),
        )
    )
