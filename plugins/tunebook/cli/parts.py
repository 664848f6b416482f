"""What several commands have: the option for overlays, lines for people on stderr, and findings in colour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import click

from tunebook.text import without_controls

overlay_option = click.option(
    "-o", "--overlay", "overlay_names", multiple=True, metavar="NAME|PATH", help="Merge an overlay in."
)

_COLOURS = {"error": "red", "warning": "yellow", "hint": "blue"}


def say(line: str) -> None:
    """Print a line for people, on stderr: stdout is for results."""
    click.echo(f"tunebook: {line}", err=True)


def print_finding(
    where: str, severity: str, rule: str, message: str, fix: str | None, *, below: str | None = None
) -> None:
    """Print a finding: where and what, the text or the rows at fault, and the fix."""
    shown = click.style(severity, fg=_COLOURS[severity], bold=True)
    click.echo(f"{without_controls(where)}: {shown} [{rule}] {without_controls(message)}")
    for line in (below, fix and f"fix: {fix}"):
        if line:
            click.echo(f"    {without_controls(line)}")


def count_findings(severities: Iterable[str], shown: Iterable[str] = ("error", "warning")) -> str:
    """Return how many findings there are of each shown severity, e.g. `2 errors, 1 warning`; may be empty."""
    counts = Counter(severities)
    return ", ".join(f"{counts[name]} {name}{'s' * (counts[name] != 1)}" for name in shown if counts[name])
