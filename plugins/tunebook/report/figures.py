"""What the known figures are called, how they are written, and which are better smaller."""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    """A figure's name for readers and how it is drawn."""

    label: str
    number_format: str = ".2f"
    from_zero: bool = True
    smaller_is_better: bool = False


KNOWN: dict[str, Known] = {
    "loss": Known("evaluation loss", "~g", False, True),
    "perplexity": Known("perplexity", "~g", False, True),
    "ppl": Known("perplexity", "~g", False, True),
    "accuracy": Known("accuracy"),
    "macro_f1": Known("macro-F1"),
    "f1": Known("F1 (yes)"),
    "precision": Known("precision (yes)"),
    "recall": Known("recall (yes)"),
    "balanced_accuracy": Known("balanced accuracy"),
    "mcc": Known("Matthews correlation", ".2f", False),
    "auroc": Known("AUROC"),
    "predicted_yes_rate": Known("share answered yes"),
    "unparsed_rate": Known("share unparsed", ".2f", True, True),
    "majority_accuracy": Known("majority baseline"),
    "token_accuracy": Known("token accuracy"),
    "strict_match": Known("strict match"),
    "flexible_extract": Known("flexible extract"),
    "rouge1": Known("ROUGE-1"),
    "rouge2": Known("ROUGE-2"),
    "rougeL": Known("ROUGE-L"),
    "bleu": Known("BLEU"),
}

# In the order in which a reader asks for them; figures of other metrics follow by name.
_ORDER = {name: place for place, name in enumerate(KNOWN)}

BASELINE = "majority_accuracy"
"""Accuracy of always giving the commonest reference; drawn as a line into the accuracy chart."""


def label(name: str, *, engines_own: bool = False) -> str:
    """The figure's name for readers.

    Args:
        name: As logged, without `eval_` and dataset.
        engines_own: The engine computed it. Its `accuracy` counts tokens, not answers.

    >>> label("macro_f1"), label("accuracy", engines_own=True), label("my_score")
    ('macro-F1', 'token accuracy (engine)', 'my score')
    """
    if engines_own and name == "accuracy":
        return "token accuracy (engine)"
    return KNOWN[name].label if name in KNOWN else name.replace("_", " ").replace("/", " ")


def known(name: str) -> Known:
    """How to draw a figure, with plain defaults for one that is not known."""
    return KNOWN.get(name, Known(label(name), "~g", False, name.endswith("loss")))


def order(names: set[str], first: str | None) -> list[str]:
    """Figure names in reading order, `first` before all others."""
    return sorted(names, key=lambda name: (name != first, _ORDER.get(name, len(_ORDER)), name))
