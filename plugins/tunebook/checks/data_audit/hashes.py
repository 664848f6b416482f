"""Rows known by 64-bit hashes: which repeat others, in 24 bytes a row.

Two of 10 million different texts share a hash with a probability of 3 in a million.
"""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

Hashes = np.ndarray[tuple[int], np.dtype[np.uint64]]
Indices = np.ndarray[tuple[int], np.dtype[np.int64]]


class Repeats(NamedTuple):
    """Rows that have a hash which another row has too."""

    rows: Indices
    """Ascending."""
    firsts: Indices
    """The first row with the same hash, in the same set or in another."""

    def without(self, others: Repeats) -> Repeats:
        """Return those whose row is none of `others`'."""
        kept = np.isin(self.rows, others.rows, invert=True)
        return Repeats(self.rows[kept], self.firsts[kept])

    def pairs(self, most: int) -> Iterator[tuple[int, int]]:
        """Yield the first `most` rows with their firsts."""
        return zip(self.rows[:most].tolist(), self.firsts[:most].tolist(), strict=True)


class RowHashes:
    """The rows of one set, as hashes."""

    def __init__(self) -> None:
        self._exact = array("Q")
        self._prompts = array("Q")
        self._answers = array("Q")

    def __len__(self) -> int:
        return len(self._exact)

    def add(self, prompt: str, answer: str, *, answer_class: str | None) -> None:
        """Take a row in.

        Args:
            prompt: All that the model is given.
            answer: What it is to say; empty where rows have none.
            answer_class: What the metric reads the answer as, where it knows classes. Answers of one class
                are the same answer.
        """
        self._exact.append(hash_of(f"{prompt}\x1f{answer}"))
        self._prompts.append(hash_of(normalised(prompt)))
        self._answers.append(hash_of(answer_class if answer_class is not None else normalised(answer)))

    @property
    def exact(self) -> Hashes:
        """Of prompt and answer as they stand."""
        return _view(self._exact)

    @property
    def prompts(self) -> Hashes:
        """Of prompts, blanks and case aside."""
        return _view(self._prompts)

    @property
    def answers(self) -> Hashes:
        """Of answers, blanks and case aside, or of their classes."""
        return _view(self._answers)

    @property
    def pairs(self) -> Hashes:
        """Of prompts and answers together."""
        return _view(self._prompts) * np.uint64(0x9E3779B97F4A7C15) ^ _view(self._answers)


def normalised(text: str) -> str:
    """Return `text` without differences of blanks, case and Unicode form.

    >>> normalised("  The  CAT\\n")
    'the cat'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.split()).casefold()


def hash_of(text: str) -> int:
    """Return 64 bits of BLAKE2b; the same in every process and on every machine."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def repeats(keys: Hashes) -> Repeats:
    """Return the rows whose key an earlier row has.

    >>> repeats(np.array([5, 7, 5, 5], dtype=np.uint64))
    Repeats(rows=array([2, 3]), firsts=array([0, 0]))
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    new = np.ones(len(keys), dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    if new.all():
        return Repeats(np.empty(0, np.int64), np.empty(0, np.int64))
    firsts = order[new][np.cumsum(new) - 1]
    rows, firsts = order[~new], firsts[~new]
    by_row = np.argsort(rows)
    return Repeats(rows[by_row], firsts[by_row])


def found_in(keys: Hashes, others: Hashes) -> Repeats:
    """Return the rows whose key stands in `others`, and the first of `others` that has it."""
    if not len(keys) or not len(others):
        return Repeats(np.empty(0, np.int64), np.empty(0, np.int64))
    distinct, firsts = np.unique(others, return_index=True)
    at = np.minimum(np.searchsorted(distinct, keys), len(distinct) - 1)
    rows = np.flatnonzero(distinct[at] == keys)
    return Repeats(rows, firsts[at[rows]])


def _view(values: array[int]) -> Hashes:
    return np.frombuffer(values, dtype=np.uint64) if values else np.empty(0, np.uint64)
