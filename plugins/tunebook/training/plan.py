"""What `tunebook train` is going to do, decided before anything is written or started."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import engines, paths
from tunebook.checks.data import check_datasets
from tunebook.checks.outputs import check_disk
from tunebook.checks.run import check_recipe, refuse_errors
from tunebook.data import registry as datasets
from tunebook.errors import TunebookError, join_errors
from tunebook.models.checkpoints import fault
from tunebook.recipes import overlays
from tunebook.recipes.catalog import find_recipe
from tunebook.redact import redact
from tunebook.runs import folder as run_folder
from tunebook.runs import provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.types import Command, DatasetEntry, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainPlan:
    """One start of a recipe: what is run, where it writes, and what of an earlier start it goes on with."""

    recipe: Recipe
    """With overlays, overrides and paths resolved, and the checkpoint to resume from."""
    sha256: str
    """Equal for two starts of one experiment; see `run_folder.recipe_sha256`."""
    environment: Path
    """The virtual environment of the engine."""
    command: Command
    output_dir: Path
    """As the recipe gives it."""
    holding: run_folder.Holding
    replace_old: bool
    """`output_dir` holds something that is to be moved aside first."""
    resumed_from: str | None
    """Name of the checkpoint folder."""
    entries: tuple[DatasetEntry, ...]
    """The registry entries the recipe names; none where the registry is not on this machine."""
    packages: tuple[str, ...]
    gpus: tuple[dict[str, str], ...]
    notes: tuple[str, ...]
    """What the user should know before it starts, a line each."""


def plan_training(
    name_or_path: str,
    overlay_names: Sequence[str],
    overrides: Sequence[str],
    *,
    cache: str | None = None,
    changed_data: bool = False,
) -> TrainPlan:
    """Find, merge and check everything that a start needs.

    Args:
        name_or_path: The recipe.
        overlay_names: Merged into it, in order.
        overrides: `key=value`, merged last.
        cache: Folder below which tokenised rows are kept; None for what the recipe says.
        changed_data: Go on with an unfinished run although its data files are others now.

    Raises:
        TunebookError: Something the user must mend first; several faults are told together.
    """
    home = paths.home()
    root = home / "recipes"
    recipe = overlays.resolve(find_recipe(name_or_path, root), root, overlay_names, overrides).recipe
    engine = engines.load(recipe.engine)
    environment = paths.engine_environment(recipe.engine)
    _refuse_secrets(recipe)

    values, notes = locate(dict(recipe.values), engine, home)
    overwrite = bool(values.pop("overwrite_output_dir", False))
    output_dir = _output_dir(values, recipe)
    entries = _check_data(values, engine, environment, notes)
    checked = check_recipe(name_or_path, home, overlay_names, overrides, command="train")
    notes += refuse_errors(checked.result)
    if cache is not None:
        values[engine.cache_key] = cache
    values, more = engine.prepare(values, environment=environment, home=home)
    notes += more
    model = Path(str(values.get(engine.model_keys[0], "")))
    check_disk(output_dir, values, model if model.is_dir() else None)

    holding = run_folder.Holding("nothing", None, [])
    if not overwrite:
        holding = run_folder.examine(output_dir, values, recipe.engine)
    resumed_from = _choose_checkpoint(values, holding, notes)
    if resumed_from is not None and not changed_data:
        _refuse_changed_data(output_dir, entries)
    found = provenance.gpus()
    resolved = replace(recipe, values=values)
    return TrainPlan(
        recipe=resolved,
        sha256=run_folder.recipe_sha256(values),
        environment=environment,
        command=engine.train(
            output_dir / run_folder.FOLDER / "recipe.yaml",
            values,
            environment=environment,
            gpus=provenance.visible_gpus(len(found), os.environ),
            environ=os.environ,
        ),
        output_dir=output_dir,
        holding=holding,
        replace_old=output_dir.exists() and (overwrite or _is_lost(holding)),
        resumed_from=resumed_from,
        entries=entries,
        packages=engine.packages,
        gpus=tuple(found),
        notes=tuple(notes),
    )


def _is_lost(holding: run_folder.Holding) -> bool:
    """An unfinished run without a checkpoint to go on from."""
    return holding.state == "unfinished" and holding.checkpoint is None


def locate(values: dict[str, Any], engine: engines.Engine, home: Path) -> tuple[dict[str, Any], list[str]]:
    """Point relative paths that are not below the current folder at tunebook's own; say so for each."""
    notes, errors = [], []
    for key in (*engine.path_keys, *engine.model_keys):
        value = values.get(key)
        if not isinstance(value, str) or not value or _is_elsewhere(value):
            continue
        # Adapters may be several, with commas between.
        parts = value.split(",") if key in engine.model_keys else [value]
        for index, part in enumerate(parts):
            if Path(part).exists():
                continue
            if (home / part).exists():
                parts[index] = str(home / part)
                notes.append(f"{key}: {parts[index]}")
            elif key in engine.path_keys or _is_no_hub_name(part):
                elsewhere = "" if home == Path.cwd() else f" nor in {home}"
                errors.append(
                    TunebookError(
                        f"{key}: there is no {part} in {Path.cwd()}{elsewhere}",
                        fix=f"make it, run in the folder that holds it, or give {key} another path",
                    )
                )
        values[key] = ",".join(parts)
    if errors:
        raise join_errors(errors)
    return values, notes


