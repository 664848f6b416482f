"""A recipe as a start needs it: merged, checked, its paths and data found, and every fault gathered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import engines, paths
from tunebook.checks.data import check_datasets
from tunebook.checks.recipe import is_no_hub_name
from tunebook.checks.run import check_recipe, refuse_errors
from tunebook.data.registry import load_registry
from tunebook.engines.objectives import objective
from tunebook.errors import Faults, TunebookError
from tunebook.recipes.catalog import find_recipe
from tunebook.redact import redact

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tunebook.types import DatasetEntry, EngineName, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedRecipe:
    """One recipe with its overlays and overrides, and what is wrong with it on this machine."""

    recipe: Recipe
    """Merged; its paths as written."""
    engine: engines.Engine
    values: dict[str, Any]
    """The recipe's, with relative paths that are found in tunebook's own folder pointed there."""
    output_dir: Path
    """As the recipe gives it; empty where that is among the faults."""
    folders: tuple[Path, ...]
    """Where data is looked for that is not below the current folder."""
    entries: tuple[DatasetEntry, ...]
    """The registry entries that the recipe names; none where the registry is not on this machine."""
    measured: tuple[str, ...]
    """Those that it evaluates on and that ask for a metric."""
    faults: Faults
    """What is in the way of a start. Whoever finds more adds it, and refuses all of it at once."""
    notes: tuple[str, ...]
    """What the user should know, a line each."""


def resolve_recipe(
    name_or_path: str, overlay_names: Sequence[str], overrides: Sequence[str]
) -> ResolvedRecipe:
    """Find, merge and check a recipe that is to be trained.

    Args:
        name_or_path: The recipe.
        overlay_names: Merged into it, in order.
        overrides: `key=value`, merged last.

    Raises:
        TunebookError: There is no such recipe or overlay, or a file cannot be read. What is wrong with a
            recipe that can be read is in the result.
    """
    home = paths.home()
    checked = check_recipe(name_or_path, home, overlay_names, overrides, command="train")
    faults, notes = Faults(), list[str]()
    with faults.gather():
        notes += refuse_errors(checked.result)
    recipe = checked.recipe
    if recipe is None:
        faults.refuse()
        # A file of another kind, such as a DeepSpeed configuration without faults: this says so.
        recipe = find_recipe(name_or_path, home / "recipes")
    engine = engines.load(recipe.engine)
    refused = {finding.key for finding in checked.result.errors if finding.key}
    # As the check looks: what is found beside the recipe, or above it, is used from any folder.
    looked_at = checked.checked_recipe
    folders = (home,) if looked_at is None else looked_at.folders[1:]
    values, found = locate(recipe.values, engine, folders, faults, known=refused)
    entries: list[DatasetEntry] = []
    evaluated: Collection[str] = ()
    output_dir = Path()
    if engine.registry_key not in refused:
        with faults.gather():
            trained_for = objective(recipe.engine, values)
            if trained_for is None or trained_for.no_answers is None:
                evaluated = engine.evaluation_sets(values)
            entries = _check_data(values, engine, faults)
            notes += _whole_sets(values, engine)
    with faults.gather():
        output_dir = _output_dir(recipe)
        values["output_dir"] = str(output_dir)
    with faults.gather():
        _refuse_secrets(recipe)
    return ResolvedRecipe(
        recipe=recipe,
        engine=engine,
        values=values,
        output_dir=output_dir,
        folders=tuple(folders),
        entries=tuple(entries),
        measured=tuple(entry.name for entry in entries if entry.name in evaluated and entry.metrics),
        faults=faults,
        notes=(*found, *notes),
    )


def locate(
    values: Mapping[str, Any],
    engine: engines.Engine,
    folders: Sequence[Path],
    faults: Faults,
    *,
    known: Collection[str | None] = (),
) -> tuple[dict[str, Any], list[str]]:
    """Point relative paths that are not below the current folder at where they are.

    Args:
        values: The recipe.
        engine: Its engine, which knows the keys that are paths.
        folders: Where they are looked for as well, in this order.
        faults: Takes in each path that is in none.
        known: Keys whose faults are in there already.

    Returns:
        The recipe, and a line for each path that was pointed elsewhere.
    """
    located, notes = dict(values), []
    for key in (*engine.path_keys, *engine.model_keys):
        value = values.get(key)
        # A template may be written out in place of the name of its file.
        if not isinstance(value, str) or not value or _is_on_hub(value) or "{" in value:
            continue
        # Adapters may be several, with commas between.
        parts = value.split(",") if key in engine.model_keys else [value]
        for index, part in enumerate(parts):
            if Path(part).exists():
                continue
            there = next((folder / part for folder in folders if (folder / part).exists()), None)
            if there is not None:
                parts[index] = str(there)
                notes.append(f"{key}: {there}")
            elif key not in known and (key in engine.path_keys or is_no_hub_name(part)):
                elsewhere = "" if folders[0] == Path.cwd() else f" nor in {folders[0]}"
                faults.add(
                    TunebookError(
                        f"{key}: there is no {part} in {Path.cwd()}{elsewhere}",
                        fix=f"make it, run in the folder that holds it, or give {key} another path",
                    )
                )
        located[key] = ",".join(parts)
    return located, notes


def _is_on_hub(value: str) -> bool:
    """Whether LLaMA-Factory reads this `dataset_dir` from a hub."""
    return value == "ONLINE" or value.startswith("REMOTE:")


def _check_data(values: Mapping[str, Any], engine: engines.Engine, faults: Faults) -> list[DatasetEntry]:
    """Return the entries of the recipe's datasets that are in the registry; their rows the check has read."""
    names = engine.dataset_names(values)
    folder = values.get(engine.registry_key, "data")
    if not names or not isinstance(folder, str) or _is_on_hub(folder):
        return []
    registry = load_registry(Path(folder))
    said = [fault.problem for fault in faults]
    for error in check_datasets(
        registry,
        [name for name in names if not any(f"{registry.path}: {name}: " in problem for problem in said)],
        (),
    ):
        faults.add(error)
    entries = []
    for name in names:
        with faults.gather():
            entries.append(registry.entry(name))
    return entries


