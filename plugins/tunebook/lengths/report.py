"""What there is to tell of the lengths of a recipe's rows, as one mapping that JSON can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook.lengths.cutting import LOSSES, Drop, First, Proportional
from tunebook.lengths.tally import PARTS, Tally, rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.lengths.cutting import Rule
    from tunebook.lengths.sets import Plan, RowSet

TOGETHER = "all sets together"


def gather(plan: Plan, tallies: Sequence[Tally], *, width: int | None = None) -> dict[str, Any]:
    """Return figures of each set, and of all of them together where there are several.

    Args:
        plan: What was measured.
        tallies: One for each set of it.
        width: Of the histogram's bins, in tokens or characters; None for a round one that fits.
    """
    found: dict[str, Any] = {
        "unit": "characters" if plan.counter is None else "tokens",
        "engine": plan.engine,
        "template": plan.template,
        "tokenizer": plan.tokenizer,
        "counted_by": plan.counter.by if plan.counter is not None else None,
        "notes": plan.notes,
        "sets": [
            _figures(tally, width)
            | {
                "name": rows.name,
                "part": rows.part,
                "files": [str(file) for file in rows.files],
                "notes": rows.notes,
                "limit": _limit(rows, tally),
            }
            for rows, tally in zip(plan.sets, tallies, strict=True)
        ],
    }
    if len(tallies) > 1:
        together = Tally(plan.sets[0].measure.form, plan.sets[0].rule, plan.sets[0].limit)
        for tally in tallies:
            together.merge(tally)
        found["together"] = _figures(together, width)
    return found


def _figures(tally: Tally, width: int | None) -> dict[str, Any]:
    rows = tally.lengths["total"].n
    return {
        "rows": rows,
        "left_out": rows_of(tally.skipped, sorted(tally.skipped)),
        **{part: tally.lengths[part].summary() if rows else None for part in PARTS},
        "tokens" if tally.rule is not None else "characters": tally.lengths["total"].tokens,
        "retention": tally.retention(),
        "suggested": tally.suggested(),
        "histogram": tally.histogram(width),
    }


def _limit(rows: RowSet, tally: Tally) -> dict[str, Any] | None:
    if rows.rule is None:
        return None
    return {
        "key": rows.rule.key,
        "value": rows.limit,
        "rule": _explain(rows.rule),
        "losses": rows_of(tally.losses, LOSSES),
    }


def _explain(rule: Rule) -> str:
    if isinstance(rule, Proportional):
        return "shortens prompt and answer of a turn in proportion, without a word"
    if isinstance(rule, First):
        return "keeps the first tokens of a row"
    assert isinstance(rule, Drop)
    return "leaves out rows that are longer"
