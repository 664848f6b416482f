"""The lengths of a recipe's rows as one HTML file that needs nothing else, not even a script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from tunebook.lengths.cutting import LOSS_WORDS, LOSSES

if TYPE_CHECKING:
    from collections.abc import Mapping

_PAGE = Path(__file__).with_name("page.html.j2")
_COLUMNS = ("min", "mean", "p50", "p90", "p95", "p99", "p100")


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
