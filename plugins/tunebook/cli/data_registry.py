"""`tunebook data ls` and `show`: what the registry holds, and how each engine names it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from tunebook import paths
from tunebook.cli.parts import say
from tunebook.data.registry import REGISTRY_FILE, load_registry
from tunebook.data.sources import Source, find_source
from tunebook.engines.axolotl.datasets import render_block
from tunebook.errors import TunebookError
from tunebook.progress import byte_progress
from tunebook.splits.verify import bytes_to_read, find_faults, load_manifest

dataset_dir_option = click.option(
    "--dataset-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with dataset_info.json; by default datasets_info here, else tunebook's own.",
)


@click.command("ls")
@dataset_dir_option
def ls(dataset_dir: Path | None) -> None:
    """List the datasets of the registry and what is measured on each.

    \b
    Example:
      tunebook data ls --dataset-dir datasets_info
    """
    registry = load_registry(registry_folder(dataset_dir))
    width = max(map(len, registry.values), default=0)
    for name in registry.values:
        metrics = ", ".join(spec.name for spec in registry.entry(name).metrics)
        click.echo(f"{name:{width}}  {metrics}".rstrip())


@click.command("show")
@click.argument("name")
@dataset_dir_option
def show(name: str, dataset_dir: Path | None) -> None:
    """Show an entry, or the one that fits a file, also for Axolotl.

    \b
    Example:
      tunebook data show gsm8k_main_test
      tunebook data show my_chats.jsonl
    """
    folder = registry_folder(dataset_dir)
    registry = folder / REGISTRY_FILE
    if registry.is_file() and name in load_registry(registry).values:
        entry, left_out = load_registry(registry).entry(name), tuple[str, ...]()
    else:
        source = find_source(name, folder)
        entry, left_out, folder = source.entry, source.left_out, source.files[0].parent
    told = "read from its columns" if entry.registry.name != REGISTRY_FILE else "for LLaMA-Factory"
    click.echo(f"# {entry.registry}, {told}")
    click.echo(json.dumps({entry.name: entry.values}, indent=2, ensure_ascii=False))
    if left_out:
        click.echo(f"# no engine will see: {', '.join(left_out)}")
    click.echo("\n# the same under `datasets:` or `test_datasets:` of an Axolotl recipe")
    block = render_block(entry, str(folder))
    click.echo(yaml.safe_dump([block], sort_keys=False, allow_unicode=True), nl=False)


def tell_left_out(source: Source) -> None:
    """Say which columns of a file no engine will see, since no entry says what they are."""
    if source.left_out:
        say(f"{source.files[0]}: no engine will see its columns {', '.join(source.left_out)}")


def registry_folder(given: Path | None) -> Path:
    """The registry's folder: as given, else `datasets_info` here, else the one tunebook brings."""
    here = Path("datasets_info")
    return given or (here if here.is_dir() else paths.home() / "datasets_info")


@click.command("verify")
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--parts-only", is_flag=True, help="Only compare the parts with their hashes; no source is read."
)
@click.option("--json", "as_json", is_flag=True, help="Print faults and counts as JSON.")
@click.pass_context
def verify(ctx: click.Context, output: Path, parts_only: bool, as_json: bool) -> None:
    """Check that a split still holds each row of its source once.

    OUTPUT is the folder that `tunebook data split` made. Exit status 1 where something is not as its
    manifest says.

    \b
    Example:
      tunebook data verify output/split
    """
    manifest = load_manifest(output)
    missing = [source["path"] for source in manifest["sources"] if not Path(source["path"]).is_file()]
    if missing and not parts_only:
        raise TunebookError(
            f"the source {missing[0]} is not there, so its rows cannot be compared with the parts",
            fix="put it back, or check only the parts with --parts-only",
        )
    done = 0
    with byte_progress("verifying", bytes_to_read(manifest, source_too=not parts_only)) as on_bytes:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            on_bytes(done)

        faults = find_faults(output, manifest, source_too=not parts_only, on_bytes=advance)
    held = manifest["eval"]["rows"] if manifest["eval"] else 0
    if as_json:
        figures = {
            "faults": faults,
            "rows": manifest["rows"],
            "nodes": len(manifest["nodes"]),
            "eval_rows": held,
            "skipped_rows": manifest["skipped_rows"],
            "source_read": not parts_only,
        }
        click.echo(json.dumps(figures, indent=2, ensure_ascii=False))
    elif faults:
        for fault in faults:
            click.echo(fault)
    else:
        click.echo(_proved(manifest, held, parts_only))
    if faults:
        ctx.exit(1)


def _proved(manifest: Mapping[str, Any], held: int, parts_only: bool) -> str:
    nodes = len(manifest["nodes"])
    besides = f" and {held} in the hold-out" if held else ""
    if parts_only:
        return f"{nodes} parts{besides} are as they were written; the source was not read"
    left_out = f"; {manifest['skipped_rows']} bad rows were left out" if manifest["skipped_rows"] else ""
    return (
        f"{manifest['rows'] - held} rows in {nodes} parts{besides}, each row of the source once, "
        f"all as they were written{left_out}"
    )
