"""Sets the best evaluation beside that of the base model, before any step was taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.comparison.figures import SIGNIFICANT
from tunebook.report.best import figure
from tunebook.report.paired import answers_of
from tunebook.report.records import Against, Finding
from tunebook.text import number, p_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tunebook.report.best import Measured
    from tunebook.report.paired import Pairing
    from tunebook.report.records import Best
    from tunebook.runlog import RunLog

_NONE = (
    "the base model was not evaluated on this set: tunebook eval --base does it, and in LLaMA-Factory "
    "eval_on_start: true"
)


def against_base(
    run: RunLog, measured: Mapping[str, Sequence[Measured]], best: Best, pairing: Pairing
) -> Against:
    """The figure of the base model on the set of `best`, and the paired test of the two.

    Args:
        run: As read.
        measured: Its evaluations by dataset.
        best: The best evaluation of one dataset.
        pairing: Reads the records.
    """
    name, dataset = best.figure.name, best.figure.dataset
    base = next(
        (
            one
            for one in measured[dataset]
            if one.evaluation.step == 0
            and not one.evaluation.after_training
            and name in one.evaluation.values
        ),
        None,
    )
    if base is None or best.figure.step == 0:
        reason = _NONE if base is None else "no evaluation of this set was better than the base itself"
        return Against(figure=None, reason=reason, test=None, p_value=None)
    top = next(one for one in measured[dataset] if one.evaluation.step == best.figure.step)
    outcome = pairing.test(
        answers_of(run, "the base", base.evaluation, name), answers_of(run, run.name, top.evaluation, name)
    )
    told = figure(base, name, larger_is_better=best.figure.larger_is_better)
    if outcome.difference is None:
        return Against(figure=told, reason=outcome.reason, test=None, p_value=None)
    difference = outcome.difference
    words = (
        f"{difference.test} over {difference.n:,} rows: {difference.difference:+.3f}, "
        f"p {p_value(difference.p_value)}"
    )
    return Against(figure=told, reason=None, test=words, p_value=difference.p_value)


def not_better_than_base(best: Sequence[Best]) -> Iterator[Finding]:
    """A tuned model that the paired test does not tell from the base, or shows to be worse."""
    for one in best:
        base = one.base.figure
        if base is None:
            continue
        sign = 1 if one.figure.larger_is_better else -1
        gain = sign * (one.figure.value - base.value)
        sure = one.base.p_value is not None and one.base.p_value < SIGNIFICANT
        if gain > 0 and (sure or one.base.p_value is None):
            continue
        worse = gain < 0 and sure
        verdict = "worse" if worse else "not shown to be better"
        yield Finding(
            level="warning",
            title=f"{verdict} than the base model on {one.figure.dataset}",
            evidence=f"{one.figure.label} {number(one.figure.value)} at step {one.figure.step} against "
            f"{number(base.value)} before training; {one.base.test or one.base.reason}",
            source=one.figure.source,
        )
