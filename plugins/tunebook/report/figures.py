"""Which figures a report shows first, beside the chosen one, or not at all."""

from __future__ import annotations

from tunebook.metrics.figures import figure, known_figures, label

__all__ = ["BASELINE", "BESIDE", "FIRST", "NOT_FIGURES", "figure", "is_secondary", "label", "order"]

NOT_FIGURES = frozenset(
    {"runtime", "samples_per_second", "steps_per_second", "answers_cut", "generation_seconds", "lexical_rate"}
)
"""What evaluations log beside their figures; told elsewhere or of no use to a reader."""

FIRST = frozenset(
    {
        *("accuracy", "f1", "macro_f1", "exact_match", "strict_match", "flexible_extract"),
        *("rouge1", "rougeL", "bleu"),
    }
)
"""Figures whose charts every reader is shown; the chosen one always is."""

BESIDE = (
    "accuracy", "majority_accuracy", "f1", "precision", "recall", "auroc", "strict_match", "flexible_extract",
    "rouge1", "rouge2", "rougeL", "bleu", "loss", "perplexity", "token_accuracy", "unparsed_rate",
)  # fmt: skip
"""What a summary shows beside the chosen figure, in this order."""

BASELINE = "majority_accuracy"
"""Accuracy of always giving the commonest reference; drawn as a line into the accuracy chart."""


def is_secondary(name: str) -> bool:
    """Whether the chart of a figure waits until a reader asks for it."""
    return name in known_figures() and name not in FIRST


def order(names: set[str], first: str | None) -> list[str]:
    """Figure names in reading order, `first` before all others."""
    places = {name: place for place, name in enumerate(known_figures())}
    return sorted(names, key=lambda name: (name != first, places.get(name, len(places)), name))
