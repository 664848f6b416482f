"""`tunebook eval`: evaluates runs, checkpoints and models through the engine that trained them."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from tunebook.cli.eval_endpoint import (
    ask_server,
    endpoint_options,
    refuse_other_options,
    say,
    server_of,
    shots_options,
    shots_request,
)
from tunebook.errors import TunebookError, join_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tunebook.evaluation.job import Failure, Method
    from tunebook.evaluation.plan import EvalPlan
    from tunebook.evaluation.ranking import SetRanking
    from tunebook.evaluation.run import EngineProgress, EngineStart


@click.command("eval")
@click.argument("arguments", nargs=-1, required=True, metavar="RUN... [KEY=VALUE]...")
@click.option(
    "--checkpoints",
    default="best",
    show_default=True,
    metavar="WHICH",
    help="best, last, all, or steps: 100,200.",
)
@click.option("--base", is_flag=True, help="Evaluate what the runs were trained from, too.")
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="NAME",
    help="Evaluate on this registry entry instead of the recipe's own sets; may be repeated.",
)
@click.option("--recipe", metavar="NAME|PATH", help="How to load and ask a model that no run made.")
@click.option(
    "--method",
    type=click.Choice(["answer", "generate", "perplexity"]),
    help="Instead of what the sets' metrics ask for.",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Rows computed together; else the recipe's.")
@click.option(
    "--batch-tokens",
    type=click.IntRange(min=1),
    help="Tokens computed together, padding and answers included, instead of a number of rows.",
)
@click.option(
    "--kv-cache",
    type=click.Choice(["gpu", "host"]),
    default="gpu",
    show_default=True,
    help="Where generation keeps keys and values.",
)
@click.option("--device-map", type=click.Choice(["auto"]), help="Spread one model over all GPUs.")
@click.option("--max-samples", type=click.IntRange(min=1), help="Only so many rows, always the same ones.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("eval_results"),
    show_default=True,
    metavar="DIR",
    help="Folder for results and for what is finished.",
)
@click.option(
    "--report-to",
    "trackers",
    multiple=True,
    type=click.Choice(["wandb", "tensorboard"]),
    help="Send figures by step and 20 examples there; may be repeated.",
)
@click.option("--shard", default="0/1", metavar="I/M", help="Do only this share, as in a job array.")
@shots_options
@endpoint_options
@click.option("--dry-run", is_flag=True, help="Print what would be run and written, and do neither.")
@click.option("--json", "as_json", is_flag=True, help="Print results and rankings as JSON.")
@click.pass_context
def eval_(
    ctx: click.Context,
    arguments: tuple[str, ...],
    checkpoints: str,
    datasets: tuple[str, ...],
    recipe: str | None,
    method: Method | None,
    batch_size: int | None,
    batch_tokens: int | None,
    kv_cache: str,
    device_map: str | None,
    max_samples: int | None,
    output: Path,
    shard: str,
    trackers: tuple[str, ...],
    shots: int | None,
    shots_file: Path | None,
    shots_template: str,
    endpoint: str | None,
    model: str | None,
    label: str | None,
    concurrency: int,
    timeout: float,
    retries: int,
    api_key_env: str,
    *,
    completions: bool,
    no_template_options: bool,
    base: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Evaluate runs, checkpoints and models as training does.

    RUN is a run's output_dir, RUN@STEP, RUN/checkpoint-STEP, or with --recipe a model's folder. KEY=VALUE
    changes the recipe. With --endpoint, RUN may be a recipe too: a server is asked its rows. Finished
    examples are kept: the same command continues where it was stopped. The exit status is 1 where a model
    could not be evaluated, or a row got no answer.

    \b
    Example:
      tunebook eval output/demo/recommend --checkpoints all --base
      tunebook eval output/demo/recommend --endpoint http://localhost:8000/v1
    """
    from tunebook.evaluation.job import EvalRequest, parse_shard
    from tunebook.evaluation.plan import plan_evaluation
    from tunebook.evaluation.trackers import refuse_missing

    refuse_other_options(ctx, endpoint)
    examples = ctx.with_resource(shots_request(shots, shots_file, shots_template, output, dry_run=dry_run))
    if endpoint is not None:
        from tunebook.evaluation.endpoint import EndpointRequest

        refuse_missing(trackers)
        server = server_of(endpoint, concurrency, timeout, retries, api_key_env)
        asked_for = EndpointRequest(
            source=_only_one(arguments),
            url=server.url,
            output=output,
            model=model,
            label=label,
            datasets=tuple(dict.fromkeys(datasets)),
            overrides=tuple(one for one in arguments if _is_override(one)),
            max_samples=max_samples,
            completions=completions,
            send_options=not no_template_options,
            shots=examples,
        )
        results, asked = ask_server(asked_for, server=server, dry_run=dry_run)
        if asked is not None:
            show_results(results, output, trackers, as_json=as_json, failures=[], open_=asked.left)
            ctx.exit(1 if asked.left else 0)
        return
    request = EvalRequest(
        models=tuple(one for one in arguments if not _is_override(one)),
        overrides=tuple(one for one in arguments if _is_override(one)),
        output=output,
        checkpoints=checkpoints,
        base=base,
        datasets=tuple(dict.fromkeys(datasets)),
        recipe=recipe,
        method=method,
        batch_size=batch_size,
        batch_tokens=batch_tokens,
        cache_on_host=kv_cache == "host",
        device_map=device_map,
        max_samples=max_samples,
        shard=parse_shard(shard),
        shots=examples,
    )
    if not request.models:
        raise click.UsageError("name at least one run or model")
    refuse_missing(trackers)
    plan = plan_evaluation(request)
    for note in plan.notes:
        say(note)
    if dry_run:
        print_plan(plan)
        return
    failures, errors, stopped = run_engines(plan)
    results = write_results(plan)
    open_ = sum(len(group.units) for group in plan.groups) - len(results)
    if errors and not results:
        raise join_errors(errors)
    show_results(results, output, trackers, as_json=as_json, failures=failures, open_=open_)
    for failure in failures:
        say(f"{failure.label}: not evaluated: {failure.reason}")
    if stopped:
        say("stopped; the same command continues from what is finished")
        ctx.exit(130)
    if errors:
        raise join_errors(errors)
    if open_ and request.shard[1] > 1:
        say(
            f"share {shard} is done; {open_} results wait for other shares. When all are done, the same "
            "command without --shard writes the results"
        )
    ctx.exit(1 if failures or (open_ and request.shard[1] == 1) else 0)


