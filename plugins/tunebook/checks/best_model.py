"""The choice of the best model and early stopping: what fails at the first evaluation, or chooses wrongly."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, NamedTuple

from tunebook import metrics
from tunebook.errors import TunebookError
from tunebook.metrics.figures import TRAINER_FIGURES, known_figures
from tunebook.scoring.figures import reported_figures
from tunebook.types import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tunebook.checks.findings import Finding
    from tunebook.checks.recipe import CheckedRecipe


_GENERATED = ("rouge-1", "rouge-2", "rouge-l", "bleu-4")
"""LLaMA-Factory's own, with `predict_with_generate`."""


class Reported(NamedTuple):
    """What the evaluations of a run end with."""

    figures: Mapping[str, Figure]
    """By name without `eval_`."""
    ours: bool
    """Our evaluation is at work, which turns `greater_is_better` round where a figure asks for it."""
    functions: tuple[str, ...]
    """Metrics that may report more: what a user's function returns is known only when it has run."""


def reported(recipe: CheckedRecipe) -> Reported | None:
    """Return what the evaluations report; None where an entry or a metric is missing: other rules say so."""
    entries = recipe.entries(recipe.evaluation_sets)
    if len(entries) < len(recipe.evaluation_sets):
        return None
    objective = recipe.objective
    answers = objective is None or objective.no_answers is None
    # In Axolotl named sets come with our plugin.
    if not (answers and any(entry.metrics or recipe.engine == "axolotl" for entry in entries)):
        own = _of_engine(recipe)
        return None if own is None else Reported(own, ours=False, functions=())
    separate = len(entries) > 1 if recipe.engine == "axolotl" else recipe.get("eval_on_each_dataset")
    found: dict[str, Figure] = {}
    functions = []
    for entry in entries:
        try:
            asked = [metric for metric, _ in metrics.load_asked(entry.metrics)]
        except TunebookError:
            return None
        functions += [metric.name for metric in asked if not metric.figures_complete]
        generates = any(spec.mode != "answer" for spec in entry.metrics)
        prefix = f"{entry.name}_" if separate else ""
        if objective is not None:
            found |= objective.reported(entry.name if separate else "")
            if not entry.metrics:
                continue
        found |= {
            f"{prefix}{name}": one for name, one in reported_figures(asked, generates=generates).items()
        }
    return Reported(found, ours=True, functions=tuple(functions))


def _of_engine(recipe: CheckedRecipe) -> dict[str, Figure] | None:
    names = recipe.evaluation_sets if recipe.get("eval_on_each_dataset") else ()
    if recipe.objective is not None:
        if recipe.objective.figures is None:
            return None
        own = recipe.objective.reported
        return {key: figure for name in names or ("",) for key, figure in own(name).items()}
    found = {figure.name: figure for figure in TRAINER_FIGURES}
    if recipe.get("compute_accuracy"):
        found["accuracy"] = Figure(name="accuracy")
    if recipe.get("predict_with_generate"):
        found |= {name: Figure(name=name) for name in _GENERATED}
    return {f"{name}_{key}": figure for name in names for key, figure in found.items()} or found


