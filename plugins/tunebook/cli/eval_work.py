"""The work of `tunebook eval`: runs the engines, writes and ranks their results, and tells them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from tunebook.cli.eval_shown import print_rankings, say, show_progress
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.evaluation.job import Failure
    from tunebook.evaluation.plan import EvalPlan
    from tunebook.evaluation.ranking import Ranking


class Ended(NamedTuple):
    """How the engines ended."""

    failures: list[Failure]
    errors: list[TunebookError]
    stopped: bool


def run_engines(plan: EvalPlan) -> Ended:
    """Run the engines of a plan, one after another, and show how far they are."""
    from tunebook.evaluation import run
    from tunebook.evaluation.job import Failure

    gpus, failures, errors = run.usable_gpus(), list[Failure](), list[TunebookError]()
    for number, group in enumerate(plan.groups, 1):
        start = run.start_of(group, gpus=gpus)
        if start is None:
            continue
        models = len(start.job.subjects)
        say(
            f"{group.engine} {number}/{len(plan.groups)}: {models} model{'s' * (models > 1)} on "
            f"{', '.join(group.sets)}; its output goes to {Path(start.job.folder) / 'engine.log'}"
        )
        try:
            with show_progress(start) as on_progress:
                end = run.run(start, on_progress)
        except TunebookError as error:
            # The other engines' models are evaluated all the same, and what is whole is written.
            errors.append(error)
            continue
        failures += end.failures
        for warning in end.warnings:
            say(warning)
        if end.stopped:
            return Ended(failures, errors, stopped=True)
    return Ended(failures, errors, stopped=False)


def write_results(plan: EvalPlan) -> list[dict[str, Any]]:
    """Write the results that are whole, and return them."""
    from tunebook.evaluation.results import write_result

    found = [write_result(unit, plan.request.output) for group in plan.groups for unit in group.units]
    return [result for result in found if result is not None]


def _rank(results: Sequence[dict[str, Any]], output: Path) -> list[Ranking]:
    from tunebook.evaluation.ranking import markdown, rank
    from tunebook.files import write_atomic

    rankings = rank(results)
    for ranking in rankings:
        write_atomic(output / f"ranking-{ranking.dataset}.md", markdown(ranking, results))
    return rankings


def tell_results(
    results: list[dict[str, Any]],
    output: Path,
    trackers: tuple[str, ...],
    *,
    as_json: bool,
    failures: Sequence[Failure],
    open_: int,
) -> None:
    """Rank what there is, send it to the trackers, and print it."""
    from tunebook.evaluation.trackers import track

    rankings = _rank(results, output)
    for where in track(results, output, trackers) if trackers and results else ():
        say(where)
    if as_json:
        told = [{**one._asdict(), "models": [model._asdict() for model in one.models]} for one in rankings]
        failed = [{"label": one.label, "reason": one.reason} for one in failures]
        click.echo(
            json.dumps({"results": results, "rankings": told, "failures": failed, "open": open_}, indent=2)
        )
    else:
        print_rankings(rankings, results)