def _only_one(arguments: tuple[str, ...]) -> str:
    named = [one for one in arguments if not _is_override(one)]
    if len(named) != 1:
        raise click.UsageError("--endpoint asks one model: name one run or recipe, whose rows it is asked")
    return named[0]


def _is_override(argument: str) -> bool:
    return "=" in argument and not Path(argument).exists()


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
        models = len(start.job.candidates)
        say(
            f"{group.engine} {number}/{len(plan.groups)}: {models} model{'s' * (models > 1)} on "
            f"{', '.join(group.sets)}; its output goes to {Path(start.job.folder) / 'engine.log'}"
        )
        try:
            with show_progress(start) as on_progress:
                end = run.run(start, on_progress)
        except TunebookError as error:
            # The other engines' models are still evaluated, and complete results are written.
            errors.append(error)
            continue
        failures += end.failures
        for warning in end.warnings:
            say(warning)
        if end.stopped:
            return Ended(failures, errors, stopped=True)
    return Ended(failures, errors, stopped=False)


def write_results(plan: EvalPlan) -> list[dict[str, Any]]:
    """Write the results that are complete, and return them."""
    from tunebook.evaluation.finalise import write_result

    found = [write_result(unit, plan.request.output) for group in plan.groups for unit in group.units]
    return [result for result in found if result is not None]


def _rank(results: Sequence[dict[str, Any]], output: Path) -> list[SetRanking]:
    from tunebook.evaluation.ranking import markdown, rank
    from tunebook.files import write_atomic

    rankings = rank(results)
    for ranking in rankings:
        write_atomic(output / f"ranking-{ranking.dataset}.md", markdown(ranking, results))
    return rankings