def _is_no_hub_name(value: str) -> bool:
    """Whether a model of this name can only be a folder; on a hub it is `name` or `owner/name`."""
    return value.startswith(("/", ".", "~")) or value.count("/") > 1


def _is_elsewhere(value: str) -> bool:
    """Whether LLaMA-Factory reads this `dataset_dir` from a hub."""
    return value == "ONLINE" or value.startswith("REMOTE:")


def _output_dir(values: dict[str, Any], recipe: Recipe) -> Path:
    value = values.get("output_dir")
    if not isinstance(value, str) or not value:
        raise TunebookError(f"{recipe.path}: names no output_dir", fix="add output_dir=output/<name>")
    if Path(value).exists() and not Path(value).is_dir():
        raise TunebookError(f"output_dir: {value} is a file", fix="set another output_dir")
    return Path(value)


def _check_data(
    values: dict[str, Any], engine: engines.Engine, environment: Path, notes: list[str]
) -> tuple[DatasetEntry, ...]:
    names, evaluated = engine.dataset_names(values), engine.evaluation_sets(values)
    folder = values.get(engine.registry_key, "data")
    if not names or not isinstance(folder, str) or _is_elsewhere(folder):
        return ()
    registry = datasets.load_registry(Path(folder))
    limit = values.get("max_samples")
    errors = check_datasets(registry, names, evaluated, max_rows=limit if isinstance(limit, int) else None)
    if errors:
        raise join_errors(errors)
    measured = registry.metrics_of(evaluated)
    if not engine.uses_startup_hook:
        return tuple(registry.entry(name) for name in names)
    if measured and os.environ.get("TUNEBOOK_HOOK") == "0":
        notes.append(f"TUNEBOOK_HOOK=0: the metrics of {', '.join(measured)} are not measured")
    elif measured and not paths.has_startup_hook(environment):
        raise TunebookError(
            f"{environment} has the engine but not tunebook, so the metrics of {', '.join(measured)} "
            "would not be measured",
            fix=f"`{environment}/bin/python -m pip install tunebook`, or TUNEBOOK_HOOK=0 to train without",
        )
    return tuple(registry.entry(name) for name in names)


def _choose_checkpoint(values: dict[str, Any], holding: run_folder.Holding, notes: list[str]) -> str | None:
    """Set `resume_from_checkpoint` where an unfinished run has one; the recipe's own wish comes first."""
    wished = values.get("resume_from_checkpoint")
    if isinstance(wished, str) and wished:
        reason = fault(Path(wished)) if Path(wished).is_dir() else "there is no such folder"
        if reason:
            raise TunebookError(
                f"resume_from_checkpoint: {wished} cannot be resumed from: {reason}",
                fix="name a whole checkpoint, or leave the key out: the newest whole one is found",
            )
        return Path(wished).name
    notes += [f"passing over {broken.path}: {broken.reason}" for broken in holding.passed_over]
    if holding.checkpoint is None:
        return None
    values["resume_from_checkpoint"] = str(holding.checkpoint)
    notes.append(f"resuming from {holding.checkpoint}")
    return holding.checkpoint.name


def _refuse_changed_data(output_dir: Path, entries: Sequence[DatasetEntry]) -> None:
    """The Trainer passes over the batches it has trained on by their number: in other data, other rows."""
    started_on = run_folder.recorded_data(output_dir)
    for entry in entries:
        earlier = started_on.get(entry.name)
        if earlier is not None and provenance.dataset_facts(entry)["sha256"] != earlier:
            raise TunebookError(
                f"{entry.name}: its data has changed since {output_dir} was started",
                fix="restore the data, set another output_dir or `overwrite_output_dir=true`, "
                "or go on all the same with --changed-data",
            )


def _refuse_secrets(recipe: Recipe) -> None:
    """The resolved recipe is kept in the run folder, which people share."""
    shown = redact(dict(recipe.values))
    secret = [key for key, value in recipe.values.items() if shown[key] != value]
    if secret:
        raise TunebookError(
            f"{recipe.path}: {', '.join(secret)}: the run folder would keep a copy of this secret",
            fix="take it out and give it in the environment instead, e.g. HF_TOKEN=... tunebook train ...",
        )
