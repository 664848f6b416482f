"""Lengths of some rows, turn by turn, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    Lengths = npt.NDArray[np.int64]


class Skipped(NamedTuple):
    """A row that the engine leaves out."""

    row: int
    """From 1, over all files of the set."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Lengths of R rows of at most K turns. A turn is a prompt and the answer that is learned from it."""

    rows: Lengths
    """R row numbers, from 1, over all files of the set."""
    prompts: Lengths
    """R x K: what is before each answer; 0 where a row has fewer turns."""
    answers: Lengths
    """R x K: the answers, with what closes them."""
    turns: Lengths
    """R: turns of each row."""
    tail: Lengths
    """R: what is after the last answer and not learned."""
    skipped: Sequence[Skipped]

    @property
    def total(self) -> Lengths:
        """R: lengths of all turns and the tail."""
        sums: Lengths = self.prompts.sum(axis=1) + self.answers.sum(axis=1) + self.tail
        return sums


class Form(NamedTuple):
    """What is alike in all rows of a set, in tokens."""

    closing: int = 0
    """Tokens of an answer after its own text."""
    after_end: int = 0
    """How many of them are after the one that ends the turn."""
    row_end: int = 0
    """Tokens put at the end of each row, whatever was cut, and learned there and at the start of each later
    prompt: 1 for LLaMA-Factory's templates with `efficient_eos`."""
    last_turn_only: bool = False
    """Only the last answer is learned: `mask_history`."""


class Sizes(NamedTuple):
    """Lengths of R rows: `answer` is what is learned, `prompt` all the rest."""

    prompt: Lengths
    answer: Lengths
    total: Lengths


def sizes(batch: Batch, form: Form) -> Sizes:
    """Return the lengths of each row as the engine counts them: `input_ids`, and labels that carry loss."""
    used = (batch.prompts + batch.answers > 0).sum(axis=1)
    present = batch.turns > 0
    total = batch.total + form.row_end
    if form.last_turn_only:
        last = np.maximum(batch.turns - 1, 0)
        answer = np.where(present, batch.answers[np.arange(len(batch.rows)), last], 0)
    else:
        answer = batch.answers.sum(axis=1)
    answer = answer + form.row_end * np.maximum(used, 1)
    return Sizes(total - answer, answer, total)


def pack(
    numbers: Sequence[int],
    turns: Sequence[Sequence[tuple[int, int]]],
    tails: Sequence[int],
    skipped: Sequence[Skipped],
) -> Batch:
    """Return a batch from each row's (prompt, answer) lengths."""
    counts = np.fromiter(map(len, turns), np.int64, len(turns))
    flat = np.array([pair for row in turns for pair in row], np.int64).reshape(-1, 2)
    return _batch(np.array(numbers, np.int64), counts, flat, np.array(tails, np.int64), skipped)


def in_parts(
    numbers: Lengths, turns: Lengths, pairs: Lengths, tails: Lengths, *, rows: int = 10_000
) -> Iterator[Batch]:
    """Yield batches from the (prompt, answer) lengths of all turns of all rows in one list.

    Args:
        numbers: R row numbers, from 1.
        turns: R: turns of each row; T in all.
        pairs: T x 2.
        tails: R.
        rows: Of one batch. A batch is as wide as its row of most turns.
    """
    done = 0
    for start in range(0, len(numbers), rows):
        part = slice(start, start + rows)
        counts = turns[part].astype(np.int64)
        flat = pairs[done : done + int(counts.sum())].astype(np.int64)
        done += len(flat)
        yield _batch(numbers[part], counts, flat, tails[part].astype(np.int64), ())


def _batch(
    numbers: Lengths, turns: Lengths, pairs: Lengths, tails: Lengths, skipped: Sequence[Skipped]
) -> Batch:
    widest = int(turns.max(initial=1)) or 1
    prompts, answers = (np.zeros((len(turns), widest), np.int64) for _ in range(2))
    filled = np.arange(widest) < turns[:, None]
    prompts[filled], answers[filled] = pairs[:, 0], pairs[:, 1]
    return Batch(
        rows=numbers, prompts=prompts, answers=answers, turns=turns, tail=tails, skipped=list(skipped)
    )
