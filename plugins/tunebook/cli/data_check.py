"""`tunebook data check`: the faults of data that no engine reports."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from tunebook import engines, paths
from tunebook.checks.data_audit.audit import SHOWN, Audited, audit, leaks
from tunebook.checks.data_audit.findings import DataFinding, Place, counted
from tunebook.cli.data_registry import dataset_dir_option, registry_folder
from tunebook.cli.parts import count_findings, print_finding, say
from tunebook.data import registry as datasets
from tunebook.data import sources as data_sources
from tunebook.errors import TunebookError
from tunebook.lengths.asking import EngineError
from tunebook.lengths.sets import plan_recipe
from tunebook.progress import byte_progress
from tunebook.recipes.catalog import find_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tunebook.data.sources import Source
    from tunebook.types import Recipe


class _Sets(NamedTuple):
    """What is trained on and what is evaluated on, each set once."""

    trained: dict[str, Source]
    evaluated: dict[str, Source]
    recipes: list[Recipe]
    """Those that name some of them."""


@click.command("check")
@click.argument("names", nargs=-1, required=True, metavar="NAME|FILE|RECIPE...")
@click.option("--against", multiple=True, metavar="NAME|FILE", help="An evaluation set, to look for leaks.")
@click.option(
    "--show", default=SHOWN, show_default=True, type=click.IntRange(0), help="Rows named of each finding."
)
@dataset_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def check(
    ctx: click.Context,
    names: tuple[str, ...],
    against: tuple[str, ...],
    show: int,
    dataset_dir: Path | None,
    *,
    as_json: bool,
) -> None:
    """Find duplicates, leaks, unreadable answers and broken encodings.

    Give entries of the registry, data files, or recipes, whose training and evaluation sets are compared with
    each other; the engine of a recipe is asked which rows it leaves out. Exit status: 0 clean (hints do not
    count), 1 findings, 2 wrong use. docs/data-check.md explains every rule.

    \b
    Example:
      tunebook data check demo_recommend_train --against demo_recommend_eval
    """
    sets = _find(names, against, registry_folder(dataset_dir))
    sources = {**sets.trained, **sets.evaluated}
    read: dict[str, Audited] = {}
    with byte_progress("checking", sum(source.bytes for source in sources.values())) as on_bytes:
        before = 0
        for key, source in sources.items():
            read[key] = audit(source, shown=show, on_bytes=partial(_advance, on_bytes, before))
            before += source.bytes
    for key in sets.evaluated:
        found = [leak for other in sets.trained for leak in leaks(read[other], read[key], shown=show)]
        read[key] = replace(read[key], findings=(*read[key].findings, *found))
    for recipe in sets.recipes:
        for finding in _left_out(recipe, read, show):
            one = read[finding.dataset]
            read[finding.dataset] = replace(one, findings=(*one.findings, finding))
    if as_json:
        click.echo(json.dumps([_record(audited) for audited in read.values()], indent=2, ensure_ascii=False))
    else:
        for audited in read.values():
            _print(audited)
        _print_summary(list(read.values()))
    clean = all(finding.severity == "hint" for audited in read.values() for finding in audited.findings)
    ctx.exit(0 if clean else 1)


def _advance(on_bytes: Callable[[int], None], before: int, done: int) -> None:
    on_bytes(before + done)


def _find(names: tuple[str, ...], against: tuple[str, ...], folder: Path) -> _Sets:
    """Find every set that is named. One that is trained and evaluated on is read twice, as two."""
    sets = _Sets({}, {}, [])
    for name in names:
        recipe = _recipe(name, folder)
        if recipe is None:
            sets.trained[name] = data_sources.find_source(name, folder)
        else:
            _add_recipe(recipe, sets)
    for name in against:
        sets.evaluated[f"{name} (evaluation)" if name in sets.trained else name] = data_sources.find_source(
            name, folder
        )
    return sets


def _recipe(name: str, folder: Path) -> Recipe | None:
    """The recipe of that name; entries and data files come first."""
    registry = folder / datasets.REGISTRY_FILE
    if registry.is_file() and name in datasets.load_registry(registry).values:
        return None
    path = Path(name)
    if path.is_file() and path.suffix not in (".yaml", ".yml"):
        return None
    try:
        return find_recipe(name, paths.home() / "recipes")
    except TunebookError:
        if path.suffix in (".yaml", ".yml"):
            raise
        return None


def _add_recipe(recipe: Recipe, sets: _Sets) -> None:
    engine = engines.load(recipe.engine)
    folder = recipe.values.get(engine.registry_key)
    if not isinstance(folder, str):
        raise TunebookError(
            f"{recipe.path}: names no {engine.registry_key}, where its datasets would be described",
            fix="check its data files by their names",
        )
    if not Path(folder).exists():
        folder = str(paths.home() / folder)
    values = {**recipe.values, engine.registry_key: folder}
    sets.recipes.append(replace(recipe, values=values))
    registry = datasets.load_registry(Path(folder))
    evaluated = [] if values.get("val_size") else list(engine.evaluation_sets(values))
    also_trained = str(values.get("dataset") or "").replace(" ", "").split(",")
    for name in engine.dataset_names(values):
        entry = registry.entry(name)
        if not datasets.data_files(entry):
            say(f"{name}: not on this machine but on a hub, and not checked")
            continue
        source = data_sources.of_entry(entry)
        trained = name not in evaluated or name in also_trained
        if trained:
            sets.trained[name] = source
        if name in evaluated:
            sets.evaluated[f"{name} (evaluation)" if trained else name] = source
    blocks = len(values.get("datasets") or ())
    if blocks > len(sets.trained):
        say(
            f"{blocks - len(sets.trained)} blocks of `datasets` have no entry in {folder} and are not checked"
        )


def _left_out(recipe: Recipe, read: Mapping[str, Audited], shown: int) -> Iterator[DataFinding]:
    """Yield what the recipe's installed engine says of its rows: which it leaves out, or where it stops."""
    try:
        plan = plan_recipe(recipe, paths.home(), characters=False)
        plan.ask(whole=True)
    except EngineError as error:
        yield DataFinding(
            dataset=next(iter(read)),
            rule="engine-stops",
            severity="error",
            message=error.problem,
            fix="fix the row, or what describes the data",
            count=0,
        )
        return
    except TunebookError as error:
        say(f"{recipe.path}: the engine was not asked which rows it leaves out: {error.problem}")
        return
    for rows in plan.sets:
        key = f"{rows.name} (evaluation)"
        key = key if rows.part == "eval" and key in read else rows.name
        if key not in read or rows.counted is None:
            continue
        by_reason: dict[str, list[Place]] = {}
        for row, reason in rows.counted.skipped:
            # An answer that is missing or no text has a rule of its own.
            if not reason.startswith("the answer is"):
                by_reason.setdefault(reason, []).append(Place(rows.files[0].name, row))
        for reason, places in by_reason.items():
            yield DataFinding(
                dataset=key,
                rule="left-out-row",
                severity="warning",
                message=f"{counted(len(places), 'row')}: the engine leaves them out: {reason}",
                fix="fix or delete them",
                count=len(places),
                places=tuple(places[:shown]),
            )


