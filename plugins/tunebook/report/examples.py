"""Picks wrong and unreadable answers and cuts their texts to what a reader can take in."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tunebook.report import significance
from tunebook.report.records import AnswerExamples, ByLength, LengthRange, ShownExample
from tunebook.runlog.evaluations import read_examples
from tunebook.text import SPECIAL_TOKENS, both_ends, cut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tunebook.report.records import Best, ConfidenceInterval, MeasuredFigure
    from tunebook.runlog import EvaluatedExample, Note, RunLog


SHOWN = 10
MOST_CLASSES = 50
"""A table of more classes than `classification` takes is nothing to read."""
_ROLE_AT_THE_END = re.compile(r"\s*(?:assistant|model)\s*(?:<think>\s*</think>)?\s*\Z")


def examples_of(run: RunLog, dataset: str, step: int) -> tuple[list[AnswerExamples], list[Note]]:
    """The wrong and unreadable answers of one evaluation, per metric.

    Returns:
        Nothing where the run left no records of that evaluation.
    """
    path = run.record_files.get((dataset, step))
    if path is None:
        return [], []
    source = f"{path.parent.name}/{path.name}"
    read = read_examples(path, source)
    metrics = list(dict.fromkeys(name for example in read.examples for name in example.scores))
    return [_examples(read.examples, metric, dataset, step, source) for metric in metrics], read.notes


def _examples(
    examples: Sequence[EvaluatedExample], metric: str, dataset: str, step: int, source: str
) -> AnswerExamples:
    scored = [example for example in examples if metric in example.scores]
    unparsed = [example for example in scored if example.scores[metric].get("parsed") is None]
    wrong = [
        example
        for example in scored
        if example.scores[metric].get("parsed") is not None and not _is_right(example.scores[metric])
    ]
    by_margin = bool(wrong) and all(example.margin is not None for example in wrong)
    if by_margin:
        wrong.sort(key=lambda example: (-abs(example.margin or 0.0), example.index))
    order = "the most confident first" if by_margin else "in the order of the set"
    reasons = Counter(str(example.scores[metric].get("reason") or "not said") for example in unparsed)
    shown = wrong[:SHOWN] + unparsed[:SHOWN]
    prefix = _common_start([_plain(example.prompt) for example in shown])
    return AnswerExamples(
        dataset=dataset,
        step=step,
        metric=metric,
        n=len(scored),
        n_wrong=len(wrong),
        n_unparsed=len(unparsed),
        unparsed_reasons=dict(reasons.most_common()),
        order=order,
        wrong=tuple(_shown(example, metric, prefix) for example in wrong[:SHOWN]),
        unparsed=tuple(_shown(example, metric, prefix) for example in unparsed[:SHOWN]),
        source=source,
        confusion=_confusion([example.scores[metric] for example in scored]),
    )


def _confusion(scores: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Count answers by reference; nothing where the metric has no classes."""
    pairs: Counter[tuple[str, str]] = Counter()
    for score in scores:
        reference, values = score.get("reference"), score.get("values")
        if not isinstance(reference, str) or not isinstance(values, dict) or "accuracy" not in values:
            return {}
        pairs[reference, str(score.get("parsed") or "unparsed")] += 1
    found: dict[str, dict[str, int]] = {}
    for (reference, answer), count in sorted(pairs.items()):
        found.setdefault(reference, {})[answer] = count
    return found if len(found) <= MOST_CLASSES else {}


def _is_right(score: Mapping[str, Any]) -> bool:
    """Whether an example counts as right: its first figure is not zero."""
    values = score.get("values")
    first = next(iter(values.values()), None) if isinstance(values, dict) else None
    return isinstance(first, (int, float)) and first > 0


def _shown(example: EvaluatedExample, metric: str, prefix: str) -> ShownExample:
    score = example.scores[metric]
    parsed, reason = score.get("parsed"), score.get("reason")
    return ShownExample(
        dataset=example.dataset,
        step=example.step,
        index=example.index,
        metric=metric,
        prompt=cut(_plain(example.prompt), prefix),
        reference=both_ends(example.reference),
        prediction=both_ends(example.prediction),
        parsed=parsed if isinstance(parsed, str) else None,
        reason=reason if isinstance(reason, str) else None,
        margin=example.margin,
        answer_cut=example.answer_cut,
    )


