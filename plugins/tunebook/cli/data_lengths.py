"""`tunebook data lengths`: how long rows are as the engine builds them, and what its limit cuts off."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunebook import paths
from tunebook.cli.data_lengths_text import print_report
from tunebook.cli.data_registry import dataset_dir_option, registry_folder
from tunebook.data import registry as datasets
from tunebook.data import sources
from tunebook.errors import TunebookError
from tunebook.files import write_atomic
from tunebook.lengths.measuring import measure
from tunebook.lengths.report import gather
from tunebook.lengths.sets import Plan, plan_recipe, plan_source, source_of
from tunebook.recipes import catalog, overlays

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


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
    """Show how long rows are in tokens, and what the recipe's limit cuts off.

    RECIPE is a name from `tunebook ls` or a YAML file: its rows are built with its template and tokenizer, as
    its engine does. NAME is an entry of the registry or a data file, which needs --model and --template, or
    --chars. No engine is started. docs/lengths.md says what is counted, and what cannot be.

    \b
    Example:
      tunebook data lengths llamafactory/demo/full_sft_recommend cutoff_len=64
    """
    plan = make_plan(
        name, overrides, overlay_names, chars=chars, model=model, template=template, dataset_dir=dataset_dir
    )
    keep_sets(plan, wanted)
    tallies = []
    for rows in plan.sets:
        with progress(f"measuring {rows.name}", rows.bytes) as on_bytes:
            tallies.append(measure(rows, max_rows=max_samples, on_bytes=on_bytes))
    report = gather(plan, tallies, width=width)
    if html is not None:
        # Drawing needs jinja2 and more: as long to import as a small set takes to measure.
        from tunebook.lengths import page
        from tunebook.report import charts

        text = page.render(name, report, light=charts.config(dark=False), dark=charts.config(dark=True))
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
        TunebookError: There is neither of that name, or a tokenizer is wanted and not told.
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
    return sources.find_source(name, folder)


def _named(root: Path, name: str) -> bool:
    return (root / f"{name.removeprefix('recipes/').removesuffix('.yaml')}.yaml").is_file()
