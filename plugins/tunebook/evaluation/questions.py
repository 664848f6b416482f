"""The rows of an evaluation set as the questions that a server is asked, built as the engine builds them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tunebook.errors import TunebookError
from tunebook.lengths.conversations import LeftOut
from tunebook.lengths.measuring import engine_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from tunebook.types import EngineName

_PROMPT_TOKENS_KEPT = 1024  # as in the records of an evaluation inside the engine
_PROMPT_CHARACTERS_KEPT = 6000  # where no tokenizer is here to count them


class Asked(NamedTuple):
    """One row as the engine's template writes it."""

    messages: list[dict[str, str]]
    """What stands before the last answer, `{"role", "content"}` each; roles as OpenAI's API calls them."""
    pieces: list[str]
    """The same as text that the engine tokenises piece by piece, special tokens included."""
    answer: str
    """The last answer as it is learned, with what closes its turn."""
    reference: str
    """The last answer without what closes its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One row to be answered."""

    index: int
    """Row of the evaluation set, from 0, as the engine counts: rows that it leaves out have none."""
    source_row: int
    """Row of the data, from 1."""
    messages: list[dict[str, str]]
    prompt: str
    """The whole prompt as text to be tokenised, without a BOS that the tokenizer itself puts there."""
    shown: str
    """The end of the prompt, as records show it."""
    reference: str
    prompt_tokens: int | None
    """Of the engine's prompt; None where the model's tokenizer is not on this machine."""
    tokens: int | None
    """Of the whole row, before the engine cuts it."""


@dataclass(slots=True, kw_only=True)
class QuestionSet:
    """An evaluation set."""

    name: str
    questions: list[Question]
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows that the engine does not evaluate, by reason."""
    tokenizer: str | None = None
    """The folder of the tokenizer that prompts were counted with."""
    length_limit: int = 0
    """Tokens of a row, at which the engine cuts it or leaves it out."""
    over_limit: int = 0
    """Rows that the engine cuts there; not known without a tokenizer."""


class Reader(Protocol):
    """Reads the rows of one set as one engine does."""

    files: tuple[Path, ...]
    columns: tuple[str, ...]
    limit: int | None
    """Rows to read, from the first."""
    chosen: list[int] | None
    """Rows to take, in this order, each from 0; None for all."""
    tokenizer: Any
    """A `model_files.ModelTokenizer`; None where it is not on this machine."""
    length_limit: int
    row_end: int
    """Tokens that the engine puts behind each row."""

    def read(self, row: Mapping[str, Any]) -> Asked | LeftOut:
        """Return a row as the engine builds it.

        Raises:
            TunebookError: The row stops the engine, or cannot be put to a server.
        """
        ...

    def too_long(self, tokens: int) -> str | None:
        """Return why the engine leaves out a row of so many tokens; None where it does not."""
        ...


def read_questions(
    values: Mapping[str, Any], engine: EngineName, name: str, *, home: Path, may_be_empty: bool = False
) -> QuestionSet:
    """Read one evaluation set of a recipe.

    Args:
        values: The recipe.
        engine: Whose it is.
        name: A registry entry that the recipe evaluates on.
        home: Where data is looked for that is not below the current folder.
        may_be_empty: Whether a set without any question is no error.

    Raises:
        TunebookError: The set cannot be read here, or none of its rows can be asked.
    """
    reader = _reader(values, engine, name, home)
    found = QuestionSet(name=name, questions=[], length_limit=reader.length_limit)
    if reader.tokenizer is not None:
        found.tokenizer = str(reader.tokenizer.folder)
    for number, row in _rows(reader, name):
        try:
            asked = reader.read(row)
        except TunebookError as err:
            raise TunebookError(f"{name}, row {number}: {err.problem}", fix=err.fix) from err
        if isinstance(asked, LeftOut):
            found.left_out[asked.reason] += 1
            continue
        question = _question(asked, len(found.questions), number, reader)
        if isinstance(question, LeftOut):
            found.left_out[question.reason] += 1
            continue
        if question.tokens is not None and question.tokens > reader.length_limit:
            found.over_limit += 1
        found.questions.append(question)
    if not found.questions and not may_be_empty:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in found.left_out.items())
        raise TunebookError(
            f"{name}: no row can be asked{f': {reasons}' if reasons else ''}",
            fix="check the data and its columns",
        )
    return found


def _reader(values: Mapping[str, Any], engine: EngineName, name: str, home: Path) -> Reader:
    if engine == "llamafactory":
        from tunebook.evaluation.questions_llamafactory import LlamaFactoryReader

        return LlamaFactoryReader(values, name)
    from tunebook.evaluation.questions_axolotl import AxolotlReader

    return AxolotlReader(values, name, home)


def _rows(reader: Reader, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the rows of a set with their numbers in the data, from 1."""
    rows: Iterable[Mapping[str, Any]] = engine_rows(
        reader.files, reader.columns, name, limit=reader.limit if reader.chosen is None else None
    )
    if reader.chosen is None:
        yield from enumerate(rows, 1)
        return
    wanted = set(reader.chosen)
    kept = {place: row for place, row in enumerate(rows) if place in wanted}
    for place in reader.chosen[: reader.limit]:
        yield place + 1, kept[place]


def _question(asked: Asked, index: int, number: int, reader: Reader) -> Question | LeftOut:
    prompt = "".join(asked.pieces)
    prompt_tokens = tokens = None
    reference = asked.reference
    shown = prompt[-_PROMPT_CHARACTERS_KEPT:]
    if len(prompt) > len(shown):
        shown = f"[{len(prompt) - len(shown)} characters before] {shown}"
    if reader.tokenizer is not None:
        tokenizer = reader.tokenizer.tokenizer
        ids = [token for piece in asked.pieces for token in _encode(tokenizer, piece)]
        prompt_tokens = len(ids)
        tokens = prompt_tokens + len(_encode(tokenizer, asked.answer)) + reader.row_end
        reason = reader.too_long(tokens)
        if reason is not None:
            return LeftOut(reason)
        if reader.tokenizer.adds_bos:
            prompt = prompt.removeprefix(reader.tokenizer.special["bos_token"])
        # As the engine reads it off its labels: a tokenizer may have no token for a character.
        reference = tokenizer.decode(_encode(tokenizer, reference), skip_special_tokens=True)
        shown = tokenizer.decode(ids[-_PROMPT_TOKENS_KEPT:], skip_special_tokens=False)
        if prompt_tokens > _PROMPT_TOKENS_KEPT:
            shown = f"[{prompt_tokens - _PROMPT_TOKENS_KEPT} tokens before] {shown}"
    return Question(
        index=index,
        source_row=number,
        messages=asked.messages,
        prompt=prompt,
        shown=shown,
        reference=reference,
        prompt_tokens=prompt_tokens,
        tokens=tokens,
    )


def _encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
