"""Describes each chart once, in Vega-Lite: the page draws it in the browser, `png` without one."""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.files import write_atomic
from tunebook.report.lines import TRAINING, thinned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.report.records import Chart, Line


Spec = dict[str, Any]

_WIDTH, _HEIGHT = 720, 260
_DOTS = 40
"""A curve of at most so many evaluations has a dot at each."""


def keys(charts: Sequence[Chart]) -> list[str]:
    """What the legend lists, in the order in which the charts show it."""
    return list(dict.fromkeys(line.key for chart in charts for line in chart.lines))


def spec(chart: Chart, all_keys: Sequence[str]) -> Spec:
    """The Vega-Lite description of a chart whose rows are the data set `points`.

    Its parameters `lo` and `hi` are the steps shown, which the page sets when one zooms.
    """
    high = chart.last_step
    y_scale: Spec = {"zero": chart.y_zero, "nice": True}
    y_axis: Spec = {"format": chart.y_format}
    if chart.log_scale:
        y_scale = {"type": "log", "nice": False, "padding": 6}
        y_axis["values"] = _decades(chart)
    if chart.y_format.endswith("e"):
        y_axis = {"labelExpr": f"datum.value === 0 ? '0' : format(datum.value, '{chart.y_format}')"}
    datasets = list(dict.fromkeys(line.dataset for line in chart.lines))
    colours = {"domain": list(all_keys), "range": [colour(place) for place in range(len(all_keys))]}
    base: Spec = {
        "x": {
            "field": "x",
            "type": "quantitative",
            "title": chart.x_label,
            "scale": {"domainMin": {"expr": "lo"}, "domainMax": {"expr": "hi"}, "nice": False, "zero": False},
            "axis": {"format": "~s" if high >= 10_000 else ",d", "tickMinStep": 1},
        },
        "color": {"field": "k", "type": "nominal", "scale": colours, "legend": None},
        "detail": {"field": "l"},
    }
    y: Spec = {
        "field": "y",
        "type": "quantitative",
        "title": None,
        "scale": y_scale,
        "axis": y_axis,
    }
    line_encoding = base | {"y": y}
    if len(datasets) > 1 and len({line.run for line in chart.lines}) > 1:
        line_encoding["strokeDash"] = {
            "field": "d",
            "type": "nominal",
            "scale": {"domain": datasets},
            "legend": {"title": None, "orient": "top", "symbolType": "stroke"},
        }
    head: Spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": chart.about,
        # A little room on the right, so that the last point is not cut in half.
        "params": [{"name": "lo", "value": 0}, {"name": "hi", "value": max(1, round(high * 1.012, 2))}],
        "data": {"name": "points"},
    }
    if chart.panels:
        return head | panels(chart, line_encoding)
    layers: list[Spec] = []
    if any(line.low for line in chart.lines):
        layers.append(
            {
                "transform": [{"filter": "isValid(datum.lo)"}],
                "mark": {"type": "area", "fillOpacity": 0.16, "clip": True},
                "encoding": base | {"y": {**y, "field": "lo"}, "y2": {"field": "hi"}},
            }
        )
    layers.append(
        {
            "mark": {
                "type": "line",
                "clip": True,
                "strokeWidth": 1.8,
                "invalid": "break-paths-show-path-domains",
            },
            "encoding": line_encoding,
        }
    )
    sparse = [
        place
        for place, line in enumerate(chart.lines)
        if len(line.steps) <= _DOTS and line.dataset != TRAINING
    ]
    if sparse:
        layers.append(
            {
                "transform": [{"filter": {"and": ["isValid(datum.y)", {"field": "l", "oneOf": sparse}]}}],
                "mark": {"type": "circle", "size": 26, "opacity": 1, "clip": True},
                "encoding": base | {"y": y},
            }
        )
    layers += _references(chart) + _rules(chart) + _not_finite(chart) + _marks(chart, base, y)
    return head | {
        "width": "container",
        "height": 220,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "layer": layers,
    }