def show_results(
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
        ranked = [{**one._asdict(), "models": [model._asdict() for model in one.models]} for one in rankings]
        failed = [{"label": one.label, "reason": one.reason} for one in failures]
        click.echo(
            json.dumps({"results": results, "rankings": ranked, "failures": failed, "open": open_}, indent=2)
        )
    else:
        print_rankings(rankings, results)


@contextmanager
def show_progress(start: EngineStart) -> Iterator[Callable[[EngineProgress], None]]:
    """Show how far an engine is: a bar with the time left in a terminal, a line for each step elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    shown: list[str] = []
    # Time and number of the first batches: loading, which comes before, says nothing about the speed.
    began: list[tuple[float, int]] = []

    def kept(progress: EngineProgress) -> None:
        if not shown and progress.kept:
            say(f"{progress.kept} of {progress.total} batches are kept from an earlier start")

    def line(progress: EngineProgress) -> None:
        kept(progress)
        if progress.now and not began:
            began.append((time.monotonic(), progress.done))
        if progress.now and (not shown or shown[-1] != progress.now):
            shown.append(progress.now)
            say(f"{progress.now}: {progress.done} of {progress.total} batches{_left(progress, *began[0])}")

    console = Console(stderr=True)
    if not console.is_terminal:
        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("batches, left"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"loading {start.job.candidates[0].label}", total=None)

        def move(progress: EngineProgress) -> None:
            kept(progress)
            shown.append(progress.now)
            bar.update(task, description=progress.now, completed=progress.done, total=max(1, progress.total))

        yield move


def _left(progress: EngineProgress, began: float, at: int) -> str:
    done = progress.done - at
    if done <= 0:
        return ""
    seconds = (time.monotonic() - began) / done * (progress.total - progress.done)
    return f", about {round(seconds / 60)} min left" if seconds >= 60 else f", about {round(seconds)} s left"


def print_rankings(rankings: Sequence[SetRanking], results: Sequence[dict[str, Any]]) -> None:
    """Print a table of models for each set."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from tunebook.evaluation.ranking import interval, number

    # Figures must not be cut: a narrow terminal wraps them instead.
    console = Console(width=max(100, Console().width))
    for ranking in rankings:
        better = "larger" if ranking.larger_is_better else "smaller"
        title = f"{ranking.dataset}: by {ranking.figure}, {better} is better"
        table = Table(title=escape(title), title_justify="left", box=None, header_style="dim", pad_edge=False)
        table.add_column("", justify="right")
        table.add_column("model", no_wrap=True)
        for column in (ranking.figure, "95 % interval", "n", "unparsed", "loss", "perplexity"):
            table.add_column(column, justify="right", no_wrap=True)
        of = {result["records"]: result for result in results}
        for one in ranking.models:
            values = of[one.records]["values"]
            table.add_row(
                str(one.rank),
                escape(one.label),
                number(one.value),
                interval(one.interval),
                f"{one.n:,}",
                f"{of[one.records]['n_unparsed']:,}",
                number(values["loss"]) if "loss" in values else "-",
                number(values["perplexity"]) if "perplexity" in values else "-",
            )
        console.print(table)
        click.echo()


def print_plan(plan: EvalPlan) -> None:
    """Print what would be run and written."""
    from tunebook.evaluation import run
    from tunebook.recipes import engine_yaml

    gpus = run.usable_gpus()
    for group in plan.groups:
        start = run.start_of(group, gpus=gpus)
        if start is None:
            click.echo("# everything is finished; would only write the results")
        else:
            added = [f"{key}={value}" for key, value in start.command.env.items()]
            click.echo(f"# would run: {' '.join([*added, *start.command.argv])}")
            for candidate in start.job.candidates:
                click.echo(f"# would evaluate: {candidate.label} ({candidate.kind}): {candidate.path}")
        for unit in group.units:
            click.echo(f"# would write: {plan.request.output / unit.name}.json and .jsonl")
        if start is not None:
            click.echo(engine_yaml.dump(start.values))
