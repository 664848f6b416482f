"""`tunebook data lengths`: how long rows are as the engine builds them, and what its limit cuts off."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunebook import paths
from tunebook.cli.data_registry import dataset_dir_option, registry_folder, tell_left_out
from tunebook.data import registry as datasets
from tunebook.data import sources
from tunebook.errors import TunebookError
from tunebook.files import write_atomic
from tunebook.lengths.cutting import LOSS_WORDS, LOSSES
from tunebook.lengths.report import gather, measure, render
from tunebook.lengths.sets import Plan, plan_recipe, plan_source, source_of
from tunebook.recipes import catalog, overlays

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console


@click.command("lengths")
@click.argument("name", metavar="RECIPE|NAME")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "-o", "--overlay", "overlay_names", multiple=True, metavar="NAME|PATH", help="Merge an overlay in."
)
@click.option("--dataset", "wanted", multiple=True, metavar="NAME", help="Only this set of the recipe.")
@click.option("--max-samples", type=click.IntRange(min=1), help="Rows of each set, from the first.")
@click.option("--chars", is_flag=True, help="Count characters: needs no tokenizer and no template.")
@click.option("--model", metavar="PATH|MODEL", help="Tokenizer for a NAME: a folder or a hub model.")
@click.option("--template", metavar="TEMPLATE", help="LLaMA-Factory's template for a NAME, e.g. qwen3.")
@click.option("--bins", "width", type=click.IntRange(min=1), help="Width of the histogram's bins.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page with charts.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@dataset_dir_option
def lengths(
    name: str,
    overrides: tuple[str, ...],
    overlay_names: tuple[str, ...],
    wanted: tuple[str, ...],
    max_samples: int | None,
    model: str | None,
    template: str | None,
    width: int | None,
    html: Path | None,
    dataset_dir: Path | None,
    *,
    chars: bool,
    as_json: bool,
) -> None:
    """Show how long rows are in tokens, and what the limit cuts off.

    RECIPE is a name from `tunebook ls` or a YAML file: its installed engine is asked how it builds the rows.
    NAME is an entry of the registry or a data file, which needs --model and --template, or --chars. What the
    engine said is kept: the same question starts no engine. docs/lengths.md says what is counted.

    \b
    Example:
      tunebook data lengths llamafactory/demo/full_sft_recommend cutoff_len=64
    """
    plan = make_plan(
        name, overrides, overlay_names, chars=chars, model=model, template=template, dataset_dir=dataset_dir
    )
    keep_sets(plan, wanted)
    plan.ask(max_rows=max_samples)
    tallies = []
    for rows in plan.sets:
        with progress(f"measuring {rows.name}", rows.bytes) as on_bytes:
            tallies.append(measure(rows, max_rows=max_samples, on_bytes=on_bytes))
    report = gather(plan, tallies, width=width)
    if html is not None:
        # Drawing needs jinja2 and more: as long to import as a small set takes to measure.
        from tunebook.report import charts

        text = render(name, report, light=charts.config(dark=False), dark=charts.config(dark=True))
        write_atomic(html, text)
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print_report(report)
        if html is not None:
            click.echo(f"wrote {html}", err=True)


def make_plan(
    name: str,
    overrides: Sequence[str],
    overlay_names: Sequence[str],
    *,
    chars: bool,
    model: str | None,
    template: str | None,
    dataset_dir: Path | None,
) -> Plan:
    """Return what is to be measured: the sets of a recipe, or one entry or file.

    Raises:
        TunebookError: There is neither of that name, or a tokenizer is needed and not given.
    """
    home = paths.home()
    root = home / "recipes"
    folder = registry_folder(dataset_dir)
    is_file = Path(name).is_file()
    is_recipe = (is_file and Path(name).suffix in (".yaml", ".yml")) or _named(root, name)
    if is_recipe:
        recipe = overlays.resolve(catalog.find_recipe(name, root), root, overlay_names, overrides).recipe
        return plan_recipe(recipe, home, characters=chars)
    try:
        source = _find_data(name, folder)
    except TunebookError as err:
        if is_file:
            raise
        raise TunebookError(f"no recipe {name!r}, and {err.problem}", fix=err.fix) from err
    if chars:
        return plan_source(source, None)
    if model is None or template is None:
        raise TunebookError(
            f"{name} is data: whose tokens are to be counted?",
            fix="give --model and --template, the name of a recipe instead, or --chars",
        )
    given = overlays.parse_overrides(overrides)
    return plan_source(source, {"model_name_or_path": model, "template": template, **given})


def progress(label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """A bar over the bytes of what is read; where stderr is no terminal, rich is not even imported."""
    if not sys.stderr.isatty():
        return nullcontext(lambda done: None)  # noqa: ARG005 - nothing is shown
    from tunebook.progress import byte_progress

    return byte_progress(label, total)


def keep_sets(plan: Plan, wanted: Sequence[str]) -> None:
    """Leave only the named sets in a plan.

    Raises:
        TunebookError: There is none of that name.
    """
    names = [rows.name for rows in plan.sets]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise TunebookError(f"there is no set {unknown[0]!r}", fix=f"the sets are {', '.join(names)}")
    if wanted:
        plan.sets = [rows for rows in plan.sets if rows.name in wanted]


def _find_data(name: str, folder: Path) -> sources.Source:
    registry = folder / datasets.REGISTRY_FILE
    if registry.is_file() and name in (found := datasets.load_registry(registry)).values:
        return source_of(found.entry(name))
    source = sources.find_source(name, folder)
    tell_left_out(source)
    return source


def _named(root: Path, name: str) -> bool:
    return (root / f"{name.removeprefix('recipes/').removesuffix('.yaml')}.yaml").is_file()


# How `tunebook data lengths` prints what it has measured.

_BAR = 40
_SHOWN_ROWS = 10
_COLUMNS = ("min", "mean", "p50", "p90", "p95", "p99", "p100")


def print_report(report: dict[str, Any]) -> None:
    """Print everything but the page: lengths, what the limit cuts, and how lengths are spread."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if report["counted_by"]:
        console.print(
            f"template {report['template']} ({report['engine']}), tokenizer {report['tokenizer']}, "
            f"counted by {report['counted_by']}"
        )
    for note in report["notes"]:
        console.print(f"note: {note}")
    for one in report["sets"]:
        console.print(f"\n[bold]{one['name']}[/] ({one['part']}): {one['rows']:,} rows")
        for note in one["notes"]:
            console.print(f"note: {note}")
        for reason, rows in one["left_out"].items():
            console.print(f"left out by the engine: {_count(rows)}: {reason}")
        if not one["rows"]:
            continue
        _print_lengths(console, one, report["unit"])
        if one["limit"]:
            _print_losses(console, one)
        if "together" not in report:
            _print_shape(console, one)
    if "together" in report:
        together = report["together"]
        console.print(f"\n[bold]together[/]: {together['rows']:,} rows")
        if together["rows"]:
            _print_lengths(console, together, report["unit"])
            _print_shape(console, together)