def _decades(chart: Chart) -> list[float]:
    """Round values to mark on a logarithmic axis: powers of ten, over few decades 2 and 5 as well."""
    values = [value for line in chart.lines for value in line.values if value]
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    return [step * 10.0**power for power in range(first, last + 1) for step in steps]


def _references(chart: Chart) -> list[Spec]:
    if not chart.references:
        return []
    values = [{"y": reference.value, "t": reference.label} for reference in chart.references]
    y = {"field": "y", "type": "quantitative"}
    return [
        {
            "data": {"values": values},
            "mark": {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 1.2, "style": "baseline"},
            "encoding": {"y": y},
        },
        {
            # Over the highest of those with the same words: runs on other rows have a line close by.
            "data": {"values": list({value["t"]: value for value in sorted(values, key=_height)}.values())},
            "mark": {"type": "text", "align": "right", "dy": -6, "dx": -4, "style": "note"},
            "encoding": {"y": y, "x": {"value": "width"}, "text": {"field": "t"}},
        },
    ]


def _height(value: Spec) -> float:
    return float(value["y"])


def _rules(chart: Chart) -> list[Spec]:
    """Restarts: a line from top to bottom, with a few words where there are few of them."""
    if not chart.rules:
        return []
    data = {"values": [{"x": rule.step, "t": rule.label} for rule in chart.rules]}
    x = {"field": "x", "type": "quantitative"}
    rule: Spec = {"type": "rule", "strokeDash": [2, 3], "strokeWidth": 1.2, "style": "baseline", "clip": True}
    layers: list[Spec] = [{"data": data, "mark": rule, "encoding": {"x": x}}]
    if len(chart.rules) <= 3:
        text: Spec = {"type": "text", "align": "left", "dx": 4, "dy": 10, "style": "note", "clip": True}
        encoding = {"x": x, "y": {"value": 0}, "text": {"field": "t"}}
        layers.append({"data": data, "mark": text, "encoding": encoding})
    return layers


def _not_finite(chart: Chart) -> list[Spec]:
    steps = sorted({step for line in chart.lines for step in line.not_finite})
    if not steps:
        return []
    return [
        {
            "data": {"values": [{"x": step} for step in steps]},
            "mark": {
                "type": "tick",
                "orient": "vertical",
                "height": 9,
                "thickness": 2,
                "color": "#d64545",
                "clip": True,
            },
            "encoding": {"x": {"field": "x", "type": "quantitative"}, "y": {"value": "height"}},
        }
    ]


def _marks(chart: Chart, base: Spec, y: Spec) -> list[Spec]:
    if not chart.marks:
        return []
    values = [{"x": mark.step, "y": mark.value, "k": mark.key, "t": mark.label} for mark in chart.marks]
    encoding = {"x": base["x"], "y": y, "color": base["color"]}
    layers: list[Spec] = [
        {
            "data": {"values": values},
            "mark": {
                "type": "point",
                "size": 130,
                "strokeWidth": 2,
                "filled": False,
                "opacity": 1,
                "clip": True,
            },
            "encoding": encoding,
        }
    ]
    if len(values) <= 2:
        for right in (False, True):
            on_side = [
                value
                for mark, value in zip(chart.marks, values, strict=True)
                if (mark.step > chart.last_step / 2) is right
            ]
            if on_side:
                layers.append(_mark_label(on_side, encoding, right=right))
    return layers


def _mark_label(values: list[Spec], encoding: Spec, *, right: bool) -> Spec:
    """The words beside marks, on the side where there is room."""
    mark: Spec = {"type": "text", "dy": 15, "style": "note", "clip": True}
    mark |= {"align": "right", "dx": -9} if right else {"align": "left", "dx": 9}
    x_and_y = {"x": encoding["x"], "y": encoding["y"]}
    return {"data": {"values": values}, "mark": mark, "encoding": x_and_y | {"text": {"field": "t"}}}


