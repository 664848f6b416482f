"""What an engine makes of rows: lengths and what is cut off, counted with a fast and checked tokenizer."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from tunebook.errors import TunebookError
from tunebook.lengths import batches
from tunebook.lengths.batches import Form
from tunebook.lengths.counting import CheckedEncoder, FastDiffers
from tunebook.lengths.cutting import Rule, rule_of

BATCH_ROWS = 1000
"""Rows read at a time; both engines encode so many together."""
_LOOKED_AT = 100
"""Rows that show what closes an answer."""


class Measured(NamedTuple):
    """What is known of one row."""

    turns: list[tuple[int, int]]
    """Tokens of each prompt and of the answer that is learned after it, before the engine cuts anything."""
    tail: int
    """Tokens after the last answer."""
    kept: tuple[int, int] | None
    """Tokens, and tokens that are learned, as the engine leaves them at the recipe's limit; None where it
    does that later."""


class Rows:
    """Lengths of rows, in the order of the data."""

    def __init__(self) -> None:
        self.numbers, self.turns = array("q"), array("i")
        self.pairs, self.tails, self.kept = array("i"), array("i"), array("i")
        self.skipped: list[tuple[int, str]] = []
        self.ends: Counter[int] = Counter()
        """How often so many tokens of an answer begin with the one that ends it; a sample."""
        self.media: set[str] = set()
        """Files of pictures, videos and sounds."""
        self.compared = 0

    def add(self, number: int, row: Measured) -> None:
        """Take in the row of that number, from 1."""
        self.numbers.append(number)
        self.turns.append(len(row.turns))
        for pair in row.turns:
            self.pairs.extend(pair)
        self.tails.append(row.tail)
        if row.kept is not None:
            self.kept.extend(row.kept)

    def extend(self, other: Rows) -> None:
        """Take in the rows after these."""
        for name in ("numbers", "turns", "pairs", "tails", "kept", "skipped"):
            getattr(self, name).extend(getattr(other, name))
        self.ends.update(other.ends)
        self.media |= other.media
        self.compared += other.compared

    def note_end(self, answer: Sequence[int], ends: frozenset[int]) -> None:
        """Look at how an answer ends, for the first rows."""
        if self.ends.total() < _LOOKED_AT and answer:
            last = next((at for at, token in enumerate(reversed(answer), 1) if token in ends), 0)
            self.ends[last] += 1

    @property
    def closing(self) -> int:
        """Tokens from the one that ends an answer on; 0 where none does."""
        return self.ends.most_common(1)[0][0] if self.ends else 0

    def arrays(self) -> dict[str, Any]:
        """Return the rows as `batches.in_parts` takes them."""
        return {
            "numbers": np.array(self.numbers, np.int64),
            "turns": np.array(self.turns, np.int32),
            "pairs": np.array(self.pairs, np.int32).reshape(-1, 2),
            "tails": np.array(self.tails, np.int32),
        }

    def save(self, path: Path) -> list[str]:
        """Write the rows; return the reasons for which rows are left out, in the order of their numbers."""
        reasons = list(dict.fromkeys(reason for _, reason in self.skipped))
        places = {reason: place for place, reason in enumerate(reasons)}
        skipped = [(row, places[why]) for row, why in self.skipped]
        np.savez(path, skipped=np.array(skipped, np.int64).reshape(-1, 2), **self.arrays())
        return reasons


class Set(Protocol):
    """One set of a recipe, loaded by its engine."""

    rows: int
    """Rows of the data, those that the engine leaves out among them."""
    files: list[str]
    """Of the data, in the order in which the engine reads them; none where it does not say."""

    def measure(self, start: int, stop: int) -> Rows:
        """Return the lengths of rows `[start, stop)` of the data; both are multiples of `BATCH_ROWS`."""
        ...

    def rule(self, rows: Rows) -> tuple[dict[str, Any] | None, Form, int]:
        """Return what the engine does to long rows, as `cutting.rule_of` takes it, the form, and the limit.

        None in the place of the rule where the engine does something else than we know.
        """
        ...

    def questions(self) -> dict[str, Any]:
        """Return the rows as what a model is asked; see `tunebook.evaluation.questions`."""
        ...


def prove(rows: Rows, rule: Mapping[str, Any], form: Form, limit: int, *, learned: bool = True) -> bool:
    """Whether a rule leaves of every row what the engine has left of it.

    Args:
        rows: With what the engine has kept.
        rule: Ours, for `cutting.rule_of`.
        form: Of the rows.
        limit: In tokens.
        learned: Compare the learned tokens too. Not where prompts are learned, which are counted apart all
            the same.
    """
    ours: Rule = rule_of(rule)
    theirs = np.array(rows.kept, np.int64).reshape(-1, 2)
    place = 0
    for batch in batches.in_parts(**rows.arrays()):
        left = batches.sizes(ours.keep(batch, limit), form)
        total, answer = theirs[place : (place := place + len(batch.rows))].T
        if (left.total != total).any() or (learned and (left.answer != answer).any()):
            return False
    return True


def stopped(what: str, err: BaseException) -> TunebookError:
    """Return an engine's exception as an error for the user: the innermost says the most."""
    cause: BaseException = err
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    said = f"has no {cause}" if isinstance(cause, KeyError) else str(cause)
    return TunebookError(
        f"{what}: {type(cause).__name__}: {said.strip()[:600]}",
        fix="fix the row or what describes the data, or count characters with --chars",
    )


