"""The choice of the best model and early stopping: what fails at the first evaluation, or chooses wrongly."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from tunebook import metrics
from tunebook.errors import TunebookError
from tunebook.metrics.figures import LOSS_FIGURES, known_figures
from tunebook.scoring.figures import reported_figures
from tunebook.types import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.checks.findings import Finding
    from tunebook.checks.subject import Subject


_FROM_TRAINER = (
    LOSS_FIGURES[0],
    *(
        Figure(name=name, high=None)
        for name in ("runtime", "samples_per_second", "steps_per_second", "epoch")
    ),
)
_GENERATED = ("rouge-1", "rouge-2", "rouge-l", "bleu-4")
"""LLaMA-Factory's own, with `predict_with_generate`."""


def produced(subject: Subject) -> dict[str, Figure] | None:
    """Return what evaluations end with, by name without `eval_`.

    None where it is not known: a user's function, a metric that cannot be loaded, an entry that is not
    there; other rules say so.
    """
    found = {figure.name: figure for figure in _FROM_TRAINER}
    if subject.get("compute_accuracy"):
        found["accuracy"] = Figure(name="accuracy")
    if subject.get("predict_with_generate"):
        found |= {name: Figure(name=name) for name in _GENERATED}
    entries = subject.entries(subject.evaluation_sets)
    if len(entries) < len(subject.evaluation_sets):
        return None
    by_set: dict[str, Figure] = {}
    each = len(entries) > 1 and bool(subject.get("eval_on_each_dataset"))
    for entry in entries:
        try:
            asked = [metrics.load(spec.name) for spec in entry.metrics if spec.name != "perplexity"]
        except TunebookError:
            return None
        if not all(metric.figures_complete for metric in asked):
            return None
        of_set = dict(found)
        if entry.metrics and (subject.engine == "axolotl" or subject.effective("stage") == "sft"):
            of_set |= reported_figures(asked, generates=any(m.mode != "answer" for m in entry.metrics))
        by_set |= {f"{entry.name}_{name}" if each else name: one for name, one in of_set.items()}
    return by_set or found


def check_best_model(subject: Subject) -> Iterator[Finding]:
    """`save-eval-steps`, `best-not-saved`, `metric-not-produced`, `early-stopping`, `greater-is-better`."""
    if subject.engine == "llamafactory" and subject.command == "train":
        yield from _cadence(subject)
        yield from _metric_for_best_model(subject)
        yield from _early_stopping(subject)
    yield from _direction(subject)


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
    if not isinstance(wanted, str):
        return
    names = produced(subject)
    name = wanted.removeprefix("eval_")
    if subject.effective("stage") not in ("sft", "pt") and name not in known_figures():
        return  # the trainer of another stage has figures of its own, such as rewards/accuracies
    if subject.effective("stage") == "rm" and name == "accuracy":
        return
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
        fix=f"did you mean {close[0]}?" if close else f"choose one of {', '.join(list(names)[:12])}",
        edit=subject.rewrite("metric_for_best_model", close[0]) if close else None,
    )


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


def _direction(subject: Subject) -> Iterator[Finding]:
    """The Trainer takes larger for better unless the name ends in `loss` or it is told otherwise.

    Where our metrics are measured, the hook turns that round for a figure of which smaller is better.
    """
    wanted = subject.get("metric_for_best_model")
    names = produced(subject)
    if not isinstance(wanted, str) or names is None:
        return
    bare = wanted.removeprefix("eval_")
    chosen = names.get(bare) or known_figures().get(bare)
    if chosen is None:
        return
    told = subject.values.get("greater_is_better")
    ours = any(entry.metrics for entry in subject.entries(subject.evaluation_sets))
    larger_taken = told is True or (told is not False and not wanted.endswith("loss"))
    # Axolotl drops `false`, so that the Trainer goes by the name.
    larger_taken |= told is False and subject.engine == "axolotl" and not wanted.endswith("loss")
    if chosen.smaller_is_better and larger_taken:
        if ours and told is not True:
            return
        yield subject.finding(
            "metric_for_best_model" if told is None else "greater_is_better",
            rule="greater-is-better",
            severity="hint" if ours else "error",
            message=f"smaller is better of {wanted}: tunebook sets greater_is_better to false"
            if ours
            else f"the largest {wanted} would be taken for the best",
            fix="choose by a figure of which larger is better, or by eval_loss"
            if subject.engine == "axolotl"
            else "set greater_is_better: false",
        )
    elif not chosen.smaller_is_better and told is False and subject.engine == "llamafactory":
        yield subject.finding(
            "greater_is_better",
            rule="greater-is-better",
            severity="warning",
            message=f"the smallest {wanted} would be taken for the best",
            fix="set greater_is_better: true",
        )
