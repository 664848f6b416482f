"""What `tunebook train` is going to do, decided before anything is written or started."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import paths
from tunebook.checks.outputs import check_disk
from tunebook.errors import TunebookError
from tunebook.models.checkpoints import fault
from tunebook.runs import folder as run_folder
from tunebook.runs import provenance
from tunebook.training.resolve import resolve_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.training.resolve import ResolvedRecipe
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
        TunebookError: Something the user must fix first; all faults of the recipe together.
    """
    found = resolve_recipe(name_or_path, overlay_names, overrides)
    engine, faults, notes, values = found.engine, found.faults, list(found.notes), dict(found.values)
    overwrite = bool(values.pop("overwrite_output_dir", False))
    if cache is not None:
        values[engine.cache_key] = cache
    gpus = provenance.gpus()
    environment = command = None
    with faults.gather():
        environment = paths.engine_environment(found.recipe.engine)
        with faults.gather():
            notes += _refuse_unmeasured(found, environment)
        with faults.gather():
            values, more = engine.prepare(values, environment=environment, folders=found.folders)
            notes += more
        command = engine.train(
            found.output_dir / run_folder.FOLDER / "recipe.yaml",
            values,
            environment=environment,
            gpus=provenance.visible_gpus(len(gpus), os.environ),
            environ=os.environ,
        )
    with faults.gather():
        model = Path(str(values.get(engine.model_keys[0], "")))
        check_disk(found.output_dir, values, model if model.is_dir() else None)
    with faults.gather():
        _refuse_broken_checkpoint(values.get("resume_from_checkpoint"))
    # An earlier run in the folder is compared with the recipe, so that has to be right first.
    faults.refuse()
    assert environment is not None
    assert command is not None
    holding = run_folder.Holding("nothing", None, [])
    if not overwrite:
        holding = run_folder.examine(found.output_dir, values, found.recipe.engine)
    resumed_from = _choose_checkpoint(values, holding, notes)
    if resumed_from is not None and not changed_data:
        _refuse_changed_data(found.output_dir, found.entries)
    return TrainPlan(
        recipe=replace(found.recipe, values=values),
        sha256=run_folder.recipe_sha256(values),
        environment=environment,
        command=command,
        output_dir=found.output_dir,
        holding=holding,
        replace_old=found.output_dir.exists() and (overwrite or _is_lost(holding)),
        resumed_from=resumed_from,
        entries=found.entries,
        packages=engine.packages,
        gpus=tuple(gpus),
        notes=tuple(notes),
    )


def _is_lost(holding: run_folder.Holding) -> bool:
    """An unfinished run without a checkpoint to go on from."""
    return holding.state == "unfinished" and holding.checkpoint is None


def _refuse_unmeasured(found: ResolvedRecipe, environment: Path) -> list[str]:
    """Refuse an environment whose engine would start without tunebook; return a note where that is wished."""
    if not found.measured or not found.engine.uses_startup_hook:
        return []
    names = ", ".join(found.measured)
    if os.environ.get("TUNEBOOK_HOOK") == "0":
        return [f"TUNEBOOK_HOOK=0: the metrics of {names} are not measured"]
    if not paths.has_startup_hook(environment):
        raise TunebookError(
            f"{environment} has the engine but not tunebook, so the metrics of {names} would not be measured",
            fix=f"`{environment}/bin/python -m pip install tunebook`, or TUNEBOOK_HOOK=0 to train without",
        )
    return []


def _refuse_broken_checkpoint(wished: Any) -> None:
    """The checkpoint that the recipe itself names; an engine finds out after it has loaded the model."""
    if not isinstance(wished, str) or not wished:
        return
    reason = fault(Path(wished)) if Path(wished).is_dir() else "there is no such folder"
    if reason:
        raise TunebookError(
            f"resume_from_checkpoint: {wished}: {reason}",
            fix="name a whole checkpoint, or leave the key out: the newest whole one is found",
        )


def _choose_checkpoint(values: dict[str, Any], holding: run_folder.Holding, notes: list[str]) -> str | None:
    """Set `resume_from_checkpoint` where an unfinished run has one; the recipe's own choice comes first."""
    wished = values.get("resume_from_checkpoint")
    if isinstance(wished, str) and wished:
        return Path(wished).name
    notes += [f"skipping {broken.path}: {broken.reason}" for broken in holding.passed_over]
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
