"""The answers of a set: what its metrics read in them, and how they are divided into classes."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook import metrics
from tunebook.checks.data_audit.findings import DataFinding, counted
from tunebook.text import normalised

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.types import DatasetEntry, Metric


_MOST_CLASSES = 20
"""Different answers up to which a set without a metric of classes is taken for one of classes."""
_FEWEST_ROWS = 20
_REMEMBERED = 10_000


class Read(NamedTuple):
    """What the metrics make of one answer."""

    fault: str | None
    """Why one of them cannot use it."""
    answer_class: str | None


class AnswerReader:
    """Shows answers to the metrics of an entry, and counts their classes.

    Args:
        entry: The entry.

    Raises:
        TunebookError: A metric cannot be loaded.
    """

    def __init__(self, entry: DatasetEntry) -> None:
        self._name = entry.name
        self._metrics = [metric for metric, _ in metrics.load_asked(entry.metrics)]
        self._classes_of = next((metric for metric in self._metrics if metric.classes), None)
        self._known: dict[str, Read] = {}
        self._counts: Counter[str] | None = Counter()

    def read(self, answer: str) -> Read:
        """Read one answer and count it."""
        found = self._known.get(answer)
        if found is None:
            found = self._judged(answer)
            if len(self._known) < _REMEMBERED:
                self._known[answer] = found
        self._count(answer, found)
        return found

    def _judged(self, answer: str) -> Read:
        answer_class = None
        for metric in self._metrics:
            try:
                score = metric.score("", answer)
            except ValueError as error:
                return Read(f"{metric.name} says of {answer[:60]!r}: {error}", None)
            if metric is self._classes_of:
                answer_class = score.reference
        return Read(None, answer_class)

    def _count(self, answer: str, found: Read) -> None:
        if self._counts is None or found.fault is not None:
            return
        self._counts[found.answer_class if found.answer_class is not None else normalised(answer)] += 1
        if self._classes_of is None and len(self._counts) > _MOST_CLASSES:
            self._counts = None

    def findings(self) -> Iterator[DataFinding]:
        """Yield how the classes are divided, and what is missing among them."""
        counts = self._counts
        if not counts or (self._classes_of is None and counts.total() < _FEWEST_ROWS):
            return
        total, (largest, most) = counts.total(), counts.most_common(1)[0]
        shares = ", ".join(f"{name!r} {n} ({n / total:.1%})" for name, n in counts.most_common())
        absent = _absent(self._classes_of, counts)
        if len(counts) == 1:
            yield self._finding("warning", "single-class", f"every answer is {largest!r}", total)
            return
        if absent:
            yield self._finding("warning", "absent-class", f"no answer is {' or '.join(absent)}", total)
        share = most / total
        macro = 2 * share / (1 + share) / len(counts)
        yield self._finding(
            "hint",
            "class-balance",
            f"{counted(total, 'answer')}: {shares}; always {largest!r} scores accuracy {share:.3f} and "
            f"macro-F1 {macro:.3f}",
            total,
        )

    def _finding(self, severity: str, rule: str, message: str, count: int) -> DataFinding:
        return DataFinding(
            dataset=self._name,
            rule=rule,
            severity="hint" if severity == "hint" else "warning",
            message=message,
            fix=None if severity == "hint" else "add rows of the other class: nothing else can be learned",
            count=count,
        )


def _absent(metric: Metric | None, counts: Counter[str]) -> list[str]:
    """Classes of the metric that no answer has, where they are few: of 26 letters most never occur."""
    if metric is None or len(metric.classes) > 3:
        return []
    return [repr(name) for name in metric.classes if name not in counts]


# Rows known by 64-bit hashes: which repeat others, in 24 bytes a row.
#
# Two of 10 million different texts share a hash with a probability of 3 in a million.

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
        """Add a row.

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
        """Of prompt and answer, unchanged."""
        return _view(self._exact)

    @property
    def prompts(self) -> Hashes:
        """Of prompts, without differences of blanks and case."""
        return _view(self._prompts)

    @property
    def answers(self) -> Hashes:
        """Of answers, without differences of blanks and case, or of their classes."""
        return _view(self._answers)

    @property
    def pairs(self) -> Hashes:
        """Of prompts and answers together."""
        return _view(self._prompts) * np.uint64(0x9E3779B97F4A7C15) ^ _view(self._answers)


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
    """Return the rows whose key is in `others`, and the first of `others` that has it."""
    if not len(keys) or not len(others):
        return Repeats(np.empty(0, np.int64), np.empty(0, np.int64))
    distinct, firsts = np.unique(others, return_index=True)
    at = np.minimum(np.searchsorted(distinct, keys), len(distinct) - 1)
    rows = np.flatnonzero(distinct[at] == keys)
    return Repeats(rows, firsts[at[rows]])


def _view(values: array[int]) -> Hashes:
    return np.frombuffer(values, dtype=np.uint64) if values else np.empty(0, np.uint64)
