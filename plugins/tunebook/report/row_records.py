"""The part of `report.json` that is made of single rows: examples, and figures by length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunebook.report.records import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthRange:
    """The rows of one range of lengths."""

    low: int
    high: int
    """Inclusive."""
    n: int
    value: float
    interval: Interval | None
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
class Examples:
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