def check_best_model(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`save-eval-steps`, `best-not-saved`, `metric-not-produced`, `early-stopping`, `greater-is-better`."""
    if recipe.engine == "llamafactory" and recipe.command == "train":
        yield from _cadence(recipe)
        yield from _early_stopping(recipe)
    if recipe.command == "train":
        yield from _metric_for_best_model(recipe)
    yield from _direction(recipe)


def _cadence(recipe: CheckedRecipe) -> Iterator[Finding]:
    if not recipe.get("load_best_model_at_end"):
        return
    save, evaluate = (
        "no" if value is False else str(value)
        for value in (recipe.effective("save_strategy"), recipe.effective("eval_strategy"))
    )
    if save == "best":
        return
    if save != evaluate:
        yield recipe.error(
            "load_best_model_at_end",
            "save-eval-steps",
            f"save_strategy is {save} and eval_strategy {evaluate}: the best model cannot be kept",
            fix="set both to the same, or save_strategy: best",
        )
        return
    if save != "steps":
        return
    saved = recipe.number("save_steps")
    evaluated = recipe.number("eval_steps") or recipe.number("logging_steps")
    if not saved or not evaluated or saved == evaluated:
        return
    if saved % evaluated and not (saved < 1 and evaluated < 1):
        yield recipe.error(
            "save_steps",
            "save-eval-steps",
            f"save_steps ({saved:g}) is no multiple of eval_steps ({evaluated:g})",
            fix=f"set save_steps: {evaluated:g}",
        )
    else:
        yield recipe.warning(
            "save_steps",
            "best-not-saved",
            f"of {saved / evaluated:g} evaluations one is saved: a best model at another is lost, "
            "and the last one is kept, without a message",
            fix=f"set save_steps: {evaluated:g}, or save_strategy: best",
        )


def _metric_for_best_model(recipe: CheckedRecipe) -> Iterator[Finding]:
    wanted = recipe.get("metric_for_best_model")
    if not isinstance(wanted, str):
        return
    found = reported(recipe)
    if found is None or (recipe.engine == "axolotl" and not found.ours):
        return  # Axolotl by itself logs more than anybody has listed
    name = wanted.removeprefix("eval_")
    if name in found.figures:
        if not found.ours and recipe.get("compute_accuracy") and name.endswith("accuracy"):
            yield recipe.warning(
                "metric_for_best_model",
                "token-accuracy",
                "with compute_accuracy this is the share of right tokens, not of right answers",
                fix='give the dataset a "metric" in dataset_info.json, and remove compute_accuracy',
            )
        return
    if found.functions:
        yield recipe.hint(
            "metric_for_best_model",
            "metric-not-produced",
            f"nothing declares {name!r}: the run ends at the first evaluation unless "
            f"{' or '.join(found.functions)} returns it",
            fix="declare it in the function's attribute `figures`, as docs/metrics.md says",
        )
        return
    names = [figure for figure, one in found.figures.items() if not one.descriptive]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    yield recipe.error(
        "metric_for_best_model",
        "metric-not-produced",
        f"no evaluation produces {name!r}: the run ends at the first one",
        fix=f"did you mean {close[0]}?" if close else f"choose one of {', '.join(names[:12])}",
        edit=recipe.rewrite("metric_for_best_model", close[0]) if close else None,
    )


def _early_stopping(recipe: CheckedRecipe) -> Iterator[Finding]:
    if not recipe.get("early_stopping_steps"):
        return
    if recipe.effective("eval_strategy") in ("no", False, None):
        yield recipe.error(
            "early_stopping_steps",
            "early-stopping",
            "early stopping needs evaluations, and eval_strategy is no",
            fix="add eval_strategy: steps and eval_steps",
        )
    elif not recipe.get("metric_for_best_model") and not recipe.get("load_best_model_at_end"):
        yield recipe.error(
            "early_stopping_steps",
            "early-stopping",
            "early stopping has no metric to watch: training ends with an AssertionError",
            fix="add metric_for_best_model and load_best_model_at_end: true",
        )


def _direction(recipe: CheckedRecipe) -> Iterator[Finding]:
    """The Trainer takes larger for better unless the name ends in `loss` or `greater_is_better` is set.

    Our evaluation turns that round for a figure of which smaller is better.
    """
    wanted = recipe.get("metric_for_best_model")
    found = reported(recipe)
    if not isinstance(wanted, str) or found is None:
        return
    name = wanted.removeprefix("eval_")
    chosen = found.figures.get(name) or known_figures().get(name)
    if chosen is None or chosen.descriptive:
        return
    set_to = recipe.values.get("greater_is_better")
    # Without our plugin Axolotl drops `false`, so that the Trainer goes by the name.
    dropped = set_to is False and recipe.engine == "axolotl" and not found.ours
    by_name = set_to is None or dropped
    if chosen.smaller_is_better and (set_to is True or (by_name and not wanted.endswith("loss"))):
        if found.ours and set_to is None:
            return
        because = "Axolotl drops `false`, so " if dropped else ""
        yield recipe.finding(
            "metric_for_best_model" if set_to is None else "greater_is_better",
            rule="greater-is-better",
            severity="hint" if found.ours else "error",
            message=f"smaller is better of {wanted}: tunebook sets greater_is_better to false"
            if found.ours
            else f"{because}the largest {wanted} would be taken for the best",
            fix="set greater_is_better: false"
            if found.ours or recipe.engine == "llamafactory"
            else "choose by a figure of which larger is better, or by eval_loss",
        )
    elif not chosen.smaller_is_better and set_to is False and not dropped:
        yield recipe.warning(
            "greater_is_better",
            "greater-is-better",
            f"the smallest {wanted} would be taken for the best",
            fix="set greater_is_better: true",
        )
