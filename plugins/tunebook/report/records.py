"""The records of `report.json`, format 1; docs/reports.md describes them for readers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tunebook.comparison.records import Disagreement


FORMAT = 1
"""Raised whenever a reader of an older file would misread a newer one."""

Verdict = Literal["met", "within error", "missed", "above", "not comparable", "not measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceInterval:
    """A 95 % interval and how it was made."""

    low: float
    high: float
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredFigure:
    """One measured number with all that is needed to trust it."""

    name: str
    label: str
    dataset: str
    """`` where the engine evaluated one set and did not name it."""
    step: int
    value: float
    interval: ConfidenceInterval | None
    n: int | None
    n_unparsed: int | None
    source: str
    larger_is_better: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """The base model's figure, and whether the difference is more than chance."""

    figure: MeasuredFigure | None
    """At step 0; None where the base was not evaluated."""
    reason: str | None
    """Why there is no figure or no test; None where there is both."""
    test: str | None
    """The paired test on shared rows, in words."""
    p_value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best evaluation by one figure, and the other figures at the same step."""

    figure: MeasuredFigure
    beside: tuple[MeasuredFigure, ...]
    """Other figures of the same evaluation, the majority baseline among them."""
    chosen_by: str
    """Who chose the figure, in words."""
    base: Against


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """One claim of the recipe's header beside what was measured."""

    text: str
    measured: MeasuredFigure | None
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting of a run."""

    key: str
    value: Any
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One labelled value with its source; `value` None says that it is missing, and `source` why."""

    label: str
    value: str | float | None
    unit: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRow:
    """One line of the table of evaluations."""

    dataset: str
    step: int
    epoch: float | None
    n: int | None
    n_unparsed: int | None
    answers_cut: int | None
    values: dict[str, float]
    intervals: dict[str, ConfidenceInterval]
    mode: str | None
    metrics: tuple[str, ...]
    """Names of the metrics that made the figures; empty for the engine's own evaluation."""
    after_training: bool
    is_best: bool
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinding:
    """Something the reader should look at, with its evidence."""

    level: Literal["problem", "warning", "note"]
    title: str
    evidence: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """All that is reported of one run."""

    id: str
    name: str
    path: str
    engine: str | None
    model: str | None
    method: str | None
    trained_on: str | None
    headline: str
    best: tuple[Best, ...]
    """One per evaluated dataset."""
    expected: tuple[Expected, ...]
    facts: tuple[Fact, ...]
    usage: Usage
    settings: tuple[Setting, ...]
    settings_source: str | None
    figure_names: tuple[str, ...]
    """Columns of the table of evaluations, the figure to choose by first."""
    evaluations: tuple[EvaluationRow, ...]
    by_length: tuple[ByLength, ...]
    signatures: dict[str, str]
    """By metric: what has to be published with its figures, e.g. sacrebleu's signature."""
    examples: tuple[AnswerExamples, ...]
    examples_missing: str | None
    """Why there are no examples, or None."""
    findings: tuple[RunFinding, ...]
    recipe_text: str | None
    provenance: dict[str, Any] | None
    """The facts of `run.json`, every key present; None where the run left none."""
    sources: tuple[str, ...]
    notes: tuple[dict[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A setting in which the runs differ."""

    key: str
    values: dict[str, str | None]
    """By run id; None where the run's recipe has no such key. Runs of which it is not known are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDisagreements:
    """Rows that the best run and another one answered differently well."""

    first: str
    """Name of the best run."""
    second: str
    dataset: str
    figure: str
    """The figure of single rows by which they differ."""
    n: int
    """Rows that both answered."""
    only_first: int
    """Rows on which the first did better."""
    only_second: int
    examples: tuple[Disagreement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """Several runs side by side."""

    rows: tuple[dict[str, Any], ...]
    """One for each run and evaluated set, runs that share figure and set together, the best first."""
    common: dict[str, str]
    """What all rows have in common, by column: `model`, `method`, `trained_on`, `dataset`, `figure`."""
    differences: tuple[Difference, ...]
    environment: tuple[Difference, ...]
    """Versions, machines, commits and data that differ."""
    remarks: tuple[str, ...]
    """What the figures say of the runs together: which are not distinguishable, loss against metric."""
    findings: tuple[RunFinding, ...]
    """Where loss and metric disagree over the runs."""
    disagreements: tuple[RunDisagreements, ...]
    not_ranked: tuple[str, ...]
    """Why runs are side by side and not ranked; empty where all are ranked."""
    settings_in_part: tuple[str, ...]
    """Names of runs that left no recipe, so that only some of their settings are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """That a report is made again while its runs go on."""

    every: float
    """Seconds from one look at the runs to the next."""
    checked_at: str
    """When the runs were last looked at, whether or not they had written anything. ISO 8601, UTC."""
    going: tuple[str, ...]
    """Names of the runs that have not ended."""
    unread: tuple[str, ...]
    """Folders of runs that have not logged anything yet, and are therefore not in the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The whole of `report.json`."""

    format: int
    made_by: str
    made_at: str
    """ISO 8601, UTC."""
    title: str
    headline: str
    runs: tuple[RunReport, ...]
    charts: tuple[Chart, ...]
    comparison: RunComparison | None
    live: Live | None = None
    """None where nobody makes the report again."""


# The part of `report.json` that is made of single rows: examples, and figures by length.


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthRange:
    """The rows of one range of lengths."""

    low: int
    high: int
    """Inclusive."""
    n: int
    value: float
    interval: ConfidenceInterval | None
    n_unparsed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ByLength:
    """One figure of one evaluation by length, in quarters of the rows."""

    dataset: str
    step: int
    metric: str
    figure: str
    """Of single rows."""
    by: str
    """`tokens of the reference` or `characters of the prompt`."""
    ranges: tuple[LengthRange, ...]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownExample:
    """One example, cut to what a reader can take in."""

    dataset: str
    step: int
    index: int
    metric: str
    prompt: str
    reference: str
    prediction: str
    parsed: str | None
    reason: str | None
    margin: float | None
    answer_cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerExamples:
    """Wrong and unreadable answers of one evaluation."""

    dataset: str
    step: int
    metric: str
    n: int
    n_wrong: int
    n_unparsed: int
    unparsed_reasons: dict[str, int]
    order: str
    """How the shown examples were chosen, in words."""
    wrong: tuple[ShownExample, ...]
    unparsed: tuple[ShownExample, ...]
    source: str
    confusion: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of a metric with classes, by class of the reference: how often each was answered, and `unparsed`."""


# The part of `report.json` about time, GPUs and memory.


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTime:
    """Time that a run spent in one phase."""

    name: str
    seconds: float | None
    """None: there was such a phase, and how long it took is not known."""
    share: float | None
    """Of the time of all phases that is known."""
    stretches: int | None
    """How often the run was in it; None where no file says."""
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSummary:
    """One card that was watched."""

    name: str | None
    host: str | None
    index: str
    memory_total_gib: float | None
    peak_gib: float | None
    """The largest sample of memory in use, of all processes."""
    mean_utilization_percent: float | None
    mean_power_w: float | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated:
    """An estimate made from the recorded recipe, beside what was measured."""

    label: str
    unit: str
    estimate: float | None
    low: float | None
    high: float | None
    """Where published measurements mostly fall; None where the estimate is a count."""
    estimate_missing: str | None
    """Why there is no estimate."""
    measured: float | None
    source: str
    """Of what was measured, or why nothing was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Time, GPUs and memory of a run."""

    phases: tuple[PhaseTime, ...]
    phases_missing: str | None
    """Why there are none."""
    restarts: tuple[dict[str, Any], ...]
    """`step` and `repeated` steps, both null where not known, `message`, `source`."""
    gpus: tuple[GpuSummary, ...]
    estimates: tuple[Estimated, ...]


# The records of a chart in `report.json`, format 1.

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
class StepRule:
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
    rules: tuple[StepRule, ...] = ()
    x_label: str = STEPS
    """What the horizontal axis counts. `steps` of a line are seconds where it is not `step`."""
    log_scale: bool = False
    panels: bool = False
    """Drawn as small multiples: once for each run, the other runs in grey."""
    secondary: bool = False
    """Of interest to few readers; the page shows it on demand."""