def _print_lengths(console: Console, one: dict[str, Any], unit: str) -> None:
    from rich.table import Table

    table = Table(unit, *_COLUMNS, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for part in ("prompt", "answer", "total"):
        figures = one[part]
        table.add_row(
            part, *(f"{figures[key]:,.1f}" if key == "mean" else f"{figures[key]:,}" for key in _COLUMNS)
        )
    console.print(table)


def _print_losses(console: Console, one: dict[str, Any]) -> None:
    limit = one["limit"]
    where = f"at {limit['key']} {limit['value']:,} the engine {limit['rule']}"
    if not limit["losses"]:
        console.print(f"{where}: no row loses anything")
        return
    console.print(f"{where}:")
    for loss, rows in limit["losses"].items():
        share = 100 * rows["rows"] / one["rows"]
        console.print(f"  {rows['rows']:,} ({share:.2f} %) {LOSS_WORDS[loss]}{_numbers(rows)}")


def _print_shape(console: Console, one: dict[str, Any]) -> None:
    from rich.table import Table

    width, counts = one["histogram"]["width"], one["histogram"]["counts"]
    most, digits = max(counts), len(f"{len(counts) * width:,}")
    first = next(at for at, count in enumerate(counts) if count)
    console.print()
    for at, count in enumerate(counts[first:], first):
        bar = "█" * (-(-count * _BAR // most))
        console.print(f"{at * width:>{digits},} to {(at + 1) * width - 1:<{digits},} {bar:{_BAR}} {count:,}")
    if one["retention"]:
        lost = [loss for loss in LOSSES if any(step[loss] for step in one["retention"])]
        table = Table("limit", "whole", "tokens kept", *lost, box=None, pad_edge=False)
        for column in table.columns:
            column.justify = "right"
        for step in one["retention"]:
            table.add_row(
                f"{step['limit']:,}",
                f"{100 * step['whole_share']:.2f} %",
                f"{100 * step['tokens_share']:.2f} %",
                *(f"{step[loss]:,}" for loss in lost),
            )
        console.print()
        console.print(table)
        for loss in lost:
            console.print(f"{loss}: rows that {LOSS_WORDS[loss]}", style="dim")
        suggested = one["suggested"]
        share = 100 * suggested["whole_share"]
        console.print(
            f"suggested limit: {suggested['limit']:,}, which leaves {share:.2f} % of the rows whole"
        )


def _count(rows: dict[str, Any]) -> str:
    return f"{rows['rows']:,} rows{_numbers(rows)}"


def _numbers(rows: dict[str, Any]) -> str:
    """The first row numbers, where they are known: not of several sets together."""
    shown = rows["first"][:_SHOWN_ROWS]
    more = ", ..." if rows["rows"] > len(shown) else ""
    return f" (rows {', '.join(map(str, shown))}{more})" if shown else ""
