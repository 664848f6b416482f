"""Reads one data set from end to end, then compares sets with each other."""

from __future__ import annotations

import codecs
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.checks.data_audit import answers as hashes
from tunebook.checks.data_audit.answers import AnswerReader, Repeats, RowHashes
from tunebook.checks.data_audit.findings import DataFinding, Ledger, Place, counted
from tunebook.data.rows import iter_table
from tunebook.data.sources import column, is_chat, reference_of
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tunebook.data.sources import Source
    from tunebook.types import DatasetEntry


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
    """Yield the rows of an evaluation set that are in a training set too."""
    whole = hashes.found_in(evaluated.hashes.pairs, trained.hashes.pairs)
    asked = hashes.found_in(evaluated.hashes.prompts, trained.hashes.prompts).without(whole)
    if len(whole.rows):
        yield DataFinding(
            dataset=evaluated.name,
            rule="leaked-row",
            severity="error",
            message=f"{counted(len(whole.rows), 'row')} of {len(evaluated.hashes)}: also in {trained.name!r} "
            "with the same answer, except for blanks and case",
            fix=f"remove them from {trained.name!r}: what was trained on is no evaluation",
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
            fix=f"remove them from {trained.name!r}, or decide on one answer",
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
        """Read its bytes and its rows."""
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
            # A JSON array or a CSV file cannot be read any further after a broken row.
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
        fix="fix the faults of its rows, or check the file",
        count=0,
    )


# One row as the model meets it: what it is given and what it is to say, or what keeps it from being that.

_INPUTS = ("system", "history", "prompt", "query")
_SEPARATOR = "\x1e"


class Example(NamedTuple):
    """A row that can be used, or what is wrong with it."""

    prompt: str
    """All inputs together."""
    answer: str | None
    """None where rows have no answer, as for pre-training."""
    fault: str | None = None
    """The rule that the row breaks."""
    detail: str | None = None
    """What exactly."""


class ExampleReader:
    """Reads rows by an entry's columns.

    Args:
        entry: The entry.
    """

    def __init__(self, entry: DatasetEntry) -> None:
        self._entry = entry
        self._chat = is_chat(entry)
        self._inputs = [name for key in _INPUTS if (name := column(entry, key))]
        answer = "chosen" if entry.values.get("ranking") else "response"
        self._answer = column(entry, answer)
        # Where an entry names no columns, a row may lack `input`, but not every row.
        optional = set() if isinstance(entry.values.get("columns"), dict) or self._chat else {"input"}
        self._needed = [name for name in [*self._inputs, self._answer] if name and name not in optional]
        self._unseen = optional

    @property
    def has_answers(self) -> bool:
        """Whether the rows hold answers; those for pre-training do not."""
        return self._chat or self._answer is not None

    @property
    def unseen(self) -> frozenset[str]:
        """Columns that rows may lack, and that no row so far has had: LLaMA-Factory stops without them."""
        return frozenset(self._unseen)

    def read(self, row: Mapping[Any, Any]) -> Example:
        """Read one row."""
        self._unseen -= row.keys()
        if None in row:  # what csv.DictReader makes of fields beyond the header
            return Example("", None, "ragged-row", f"{len(row[None])} more than the header")
        if self._chat:
            return self._read_chat(row)
        missing = [name for name in self._needed if name not in row]
        if missing:
            return Example("", None, "missing-column", f"{missing[0]!r} among {', '.join(map(str, row))}")
        prompt = _SEPARATOR.join(_text(row.get(name)) for name in self._inputs)
        if self._answer is None:
            return Example(prompt, None)
        answer = row[self._answer]
        if answer is None or (isinstance(answer, str) and not answer.strip()):
            return Example(prompt, None, "empty-answer")
        if not isinstance(answer, str):
            return Example(prompt, None, "not-text", f"{self._answer!r} is {answer!r:.60}")
        return Example(prompt, answer)

    def _read_chat(self, row: Mapping[Any, Any]) -> Example:
        messages = column(self._entry, "messages")
        if messages not in row:
            return Example("", None, "missing-column", f"{messages!r} among {', '.join(map(str, row))}")
        turns = row[messages]
        if not isinstance(turns, list) or not turns:
            return Example("", None, "not-text", f"{messages!r} holds no messages")
        prompt = _SEPARATOR.join(_text(turn) for turn in turns[:-1])
        try:
            answer = reference_of(row, self._entry)
        except TunebookError as error:
            return Example(prompt, None, "empty-answer", error.problem)
        return Example(prompt, answer, None if answer.strip() else "empty-answer")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _SEPARATOR.join(_text(part) for part in value.values())
    return "" if value is None else str(value)


