"""What a comparison has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["equal", "note", "differs", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    level: Level
    """`unknown`: nothing tells what training used. Only `differs` makes the command exit 1."""
    message: str
    fix: str | None = None
    """The step that ends it; set where the level is `differs`."""
