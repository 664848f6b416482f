"""Recipes: finding them, reading them as their engine does, and the facts of their leading comment."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from tunebook.errors import TunebookError
from tunebook.recipes import engine_yaml, nested
from tunebook.types import EngineName, Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

ENGINES: tuple[EngineName, ...] = get_args(EngineName)

HEADER_FACTS = ("purpose", "hardware", "expected", "source")
"""The facts that open every recipe of ours, in this order."""

MODEL_KEY: dict[EngineName, str] = {"llamafactory": "model_name_or_path", "axolotl": "base_model"}
"""The key that names the base model, and so says whose recipe a file is."""

_FACT = re.compile(rf"#\s*({'|'.join(HEADER_FACTS)}):\s*(.*)")


def recipe_files(root: Path) -> list[Path]:
    """Return the recipe files below `root` (a `recipes/` folder), sorted; overlays are not recipes."""
    files = [path for engine in ENGINES for path in (root / engine).rglob("*.yaml")]
    return sorted(path for path in files if "overlays" not in path.relative_to(root).parts)


def find_recipe(name_or_path: str, root: Path) -> Recipe:
    """Read the recipe of that name below `root`, or that file; see `recipe_path`.

    Raises:
        TunebookError: There is none, or it cannot be read.
    """
    return read_recipe(recipe_path(name_or_path, root), root)


def recipe_path(name_or_path: str, root: Path) -> Path:
    """Return the file of the recipe of that name below `root`, or that file.

    Args:
        name_or_path: `llamafactory/demo/lora_sft_recommend`, the same with `recipes/` before or `.yaml`
            after it, or the path of any YAML file. A file in the current folder wins over a name.
        root: A `recipes/` folder.

    Raises:
        TunebookError: There is none.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    name = name_or_path.removeprefix("recipes/").removesuffix(".yaml")
    named = root / f"{name}.yaml"
    if named.is_file():
        return named
    names = [recipe_name(file, root) for file in recipe_files(root)]
    problem = (
        f"{name_or_path} is a folder, not a recipe" if path.is_dir() else f"no such recipe: {name_or_path}"
    )
    raise TunebookError(problem, fix=_suggest(name, names))


def read_recipe(path: Path, root: Path) -> Recipe:
    """Read one recipe file, as its engine reads it; a JSON file becomes a flat recipe, see `recipes.nested`.

    Below `root` the first folder names the engine; elsewhere the key of the base model does.

    Raises:
        TunebookError: The file is no mapping in YAML or JSON, or no engine's.
    """
    text, name, source = engine_yaml.read_text(path), recipe_name(path, root), str(path)
    if path.suffix == ".json":
        values = nested.flatten(nested.parse(text, source=source), name=path.stem).values
        return Recipe(name=name, engine=_engine_by_model(path, values), path=path, values=values, header={})
    # Both engines read keys in the same way, and PyYAML accepts a key that is there twice.
    engine = _engine_by_folder(path, root) or _engine_by_model(
        path, engine_yaml.parse_mapping(text, "axolotl", source=source)
    )
    values = engine_yaml.parse_mapping(text, engine, source=source)
    return Recipe(name=name, engine=engine, path=path, values=values, header=read_header(text))


def recipe_name(path: Path, root: Path) -> str:
    """Return the path below `root` without `.yaml`; the path as given for a file from elsewhere."""
    try:
        return path.resolve().relative_to(root.resolve()).with_suffix("").as_posix()
    except ValueError:
        return str(path)


def read_header(text: str) -> dict[str, str]:
    """Read the facts (`# purpose: ...`) of the comment that opens a recipe.

    A comment line that names no fact goes on with the one above it. The header ends at the first line that
    is no comment.
    """
    facts: dict[str, str] = {}
    current = None
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        fact = _FACT.match(line)
        if fact:
            current = fact[1]
            facts[current] = fact[2].strip()
        elif current:
            facts[current] = f"{facts[current]} {line.lstrip('#').strip()}".strip()
    return facts


def _engine_by_folder(path: Path, root: Path) -> EngineName | None:
    folder = Path(recipe_name(path, root)).parts[0]
    inside = path.resolve().is_relative_to(root.resolve())
    return next((engine for engine in ENGINES if inside and folder == engine), None)


def _engine_by_model(path: Path, keys: Mapping[str, Any]) -> EngineName:
    found = [engine for engine, key in MODEL_KEY.items() if key in keys]
    if len(found) == 1:
        return found[0]
    raise TunebookError(
        f"{path}: it is not known which engine this recipe is for: it has "
        f"{'both' if found else 'neither'} of the keys `model_name_or_path` (LLaMA-Factory) and "
        "`base_model` (Axolotl)",
        fix="name the base model by the key of the engine that is to train it",
    )


def _suggest(name: str, names: list[str]) -> str:
    last_parts = {candidate: candidate.rsplit("/", 1)[-1] for candidate in names}
    like = difflib.get_close_matches(name.rsplit("/", 1)[-1], set(last_parts.values()), n=3, cutoff=0.6)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.75)
    close += [candidate for candidate in names if last_parts[candidate] in like and candidate not in close]
    if close:
        return f"did you mean {' or '.join(close[:4])}? `tunebook ls` lists all"
    return "list them with `tunebook ls`, or give the path of a YAML file"