def _whole_sets(values: Mapping[str, Any], engine: engines.Engine) -> list[str]:
    """A line where the registry is a node's part of a split, and the recipe trains on other data too."""
    folder = Path(str(values.get(engine.registry_key, "data"))).absolute()
    if folder.name == "joint" or not (folder.parent / "manifest.json").is_file():
        return []
    from tunebook.splits import refuse_whole_sets  # imports numpy, which a start does not need otherwise

    try:
        refuse_whole_sets(folder, engine.training_sets(values))
    except TunebookError as error:
        return [f"warning: {error.problem}"]
    return []


_OUTPUT_DIRS: Mapping[EngineName, str] = {"llamafactory": "trainer_output", "axolotl": "./model-out"}


def _output_dir(recipe: Recipe) -> Path:
    # Both engines have a folder of their own for a recipe that names none, as the check warns.
    value = str(recipe.values.get("output_dir") or _OUTPUT_DIRS[recipe.engine])
    if Path(value).exists() and not Path(value).is_dir():
        raise TunebookError(f"output_dir: {value} is a file", fix="set another output_dir")
    return Path(value)


def _refuse_secrets(recipe: Recipe) -> None:
    """The resolved recipe is kept in the run folder, which people share."""
    shown = redact(dict(recipe.values))
    secret = [key for key, value in recipe.values.items() if shown[key] != value]
    if secret:
        raise TunebookError(
            f"{recipe.path}: {', '.join(secret)}: the run folder would keep a copy of this secret",
            fix="take it out and give it in the environment instead, e.g. HF_TOKEN=... tunebook train ...",
        )
