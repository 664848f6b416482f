"""Small multiples: the same chart once for each run, on the same axes, the other runs in grey behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tunebook.report.thin import thin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.report.chart_records import Chart, Line

FEWEST_PANELS = 3
"""Two runs are told apart in one chart."""
COLUMNS = 4
_POINTS = 60
"""Of each curve: a panel is a stamp."""
_WIDTH, _HEIGHT = 150, 90


def run_by_run(charts: Sequence[Chart]) -> list[Chart]:
    """A chart of panels of each chart that is over steps and has curves of several runs."""
    return [
        replace(
            chart,
            id=f"each_{chart.id}",
            title=f"{chart.title}, run by run",
            lines=tuple(_small(line) for line in chart.lines),
            references=(),
            marks=(),
            panels=True,
            secondary=False,
        )
        for chart in charts
        if len({line.key for line in chart.lines}) >= FEWEST_PANELS
    ]


def _small(line: Line) -> Line:
    values = np.array([np.nan if value is None else value for value in line.values])
    kept = thin(values, _POINTS).tolist()
    return replace(
        line,
        steps=[line.steps[at] for at in kept],
        values=[line.values[at] for at in kept],
        low=None,
        high=None,
        not_finite=[],
    )


def panels(chart: Chart, encoding: dict[str, Any]) -> dict[str, Any]:
    """What stands in a Vega-Lite description in place of `layer`.

    Args:
        chart: Of `run_by_run`.
        encoding: Of its curves: x, y, color and detail.
    """
    mark = {"type": "line", "clip": True, "strokeWidth": 1.6, "invalid": "break-paths-show-path-domains"}
    # With data of its own a layer is in every panel.
    behind = {key: value for key, value in encoding.items() if key not in ("color", "strokeDash")}
    others = {
        "data": {"name": "points"},
        "mark": {**mark, "strokeWidth": 0.8, "opacity": 0.35, "style": "behind"},
        "encoding": behind,
    }
    x = {**encoding["x"], "title": None, "axis": {**encoding["x"]["axis"], "tickCount": 3}}
    y = {**encoding["y"], "axis": {**encoding["y"]["axis"], "tickCount": 3}}
    keys = list(dict.fromkeys(line.key for line in chart.lines))
    return {
        "facet": {
            "field": "k",
            "type": "nominal",
            "sort": keys,
            "header": {"title": None, "labelLimit": _WIDTH},
        },
        "columns": COLUMNS,
        "spec": {
            "width": _WIDTH,
            "height": _HEIGHT,
            "layer": [
                {**others, "encoding": {**behind, "x": x, "y": y}},
                {"mark": mark, "encoding": {**encoding, "x": x, "y": y}},
            ],
        },
    }
