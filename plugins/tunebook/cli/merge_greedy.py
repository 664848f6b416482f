"""`tunebook merge --greedy`: its options, what it would do, and what it does on the way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunebook.merging.greedy import GreedyPlan
    from tunebook.merging.plan import MergePlan

_EVALS = Path("eval_results")


def greedy_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--greedy`, `--recipe` and `--evals` to a command."""
    for option in (
        click.option(
            "--evals",
            type=click.Path(path_type=Path, file_okay=False),
            default=_EVALS,
            show_default=True,
            metavar="DIR",
            help="With --greedy: where results are written and what is finished is kept.",
        ),
        click.option(
            "--recipe",
            metavar="NAME|PATH",
            help="With --greedy: how models are loaded and asked; by default as the first run given.",
        ),
        click.option(
            "--greedy",
            metavar="DATASET",
            help="Average only those that do not make the figure on this registry entry worse.",
        ),
    ):
        command = option(command)
    return command


def plan_of(
    whole: MergePlan, dataset: str | None, recipe: str | None, evals: Path, weights: list[float] | None
) -> GreedyPlan | None:
    """Plan a greedy soup; None where none is asked for.

    Raises:
        TunebookError: Options do not go together, or `plan_greedy` refuses.
    """
    if dataset is None:
        for option, given in (("--recipe", recipe is not None), ("--evals", evals != _EVALS)):
            if given:
                raise TunebookError(
                    f"{option} is for --greedy", fix=f"add --greedy DATASET or leave {option} away"
                )
        return None
    if weights is not None:
        raise TunebookError(
            "--weights and --greedy: a greedy soup is the uniform average of what it keeps",
            fix="leave one of them away",
        )
    from tunebook.merging.greedy import plan_greedy

    return plan_greedy(whole, dataset, recipe=recipe, evals=evals)


def figures(plan: GreedyPlan) -> dict[str, Any]:
    """What would be evaluated, for `--dry-run --json`."""
    count = len(plan.units)
    return {
        "dataset": plan.dataset,
        "recipe": plan.request.recipe,
        "evals": str(plan.request.output),
        "kitchen": str(plan.kitchen),
        "evaluations_at_most": 2 * count - 1,
        "results": [f"{unit.name}.json" for unit in plan.units],
        "notes": list(plan.inputs.notes),
    }


def told(plan: GreedyPlan) -> list[str]:
    """The same in words."""
    count = len(plan.units)
    return [
        f"greedy: of these, those that do not make the figure on {plan.dataset} worse are averaged",
        f"  each of the {count} and up to {count - 1} soups are evaluated as {plan.request.recipe} says",
        f"  results and what is finished: {plan.request.output}; one soup at a time is in {plan.kitchen}",
        *(f"  note: {note}" for note in plan.inputs.notes),
    ]


def choose_inputs(
    plan: GreedyPlan, environment: Path, max_shard_bytes: int | None
) -> tuple[MergePlan, dict[str, Any]]:
    """Evaluate, and return the merge of what is kept, and how it was chosen."""
    from tunebook.cli.eval_shown import say, show_progress
    from tunebook.merging.greedy_run import make_greedy

    return make_greedy(
        plan, environment=environment, max_shard_bytes=max_shard_bytes, follow=show_progress, say=say
    )
