"""The answers of a set: what its metrics read in them, and how they are divided into classes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tunebook import metrics
from tunebook.checks.data_audit.findings import DataFinding, counted
from tunebook.checks.data_audit.hashes import normalised

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.types import DatasetEntry, Metric

# Measured from the loss, whatever the answers are.
_FROM_LOSS = frozenset({"perplexity"})

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
        self._metrics = [metrics.load(spec.name) for spec in entry.metrics if spec.name not in _FROM_LOSS]
        self._classes_of = next((metric for metric in self._metrics if metric.classes), None)
        self._known: dict[str, Read] = {}
        self._counts: Counter[str] | None = Counter()

    def read(self, answer: str) -> Read:
        """Take one answer in."""
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
