"""One row as the model meets it: what it is given and what it is to say, or what keeps it from being that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.data import registry
from tunebook.data.sources import column, is_chat
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.types import DatasetEntry

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
            answer = registry.reference_of(row, self._entry)
        except TunebookError as error:
            return Example(prompt, None, "empty-answer", error.problem)
        return Example(prompt, answer, None if answer.strip() else "empty-answer")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _SEPARATOR.join(_text(part) for part in value.values())
    return "" if value is None else str(value)
