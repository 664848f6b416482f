"""Evaluation, the choice of the best model, and early stopping: what would fail late, or not happen."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from tunebook.checks.subject import as_number
from tunebook.engines.axolotl_rules import PLUGIN, evaluation_faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.checks.findings import Finding
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


def check_evaluation(subject: Subject) -> Iterator[Finding]:
    """Every rule of this module that fits the engine."""
    if subject.engine == "axolotl":
        yield from _axolotl(subject)
    elif subject.command == "train":
        yield from _nothing_to_do(subject)
        yield from _cadence(subject)
        yield from _metric_for_best_model(subject)
        yield from _early_stopping(subject)
        yield from _what_is_measured(subject)
    yield from _direction(subject)


def _nothing_to_do(subject: Subject) -> Iterator[Finding]:
    does = [key for key in ("do_train", "do_eval", "do_predict") if subject.get(key)]
    if not does:
        yield subject.finding(
            "do_train",
            rule="trains-nothing",
            severity="warning",
            message="none of do_train, do_eval, do_predict is true: data and model are loaded, no more",
            fix="add do_train: true",
        )
    if subject.get("do_train") and not subject.get("dataset"):
        yield subject.finding(
            "do_train", rule="no-dataset", severity="error", message="there is no `dataset` to train on",
            fix="add dataset: <name in dataset_info.json>",
        )  # fmt: skip
    if subject.get("eval_dataset") and as_number(subject.get("val_size")):
        yield subject.finding(
            "val_size",
            rule="two-evaluation-sets",
            severity="error",
            message="`eval_dataset` and `val_size` cannot both be set",
            fix="remove one of them",
        )
    asks = [key for key in ("do_eval", "do_predict", "predict_with_generate") if subject.get(key)]
    if subject.get("eval_strategy") in ("steps", "epoch"):
        asks.append("eval_strategy")
    if asks and not subject.evaluates:
        yield subject.finding(
            asks[0],
            rule="nothing-to-evaluate",
            severity="error",
            message=f"`{asks[0]}` is set, and there is nothing to evaluate on",
            fix="add eval_dataset, or val_size: 0.1 to split off a tenth of the training rows",
        )
    if subject.get("val_size") == 1 and isinstance(subject.get("val_size"), int):
        yield subject.finding(
            "val_size", rule="one-row", severity="warning", message="1 is one row, not all of them",
            fix="give a share below 1, e.g. 0.1, or a number of rows",
        )  # fmt: skip
    if subject.evaluates and not asks:
        key = "eval_dataset" if subject.get("eval_dataset") else "val_size"
        yield subject.finding(
            key,
            rule="never-evaluates",
            severity="warning",
            message="nothing asks for an evaluation: the rows are loaded and never used",
            fix="add eval_strategy: steps and eval_steps",
        )


def _cadence(subject: Subject) -> Iterator[Finding]:
    if not subject.get("load_best_model_at_end"):
        return
    save, evaluate = (
        "no" if value is False else str(value)
        for value in (subject.effective("save_strategy"), subject.effective("eval_strategy"))
    )
    if save == "best":
        return
    if save != evaluate:
        yield subject.finding(
            "load_best_model_at_end",
            rule="save-eval-steps",
            severity="error",
            message=f"save_strategy is {save} and eval_strategy {evaluate}: the best model cannot be kept",
            fix="set both to the same, or save_strategy: best",
        )
        return
    if save != "steps":
        return
    saved = subject.number("save_steps")
    evaluated = subject.number("eval_steps") or subject.number("logging_steps")
    if not saved or not evaluated or saved == evaluated:
        return
    if saved % evaluated and not (saved < 1 and evaluated < 1):
        yield subject.finding(
            "save_steps",
            rule="save-eval-steps",
            severity="error",
            message=f"save_steps ({saved:g}) is no multiple of eval_steps ({evaluated:g})",
            fix=f"set save_steps: {evaluated:g}",
        )
    else:
        yield subject.finding(
            "save_steps",
            rule="best-not-saved",
            severity="warning",
            message=f"of {saved / evaluated:g} evaluations one is saved: a best model at another is lost, "
            "and the last one kept, without a word",
            fix=f"set save_steps: {evaluated:g}, or save_strategy: best",
        )


def _metric_for_best_model(subject: Subject) -> Iterator[Finding]:
    wanted = subject.get("metric_for_best_model")
    if not isinstance(wanted, str) or subject.effective("stage") not in ("sft", "pt"):
        return
    names = _produced(subject)
    name = wanted.removeprefix("eval_")
    if names is None or name in names:
        if name == "accuracy" and subject.get("compute_accuracy") and names is not None:
            yield subject.finding(
                "metric_for_best_model",
                rule="token-accuracy",
                severity="warning",
                message="with compute_accuracy this is the share of right tokens, not of right answers",
                fix='give the dataset a "metric" in dataset_info.json, and remove compute_accuracy',
            )
        return
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    yield subject.finding(
        "metric_for_best_model",
        rule="metric-not-produced",
        severity="error",
        message=f"no evaluation produces {name!r}: the run ends at the first one",
        fix=f"did you mean {close[0]}?" if close else f"choose one of {', '.join(names[:12])}",
        edit=subject.rewrite("metric_for_best_model", close[0]) if close else None,
    )


def _produced(subject: Subject) -> list[str] | None:
    """Names an evaluation has, without `eval_`; None where a metric of somebody else adds unknown ones."""
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


def _early_stopping(subject: Subject) -> Iterator[Finding]:
    if not subject.get("early_stopping_steps"):
        return
    if subject.effective("eval_strategy") in ("no", False, None):
        yield subject.finding(
            "early_stopping_steps",
            rule="early-stopping",
            severity="error",
            message="early stopping needs evaluations, and eval_strategy is no",
            fix="add eval_strategy: steps and eval_steps",
        )
    elif not subject.get("metric_for_best_model") and not subject.get("load_best_model_at_end"):
        yield subject.finding(
            "early_stopping_steps",
            rule="early-stopping",
            severity="error",
            message="early stopping has no metric to watch: training ends with an AssertionError",
            fix="add metric_for_best_model and load_best_model_at_end: true",
        )


def _what_is_measured(subject: Subject) -> Iterator[Finding]:
    measured = [entry.name for entry in subject.entries(subject.evaluation_sets) if entry.metrics]
    for key in ("packing", "neat_packing"):
        if subject.get(key) and measured:
            yield subject.finding(
                key,
                rule="packed-evaluation",
                severity="error",
                message=f"packs the rows of {', '.join(measured)} too: no answer can be told from the next",
                fix=f'remove {key}, or take "metric" out of the registry entry',
            )
    if subject.get("train_on_prompt") and measured:
        yield subject.finding(
            "train_on_prompt",
            rule="packed-evaluation",
            severity="error",
            message=f"takes loss on the prompts of {', '.join(measured)}, so no answer stands out",
            fix="remove train_on_prompt",
        )
    if subject.get("predict_with_generate") and subject.get("compute_accuracy"):
        yield subject.finding(
            "compute_accuracy",
            rule="generate-and-accuracy",
            severity="error",
            message="`predict_with_generate` and `compute_accuracy` cannot both be set",
            fix="remove compute_accuracy",
        )
    if subject.get("do_predict") and not subject.get("predict_with_generate"):
        yield subject.finding(
            "do_predict",
            rule="generate-and-accuracy",
            severity="error",
            message="do_predict needs predict_with_generate",
            fix="add predict_with_generate: true",
        )


def _direction(subject: Subject) -> Iterator[Finding]:
    """The Trainer takes larger for better unless the name ends in `loss` or it is told otherwise."""
    wanted = subject.get("metric_for_best_model")
    if not isinstance(wanted, str):
        return
    told = subject.values.get("greater_is_better")
    figure = next((name for name in SMALLER_IS_BETTER if wanted.endswith(name)), None)
    ends_in_loss = wanted.endswith("loss")
    if figure and told is not False and (told is True or not ends_in_loss):
        yield subject.finding(
            "greater_is_better" if told is True else "metric_for_best_model",
            rule="greater-is-better",
            severity="error",
            message=f"the largest {wanted} would be taken for the best",
            fix="choose by a figure of which larger is better, or by eval_loss"
            if subject.engine == "axolotl"
            else "set greater_is_better: false",
        )
    elif figure and not ends_in_loss and told is False and subject.engine == "axolotl":
        yield subject.finding(
            "greater_is_better",
            rule="greater-is-better",
            severity="error",
            message=f"Axolotl drops `false`, so the largest {wanted} would be taken for the best",
            fix="choose by a figure of which larger is better, or by eval_loss",
        )
    elif not figure and told is False and subject.engine == "llamafactory":
        yield subject.finding(
            "greater_is_better",
            rule="greater-is-better",
            severity="warning",
            message=f"the smallest {wanted} would be taken for the best",
            fix="set greater_is_better: true",
        )


def _axolotl(subject: Subject) -> Iterator[Finding]:
    plugins = subject.get("plugins", [])
    if isinstance(plugins, list) and PLUGIN in plugins and subject.locate(str(subject.registry_folder)):
        folder = subject.registry_folder or ""
        root = next((place for place in subject.folders if (place / folder).exists()), subject.folders[0])
        for error in evaluation_faults(subject.values, root):
            key = next(
                (
                    word
                    for word in error.problem.replace(":", " ").replace("`", " ").split()
                    if word in subject.values
                ),
                None,
            )
            yield subject.finding(
                key, rule="axolotl-evaluation", severity="error", message=error.problem, fix=error.fix
            )
        return
    if subject.get("test_datasets") and as_number(subject.get("val_set_size")):
        yield subject.finding(
            "val_set_size",
            rule="two-evaluation-sets",
            severity="error",
            message="`test_datasets` and `val_set_size` cannot both be set",
            fix="remove one of them",
        )
    asked = [
        key
        for key in ("eval_strategy", "evaluation_strategy", "eval_steps", "evals_per_epoch")
        if subject.get(key)
    ]
    if subject.evaluates and not asked and not subject.get("rl"):
        key = "test_datasets" if subject.get("test_datasets") else "val_set_size"
        yield subject.finding(
            key,
            rule="never-evaluates",
            severity="warning",
            message="nothing asks for an evaluation: these rows are held back and never used",
            fix="add eval_steps or evals_per_epoch"
            if key == "test_datasets"
            else "add eval_steps or evals_per_epoch, or set val_set_size: 0",
        )
    strategy = next((key for key in ("eval_steps", "eval_strategy") if subject.get(key)), None)
    never = subject.get("val_set_size") == 0 and not subject.get("test_datasets")
    if never and strategy and subject.get("eval_strategy") != "no":
        yield subject.finding(
            strategy,
            rule="nothing-to-evaluate",
            severity="error",
            message=f"`{strategy}` is set, and with val_set_size: 0 there is nothing to evaluate on",
            fix=f"give val_set_size a share, or remove {strategy}",
        )
