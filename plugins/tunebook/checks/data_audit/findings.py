"""What an audit of data finds: how many rows, where the first of them are, and the step that fixes it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tunebook.checks.findings import Severity


class Place(NamedTuple):
    """Where something is in a file."""

    file: str
    row: int | None
    """From 1, in this file; blank lines and the header of a CSV file do not count."""
    line: int | None = None
    """From 1; where bytes are at fault, which come before rows."""
    same_as: str | None = None
    """The row that this one repeats, or clashes with."""

    def __str__(self) -> str:
        where = f"row {self.row}" if self.row is not None else f"line {self.line}"
        return f"{where} (as {self.same_as})" if self.same_as else where


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFinding:
    """One kind of fault in one data set, or between two."""

    dataset: str
    rule: str
    """docs/data-check.md explains each."""
    severity: Severity
    """As in `tunebook check`: a hint leaves the data clean."""
    message: str
    fix: str | None
    count: int
    """Rows, lines or bytes concerned; 0 where the whole set is."""
    places: tuple[Place, ...] = ()
    """The first of them."""


class Rule(NamedTuple):
    """What is said of one kind of fault."""

    severity: Severity
    what: str
    fix: str
    unit: str = "row"
    """What is counted."""


RULES: dict[str, Rule] = {
    "bad-encoding": Rule("error", "bytes that are not UTF-8", "save the file as UTF-8", "line"),
    "byte-order-mark": Rule(
        "warning", "begins with a byte order mark", "save it as UTF-8 without a BOM", "file"
    ),
    "nul-character": Rule("error", "NUL characters", "remove them: no model has seen them", "line"),
    "broken-row": Rule("error", "not a row", "fix or delete it", "place"),
    "ragged-row": Rule("error", "more fields than the header has", "quote fields that hold commas or lines"),
    "missing-column": Rule("error", "a column is missing", "name the data's own columns in the entry"),
    "not-text": Rule("error", "no text where it is needed; engines drop such rows", "write text"),
    "empty-prompt": Rule("warning", "nothing is asked", "delete them, or name the column of the prompts"),
    "empty-answer": Rule("error", "no answer", "label or delete them"),
    "unreadable-reference": Rule(
        "error", "a reference that its metric cannot read", "fix them, or choose another metric"
    ),
    "mojibake": Rule("warning", "text that was decoded wrongly", "decode the source with its own encoding"),
    "duplicate-row": Rule("warning", "the same as an earlier row", "delete them"),
    "near-duplicate-row": Rule(
        "warning", "the same as an earlier row except for blanks and case", "delete them"
    ),
    "conflicting-answers": Rule(
        "warning",
        "the prompt of an earlier row with another answer",
        "decide on one, unless several are right",
    ),
}
"""Faults of rows. Faults of a whole set are made where they are found."""


class Ledger:
    """Counts faults by rule, and keeps the places of the first.

    Args:
        kept: Places to keep of each rule.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._counts: dict[str, int] = {}
        self._places: dict[str, list[Place]] = {}
        self._details: dict[str, str] = {}

    def add(self, rule: str, place: Place, *, detail: str | None = None) -> None:
        """Add one fault; the detail of the first one is shown."""
        self.add_some(rule, 1, [place])
        if detail is not None:
            self._details.setdefault(rule, detail)

    def add_some(self, rule: str, count: int, first: Iterable[Place]) -> None:
        """Add `count` faults; the places of the first ones are known."""
        if not count:
            return
        places = self._places.setdefault(rule, [])
        places += islice(first, self._kept - len(places))
        self._counts[rule] = self._counts.get(rule, 0) + count

    def findings(self, dataset: str) -> list[DataFinding]:
        """One finding for each rule that was broken, in the order of `RULES`."""
        return [
            DataFinding(
                dataset=dataset,
                rule=name,
                severity=rule.severity,
                message=f"{counted(self._counts[name], rule.unit)}: {rule.what}"
                + (f": {self._details[name]}" if name in self._details else ""),
                fix=rule.fix,
                count=self._counts[name],
                places=tuple(self._places[name]),
            )
            for name, rule in RULES.items()
            if name in self._counts
        ]


def counted(number: int, thing: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
