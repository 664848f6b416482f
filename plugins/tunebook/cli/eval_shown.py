"""What `tunebook eval` shows: how far an engine is, what would be done, and how models rank."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tunebook.evaluation.plan import EvalPlan
    from tunebook.evaluation.ranking import Ranking
    from tunebook.evaluation.run import Progress, Start


@contextmanager
def show_progress(start: Start) -> Iterator[Callable[[Progress], None]]:
    """Show how far an engine is: a bar with the time left in a terminal, a line for each step elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    told: list[str] = []
    # When and where the first batches came: loading, which comes before, says nothing of the speed.
    began: list[tuple[float, int]] = []

    def kept(progress: Progress) -> None:
        if not told and progress.kept:
            say(f"{progress.kept} of {progress.total} batches are kept from an earlier start")

    def line(progress: Progress) -> None:
        kept(progress)
        if progress.now and not began:
            began.append((time.monotonic(), progress.done))
        if progress.now and (not told or told[-1] != progress.now):
            told.append(progress.now)
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
        task = bar.add_task(f"loading {start.job.subjects[0].label}", total=None)

        def move(progress: Progress) -> None:
            kept(progress)
            told.append(progress.now)
            bar.update(task, description=progress.now, completed=progress.done, total=max(1, progress.total))

        yield move


def _left(progress: Progress, began: float, at: int) -> str:
    done = progress.done - at
    if done <= 0:
        return ""
    seconds = (time.monotonic() - began) / done * (progress.total - progress.done)
    return f", about {round(seconds / 60)} min left" if seconds >= 60 else f", about {round(seconds)} s left"


def print_rankings(rankings: Sequence[Ranking], results: Sequence[dict[str, Any]]) -> None:
    """Print a table of models for each set."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from tunebook.evaluation.ranking import interval, number

    # Figures are to be read whole: a narrow terminal wraps them, rather than have them cut.
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
            click.echo("# everything is finished; would write the results alone")
        else:
            added = [f"{key}={value}" for key, value in start.command.env.items()]
            click.echo(f"# would run: {' '.join([*added, *start.command.argv])}")
            for subject in start.job.subjects:
                click.echo(f"# would evaluate: {subject.label} ({subject.kind}): {subject.path}")
        for unit in group.units:
            click.echo(f"# would write: {plan.request.output / unit.name}.json and .jsonl")
        if start is not None:
            click.echo(engine_yaml.dump(start.values))


def say(line: str) -> None:
    """Tell the user, beside the results."""
    click.echo(f"tunebook: {line}", err=True)
