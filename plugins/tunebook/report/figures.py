"""What a report says of figures, and which it shows beside the chosen one, or not at all."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from tunebook import metrics
from tunebook.errors import TunebookError
from tunebook.metrics.figures import known_figures, undeclared
from tunebook.scoring.figures import reported_figures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.types import Figure

NOT_FIGURES = frozenset({"answers_cut", "generation_seconds", "lexical_rate"})
"""What evaluations log beside their figures; shown elsewhere or of no use to a reader."""

BESIDE = (
    "accuracy", "majority_accuracy", "f1", "precision", "recall", "auroc", "strict_match", "flexible_extract",
    "rouge1", "rouge2", "rougeL", "bleu", "loss", "perplexity", "token_accuracy", "unparsed_rate",
)  # fmt: skip
"""What a summary shows beside the chosen figure, in this order."""

BASELINE = "majority_accuracy"
"""Accuracy of always giving the commonest reference; drawn as a line into the accuracy chart."""


def figure(name: str, measured_by: tuple[str, ...] = ()) -> Figure:
    """Return what is known of a figure.

    Args:
        name: As it was reported.
        measured_by: The metrics of its evaluation, which need not be installed ones.
    """
    return _known(measured_by).get(name) or undeclared(name)


def is_declared(name: str) -> bool:
    """Whether any installed metric or we ourselves say what is better in a figure of that name."""
    return name in _known(()) or name.endswith("loss")


def order(names: set[str], first: str | None, measured_by: tuple[str, ...] = ()) -> list[str]:
    """Figure names in reading order, `first` before all others."""
    places = {name: place for place, name in enumerate(_known(measured_by))}
    return sorted(names, key=lambda name: (name != first, places.get(name, len(places)), name))


@functools.cache
def _known(measured_by: tuple[str, ...]) -> Mapping[str, Figure]:
    """All that is declared, what these metrics declare before others; one that fails to load says nothing."""
    loaded = []
    for name in measured_by:
        try:
            loaded.append(metrics.load(name))
        except TunebookError:
            continue
    return {**known_figures(), **reported_figures(loaded, generates=True)}