class FastTokenizer:
    """Makes an engine's tokenizer encode plain texts by fastokens, where that is exact.

    Only the calls whose result is known are taken over: `encode(text, add_special_tokens=False)`, and the
    tokenizer itself on a text or a list of texts, truncated or not. Everything else goes to the tokenizer's
    own class.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.encoder: CheckedEncoder | None = None
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or getattr(tokenizer, "split_special_tokens", False):
            return
        from tokenizers import Tokenizer

        own = type(tokenizer)
        alone = Tokenizer.from_str(backend.to_str())
        alone.no_truncation()
        alone.no_padding()

        def exact(text: str) -> list[int]:
            return list(own.encode(tokenizer, text, add_special_tokens=False))

        try:
            self.encoder = CheckedEncoder(alone, exact)
        except (ValueError, FastDiffers):
            return
        tokenizer.__class__ = type(own.__name__, (own,), _overrides(own, tokenizer, self.encoder))

    @property
    def compared(self) -> int:
        """Texts on which both agreed; 0 where only the tokenizer's own class encodes."""
        return self.encoder.compared if self.encoder is not None else 0


def _overrides(own: type, tokenizer: Any, encoder: CheckedEncoder) -> dict[str, Callable[..., Any]]:
    from transformers import BatchEncoding

    around = _around(own, tokenizer)
    simple = list(tokenizer.model_input_names) == ["input_ids", "attention_mask"]
    simple = simple and tokenizer.truncation_side == "right" and around is not None

    def encode(self: Any, text: Any, *args: Any, **named: Any) -> Any:
        if isinstance(text, str) and not args and named == {"add_special_tokens": False}:
            return encoder(text)
        return own.encode(self, text, *args, **named)  # type: ignore[attr-defined]

    def call(self: Any, text: Any = None, *args: Any, **named: Any) -> Any:
        texts = [text] if isinstance(text, str) else text
        known = {"add_special_tokens", "truncation", "max_length", "padding", "return_tensors"}
        taken = simple and not args and named.keys() <= known and isinstance(texts, list)
        taken = taken and not named.get("padding") and named.get("return_tensors") is None
        taken = taken and (named.get("truncation") in (None, False) or named.get("max_length") is not None)
        if not taken or not all(isinstance(one, str) for one in texts):
            return own.__call__(self, text, *args, **named)
        assert around is not None
        before, after = around if named.get("add_special_tokens", True) else ([], [])
        limit = named["max_length"] - len(before) - len(after) if named.get("truncation") else None
        found = [[*before, *encoder(one)[:limit], *after] for one in texts]
        masks = [[1] * len(ids) for ids in found]
        if isinstance(text, str):
            return BatchEncoding({"input_ids": found[0], "attention_mask": masks[0]})
        return BatchEncoding({"input_ids": found, "attention_mask": masks})

    return {"encode": encode, "__call__": call}


def _around(own: type, tokenizer: Any) -> tuple[list[int], list[int]] | None:
    """The tokens that stand before and after every text; None where that is not all that is done."""
    samples = []
    for text in ("a", "one two three"):
        bare = list(own.encode(tokenizer, text, add_special_tokens=False))  # type: ignore[attr-defined]
        whole = list(own.encode(tokenizer, text))  # type: ignore[attr-defined]
        start = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), None)
        samples.append(None if start is None else (whole[:start], whole[start + len(bare) :]))
    return samples[0] if samples[0] == samples[1] else None


def runs(labels: Sequence[int], ignored: int) -> tuple[list[tuple[int, int]], int]:
    """Return the turns of a row, as tokens that are not learned and those that are; and the tokens after.

    >>> runs([-100, 5, 6, -100, -100, 7, -100], -100)
    ([(1, 2), (2, 1)], 1)
    """
    learned = np.asarray(labels) != ignored
    edges = np.flatnonzero(np.diff(learned.astype(np.int8), prepend=0, append=0)).tolist()
    turns, end = [], 0
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        turns.append((start - end, stop - start))
        end = stop
    return turns, len(labels) - end


def in_batches(dataset: Any, start: int, stop: int) -> Iterator[tuple[list[int], dict[str, list[Any]]]]:
    """Yield rows of a `datasets.Dataset` in columns, with the number in the data, from 1, of each."""
    indices = getattr(dataset, "_indices", None)  # where rows were drawn or shuffled
    for first in range(start, stop, BATCH_ROWS):
        last = min(first + BATCH_ROWS, stop)
        if indices is None:
            numbers = list(range(first + 1, last + 1))
        else:
            numbers = [place + 1 for place in indices.column(0)[first:last].to_pylist()]
        yield numbers, dataset[first:last]


def rows_of(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return columns as rows."""
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@contextmanager
def swapped(owner: Any, **values: Any) -> Iterator[None]:
    """Set attributes of an engine's module or object, and put back what was there."""
    missing = object()
    before = {name: vars(owner).get(name, missing) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is missing:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