def _plain(prompt: str) -> str:
    """The prompt without special tokens and without the opening of the answer."""
    return _ROLE_AT_THE_END.sub("", SPECIAL_TOKENS.sub("", prompt)).strip()


def _common_start(prompts: Sequence[str]) -> str:
    """What all prompts begin with, to the last whole word, if it is long enough to be in the way."""
    if len(prompts) < 2:
        return ""
    first, last = min(prompts), max(prompts)
    same = next(
        (at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first)
    )
    start = first[:same]
    start = start[: max(start.rfind(" "), start.rfind("\n")) + 1]
    return start if len(start) >= 40 else ""


# The chosen figure of one evaluation by the length of its rows, to show where it breaks down.

_QUARTERS = (0.25, 0.5, 0.75)
_FEWEST_ROWS = 40
"""Fewer are not cut: the interval of ten rows says next to nothing."""
_SPREAD = 1.5
"""Rows whose longest is less than half again as long as the shortest are all alike."""


def figures_by_length(run: RunLog, best: Sequence[Best]) -> tuple[ByLength, ...]:
    """The figure of single rows in quarters of their lengths, for each best evaluation that left records.

    Lengths are tokens of the reference where these differ, else characters of the prompt: answers of a word
    are all alike.
    """
    found = []
    for one in best:
        path = run.record_files.get((one.figure.dataset, one.figure.step))
        if path is None:
            continue
        source = f"{path.parent.name}/{path.name}"
        examples = read_examples(path, source).examples
        metrics = dict.fromkeys(name for example in examples for name in example.scores)
        cuts = (_cut(examples, metric, one.figure, source) for metric in metrics)
        found += [cut for cut in cuts if cut is not None]
    return tuple(found)


def _cut(
    examples: Sequence[EvaluatedExample], metric: str, best: MeasuredFigure, source: str
) -> ByLength | None:
    scored = [one for one in examples if isinstance(one.scores.get(metric, {}).get("values"), dict)]
    names = list(dict.fromkeys(name for one in scored for name in one.scores[metric]["values"]))
    if not names:
        return None
    # macro-F1 and its like are no means over rows: the first figure of single rows is taken.
    figure = best.name if best.name in names else names[0]
    rows = [e for e in scored if isinstance(e.scores[metric]["values"].get(figure), (int, float))]
    if len(rows) < _FEWEST_ROWS:
        return None
    by, lengths = _lengths(rows)
    values = np.array([float(e.scores[metric]["values"][figure]) for e in rows])
    unparsed = np.array([e.scores[metric].get("parsed") is None for e in rows])
    inner = [int(edge) for edge in np.quantile(lengths, _QUARTERS, method="lower")]
    edges = sorted({int(lengths.min()) - 1, *inner, int(lengths.max())})
    if len(edges) < 3 or lengths.max() < _SPREAD * lengths.min():
        return None
    ranges = []
    for low, high in pairwise(edges):
        members = (lengths > low) & (lengths <= high)
        ranges.append(_range(low + 1, high, values[members], int(unparsed[members].sum())))
    return ByLength(
        dataset=best.dataset,
        step=best.step,
        metric=metric,
        figure=figure,
        by=by,
        ranges=tuple(ranges),
        source=source,
    )


def _lengths(rows: Sequence[EvaluatedExample]) -> tuple[str, NDArray[np.int64]]:
    tokens = [row.reference_tokens for row in rows]
    known = [length for length in tokens if length is not None]
    if len(known) == len(rows) and max(known) >= 2 * max(1, min(known)) and max(known) > 8:
        return "tokens of the reference", np.array(known, dtype=np.int64)
    return "characters of the prompt", np.array([len(row.prompt) for row in rows], dtype=np.int64)


def _range(low: int, high: int, values: NDArray[np.float64], unparsed: int) -> LengthRange:
    n, mean = len(values), float(values.mean())
    return LengthRange(
        low=low, high=high, n=n, value=mean, interval=_interval(values, mean, n), n_unparsed=unparsed
    )


def _interval(values: NDArray[np.float64], mean: float, n: int) -> ConfidenceInterval | None:
    if np.isin(values, (0.0, 1.0)).all():
        return significance.wilson_interval(mean, n)
    return significance.normal_interval(mean, float(values.std(ddof=1)) / n**0.5) if n > 1 else None
