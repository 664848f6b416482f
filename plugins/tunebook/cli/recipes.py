"""`tunebook ls`, `show` and `cp`: recipes as they are in the folder, and a copy of your own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunebook import files, paths
from tunebook.cli.parts import overlay_option
from tunebook.errors import Faults, TunebookError
from tunebook.recipes import catalog, engine_yaml, overlays

if TYPE_CHECKING:
    from tunebook.recipes.overlays import Resolved
    from tunebook.types import Recipe


@click.command("ls")
@click.option("--engine", type=click.Choice(catalog.ENGINES), help="Only this engine's recipes.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def ls(engine: str | None, as_json: bool) -> None:
    """List the recipes: name, hardware and what each should reach.

    \b
    Example:
      tunebook ls --engine llamafactory
    """
    root = paths.home() / "recipes"
    found: list[Recipe] = []
    faults = Faults()
    for path in catalog.recipe_files(root):
        with faults.gather():
            found.append(catalog.read_recipe(path, root))
    found = [recipe for recipe in found if engine in (None, recipe.engine)]
    if as_json:
        listing = [
            {"name": item.name, "engine": item.engine, "path": str(item.path), **item.header}
            for item in found
        ]
        click.echo(json.dumps(listing, indent=2, ensure_ascii=False))
    else:
        _print_table(found)
    faults.refuse()


@click.command("show")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@overlay_option
@click.option("--json", "as_json", is_flag=True, help="Print values, header and who set each value as JSON.")
def show(recipe: str, overrides: tuple[str, ...], overlay_names: tuple[str, ...], as_json: bool) -> None:
    """Show one recipe, with its overlays merged in.

    What is printed is itself a recipe. Each value that an overlay or an override has set has a comment.

    \b
    Example:
      tunebook show llamafactory/qwen3-0.6b/qlora_sft_movielens -o smoke
    """
    root = paths.home() / "recipes"
    resolved = overlays.resolve_named(recipe, root, overlay_names, overrides)
    if as_json:
        click.echo(json.dumps(_as_dict(resolved), indent=2, ensure_ascii=False, default=str))
        return
    click.echo(_annotated(resolved), nl=False)
    names = overlays.overlay_names(resolved.recipe, root)
    if names:
        click.echo(f"overlays: {', '.join(names)}", err=True)


@click.command("cp")
@click.argument("recipe")
@click.argument("dest", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@overlay_option
def cp(recipe: str, dest: Path, overrides: tuple[str, ...], overlay_names: tuple[str, ...]) -> None:
    """Copy a recipe, to make it yours.

    DEST is a file or a folder. Overlays and overrides are merged in; without them the file is copied as it
    is, with its comments. A recipe in JSON becomes YAML. Nothing is overwritten.

    \b
    Example:
      tunebook cp llamafactory/demo/full_sft_recommend my_recipe.yaml
    """
    root = paths.home() / "recipes"
    found = catalog.find_recipe(recipe, root)
    name = found.path.with_suffix(".yaml").name if found.path.suffix == ".json" else found.path.name
    target = dest / name if dest.is_dir() or not dest.suffix else dest
    if target.suffix not in {".yaml", ".yml"}:
        raise TunebookError(f"{target}: engines read recipes from .yaml files", fix="end the name with .yaml")
    if target.exists():
        raise TunebookError(f"{target} exists", fix="choose another name, or delete it first")
    resolved = overlays.resolve(found, root, overlay_names, overrides)
    if overlay_names or overrides or found.path.suffix == ".json":
        files.write_atomic(target, _annotated(resolved))
    else:
        files.write_atomic(target, found.path.read_bytes())
    click.echo(f"wrote {target}; train it with: tunebook train {target}", err=True)


def _print_table(found: list[Recipe]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        # A pipe has no width: give every line all the room it needs.
        console = Console(width=400)
    table = Table("recipe", "hardware", "expected", box=None, pad_edge=False)
    table.columns[0].overflow = "fold"
    for recipe in found:
        hardware, expected = (recipe.header.get(fact, "not stated") for fact in ("hardware", "expected"))
        table.add_row(recipe.name, hardware, expected)
    console.print(table)


def _annotated(resolved: Resolved) -> str:
    """The recipe as YAML: its header, then its keys, each that was changed with who changed it."""
    recipe, origins = resolved
    lines = [f"# {fact}: {text}" for fact, text in recipe.header.items()]
    lines += [""] if lines else []
    # After the header: a comment line within it would be part of the fact above.
    lines += ["# What the header expects holds without the changes below."] if recipe.overlays else []
    for key, value in recipe.values.items():
        text = engine_yaml.dump({key: value}).rstrip("\n")
        changed = {origin for leaf, origin in origins.items() if leaf == key or leaf.startswith(f"{key}.")}
        changed.discard("recipe")
        first, newline, rest = text.partition("\n")
        # A comment would become part of a text that goes over several lines.
        if changed and not (newline and isinstance(value, str)):
            first += f"  # {', '.join(sorted(changed))}"
        lines.append(first + newline + rest)
    return "\n".join(lines) + "\n"


def _as_dict(resolved: Resolved) -> dict[str, object]:
    recipe, origins = resolved
    return {
        "name": recipe.name,
        "engine": recipe.engine,
        "path": str(recipe.path),
        "header": dict(recipe.header),
        "overlays": list(recipe.overlays),
        "values": dict(recipe.values),
        "origins": origins,
    }
