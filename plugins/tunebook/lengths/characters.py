"""Measures rows in characters: no tokenizer, no template, and rows of any kind that hold text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.lengths.batches import Batch, Skipped, pack
from tunebook.lengths.reading import read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tunebook.lengths.sets import RowSet
    from tunebook.types import DatasetEntry

_BATCH_ROWS = 1000
_BATCH_BYTES = 4 << 20

_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output", "messages": "conversations"}
_ASSISTANTS = {"assistant", "gpt", "model"}
_ROLE_KEYS, _CONTENT_KEYS = ("role", "from"), ("content", "value")


class CharacterMeasure:
    """Measures rows of a registry entry by the characters of their texts.

    What is not the answer is the prompt: system message, history, questions and tool results. Conversations
    count as one turn.
    """

    def __init__(self, entry: DatasetEntry) -> None:
        columns = entry.values.get("columns")
        names = columns if isinstance(columns, dict) else _COLUMNS
        self._chat = entry.values.get("formatting", "alpaca") != "alpaca"
        self._messages = names.get("messages") or _COLUMNS["messages"]
        self._answer = names.get("response")
        self._prompt = [
            names[key] for key in ("system", "prompt", "query", "history", "tools") if names.get(key)
        ]
        tags = entry.values.get("tags")
        tags = tags if isinstance(tags, dict) else {}
        self._role_keys = (tags["role_tag"],) if tags.get("role_tag") else _ROLE_KEYS
        self._content_keys = (tags["content_tag"],) if tags.get("content_tag") else _CONTENT_KEYS
        self._assistants = _ASSISTANTS | {
            tags.get("assistant_tag"),
            tags.get("function_tag") or "function_call",
        }

    def __call__(self, rows: Sequence[Mapping[str, Any]], first: int) -> Batch:
        """Return the lengths of `rows`, of which the first has the number `first`."""
        numbers, turns, skipped = [], [], []
        for number, row in enumerate(rows, first):
            found = self._conversation(row) if self._chat else self._alpaca(row)
            if found is None:
                skipped.append(Skipped(number, "there is no answer"))
            else:
                numbers.append(number)
                turns.append([found])
        return pack(numbers, turns, [0] * len(turns), skipped)

    def _alpaca(self, row: Mapping[str, Any]) -> tuple[int, int] | None:
        answer = row.get(self._answer or "")
        if not isinstance(answer, str):
            return None
        return sum(_characters(row.get(name)) for name in self._prompt), len(answer)

    def _conversation(self, row: Mapping[str, Any]) -> tuple[int, int] | None:
        messages = row.get(self._messages)
        if not isinstance(messages, list):
            return None
        counts = [0, 0]
        for message in messages:
            if not isinstance(message, dict):
                continue
            role = next((message[key] for key in self._role_keys if key in message), None)
            content = next((message[key] for key in self._content_keys if key in message), None)
            counts[role in self._assistants] += _characters(content)
        return (counts[0], counts[1]) if counts[1] else None


def iter_characters(
    rows: RowSet, *, max_rows: int | None, on_bytes: Callable[[int], None]
) -> Iterator[Batch]:
    """Yield the rows of a set, measured, some at a time.

    Args:
        rows: The set.
        max_rows: Rows to read, from the first; None for as many as the engine does.
        on_bytes: Called with the bytes read so far.

    Raises:
        TunebookError: A file cannot be read, or there are no rows.
    """
    limit = min((bound for bound in (max_rows, rows.limit_rows) if bound is not None), default=None)
    measure = CharacterMeasure(rows.entry)
    first, batch = 1, list[dict[str, Any]]()
    read = start = 0

    def note(done: int) -> None:
        nonlocal read
        read = done

    for row in read_rows(rows.files, (), rows.name, limit=limit, on_bytes=note):
        batch.append(row)
        if len(batch) == _BATCH_ROWS or read - start > _BATCH_BYTES:
            on_bytes(read)
            yield measure(batch, first)
            first, batch, start = first + len(batch), [], read
    if batch:
        yield measure(batch, first)
    elif first == 1:
        raise TunebookError(
            f"{rows.name}: {', '.join(map(str, rows.files))} has no rows", fix="name a file with rows"
        )


def _characters(value: Any) -> int:
    """Characters of a text, or of all texts in a list or object, such as a history or content in parts."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list | tuple) else 0
