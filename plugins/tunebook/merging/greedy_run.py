"""Makes a greedy soup: evaluates inputs and candidate soups through the engine, one after another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunebook import files
from tunebook.errors import TunebookError
from tunebook.evaluation import run as evaluation
from tunebook.evaluation.finalise import write_result
from tunebook.evaluation.plan import JOURNAL, plan_evaluation
from tunebook.evaluation.records import digest
from tunebook.merging.greedy import choose
from tunebook.merging.plan import plan_merge
from tunebook.merging.run import merge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.evaluation.plan import EvalPlan
    from tunebook.merging.greedy import GreedyPlan
    from tunebook.merging.plan import MergePlan

Kind = Literal["adapter", "model"]
Follow = Callable[[evaluation.Start], AbstractContextManager[Callable[[evaluation.Progress], None]]]

_NOTE = (
    "{0} chose what went in, so the figure on {0} is no fair judge of the result: evaluate it on another set."
)


def make_greedy(
    plan: GreedyPlan,
    *,
    environment: Path,
    max_shard_bytes: int | None,
    follow: Follow,
    say: Callable[[str], None],
) -> tuple[MergePlan, dict[str, Any]]:
    """Evaluate the inputs and the soups that are tried.

    What is finished is kept below the folder of the evaluations: started again, it goes on from there.

    Args:
        plan: From `plan_greedy`.
        environment: As for `merge`.
        max_shard_bytes: As for `plan_merge`.
        follow: Shows how far an engine is.
        say: Told what every model gave.

    Returns:
        The merge of what was kept, and how it was chosen.

    Raises:
        TunebookError: A model could not be evaluated.
        KeyboardInterrupt: It was stopped.
    """
    inputs = plan.whole.inputs
    own = _evaluate(plan.inputs, follow)
    results = [own[unit.subject.path] for unit in plan.units]
    soups: dict[int, Mapping[str, Any]] = {}
    for given, result in zip(inputs, results, strict=True):
        say(f"{given.argument}: {_told(result)}")

    def trial(members: tuple[int, ...]) -> float | None:
        result = soups[members[-1]] = _soup(plan, members, environment, follow)
        say(f"with {inputs[members[-1]].argument}: {_told(result)}")
        return _figure(result)

    larger = bool(results[0]["larger_is_better"])
    try:
        steps = choose([_figure(result) for result in results], trial, larger_is_better=larger)
    except ValueError as err:
        raise TunebookError(
            f"on {plan.dataset} no input has a finite {results[0]['select_by']}", fix="choose by another set"
        ) from err
    shutil.rmtree(plan.kitchen, ignore_errors=True)
    kept = [step.position for step in steps if step.kept]
    kind: Kind | None = None
    if plan.whole.base is not None:
        kind = "model" if plan.whole.adapter_config is None else "adapter"
    told = [
        {
            "candidate": inputs[step.position].argument,
            "folder": str(inputs[step.position].folder),
            "own": _figure(results[step.position]),
            "without": step.without,
            "with": step.with_,
            "kept": step.kept,
            "n": results[step.position]["n"],
            "n_unparsed": results[step.position]["n_unparsed"],
            "n_unparsed_with": soups.get(step.position, results[step.position])["n_unparsed"],
        }
        for step in steps
    ]
    return _average(plan, kept, plan.whole.output, kind, max_shard_bytes), {
        "dataset": plan.dataset,
        "figure": results[0]["select_by"],
        "larger_is_better": larger,
        "recipe": plan.request.recipe,
        "evals": str(plan.request.output),
        "steps": told,
        "note": _NOTE.format(plan.dataset),
    }


def _average(
    plan: GreedyPlan, members: Sequence[int], output: Path, kind: Kind | None, limit: int | None = None
) -> MergePlan:
    chosen = tuple(plan.whole.inputs[index] for index in members)
    base = plan.whole.base
    made = plan_merge(
        [str(given.folder) for given in chosen],
        output,
        base=None if base is None else str(base.folder),
        as_kind=kind,
        max_shard_bytes=limit,
    )
    # They keep the names that the user gave them.
    return replace(made, inputs=chosen, base=base)


def _soup(plan: GreedyPlan, members: tuple[int, ...], environment: Path, follow: Follow) -> Mapping[str, Any]:
    """Average, evaluate, and keep the result alone; of a soup that was evaluated before, it is read."""
    # An input's journal is named after its weights, the rows, and all that decides its answers.
    key = digest({"members": [plan.units[index].journal.name for index in members]})[:16]
    kept = plan.request.output / JOURNAL / "greedy" / f"{key}.json"
    if kept.is_file():
        found: Mapping[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    folder = plan.kitchen / f"soup-{key}"
    # One that a killed start has left is whole, and half evaluated, perhaps.
    if not folder.is_dir():
        shutil.rmtree(plan.kitchen, ignore_errors=True)
        kind: Kind | None = "adapter" if plan.whole.inputs[0].kind == "adapter" else None
        merge(_average(plan, members, folder, kind), environment=environment, check=False)
    request = replace(plan.request, models=(str(folder.absolute()),))
    (result,) = _evaluate(plan_evaluation(request), follow).values()
    files.write_json(kept, dict(result))
    shutil.rmtree(folder)
    return result


def _evaluate(plan: EvalPlan, follow: Follow) -> dict[str, Mapping[str, Any]]:
    """Return the result of each model, by its folder."""
    gpus = evaluation.usable_gpus()
    found: dict[str, Mapping[str, Any]] = {}
    for group in plan.groups:
        start = evaluation.start_of(group, gpus=gpus)
        if start is not None:
            with follow(start) as on_progress:
                end = evaluation.run(start, on_progress)
            if end.stopped:
                raise KeyboardInterrupt
            for failure in end.failures:
                raise TunebookError(
                    f"{failure.label}: could not be evaluated: {failure.reason}",
                    fix="mend it or leave it away; what was evaluated is kept",
                )
        for unit in group.units:
            result = write_result(unit, plan.request.output)
            if result is None:
                raise TunebookError(
                    f"{unit.subject.label}: some rows of {unit.dataset} have no answer",
                    fix=f"start it again; see {Path(group.job.folder) / 'engine.log'}",
                )
            found[unit.subject.path] = result
    return found


def _figure(result: Mapping[str, Any]) -> float | None:
    """The figure that the set's metric selects by; None where it is not finite."""
    value = result["values"].get(result["select_by"])
    return None if value is None else float(value)


def _told(result: Mapping[str, Any]) -> str:
    value = _figure(result)
    figure = "not finite" if value is None else f"{value:.6g}"
    unread = f", {result['n_unparsed']} not read" if result["n_unparsed"] else ""
    return f"{result['select_by']} {figure} on {result['n']} rows of {result['dataset']}{unread}"
