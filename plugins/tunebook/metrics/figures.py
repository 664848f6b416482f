"""Figures that belong to no metric, and what is known of a figure by its name. No numpy.

What a metric's own figures are called, and which are better smaller, is said in that metric's `METRIC`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from tunebook import metrics
from tunebook.types import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOSS_FIGURES = (
    Figure(name="loss", label="evaluation loss", smaller_is_better=True, low=0.0, high=None, from_zero=False),
    Figure(
        name="perplexity",
        smaller_is_better=True,
        may_be_undefined=True,
        low=1.0,
        high=None,
        from_zero=False,
        detail=True,
    ),
    Figure(name="token_accuracy", detail=True),
    Figure(name="answers_cut", smaller_is_better=True, high=None),
)
"""Of every evaluation that we make, whatever its metrics."""

GENERATION_CUT = Figure(
    name="generation_cut_rate", label="share cut by max_new_tokens", smaller_is_better=True, detail=True
)
"""Of every evaluation that generates."""

_ENGINES = (
    Figure(
        name="ppl",
        label="the engine's perplexity (ppl)",
        smaller_is_better=True,
        low=1.0,
        high=None,
        from_zero=False,
        detail=True,
    ),
)
"""What an engine logs itself."""


TRAINER_FIGURES = (
    LOSS_FIGURES[0],
    *(
        Figure(name=name, high=None, descriptive=True)
        for name in ("runtime", "samples_per_second", "steps_per_second")
    ),
)
"""Of every evaluation of the Trainer's own."""

PREFERENCE_FIGURES = (
    Figure(name="rewards/accuracies", label="share of pairs whose chosen answer has the larger reward"),
    Figure(
        name="rewards/margins", label="reward of chosen less rejected", low=None, high=None, from_zero=False
    ),
    *(
        Figure(name=f"{name}/{side}", low=None, high=None, from_zero=False, descriptive=True, detail=True)
        for name in ("rewards", "logps", "logits")
        for side in ("chosen", "rejected")
    ),
)
"""Of the engines' evaluations of a training on preferences."""


@functools.cache
def known_figures() -> Mapping[str, Figure]:
    """Return every figure of ours and of the metrics that are installed, by name, in reading order.

    Where two metrics have a figure of one name, the first says what it is; a package whose import fails
    says nothing here, and everything where it is asked for by name.
    """
    found: dict[str, Figure] = {}
    engines = (*_ENGINES, *PREFERENCE_FIGURES)
    for figure in (*LOSS_FIGURES[:2], *engines, *_of_metrics(), *LOSS_FIGURES[2:], GENERATION_CUT):
        found.setdefault(figure.name, figure)
    return found


def _of_metrics() -> Iterator[Figure]:
    for metric in metrics.installed():
        yield from metric.figures


def undeclared(name: str) -> Figure:
    """Return what can be said of a figure that nothing declares: a loss is better smaller.

    >>> undeclared("my_score").label
    'my score'
    """
    return Figure(name=name, smaller_is_better=name.endswith("loss"), low=None, high=None, from_zero=False)
