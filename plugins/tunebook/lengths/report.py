"""The lengths of a recipe's rows: gathered as one mapping that JSON can hold, and shown as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.lengths.characters import iter_characters
from tunebook.lengths.cutting import LOSS_WORDS, LOSSES, Drop, First, Packed, Proportional
from tunebook.lengths.tally import PARTS, Tally, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tunebook.lengths.cutting import Rule
    from tunebook.lengths.sets import Plan, RowSet

_PAGE = Path(__file__).with_name("page.html.j2")
_COLUMNS = ("min", "mean", "p50", "p90", "p95", "p99", "p100")


def measure(rows: RowSet, *, max_rows: int | None, on_bytes: Callable[[int], None]) -> Tally:
    """Return the lengths of a set: what the engine has said of it, else characters.

    Args:
        rows: The set.
        max_rows: Rows to read, from the first, where characters are counted; None for as many as the engine
            reads.
        on_bytes: Called with the bytes read so far.

    Raises:
        TunebookError: A file cannot be read.
    """
    tally = Tally(rows.form, rows.rule, rows.limit)
    if rows.counted is None:
        found = iter_characters(rows, max_rows=max_rows, on_bytes=on_bytes)
    else:
        tally.skip(rows.counted.skipped)
        found = rows.counted.batches()
    for batch in found:
        tally.add(batch)
    return tally


def gather(plan: Plan, tallies: Sequence[Tally], *, width: int | None = None) -> dict[str, Any]:
    """Return figures of each set, and of all of them together where there are several.

    Args:
        plan: What was measured.
        tallies: One for each set of it.
        width: Of the histogram's bins, in tokens or characters; None for a round one that fits.
    """
    found: dict[str, Any] = {
        "unit": plan.unit,
        "engine": plan.engine,
        "template": plan.template,
        "tokenizer": plan.tokenizer,
        "counted_by": plan.counted_by,
        "notes": plan.notes,
        "sets": [
            _figures(tally, width, plan.unit)
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
        together = Tally(plan.sets[0].form, plan.sets[0].rule, plan.sets[0].limit)
        for tally in tallies:
            together.merge(tally)
        found["together"] = _figures(together, width, plan.unit)
    return found


def _figures(tally: Tally, width: int | None, unit: str) -> dict[str, Any]:
    rows = tally.lengths["total"].n
    return {
        "rows": rows,
        "left_out": rows_of(tally.skipped, sorted(tally.skipped)),
        **{part: tally.lengths[part].summary() if rows else None for part in PARTS},
        unit: tally.lengths["total"].tokens,
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
    if isinstance(rule, Packed):
        return "joins all texts and cuts the whole into rows of so many tokens"
    assert isinstance(rule, Drop)
    return "leaves out rows that are longer"


def render(
    title: str, report: Mapping[str, Any], *, light: Mapping[str, Any], dark: Mapping[str, Any]
) -> str:
    """Return the page.

    Args:
        title: The recipe or dataset.
        report: As `report.gather` returns it.
        light: Vega-Lite's configuration of charts on a white page.
        dark: The same on a black one.
    """
    sets = [dict(one) for one in report["sets"]]
    if "together" in report:
        sets.insert(0, {"name": "together", "part": "", "notes": [], "limit": None, **report["together"]})
    for one in sets:
        one["light"] = _chart(one, report["unit"], light)
        one["dark"] = _chart(one, report["unit"], dark)
    import jinja2  # only here is a template needed

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(_PAGE.read_text(encoding="utf-8"))
    return page.render(
        title=title, report=report, sets=sets, columns=_COLUMNS, losses=LOSSES, words=LOSS_WORDS
    )


def _chart(one: Mapping[str, Any], unit: str, config: Mapping[str, Any]) -> str:
    """The histogram as SVG, with the recipe's limit as a line."""
    import vl_convert

    width, counts = one["histogram"]["width"], one["histogram"]["counts"]
    bins = [
        {"from": at * width, "to": (at + 1) * width, "rows": count}
        for at, count in enumerate(counts)
        if count
    ]
    x = {"field": "from", "type": "quantitative", "title": unit, "axis": {"format": ",d"}}
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": bins},
            "mark": {"type": "bar", "color": "#3b7dd8"},
            "encoding": {
                "x": {**x, "bin": "binned"},
                "x2": {"field": "to"},
                "y": {"field": "rows", "type": "quantitative", "title": "rows"},
            },
        }
    ]
    limit = one["limit"]
    if limit and limit["value"] <= len(counts) * width:
        layers.append(
            {
                "data": {"values": [{"from": limit["value"]}]},
                "mark": {"type": "rule", "strokeDash": [5, 4], "color": "#d9722e", "strokeWidth": 1.5},
                "encoding": {"x": x},
            }
        )
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": 720,
        "height": 200,
        "layer": layers,
    }
    return str(vl_convert.vegalite_to_svg(json.dumps(spec), config=dict(config)))
