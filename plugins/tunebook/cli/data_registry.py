"""`tunebook data ls` and `show`: what the registry holds, and how each engine is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import click
import yaml

from tunebook import paths
from tunebook.data.registry import load_registry
from tunebook.engines.axolotl.datasets import render_block

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
    """Show an entry, and the block that says the same in an Axolotl recipe.

    \b
    Example:
      tunebook data show gsm8k_main_test
    """
    folder = registry_folder(dataset_dir)
    entry = load_registry(folder).entry(name)
    click.echo(f"# {entry.registry}, for LLaMA-Factory")
    click.echo(json.dumps({name: entry.values}, indent=2, ensure_ascii=False))
    click.echo("\n# the same under `datasets:` or `test_datasets:` of an Axolotl recipe")
    block = render_block(entry, str(folder))
    click.echo(yaml.safe_dump([block], sort_keys=False, allow_unicode=True), nl=False)


def registry_folder(given: Path | None) -> Path:
    """The registry's folder: as given, else `datasets_info` here, else the one tunebook brings."""
    here = Path("datasets_info")
    return given or (here if here.is_dir() else paths.home() / "datasets_info")
