"""What a comparison found, as `compare.json` holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FORMAT = 1
"""Version of `compare.json`; raised when a key changes its meaning or goes."""

Verdict = Literal["better", "worse", "not distinguishable"]
"""Of the second model against the first."""

Decision = Literal["met", "not met", "not distinguishable"]
"""Of a requirement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two that are compared."""

    label: str
    given: str
    """As the command line named it."""
    files: dict[str, str]
    """Dataset -> file that was read; under the name `` a file that names no dataset."""
    chosen: dict[str, str]
    """Dataset -> how the step was chosen, for runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureDifference:
    """One figure of both, over the rows that both have."""

    name: str
    n: int
    first: float
    second: float
    difference: float
    """Second minus first, in the unit of the figure."""
    low: float | None
    high: float | None
    """95 % interval of the difference; None where no resample moves it, as for a precision of 1 on both."""
    second_low: float | None
    second_high: float | None
    """95 % interval of the second alone; None where no resample moves it."""
    p_value: float
    p_adjusted: float
    """After Holm, among the primary figures of all sets or among the other figures."""
    test: str
    primary: bool
    larger_is_better: bool
    verdict: Verdict
    rows_needed: int | None
    """Rows to show a difference of this size at 5 % with 80 % power; None where there is none."""
    detectable: float
    """The smallest difference that this many rows show with 80 % power; 0 where no row differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """The primary figure over some of the rows. Groups are shown, not tested."""

    label: str
    n: int
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    """95 % interval of the difference; None for a single row, or where no resample moves it."""
    better: int
    worse: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The rows cut in one way."""

    by: str
    """`prompt characters`, `reference characters` or `class`."""
    groups: tuple[RowGroup, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedAnswer:
    """What one model said to a row, cut to what a reader takes in."""

    prediction: str
    parsed: str | None
    """What the metric read; None where it could read nothing."""
    value: float
    """The primary figure of this row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """A row on which the primary figure of the two differs."""

    index: int
    kind: Literal["better", "worse"]
    prompt: str
    reference: str
    first: ComparedAnswer
    second: ComparedAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class SetComparison:
    """Two models on one dataset, by one metric."""

    dataset: str
    """`` for files that name none."""
    metric: str
    figure: str
    """The primary figure: by which flips and disagreements are found."""
    counts_right: bool
    """The primary figure is 0 or 1 a row."""
    recorded: bool
    """The verdicts are those that the runs wrote down; else they were made now."""
    n: int
    only_in_first: int
    only_in_second: int
    figures: tuple[FigureDifference, ...]
    """The primary one first."""
    better: int
    worse: int
    equal: int
    both_right: int | None
    both_wrong: int | None
    """None where the primary figure does not count right and wrong."""
    groups: tuple[Groups, ...]
    disagreements: tuple[Disagreement, ...]
    """Both directions, the largest differences first; at most `disagreements.KEPT`."""
    other_texts: int
    """Rows on which the two answers differ as texts, whatever was read in them."""
    other_texts_alike: int
    """Those of them with the same primary figure."""
    sentence: str
    baseline: str = ""
    """How both stand to always giving the commonest reference, where the references are of a few classes, and
    how many of the rows gained could not be read in the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a requirement came to."""

    requirement: str
    """As it was given."""
    dataset: str
    metric: str
    figure: str
    n: int
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    """95 % interval that was held against the limit; None where there is none."""
    interval_of: Literal["difference", "second"]
    p_value: float | None
    """Of the paired test, unadjusted; None where the interval decides."""
    verdict: Decision
    measured: str
    """Values and interval, for readers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything `tunebook compare` found."""

    format: int
    made_by: str
    made_at: str
    first: Side
    second: Side
    headline: str
    requirements: tuple[Outcome, ...]
    prompts_differ: int
    """Matched rows whose prompts differ; above 0 only where that was allowed."""
    notes: tuple[str, ...]
    sets: tuple[SetComparison, ...]