def rows(lines: Sequence[Line]) -> list[Spec]:
    """The data set `points` of a chart; the page makes the same rows from the same columns."""
    return [
        {
            "l": place,
            "k": line.key,
            "d": line.dataset,
            "x": step,
            "y": line.values[at],
            "lo": line.low[at] if line.low else None,
            "hi": line.high[at] if line.high else None,
        }
        for place, line in enumerate(lines)
        for at, step in enumerate(line.steps)
    ]


def png(chart: Chart, all_keys: Sequence[str]) -> bytes:
    """The chart as a picture, on white, at twice its nominal 720 by 260."""
    import vl_convert

    made = vl_convert.vegalite_to_png(
        json.dumps(printed(chart, all_keys)),
        scale=2,
        config=config(dark=False) | {"background": "white", "font": "Liberation Sans"},
    )
    return bytes(made)


def printed(chart: Chart, all_keys: Sequence[str]) -> Spec:
    """The description of a chart on its own: with its rows, its title and a legend of its own."""
    drawn = spec(chart, all_keys) | {
        "title": {"text": chart.title, "subtitle": chart.y_label},
        "datasets": {"points": rows(chart.lines)},
    }
    if not chart.panels:
        drawn |= {"width": _WIDTH, "height": _HEIGHT, "autosize": {"type": "fit", "contains": "padding"}}
    # Clipping is for zooming, and in a picture each clipped layer takes as long as all the rest. Only the
    # ticks of values that are not finite need it: half of each lies below the axis.
    for layer in drawn["spec"]["layer"] if chart.panels else drawn["layer"]:
        if layer["mark"]["type"] != "tick":
            layer["mark"].pop("clip", None)
    shown = [key for key in all_keys if any(line.key == key for line in chart.lines)]
    if len(shown) > 1 and not chart.panels:
        legend = {
            "title": None,
            "orient": "top",
            "values": shown,
            # Names are about seven pixels a letter, and are cut where they have no room.
            "columns": max(1, min(4, (_WIDTH - 40) // (7 * max(map(len, shown)) + 36))),
            "labelLimit": _WIDTH - 80,
            "symbolType": "stroke",
            "symbolOpacity": 1,
        }
        # In every layer: one that asks for none, such as the band of an interval, takes it from all.
        for layer in drawn["layer"]:
            if "color" in layer.get("encoding", {}):
                layer["encoding"]["color"] = {**layer["encoding"]["color"], "legend": legend}
    return drawn


@cache
def script() -> str:
    """The JavaScript that draws Vega-Lite, as `window.vegaEmbed`; it needs no network.

    Bundling it takes longer than reading twenty runs: it is kept in the user's cache.
    """
    import vl_convert

    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    kept = cache / "tunebook" / f"vega-embed-{metadata.version('vl-convert-python')}.js"
    with suppress(OSError):
        return kept.read_text("utf-8")
    # Of the three names a snippet may use, only vegaEmbed is bound: vega and vegaLite are null in 1.9.0.
    made = str(vl_convert.javascript_bundle("window.vegaEmbed=vegaEmbed;"))
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, made.encode())
    return made


# Colours and type of the charts, for a light and a dark page.

# Okabe-Ito's order of hues, with lightness that keeps 3:1 against both a white and a near-black page.
_PALETTE = (
    "#3b7dd8", "#d9722e", "#1f9e77", "#b65fc4", "#b08a00", "#d64f70", "#2aa1b8", "#7a8a2e", "#8f6bd6",
    "#a0643c", "#5f87a6", "#e0823d", "#4aa564", "#c45a9b", "#8c8c00", "#c4504a", "#3f9b9b", "#6d7f3f",
    "#6f74d6", "#94745c",
)  # fmt: skip


def colour(place: int) -> str:
    """The colour of the legend's entry number `place`, from 0."""
    return _PALETTE[place % len(_PALETTE)]


def config(*, dark: bool) -> dict[str, Any]:
    """Colours and type of the charts for a light or a dark page."""
    ink, muted, grid = ("#e4e7eb", "#9aa3ae", "#2a3038") if dark else ("#1d2129", "#667080", "#e8eaee")
    return {
        "background": None,
        "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif",
        "padding": 4,
        "view": {"stroke": None},
        "axis": {
            "domainColor": grid,
            "gridColor": grid,
            "tickColor": grid,
            "labelColor": muted,
            "titleColor": muted,
            "titleFontWeight": "normal",
            "labelFontSize": 11,
            "titleFontSize": 11,
            "labelOverlap": True,
            "tickCount": 5,
        },
        "axisX": {"grid": False, "tickCount": 7},
        "axisY": {"domain": False, "ticks": False, "minExtent": 34},
        "legend": {"labelColor": ink, "titleColor": muted, "labelFontSize": 11, "symbolStrokeColor": ink},
        "header": {"labelColor": ink, "labelFontSize": 11, "titleColor": muted},
        "title": {
            "color": ink,
            "anchor": "start",
            "fontSize": 14,
            "fontWeight": 600,
            "offset": 10,
            "subtitleColor": muted,
        },
        "style": {
            "baseline": {"color": muted},
            "others": {"stroke": muted},
            "note": {"color": muted, "fontSize": 11},
        },
    }


# Small multiples: the same chart once for each run, on the same axes, the other runs in grey.

FEWEST_PANELS = 3
"""Two runs are easy to see in one chart."""
COLUMNS = 4
_POINTS = 60
"""Of each curve: a panel is a stamp."""
_PANEL_WIDTH, _PANEL_HEIGHT = 150, 90


def run_by_run(charts: Sequence[Chart]) -> list[Chart]:
    """A chart of panels of each chart that is over steps and has curves of several runs."""
    return [
        replace(
            chart,
            id=f"each_{chart.id}",
            title=f"{chart.title}, run by run",
            lines=tuple(thinned(line, _POINTS) for line in chart.lines),
            references=(),
            marks=(),
            panels=True,
            secondary=False,
        )
        for chart in charts
        if len({line.key for line in chart.lines}) >= FEWEST_PANELS
    ]


def panels(chart: Chart, encoding: dict[str, Any]) -> dict[str, Any]:
    """What a Vega-Lite description has in place of `layer`.

    Args:
        chart: Of `run_by_run`.
        encoding: Of its curves: x, y, color and detail.
    """
    mark = {"type": "line", "clip": True, "strokeWidth": 1.6, "invalid": "break-paths-show-path-domains"}
    # With data of its own a layer is in every panel.
    in_grey = {key: value for key, value in encoding.items() if key not in ("color", "strokeDash")}
    others = {
        "data": {"name": "points"},
        "mark": {**mark, "strokeWidth": 0.8, "strokeOpacity": 0.35, "style": "others"},
        "encoding": in_grey,
    }
    x = {**encoding["x"], "title": None, "axis": {**encoding["x"]["axis"], "tickCount": 3}}
    y = {**encoding["y"], "axis": {**encoding["y"]["axis"], "tickCount": 3}}
    keys = list(dict.fromkeys(line.key for line in chart.lines))
    return {
        "facet": {
            "field": "k",
            "type": "nominal",
            "sort": keys,
            "header": {"title": None, "labelLimit": _PANEL_WIDTH},
        },
        "columns": COLUMNS,
        "spec": {
            "width": _PANEL_WIDTH,
            "height": _PANEL_HEIGHT,
            "layer": [
                {**others, "encoding": {**in_grey, "x": x, "y": y}},
                {"mark": mark, "encoding": {**encoding, "x": x, "y": y}},
            ],
        },
    }
