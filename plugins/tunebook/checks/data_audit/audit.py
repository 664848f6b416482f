"""Reads one data set from end to end, then compares sets with each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunebook.checks.data_audit import hashes
from tunebook.checks.data_audit.answers import AnswerReader
from tunebook.checks.data_audit.encodings import check_bytes, mojibake
from tunebook.checks.data_audit.examples import ExampleReader
from tunebook.checks.data_audit.findings import DataFinding, Ledger, Place, counted
from tunebook.checks.data_audit.hashes import Repeats, RowHashes
from tunebook.checks.data_audit.places import RowPlaces
from tunebook.data.tables import iter_table
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tunebook.data.sources import Source

SHOWN = 10
"""Places that a finding names."""

_UTF8_FILES = frozenset({".json", ".jsonl", ".csv"})
_BLANKS = "\x1e \t\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """A data set that has been read."""

    name: str
    findings: tuple[DataFinding, ...]
    hashes: RowHashes
    """Of the rows that have a prompt and, where the set has answers, an answer."""
    places: RowPlaces
    """Of these rows."""


def audit(source: Source, *, shown: int = SHOWN, on_bytes: Callable[[int], None] | None = None) -> Audited:
    """Read a set once.

    Args:
        source: The set.
        shown: Places that a finding names.
        on_bytes: Called with the number of bytes read so far.

    Raises:
        TunebookError: A file cannot be read at all, or a metric cannot be loaded.
    """
    reader = _SetReader(source, shown)
    before = 0

    def tell(done: int) -> None:
        if on_bytes is not None:
            on_bytes(before + done)

    for path in source.files:
        reader.read_file(path, tell)
        before += path.stat().st_size
    return reader.audited()


def leaks(trained: Audited, evaluated: Audited, *, shown: int = SHOWN) -> Iterator[DataFinding]:
    """Yield what of an evaluation set stands in a training set too."""
    whole = hashes.found_in(evaluated.hashes.pairs, trained.hashes.pairs)
    asked = hashes.found_in(evaluated.hashes.prompts, trained.hashes.prompts).without(whole)
    if len(whole.rows):
        yield DataFinding(
            dataset=evaluated.name,
            rule="leaked-row",
            severity="error",
            message=f"{counted(len(whole.rows), 'row')} of {len(evaluated.hashes)}: also in {trained.name!r} "
            "with the same answer, blanks and case aside",
            fix=f"take them out of {trained.name!r}: what was trained on is no evaluation",
            count=len(whole.rows),
            places=_places(whole, evaluated, trained, shown),
        )
    if len(asked.rows):
        yield DataFinding(
            dataset=evaluated.name,
            rule="leaked-prompt",
            severity="warning",
            message=f"{counted(len(asked.rows), 'row')} of {len(evaluated.hashes)}: the prompt also in "
            f"{trained.name!r}, with another answer",
            fix=f"take them out of {trained.name!r}, or decide on one answer",
            count=len(asked.rows),
            places=_places(asked, evaluated, trained, shown),
        )


def _places(repeated: Repeats, evaluated: Audited, trained: Audited, shown: int) -> tuple[Place, ...]:
    return tuple(
        evaluated.places.place(row, same_as=f"{trained.places.place(first)} of {trained.name}")
        for row, first in repeated.pairs(shown)
    )


class _SetReader:
    """Takes in one file of a set after another."""

    def __init__(self, source: Source, shown: int) -> None:
        self._name = source.entry.name
        self._shown = shown
        self._ledger = Ledger(shown)
        self._examples = ExampleReader(source.entry)
        self._answers = AnswerReader(source.entry)
        self._hashes = RowHashes()
        self._places = RowPlaces()

    def read_file(self, path: Path, on_bytes: Callable[[int], None]) -> None:
        """Take in its bytes and its rows."""
        text = path.suffix in _UTF8_FILES
        if text:
            check_bytes(path, self._ledger)

        def note_line(line: int, what: str) -> None:
            self._ledger.add("broken-row", Place(path.name, None, line), detail=what)

        number = 0
        try:
            for number, row in enumerate(iter_table(path, on_bytes=on_bytes, on_broken=note_line), 1):
                self._read_row(row, Place(path.name, number))
        except TunebookError as error:
            if not text:
                raise
            # A JSON array or a CSV file cannot be read on behind a broken row.
            self._ledger.add(
                "broken-row", Place(path.name, number + 1), detail=f"{error.problem}; the rest was not read"
            )

    def _read_row(self, row: Mapping[Any, Any], place: Place) -> None:
        example = self._examples.read(row)
        odd = mojibake(example.prompt) or mojibake(example.answer or "")
        if odd is not None:
            self._ledger.add("mojibake", place, detail=repr(odd))
        if example.fault is not None:
            self._ledger.add(example.fault, place, detail=example.detail)
            return
        if not example.prompt.strip(_BLANKS):
            self._ledger.add("empty-prompt", place)
            return
        answer_class = None
        if example.answer is not None:
            read = self._answers.read(example.answer)
            answer_class = read.answer_class
            if read.fault is not None:
                self._ledger.add("unreadable-reference", place, detail=read.fault)
        self._hashes.add(example.prompt, example.answer or "", answer_class=answer_class)
        self._places.add(place)

    def audited(self) -> Audited:
        """What was found."""
        found = self._hashes
        exact, pairs = hashes.repeats(found.exact), hashes.repeats(found.pairs)
        self._note_repeats("duplicate-row", exact)
        self._note_repeats("near-duplicate-row", pairs.without(exact))
        if self._examples.has_answers:
            self._note_repeats("conflicting-answers", hashes.repeats(found.prompts).without(pairs))
        findings = [*self._ledger.findings(self._name), *self._answers.findings()]
        if not len(found):
            findings.insert(0, _no_rows(self._name))
        elif self._examples.unseen:
            findings.insert(0, _no_column(self._name, ", ".join(sorted(self._examples.unseen))))
        return Audited(name=self._name, findings=tuple(findings), hashes=found, places=self._places)

    def _note_repeats(self, rule: str, repeated: Repeats) -> None:
        first = []
        for row, other in repeated.pairs(self._shown):
            place, earlier = self._places.place(row), self._places.place(other)
            same_as = str(earlier) if earlier.file == place.file else f"{earlier} of {earlier.file}"
            first.append(place._replace(same_as=same_as))
        self._ledger.add_some(rule, len(repeated.rows), first)


def _no_column(name: str, column: str) -> DataFinding:
    return DataFinding(
        dataset=name,
        rule="missing-column",
        severity="error",
        message=f"no row has the column {column!r}, at which LLaMA-Factory stops",
        fix='name the columns that there are: "columns": {"prompt": "instruction", "response": "output"}',
        count=0,
    )


def _no_rows(name: str) -> DataFinding:
    return DataFinding(
        dataset=name,
        rule="no-rows",
        severity="error",
        message="not one row can be used",
        fix="mend what is told of its rows, or check the file",
        count=0,
    )
