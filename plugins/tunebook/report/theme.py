"""Colours and type of the charts, for a light and a dark page."""

from __future__ import annotations

from typing import Any

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
            "behind": {"stroke": muted},
            "note": {"color": muted, "fontSize": 11},
        },
    }
