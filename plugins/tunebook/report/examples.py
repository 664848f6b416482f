"""Picks wrong and unreadable answers and cuts their texts to what a reader can take in."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from tunebook.report.row_records import Examples, ShownExample
from tunebook.runlog.evaluations import read_examples
from tunebook.text import SPECIAL_TOKENS, cut, opening

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.runlog import Example, Note, RunLog

SHOWN = 10
_ROLE_AT_THE_END = re.compile(r"\s*(?:assistant|model)\s*(?:<think>\s*</think>)?\s*\Z")


def examples_of(run: RunLog, dataset: str, step: int) -> tuple[list[Examples], list[Note]]:
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


def _examples(examples: Sequence[Example], metric: str, dataset: str, step: int, source: str) -> Examples:
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
    return Examples(
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
    )


def _is_right(score: Mapping[str, Any]) -> bool:
    """Whether an example counts as right: its first figure is not zero."""
    values = score.get("values")
    first = next(iter(values.values()), None) if isinstance(values, dict) else None
    return isinstance(first, (int, float)) and first > 0


def _shown(example: Example, metric: str, prefix: str) -> ShownExample:
    score = example.scores[metric]
    parsed, reason = score.get("parsed"), score.get("reason")
    return ShownExample(
        dataset=example.dataset,
        step=example.step,
        index=example.index,
        metric=metric,
        prompt=cut(_plain(example.prompt), prefix),
        reference=opening(example.reference),
        prediction=opening(example.prediction),
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
