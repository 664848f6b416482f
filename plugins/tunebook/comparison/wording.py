"""Says in one sentence what a comparison comes to, and how many rows would tell more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.text import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.comparison.records import FigureDifference, SetComparison


def sentence(figure: FigureDifference, first: str, second: str, dataset: str) -> str:
    """What the primary figure says of the second model against the first."""
    rows = f"{figure.n:,} rows" + (f" of {dataset}" if dataset else "")
    if figure.detectable == 0 and figure.difference == 0:
        return f"{first} and {second} have the same {figure.name} on each of the {rows}."
    measured = f"{signed(figure.difference)} ({interval_text(figure)}, {p_text(figure)})"
    if figure.verdict == "not distinguishable":
        return (
            f"{first} and {second} are not distinguishable by {figure.name} on {rows}: {measured}. "
            + _what_would_be_needed(figure)
        )
    return f"{second} is {figure.verdict} than {first} by {figure.name} on {rows}: {measured}."


def _what_would_be_needed(figure: FigureDifference) -> str:
    seen = f"These rows tell a difference of about {unsigned(figure.detectable)} or more (80 % power)"
    if figure.rows_needed is None:
        return f"{seen}."
    if figure.rows_needed <= figure.n:
        return f"{seen}; as many rows again may decide it."
    size, rows = unsigned(figure.difference), rounded(figure.rows_needed)
    return f"{seen}; one of {size} would need about {rows} rows."


def headline(sets: Sequence[SetComparison]) -> str:
    """The sentences of all sets."""
    return " ".join(one.sentence for one in sets)


def interval_text(figure: FigureDifference) -> str:
    """The interval of a difference, or that there is none."""
    if figure.low is None or figure.high is None:
        return "no interval"
    return f"95 % interval {signed(figure.low)} to {signed(figure.high)}"


def p_text(figure: FigureDifference) -> str:
    """The adjusted p-value as it is printed.

    Of a bootstrap no value below what its resamples can tell is claimed.
    """
    name = "p" if figure.p_adjusted == figure.p_value else "adjusted p"
    value = figure.p_adjusted
    return f"{name} < 0.001" if value < 0.001 else f"{name} {value:.3f}"


def signed(value: float) -> str:
    """A difference with its sign.

    >>> signed(0.25), signed(-0.0), signed(-1.5)
    ('+0.250', '0.000', '-1.500')
    """
    return "0.000" if value == 0 else f"{'+' if value > 0 else '-'}{unsigned(value)}"


def unsigned(value: float) -> str:
    """The size of a difference, to three decimals unless it is very small or large.

    >>> unsigned(-0.0091134), unsigned(0.00012), unsigned(31.25)
    ('0.009', '0.00012', '31.25')
    """
    size = abs(value)
    if 0 < size < 0.001:
        return f"{size:.2g}"
    return f"{size:.3f}" if size < 10 else number(size)


def rounded(rows: int) -> str:
    """A number of rows to two digits, since it is an estimate.

    >>> rounded(1234), rounded(87), rounded(45678)
    ('1,200', '87', '46,000')
    """
    digits = max(0, len(str(rows)) - 2)
    return f"{round(rows, -digits):,}"
