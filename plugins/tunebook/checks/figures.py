"""Names of the figures that an evaluation ends with, told from the recipe and its registry alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunebook.checks.subject import Subject

# Figures of our metrics; a test holds them equal to the metrics' own, which need numpy.
FIGURES: dict[str, tuple[str, ...]] = {
    "yes_no": (
        *("accuracy", "f1", "macro_f1", "precision", "recall", "specificity", "balanced_accuracy", "mcc"),
        *("predicted_yes_rate", "base_rate", "majority_accuracy", "accuracy_parsed", "unparsed_rate"),
        *("lexical_rate", "auroc", "average_precision", "brier", "ece", "class_mass", "class_mass_median"),
    ),
    "gsm8k": ("exact_match", "strict_match", "flexible_extract", "exact_match_parsed", "unparsed_rate"),
    "exact_match": ("exact_match", "verbatim", "unparsed_rate"),
    "multiple_choice": ("accuracy", "majority_accuracy", "unparsed_rate"),
    "rouge": (
        *("rouge1", "rouge2", "rougeL", "rougeLsum", "length_ratio", "unparsed_rate"),
        *(
            f"{kind}_ref_{size}"
            for size in ("0_127", "128_511", "512_2047", "2048_8191", "8192_up")
            for kind in ("rougeL", "n")
        ),
    ),
    "bleu": ("bleu", "brevity_penalty", "length_ratio", "unparsed_rate"),
    "chrf": ("chrf", "unparsed_rate"),
}
SMALLER_IS_BETTER = frozenset({"loss", "perplexity", "brier", "ece", "lexical_rate", "unparsed_rate"})

_FROM_TRAINER = ("loss", "runtime", "samples_per_second", "steps_per_second", "epoch")
_WITH_METRICS = ("perplexity", "token_accuracy", "answers_cut", "nan")
_GENERATED = ("rouge-1", "rouge-2", "rouge-l", "bleu-4")


def produced(subject: Subject) -> list[str] | None:
    """Return the names without `eval_`; None where a metric of somebody else adds unknown ones."""
    names = list(_FROM_TRAINER)
    if subject.get("compute_accuracy"):
        names.append("accuracy")
    if subject.get("predict_with_generate"):
        names += _GENERATED
    entries = subject.entries(subject.evaluation_sets)
    asked = [spec.name for entry in entries for spec in entry.metrics]
    if any(name not in FIGURES and name != "perplexity" for name in asked):
        return None
    if len(entries) < len(subject.evaluation_sets):
        return None  # another rule tells about the entry
    for name in asked:
        names += [*_WITH_METRICS, *FIGURES.get(name, ())]
        names += [f"{name}_{figure}" for figure in FIGURES.get(name, ())]
    if len(entries) > 1 and subject.get("eval_on_each_dataset"):
        return [f"{entry.name}_{name}" for entry in entries for name in dict.fromkeys(names)]
    return list(dict.fromkeys(names))
