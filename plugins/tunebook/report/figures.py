"""What the known figures are called, how they are written, and which are better smaller."""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    """A figure's name for readers and how it is drawn."""

    label: str
    number_format: str = "~g"
    from_zero: bool = True
    smaller_is_better: bool = False


KNOWN: dict[str, Known] = {
    "loss": Known("evaluation loss", "~g", False, True),
    "perplexity": Known("perplexity", "~g", False, True),
    "ppl": Known("the engine's perplexity (ppl)", "~g", False, True),
    "accuracy": Known("accuracy"),
    "macro_f1": Known("macro-F1"),
    "f1": Known("F1 (yes)"),
    "precision": Known("precision (yes)"),
    "recall": Known("recall (yes)"),
    "balanced_accuracy": Known("balanced accuracy"),
    "mcc": Known("Matthews correlation", "~g", False),
    "specificity": Known("specificity (no)"),
    "auroc": Known("AUROC"),
    "average_precision": Known("average precision"),
    "predicted_yes_rate": Known("share answered yes"),
    "base_rate": Known("share of yes in the set"),
    "accuracy_parsed": Known("accuracy of what was read"),
    "brier": Known("Brier score", smaller_is_better=True),
    "ece": Known("calibration error", smaller_is_better=True),
    "class_mass": Known("probability on yes or no"),
    "class_mass_median": Known("median probability on yes or no"),
    "unparsed_rate": Known("share unparsed", smaller_is_better=True),
    "generation_cut_rate": Known("share cut by max_new_tokens", smaller_is_better=True),
    "majority_accuracy": Known("majority baseline"),
    "token_accuracy": Known("token accuracy"),
    "strict_match": Known("strict match"),
    "flexible_extract": Known("flexible extract"),
    "rouge1": Known("ROUGE-1"),
    "rouge2": Known("ROUGE-2"),
    "rougeL": Known("ROUGE-L"),
    "rougeLsum": Known("ROUGE-Lsum"),
    "bleu": Known("BLEU"),
    "chrf": Known("chrF"),
}

# In the order in which a reader asks for them; figures of other metrics follow by name.
_ORDER = {name: place for place, name in enumerate(KNOWN)}

NOT_FIGURES = frozenset(
    {"runtime", "samples_per_second", "steps_per_second", "answers_cut", "generation_seconds", "lexical_rate"}
)
"""What evaluations log beside their figures; told elsewhere or of no use to a reader."""

FIRST = frozenset(
    {"accuracy", "f1", "macro_f1", "strict_match", "flexible_extract", "rouge1", "rougeL", "bleu"}
)
"""Figures whose charts every reader is shown; the chosen one always is."""

BESIDE = (
    "accuracy", "majority_accuracy", "f1", "precision", "recall", "auroc", "strict_match", "flexible_extract",
    "rouge1", "rouge2", "rougeL", "bleu", "loss", "perplexity", "token_accuracy", "unparsed_rate",
)  # fmt: skip
"""What a summary shows beside the chosen figure, in this order."""

BASELINE = "majority_accuracy"
"""Accuracy of always giving the commonest reference; drawn as a line into the accuracy chart."""


def label(name: str) -> str:
    """The figure's name for readers.

    >>> label("macro_f1"), label("my_score")
    ('macro-F1', 'my score')
    """
    return KNOWN[name].label if name in KNOWN else name.replace("_", " ").replace("/", " ")


def known(name: str) -> Known:
    """How to draw a figure, with plain defaults for one that is not known."""
    return KNOWN.get(name, Known(label(name), "~g", False, name.endswith("loss")))


def order(names: set[str], first: str | None) -> list[str]:
    """Figure names in reading order, `first` before all others."""
    return sorted(names, key=lambda name: (name != first, _ORDER.get(name, len(_ORDER)), name))