# Which row of which file a hashed row is, in a few numbers for each row that was left out before it.


class _Run(NamedTuple):
    """Rows that follow each other in one file."""

    first: int
    """Index of the first one."""
    file: str
    row: int
    """Its row."""


class RowPlaces:
    """The places of rows, in the order in which they were added."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._count = 0
        self._last: Place | None = None

    def add(self, place: Place) -> None:
        """Add the next row."""
        assert place.row is not None
        last = self._last
        if last is None or last.file != place.file or last.row != place.row - 1:
            self._runs.append(_Run(self._count, place.file, place.row))
        self._count, self._last = self._count + 1, place

    def place(self, index: int, *, same_as: str | None = None) -> Place:
        """The place of the row with that index."""
        run = self._runs[bisect_right(self._runs, index, key=lambda run: run.first) - 1]
        return Place(run.file, run.row + index - run.first, None, same_as)


# The bytes of a text file: those that are not UTF-8, byte order marks, NULs, and text decoded twice.

_BLOCK = 1 << 20
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

# UTF-8 that was read as Windows-1252 or Latin-1 and saved again, and what decoders put for bad bytes.
_MOJIBAKE = re.compile(r"Ã[\x80-\xbf€-™ƒŠŒŽœžŸ]|â€[\x80-\xbfœ™˜“”¢¦ž\x9d]|Â[\x80-\xbf]|ï¿½|ðŸ|\ufffd")


def check_bytes(path: Path, ledger: Ledger) -> None:
    """Read a text file once, in constant memory, and note what its bytes have wrong.

    Raises:
        OSError: It cannot be read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    line, done, bad = 1, 0, _Bad(0, b"")
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            if done == 0 and block.startswith((codecs.BOM_UTF8, *_UTF16)):
                wide = block.startswith(_UTF16)
                rule, detail = ("bad-encoding", "it is UTF-16") if wide else ("byte-order-mark", None)
                ledger.add(rule, Place(path.name, None, 1), detail=detail)
                if wide:
                    return
            if b"\0" in block:
                _note_lines(block, re.compile(rb"\0"), line, path, ledger, "nul-character")
            try:
                decoder.decode(block)
            except UnicodeDecodeError:
                pending = decoder.getstate()[0]
                bad = _note_bad(pending + block, line, done - len(pending), path, ledger, bad.line)
                decoder.reset()
                decoder.decode(bad.cut)
            line += block.count(b"\n")
            done += len(block)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        ledger.add("bad-encoding", Place(path.name, None, line), detail=f"the file is cut at byte {done}")


def mojibake(text: str) -> str | None:
    """Return what looks wrongly decoded, with what is around it; None where nothing does.

    >>> mojibake("it is cafÃ© time")
    'it is cafÃ© time'
    >>> mojibake("it is café time")
    """
    if text.isascii():
        return None
    found = _MOJIBAKE.search(text)
    return None if found is None else text[max(0, found.start() - 15) : found.end() + 15]


class _Bad(NamedTuple):
    line: int
    """The last one that was noted."""
    cut: bytes
    """Of the character that the block's end cuts."""


def _note_bad(block: bytes, line: int, offset: int, path: Path, ledger: Ledger, noted: int) -> _Bad:
    """Note each line after `noted` in which a block has bad bytes."""
    start, cut = 0, b""
    for text in block.split(b"\n"):
        try:
            text.decode()
        except UnicodeDecodeError as error:
            if start + len(text) == len(block) and error.reason == "unexpected end of data":
                cut = text[error.start :]
            elif line > noted:
                noted, at = line, offset + start + error.start
                detail = f"{text[error.start : error.end].hex(' ')} at byte {at} of the file"
                ledger.add("bad-encoding", Place(path.name, None, line), detail=detail)
        start += len(text) + 1
        line += 1
    return _Bad(noted, cut)


def _note_lines(
    block: bytes, wanted: re.Pattern[bytes], line: int, path: Path, ledger: Ledger, rule: str
) -> None:
    for number, text in enumerate(block.split(b"\n"), line):
        if wanted.search(text):
            ledger.add(rule, Place(path.name, None, number))
