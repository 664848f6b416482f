"""Variants of a recipe: overlay files and `key=value` overrides, merged as OmegaConf merges.

Mappings are merged key by key, everything else is replaced, lists too. A `null` removes the key, so that the
engine's own default holds again.
"""

from __future__ import annotations

import copy
import difflib
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from tunebook.errors import TunebookError, join_errors
from tunebook.recipes import engine_yaml
from tunebook.recipes.catalog import find_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.types import Recipe

# omegaconf/_key_path.py: `a.b`, `a[b]` and `[a].b` name the same key of the same mapping.
_KEY_PART = re.compile(r"\.?([^.\[\]]+)|\[([^\]]*)\]")


class Resolved(NamedTuple):
    """A recipe with its overlays and overrides merged in."""

    recipe: Recipe
    origins: dict[str, str]
    """Who set each value, by dotted key down to the leaves, e.g. `{"lr_scheduler_kwargs.min_lr":
    "overlay smoke"}`; `recipe`, `overlay NAME` or `override`."""


def resolve(
    recipe: Recipe, root: Path, overlays: Sequence[str] = (), overrides: Sequence[str] = ()
) -> Resolved:
    """Merge `overlays` into `recipe` in their order, then `overrides` in theirs.

    Args:
        recipe: As read from its file.
        root: The `recipes/` folder that holds `<engine>/overlays/`.
        overlays: Names, looked up in `overlays/` beside the recipe and then in `<root>/<engine>/overlays/`,
            or paths of YAML files.
        overrides: `key=value` as on LLaMA-Factory's own command line: dots name nested keys, the value is
            read as YAML, and nothing after the equals sign means null.

    Raises:
        TunebookError: An overlay is unknown or not a YAML mapping, an override is not `key=value`, or a
            mapping meets a list.
    """
    values = copy.deepcopy(dict(recipe.values))
    origins = dict.fromkeys(_leaves(values), "recipe")
    for name in overlays:
        path = find_overlay(name, recipe, root)
        change = engine_yaml.read_mapping(path, recipe.engine)
        _merge(values, change, origins, origin=f"overlay {name}")
    _merge(values, parse_overrides(overrides), origins, origin="override")
    applied = (*recipe.overlays, *overlays, *overrides)
    return Resolved(
        replace(recipe, values=values, overlays=applied), {key: origins[key] for key in _leaves(values)}
    )


def resolve_named(
    name_or_path: str, root: Path, overlays: Sequence[str] = (), overrides: Sequence[str] = ()
) -> Resolved:
    """Read the recipe of that name, or that file, and merge; see `catalog.find_recipe` and `resolve`."""
    return resolve(find_recipe(name_or_path, root), root, overlays, overrides)


def find_overlay(name_or_path: str, recipe: Recipe, root: Path) -> Path:
    """Return the file of an overlay; see `resolve` for where it is looked up.

    Raises:
        TunebookError: There is none.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        if path.is_file():
            return path
        raise TunebookError(
            f"no such overlay file: {name_or_path}", fix="check the path, or give an overlay's name"
        )
    folders = [recipe.path.parent / "overlays", root / recipe.engine / "overlays"]
    for folder in folders:
        if (folder / f"{name_or_path}.yaml").is_file():
            return folder / f"{name_or_path}.yaml"
    names = overlay_names(recipe, root)
    close = difflib.get_close_matches(name_or_path, names, n=2, cutoff=0.5)
    if close:
        fix = f"did you mean {' or '.join(close)}?"
    elif names:
        fix = f"choose one of: {', '.join(names)}"
    else:
        fix = f"write {folders[1] / name_or_path}.yaml with the keys that change"
    raise TunebookError(f"no overlay {name_or_path!r} for {recipe.name}", fix=fix)


def overlay_names(recipe: Recipe, root: Path) -> list[str]:
    """Return the names of the overlays that `recipe` may take, sorted."""
    folders = (recipe.path.parent / "overlays", root / recipe.engine / "overlays")
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return `key=value` arguments as one nested mapping, the later of two equal keys winning.

    Raises:
        TunebookError: One is not of this form; all that are not are named.
    """
    values: dict[str, Any] = {}
    errors = []
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = [name or bracketed for name, bracketed in _KEY_PART.findall(key)]
        try:
            value = engine_yaml.parse_value(text)
        except yaml.YAMLError as err:
            errors.append(
                TunebookError(
                    f"{override}: the value is not YAML: {getattr(err, 'problem', None) or err}",
                    fix="put it in quotes twice, e.g. key='\"value\"'",
                )
            )
            continue
        if not equals or not parts or key.startswith(("-", "+")):
            errors.append(
                TunebookError(
                    f"{override}: is not of the form key=value", fix="write e.g. learning_rate=1e-4"
                )
            )
            continue
        _set(values, parts, value)
    if errors:
        raise join_errors(errors)
    return values


def _set(values: dict[str, Any], parts: list[str], value: Any) -> None:
    """Set a nested key, making the mappings on the way; of two mappings the result holds both."""
    for part in parts[:-1]:
        if not isinstance(values.get(part), dict):
            values[part] = {}
        values = values[part]
    last = parts[-1]
    if isinstance(value, dict) and isinstance(values.get(last), dict):
        for key, inner in value.items():
            _set(values[last], [key], inner)
    else:
        values[last] = value


def _merge(
    values: dict[str, Any],
    change: Mapping[str, Any],
    origins: dict[str, str],
    *,
    origin: str,
    prefix: str = "",
) -> None:
    for key, new in change.items():
        dotted = f"{prefix}{key}"
        old = values.get(key)
        if new is None:
            values.pop(key, None)
            continue
        if {type(old), type(new)} == {dict, list}:
            raise TunebookError(
                f"{origin}: {dotted} is a {_kind(new)} where the recipe has a {_kind(old)}",
                fix=f"write {dotted} as a {_kind(old)}, or first set it to null",
            )
        if isinstance(new, dict):
            if not isinstance(old, dict):
                values[key] = {}
            _merge(values[key], new, origins, origin=origin, prefix=f"{dotted}.")
            if not new:
                origins[dotted] = origin
        else:
            values[key] = copy.deepcopy(new)
            origins[dotted] = origin


def _kind(value: object) -> str:
    return "mapping" if isinstance(value, dict) else "list"


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted keys of all values that are not themselves filled mappings."""
    leaves = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            leaves += _leaves(value, f"{prefix}{key}.")
        else:
            leaves.append(f"{prefix}{key}")
    return leaves
