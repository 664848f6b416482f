"""`tunebook data`: what the registry holds, and how each engine is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import click
import yaml

from tunebook import paths
from tunebook.datasets import load_registry
from tunebook.engines.axolotl_datasets import render_block

_dataset_dir = click.option(
    "--dataset-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with dataset_info.json; by default datasets_info here, else tunebook's own.",
)


@click.group("data")
def data() -> None:
    """List the registry's datasets; show one as each engine is told of it.

    \b
    Example:
      tunebook data show movielens_eval
    """


@data.command("ls")
@_dataset_dir
def ls(dataset_dir: Path | None) -> None:
    """List the datasets of the registry and what is measured on each.

    \b
    Example:
      tunebook data ls --dataset-dir datasets_info
    """
    registry = load_registry(_folder(dataset_dir))
    width = max(map(len, registry.values), default=0)
    for name in registry.values:
        metrics = ", ".join(spec.name for spec in registry.entry(name).metrics)
        click.echo(f"{name:{width}}  {metrics}".rstrip())


@data.command("show")
@click.argument("name")
@_dataset_dir
def show(name: str, dataset_dir: Path | None) -> None:
    """Show an entry, and the block that says the same in an Axolotl recipe.

    \b
    Example:
      tunebook data show gsm8k_main_test
    """
    folder = _folder(dataset_dir)
    entry = load_registry(folder).entry(name)
    click.echo(f"# {entry.registry}, for LLaMA-Factory")
    click.echo(json.dumps({name: entry.values}, indent=2, ensure_ascii=False))
    click.echo("\n# the same under `datasets:` or `test_datasets:` of an Axolotl recipe")
    block = render_block(entry, str(folder))
    click.echo(yaml.safe_dump([block], sort_keys=False, allow_unicode=True), nl=False)


def _folder(given: Path | None) -> Path:
    here = Path("datasets_info")
    return given or (here if here.is_dir() else paths.home() / "datasets_info")
