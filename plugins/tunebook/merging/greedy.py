"""Greedy soup: averages models in the order of their figures, and leaves out those that spoil the average.

Source: Wortsman et al., 2022, "Model soups", recipe 1, https://arxiv.org/abs/2203.05482.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunebook.errors import TunebookError
from tunebook.evaluation.job import Request
from tunebook.evaluation.plan import plan_evaluation
from tunebook.runs.folder import FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tunebook.evaluation.plan import EvalPlan, Unit
    from tunebook.merging.inputs import Input
    from tunebook.merging.plan import MergePlan


class Step(NamedTuple):
    """One candidate, in its turn."""

    position: int
    """Of the inputs, in the order given."""
    without: float | None
    """The soup's figure before; None for the first."""
    with_: float | None
    """The soup's figure with it; None where it was not tried, or has no finite figure."""
    kept: bool


def choose(
    figures: Sequence[float | None],
    evaluate: Callable[[tuple[int, ...]], float | None],
    *,
    larger_is_better: bool,
) -> list[Step]:
    """Decide which inputs go into the soup.

    Args:
        figures: Each input's own; None where it is not finite: such an input is left out without a trial.
        evaluate: Gives the figure of the uniform average of these inputs; None where it is not finite.
        larger_is_better: Of the figure.

    Returns:
        A step for each input, the best first, equals in the order given. One is kept unless the figure gets
        worse: where it stays the same, the input is in.

    Raises:
        ValueError: No figure is finite.
    """
    sign = 1 if larger_is_better else -1
    known = [(-sign * figure, index) for index, figure in enumerate(figures) if figure is not None]
    if not known:
        raise ValueError("no input has a finite figure")
    (_, first), *others = sorted(known)
    now = figures[first]
    soup: tuple[int, ...] = (first,)
    steps = [Step(first, None, now, kept=True)]
    for _, index in others:
        assert now is not None
        tried = evaluate((*soup, index))
        kept = tried is not None and sign * tried >= sign * now
        steps.append(Step(index, now, tried, kept))
        if kept:
            soup, now = (*soup, index), tried
    return steps + [Step(i, now, None, kept=False) for i, figure in enumerate(figures) if figure is None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GreedyPlan:
    """Everything that a greedy soup will do."""

    whole: MergePlan
    """The merge of all inputs, which has proved that they fit together."""
    request: Request
    """How a model is evaluated."""
    inputs: EvalPlan
    units: tuple[Unit, ...]
    """Of each input, in the order given."""
    kitchen: Path
    """Where a soup stands while it is evaluated."""

    @property
    def dataset(self) -> str:
        """The set that chooses."""
        return self.request.datasets[0]


def plan_greedy(whole: MergePlan, dataset: str, *, recipe: str | None, evals: Path) -> GreedyPlan:
    """Decide how the inputs of a merge are evaluated.

    Args:
        whole: The merge of all of them.
        dataset: An entry of the recipe's registry.
        recipe: How models are loaded and asked; None for the recipe of the first input that a run left.
        evals: Folder for results and for what is finished.

    Raises:
        TunebookError: There are not two inputs, no recipe, no such set, or adapters have another base.
    """
    if len(whole.inputs) < 2:
        raise TunebookError(
            f"--greedy chooses among models, and {len(whole.inputs)} is given", fix="name two"
        )
    request = Request(
        models=tuple(str(given.folder.absolute()) for given in whole.inputs),
        output=evals,
        datasets=(dataset,),
        recipe=recipe or _recipe_of(whole.inputs),
        as_models=True,
    )
    plan = plan_evaluation(request)
    units = {unit.subject.path: unit for group in plan.groups for unit in group.units}
    for unit in units.values():
        _refuse_another_base(unit, whole)
    kitchen = whole.output.with_name(f".{whole.output.name}.greedy")
    ordered = tuple(units[model] for model in request.models)
    return GreedyPlan(whole=whole, request=request, inputs=plan, units=ordered, kitchen=kitchen)


def _recipe_of(inputs: Sequence[Input]) -> str:
    for given in inputs:
        run = given.folder.parent if given.folder.name.startswith("checkpoint-") else given.folder
        if (run / FOLDER / "recipe.yaml").is_file():
            return str(run / FOLDER / "recipe.yaml")
    raise TunebookError(
        "no input is of a run that tunebook started, so nothing says how they are to be loaded and asked",
        fix="name a recipe with their template and the registry of the set: --recipe RECIPE",
    )


def _refuse_another_base(unit: Unit, whole: MergePlan) -> None:
    named = Path(unit.subject.base)
    if unit.subject.kind != "adapter" or whole.base is None or not named.is_dir():
        return
    if named.resolve() != whole.base.folder.resolve():
        raise TunebookError(
            f"the recipe would put the adapters on {named}, and they are of {whole.base.folder}",
            fix="name the recipe that trained them: --recipe RECIPE",
        )
