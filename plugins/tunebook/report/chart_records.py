"""The records of a chart in `report.json`, format 1."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = "step"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve of a chart, thinned for drawing."""

    run: str
    """Id of the run."""
    key: str
    """What the legend toggles: the run where there are several, else the kind of curve."""
    label: str
    dataset: str
    """`training`, or the evaluated set."""
    steps: list[int]
    values: list[float | None]
    """None where the run logged nan or an infinity."""
    low: list[float | None] | None
    high: list[float | None] | None
    logged: int
    """Points that were logged; `len(steps)` are drawn."""
    not_finite: list[int]
    """The first steps at which the value was nan or infinite."""
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A horizontal line: a baseline that a figure must beat."""

    key: str
    label: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A marked point, such as the best checkpoint."""

    key: str
    label: str
    step: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A step at which something happened, such as a restart; drawn from top to bottom."""

    key: str
    label: str
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One chart, as data; `charts.py` makes the drawing of it."""

    id: str
    title: str
    y_label: str
    """Unit or meaning, where the title does not say it; else empty."""
    y_format: str
    """d3 number format of the vertical axis."""
    y_zero: bool
    about: str
    """What is shown, in a sentence for those who see no picture."""
    last_step: int
    """Where the axis ends: the same in all charts over steps of a report."""
    lines: tuple[Line, ...]
    references: tuple[Reference, ...] = ()
    marks: tuple[Mark, ...] = ()
    rules: tuple[Rule, ...] = ()
    x_label: str = STEPS
    """What the horizontal axis counts. `steps` of a line are seconds where it is not `step`."""
    log_scale: bool = False
    panels: bool = False
    """Drawn as small multiples: once for each run, the other runs in grey."""
    secondary: bool = False
    """Of interest to few readers; the page shows it on demand."""