def _record(audited: Audited) -> dict[str, object]:
    findings = [asdict(finding) for finding in audited.findings]
    for record, finding in zip(findings, audited.findings, strict=True):
        record["places"] = [place._asdict() for place in finding.places]
    clean = all(finding.severity == "hint" for finding in audited.findings)
    return {"dataset": audited.name, "rows": len(audited.hashes), "clean": clean, "findings": findings}


def _print(audited: Audited) -> None:
    for finding in audited.findings:
        print_finding(
            finding.dataset,
            finding.severity,
            finding.rule,
            finding.message,
            finding.fix,
            below=_places(finding),
        )


def _places(finding: DataFinding) -> str:
    """The places by file, in one line; empty where there are none."""
    files = list(dict.fromkeys(place.file for place in finding.places))
    more = ", ..." if finding.count > len(finding.places) else ""
    return (
        "; ".join(
            f"{file}: {', '.join(str(place) for place in finding.places if place.file == file)}"
            for file in files
        )
        + more
    )


def _print_summary(read: list[Audited]) -> None:
    found = count_findings(finding.severity for audited in read for finding in audited.findings)
    rows = sum(len(audited.hashes) for audited in read)
    sets = "1 set" if len(read) == 1 else f"{len(read)} sets"
    click.echo(f"{sets}, {rows} rows: {found or 'clean'}", err=True)
