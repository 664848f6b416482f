"""Shots, the examples before each question: where they come from, and the text they make.

The text comes before the question within the user's turn, so that it works with every chat template and with
none.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.data import rows
from tunebook.data.sources import column, is_chat, tag
from tunebook.errors import TunebookError
from tunebook.lengths.reading import read_rows
from tunebook.lengths.sets import source_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tunebook.data.registry import Registry
    from tunebook.engines import Engine
    from tunebook.types import DatasetEntry

DEFAULT_TEMPLATE = "{question}\\n{answer}\\n\\n"
"""As the command line takes it: `\\n` is a line break."""

_KEYS = ("question", "answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShotsRequest:
    """What a user asks for."""

    wanted: int | None
    """How many; None for all of a file."""
    file: Path | None
    """None: from the training data."""
    template: str
    """From `read_template`."""
    folder: Path
    """The data with examples is written below it."""


class Shot(NamedTuple):
    """One question with its answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shots:
    """What comes before each question."""

    examples: tuple[Shot, ...]
    template: str
    source: str
    """Where the examples are from, for people."""

    @property
    def text(self) -> str:
        """All examples, one after another."""
        return "".join(
            self.template.replace("{question}", example.question, 1).replace("{answer}", example.answer, 1)
            for example in self.examples
        )

    def as_data(self) -> dict[str, Any]:
        """What a result says of them."""
        return {"n": len(self.examples), "source": self.source, "text": self.text}


def choose_shots(
    request: ShotsRequest,
    values: Mapping[str, Any],
    engine: Engine,
    registry: Registry,
    evaluated: Sequence[str],
) -> Shots:
    """Choose the examples that are asked for.

    Args:
        request: Which.
        values: The training recipe.
        engine: Whose it is.
        registry: Of the recipe.
        evaluated: The entries that are evaluated on.

    Raises:
        TunebookError: There are too few, or a file holds something else.
    """
    if request.file is not None:
        examples, source = examples_of_file(request.file, request.wanted), str(request.file)
    else:
        assert request.wanted is not None
        examples, source = examples_of_training(values, engine, registry, evaluated, request.wanted)
    return Shots(examples=tuple(examples), template=request.template, source=source)


def read_template(text: str) -> str:
    r"""Return a template as the command line gives it, with line breaks instead of `\n`.

    >>> read_template(r"Q: {question}\nA: {answer}\n")
    'Q: {question}\nA: {answer}\n'

    Raises:
        TunebookError: A placeholder is missing, or is there twice.
    """
    made = text.replace("\\n", "\n").replace("\\t", "\t")
    for key in _KEYS:
        if made.count(f"{{{key}}}") != 1:
            raise TunebookError(
                f"--shots-template {text!r}: holds {{{key}}} {made.count(f'{{{key}}}')} times",
                fix=f"write {{question}} and {{answer}} once each, e.g. '{DEFAULT_TEMPLATE}'",
            )
    if made.index("{answer}") < made.index("{question}"):
        raise TunebookError(
            f"--shots-template {text!r}: the answer comes before its question",
            fix=f"write {{question}} first, e.g. '{DEFAULT_TEMPLATE}'",
        )
    return made


def examples_of_file(path: Path, wanted: int | None) -> list[Shot]:
    """Read examples from a file of rows `{"question": ..., "answer": ...}`.

    Args:
        path: JSONL, or any other file of rows.
        wanted: How many, from the first; None for all.

    Raises:
        TunebookError: A row has another key or lacks one, or there are too few.
    """
    found = []
    for number, row in enumerate(rows.iter_table(path), 1):
        where = f"{path}, row {number}"
        for key in row:
            if key not in _KEYS:
                close = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.5)
                raise TunebookError(
                    f"{where}: an example has no key {key!r}",
                    fix=f"did you mean {close[0]!r}?" if close else "write question and answer",
                )
        for key in _KEYS:
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise TunebookError(
                    f"{where}: {key} is {row.get(key)!r}, not a text",
                    fix='write {"question": "...", "answer": "..."}',
                )
        found.append(Shot(row["question"], row["answer"]))
    if not found or (wanted is not None and len(found) < wanted):
        raise TunebookError(
            f"{path} has {len(found)} examples, and {wanted or 'some'} are asked for",
            fix="write more, or lower --shots",
        )
    return found[:wanted]


def examples_of_training(
    values: Mapping[str, Any], engine: Engine, registry: Registry, evaluated: Sequence[str], wanted: int
) -> tuple[list[Shot], str]:
    """Choose the first rows of the training data that are not evaluation rows.

    Args:
        values: The training recipe.
        engine: Whose it is.
        registry: Of the recipe.
        evaluated: The entries that are evaluated on.
        wanted: How many.

    Returns:
        The examples, and the entry they are from.

    Raises:
        TunebookError: The recipe names no other data, or not enough of it.
    """
    names = [name for name in engine.dataset_names(values) if name not in evaluated]
    if not names:
        raise TunebookError(
            "the recipe trains on no other registry entry that examples could come from",
            fix="give them with --shots-file",
        )
    asked = {one.question.strip() for name in evaluated for one in _examples(registry.entry(name))}
    found: dict[str, Shot] = {}
    for one in _examples(registry.entry(names[0])):
        question = one.question.strip()
        if question not in asked and one.answer.strip():
            found.setdefault(question, one)
        if len(found) == wanted:
            return list(found.values()), names[0]
    raise TunebookError(
        f"{names[0]} has {len(found)} rows that are not evaluation rows, and {wanted} are asked for",
        fix="lower --shots, or give examples with --shots-file",
    )


def _examples(entry: DatasetEntry) -> Iterator[Shot]:
    """Yield question and answer of each row that has nothing before them."""
    for row in read_rows(source_of(entry).files, (), entry.name):
        found = _of_conversation(row, entry) if is_chat(entry) else _of_columns(row, entry)
        if found is not None:
            yield found


def _of_columns(row: Mapping[str, Any], entry: DatasetEntry) -> Shot | None:
    prompt, query, response, history = (
        row.get(column(entry, key) or "") for key in ("prompt", "query", "response", "history")
    )
    question = "\n".join(str(part) for part in (prompt, query) if part)
    return Shot(question, response) if isinstance(response, str) and not history else None


def _of_conversation(row: Mapping[str, Any], entry: DatasetEntry) -> Shot | None:
    role, content = tag(entry, "role_tag") or "", tag(entry, "content_tag") or ""
    messages = row.get(column(entry, "messages") or "")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return None
    said = [message for message in messages if message.get(role) != tag(entry, "system_tag")]
    if [message.get(role) for message in said] != [tag(entry, "user_tag"), tag(entry, "assistant_tag")]:
        return None
    question, answer = (message.get(content) for message in said)
    return Shot(question, answer) if isinstance(question, str) and isinstance(answer, str) else None
