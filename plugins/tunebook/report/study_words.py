"""How a study writes numbers and lists, and what it says of a number that is not there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tunebook.text import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.report.records import Figure, Interval

NOT_MEASURED = "not measured"
_LISTED = 6
"""So many names are written out; of more the rest is counted."""


def listed(items: Sequence[str], *, limit: int = _LISTED) -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed(["a", "b", "c"], limit=2)
    ('a', 'a, b and c', 'a, b and 1 more')
    """
    shown = [*items[:limit], f"{len(items) - limit:,} more"] if len(items) > limit else list(items)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def counted(count: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "run"), counted(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def figure_text(figure: Figure) -> str:
    """A measured figure with its name, interval and number of examples."""
    if figure.interval is None:
        about = f"n {figure.n:,}, no interval" if figure.n else "no interval"
    else:
        about = f"95 % interval {interval_text(figure.interval)}"
        about += f", n {figure.n:,}" if figure.n else ""
    return f"{figure.label} {number(figure.value)} ({about})"


def interval_text(interval: Interval) -> str:
    """The ends of an interval."""
    return f"{number(interval.low)} to {number(interval.high)}"


def gap_text(value: float, interval: Interval) -> str:
    """A difference with its sign and its interval."""
    return f"{signed(value)} (95 % interval {signed(interval.low)} to {signed(interval.high)})"


def signed(value: float) -> str:
    """A difference with its sign.

    >>> signed(0.25), signed(-0.0), signed(-1.5)
    ('+0.250', '0.000', '-1.500')
    """
    return number(0.0) if value == 0 else f"{'+' if value > 0 else '-'}{number(abs(value))}"


def optional(value: float | None) -> str:
    """A number for a table's cell."""
    if value is None:
        return NOT_MEASURED
    if not math.isfinite(value):
        return "not finite"
    return f"{value:,}" if isinstance(value, int) else number(value)


def capital(text: str) -> str:
    """The text with its first letter as at the beginning of a sentence."""
    return text[:1].upper() + text[1:]
