"""`tunebook compare`: two models on the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tunebook.comparison.compare import compare as compare_models
from tunebook.comparison.gate import exit_status, parse_requirements
from tunebook.comparison.pairing import ComparisonRequest, input_bytes
from tunebook.comparison.render import as_data, render, write_files
from tunebook.comparison.rows import Columns
from tunebook.progress import byte_progress
from tunebook.text import number, p_value, signed


@click.command("compare")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--metric", metavar="NAME", help="Judge by this metric; else by those that the records hold.")
@click.option(
    "--dataset", "datasets", multiple=True, metavar="NAME", help="Only this dataset; may be repeated."
)
@click.option(
    "--prediction-column",
    "predictions",
    multiple=True,
    metavar="NAME",
    help="Column of the model's outputs; given twice, of A and of B.",
)
@click.option(
    "--reference-column",
    "references",
    multiple=True,
    metavar="NAME",
    help="Column of the references; given twice, of A and of B.",
)
@click.option(
    "--prompts-may-differ",
    is_flag=True,
    help="Allow other prompts for the same rows, as for one-shot against zero-shot or two templates.",
)
@click.option(
    "--show", type=click.IntRange(min=0), default=10, show_default=True, help="Disagreements to print."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write compare.json, compare.md and compare.html into this folder.",
)
@click.option(
    "--require",
    multiple=True,
    metavar="TEXT",
    help="What B has to reach: 'FIGURE better', 'FIGURE >= base - 0.01' (base is A) or 'FIGURE >= 0.8'; may "
    "be repeated. Exit 0: all met, 1: one is not, 3: one is not distinguishable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what compare.json holds.")
@click.pass_context
def compare(
    ctx: click.Context,
    first: str,
    second: str,
    metric: str | None,
    datasets: tuple[str, ...],
    predictions: tuple[str, ...],
    references: tuple[str, ...],
    show: int,
    require: tuple[str, ...],
    output: Path | None,
    *,
    prompts_may_differ: bool,
    as_json: bool,
) -> None:
    """Compare two models on the same rows, with significance tests.

    A and B are each a run's output_dir (its best step), RUN@STEP, RUN@base, RUN@last, RUN/checkpoint-STEP, a
    file of records, or a .jsonl, .json or .csv file of predictions. Differences are B minus A.

    \b
    Example:
      tunebook compare output/demo/recommend@base output/demo/recommend -o reports/tuned
      tunebook compare old new --require 'macro_f1 better' --require 'accuracy >= base - 0.01'
    """
    parse_requirements(require)
    columns = [
        Columns(
            _of_side(predictions, side, "--prediction-column"),
            _of_side(references, side, "--reference-column"),
        )
        for side in (0, 1)
    ]
    request = ComparisonRequest(
        first=first,
        second=second,
        metric=metric,
        datasets=datasets,
        first_columns=columns[0],
        second_columns=columns[1],
        prompts_may_differ=prompts_may_differ,
        require=require,
    )
    with byte_progress("comparing", input_bytes(request)) as on_bytes:
        data = as_data(compare_models(request, on_bytes=on_bytes))
    if output is not None:
        write_files(render(data, show=show), output)
    if as_json:
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        _print(data, show)
        if output is not None:
            click.echo(f"wrote {output / 'compare.html'}, compare.md and compare.json beside it")
    ctx.exit(exit_status(one["verdict"] for one in data["requirements"]))


def _of_side(names: tuple[str, ...], side: int, option: str) -> str | None:
    if len(names) > 2:
        raise click.UsageError(f"{option} is given {len(names)} times: once for both files, or twice")
    return names[min(side, len(names) - 1)] if names else None


def _print(data: dict[str, Any], show: int) -> None:
    # Figures are to be read whole: a narrow terminal wraps them, rather than have them cut.
    console = Console(width=max(100, Console().width))
    click.echo(f"A: {data['first']['label']}")
    click.echo(f"B: {data['second']['label']}")
    for one in data["sets"]:
        click.echo(f"\n{one['sentence']}\n")
        figures = _table(f"{one['dataset'] or 'all rows'}, {one['metric']}, n = {one['n']:,}", "p", "test")
        for figure in one["figures"]:
            name = figure["name"] + (" *" if figure["primary"] else "")
            figures.add_row(
                name, *_numbers(figure), p_value(figure["p_adjusted"]), figure["test"].split()[-1]
            )
        console.print(figures)
        click.echo("* decides; the others are adjusted by Holm's method among themselves\n")
        click.echo(_flips(one))
        for way in one["groups"]:
            groups = _table(f"{one['figure']} by {way['by']}", "n", "better", "worse")
            for group in way["groups"]:
                counts = (f"{group[key]:,}" for key in ("n", "better", "worse"))
                groups.add_row(escape(group["label"]), *_numbers(group), *counts)
            click.echo()
            console.print(groups)
        _print_disagreements(one, show)
    for note in data["notes"]:
        click.echo(f"note: {note}")
    for one in data["requirements"]:
        click.echo(f"{one['verdict']}: {one['requirement']}: {one['measured']}")


def _table(title: str, *columns: str) -> Table:
    made = Table(title=escape(title), title_justify="left", box=None, header_style="dim", pad_edge=False)
    made.add_column("", no_wrap=True)
    for column in ("A", "B", "B - A", "95 % interval", *columns):
        made.add_column(column, justify="left" if column == "test" else "right", no_wrap=True)
    return made


def _numbers(one: dict[str, Any]) -> list[str]:
    interval = "-" if one["low"] is None else f"{signed(one['low'])} to {signed(one['high'])}"
    return [number(one["first"]), number(one["second"]), signed(one["difference"]), interval]


def _flips(one: dict[str, Any]) -> str:
    if one["counts_right"]:
        return (
            f"wrong, now right: {one['better']:,}; right, now wrong: {one['worse']:,}; "
            f"both right: {one['both_right']:,}; both wrong: {one['both_wrong']:,}"
        )
    rows = f"{one['better']:,} rows better, {one['worse']:,} worse, {one['equal']:,} equal"
    return f"by {one['figure']}: {rows}"


def _print_disagreements(one: dict[str, Any], show: int) -> None:
    for row in one["disagreements"][:show]:
        click.echo(f"\nrow {row['index']}, {row['kind']}: {row['prompt'] or '(no prompt)'}")
        click.echo(f"  reference: {row['reference']}")
        for side, answer in (("A", row["first"]), ("B", row["second"])):
            read = answer["parsed"]
            same = read is not None and read.lower() == answer["prediction"].lower()
            unread = "  (not readable)" if read is None else "" if same else f"  (read as {read})"
            value = "" if one["counts_right"] else f"  ({one['figure']} {answer['value']:.3f})"
            click.echo(f"  {side}: {answer['prediction'] or '(empty)'}{unread}{value}")
    left = one["better"] + one["worse"] - min(show, len(one["disagreements"]))
    if left and show:
        click.echo(f"\n{left:,} more rows differ; -o DIR writes a page to browse them")
