"""The few answers of an evaluation that tell most about it, as a table for experiment trackers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunebook.types import EvalRecord

COLUMNS = ("row", "prompt", "reference", "prediction", "parsed", "score", "reason")

_EXAMPLES = 20
_CHARACTERS = 300  # of a prompt, at its end, where the question stands


def telling_rows(records: Sequence[EvalRecord]) -> list[tuple[Any, ...]]:
    """Return rows of `COLUMNS`: unreadable answers first, then wrong, then right ones; in the set's order."""
    return [_row(record) for record in sorted(records, key=_grade)[:_EXAMPLES]]


def _grade(record: EvalRecord) -> float:
    scores = list(record.scores.values())
    if any(score.parsed is None for score in scores):
        return -1.0
    return min((next(iter(score.values.values()), 0.0) for score in scores), default=0.0)


def _row(record: EvalRecord) -> tuple[Any, ...]:
    score = next(iter(record.scores.values()), None)
    return (
        record.index,
        record.prompt[-_CHARACTERS:],
        record.reference,
        record.prediction,
        score.parsed if score else None,
        next(iter(score.values.values()), None) if score else None,
        score.reason if score else None,
    )


def markdown(rows: Sequence[tuple[Any, ...]]) -> str:
    """Return rows of `COLUMNS` as a table."""
    lines = [" | ".join(COLUMNS), " | ".join("---" for _ in COLUMNS)]
    for row in rows:
        cells = ("" if cell is None else str(cell).replace("|", "\\|").replace("\n", " ") for cell in row)
        lines.append(" | ".join(cells))
    return "\n".join(lines)
