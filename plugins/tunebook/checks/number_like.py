"""Numbers as recipes hold them: YAML and the engines take some text for numbers."""

from __future__ import annotations

from typing import Any


def as_number(value: Any) -> float | None:
    """Return a number, or text that reads as one, as a float; None for anything else, true and false too."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None
