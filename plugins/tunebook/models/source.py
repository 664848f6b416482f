"""What a name on the command line means: which weights, of which engine, trained with which settings."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook import files, paths
from tunebook.errors import TunebookError
from tunebook.models import contract
from tunebook.models.checkpoints import checkpoint_folders, fault, last_whole_checkpoint
from tunebook.models.chosen import AT, best_of, final_step, whole_weights
from tunebook.recipes.catalog import MODEL_KEY, find_recipe, read_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.types import EngineName, Recipe


_WEIGHTS = ("adapter_model*.safetensors", "model*.safetensors", "adapter_model*.bin", "pytorch_model*.bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A model to be run or looked at."""

    given: str
    folder: Path
    """Holds the weights: a model, or an adapter."""
    adapter: Path | None
    """`folder` where it holds an adapter."""
    base: str | None
    """The model that was trained from, a folder or a hub's name; None where it is not known."""
    revision: str | None
    engine: EngineName | None
    """None: nothing says how it was trained, so its own chat template has to do."""
    settings: Mapping[str, Any]
    """Keys of the engine's recipe, as `contract.kept_settings` keeps them."""
    contract: Mapping[str, Any] | None
    told_by: str
    """Where `settings` come from, for messages."""
    chosen: str
    """Which weights these are and why, for messages."""


def find_model(
    given: str,
    *,
    checkpoint: str | None = None,
    recipe: str | None = None,
    adapter: Path | None = None,
) -> ModelSource:
    """Find what MODEL or RUN on the command line means.

    Args:
        given: A run's output folder, RUN@STEP, RUN@best, RUN@last, a checkpoint in it, a model's folder, or
            a hub's name whose files are in the local cache.
        checkpoint: `best`, `last` or a step of the run; None for its best, as in `eval` and `compare`, and
            where nothing says what is best for the final model or the last whole checkpoint.
        recipe: Name or path of the recipe; None for the contract, or the recipe that lies in the run.
        adapter: An adapter to put on `given`, which is then the base.

    Raises:
        TunebookError: There is no such model, or its files contradict each other.
    """
    if (match := AT.fullmatch(given)) and match["step"] not in ("all", "base") and not Path(given).exists():
        if checkpoint not in (None, match["step"]):
            raise TunebookError(
                f"{given}: --checkpoint {checkpoint} asks for another", fix="name one of the two"
            )
        given, checkpoint = match["run"], match["step"]
    named = _folder_of(given)
    if adapter is not None:
        source = find_model(str(adapter), checkpoint=checkpoint, recipe=recipe)
        if source.adapter is None:
            raise TunebookError(
                f"--adapter {adapter}: holds no adapter", fix="name a folder with an adapter_config.json"
            )
        return _replaced(source, given, named)
    folder, chosen = _weights(named, checkpoint)
    found = contract.read(folder) or (contract.read(folder.parent) if folder.name != named.name else None)
    engine, settings, told_by = _settings(folder, found, recipe)
    is_adapter = (folder / "adapter_config.json").is_file()
    base, revision = _base(folder, found, engine, settings)
    if is_adapter and base is None:
        raise TunebookError(
            f"{folder}: nothing names the model that this adapter was trained on",
            fix=f"name that model, and add --adapter {folder}",
        )
    return ModelSource(
        given=given,
        folder=folder,
        adapter=folder if is_adapter else None,
        base=base,
        revision=revision,
        engine=engine,
        settings=settings,
        contract=found,
        told_by=told_by,
        chosen=chosen,
    )


def local_folder(model: str, revision: str | None = None) -> Path | None:
    """Return the folder of a model's files on this machine; None where they are not here."""
    folder = Path(model).expanduser()
    return folder if folder.is_dir() else snapshot(model, revision or "main")


def weights_sha256(folder: Path) -> str:
    """Return a SHA-256 that changes when weights are replaced: of their names, sizes and times.

    Weights themselves are not read: they may be hundreds of gigabytes.
    """
    listing = [
        [path.name, path.stat().st_size, path.stat().st_mtime_ns]
        for path in sorted({path for pattern in _WEIGHTS for path in folder.glob(pattern)})
    ]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def _folder_of(given: str) -> Path:
    folder = local_folder(given)
    if folder is None:
        raise TunebookError(
            f"{given}: there is no such run or model on this machine",
            fix="name a run's output_dir, a checkpoint in it, a model's folder, or a downloaded model's name",
        )
    return folder


def _weights(folder: Path, checkpoint: str | None) -> Weights:
    checkpoints = {int(path.name.split("-")[1]): path for path in checkpoint_folders(folder)}
    if checkpoint is None:
        return _default(folder) if checkpoints else _of_model(folder)
    final = final_step(folder)
    steps = sorted({*checkpoints, *([] if final is None else [final])})
    chosen, why = None, ""
    if checkpoint == "best":
        best = best_of(folder, steps)
        if best is None:
            raise TunebookError(
                f"{folder}: nothing says which of its steps was best",
                fix="train with `metric_for_best_model` or a metric on the evaluation set, or name a step",
            )
        chosen, why = best.step, f", {best.why}"
    elif checkpoint == "last":
        chosen = max(whole_weights(folder).by_step, default=None)
    elif checkpoint.isdigit():
        chosen = int(checkpoint)
    else:
        raise TunebookError(
            f"--checkpoint {checkpoint}: is neither best, last nor a step", fix="e.g. --checkpoint best"
        )
    named = ", ".join(map(str, steps)) or "none"
    if chosen not in steps:
        raise TunebookError(
            f"{folder}: has no checkpoint {checkpoint!r}; its steps are: {named}", fix="name one of these"
        )
    if chosen not in checkpoints:
        return Weights(folder, f"the final model, step {chosen}{why}")
    found = checkpoints[chosen]
    reason = fault(found, to_resume=False)
    if reason is not None:
        raise TunebookError(f"{found}: is not whole: {reason}", fix=f"name another; its steps are: {named}")
    return Weights(found, f"{found.name}{why}")


def _of_model(folder: Path) -> Weights:
    if not _has_weights(folder):
        raise TunebookError(
            f"{folder}: holds neither weights nor a whole checkpoint",
            fix="name the output_dir of a run that has saved something, or a model's folder",
        )
    return Weights(folder, str(folder))


def _default(folder: Path) -> Weights:
    """The best weights of a run, whichever command asks."""
    there = whole_weights(folder).by_step
    best = best_of(folder, there)
    if best is not None:
        # The run's own folder has what belongs to the whole run beside the same weights.
        own = final_step(folder) == best.step
        return Weights(folder if own else there[best.step], f"step {best.step}, {best.why}")
    if _has_weights(folder):
        return Weights(folder, "the final model; nothing says which step was best")
    last = last_whole_checkpoint(folder, to_resume=False).path
    if last is None:
        return _of_model(folder)
    return Weights(last, f"{last.name}, the last whole checkpoint; nothing says which step was best")


class Weights(NamedTuple):
    """Weights of a model, and why these."""

    folder: Path
    chosen: str


def _has_weights(folder: Path) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in _WEIGHTS)


def _settings(
    folder: Path, found: Mapping[str, Any] | None, recipe: str | None
) -> tuple[EngineName | None, dict[str, Any], str]:
    if recipe is not None:
        chosen = find_recipe(recipe, paths.home() / "recipes")
        return chosen.engine, _of_recipe(chosen), f"recipe {chosen.name}"
    if found is not None:
        return found["engine"]["name"], dict(found["settings"]), contract.FILE
    for run in (folder, folder.parent):
        kept = run / "tunebook" / "recipe.yaml"
        if kept.is_file() and (run == folder or folder in checkpoint_folders(run)):
            chosen = read_recipe(kept, paths.home() / "recipes")
            return chosen.engine, _of_recipe(chosen), str(kept)
    return None, {}, "its own chat template"


def _of_recipe(recipe: Recipe) -> dict[str, Any]:
    return contract.kept_settings(recipe.engine, recipe.values)


def _base(
    folder: Path,
    found: Mapping[str, Any] | None,
    engine: EngineName | None,
    settings: Mapping[str, Any],
) -> tuple[str | None, str | None]:
    if found is not None:
        return str(found["base"]["name_or_path"]), found["base"]["revision"]
    config = folder / "adapter_config.json"
    if config.is_file():
        try:
            named = files.read_json(config)
        except ValueError as err:
            raise TunebookError(f"{config}: is no JSON: {err}", fix="save the adapter again") from err
        if named.get("base_model_name_or_path"):
            return str(named["base_model_name_or_path"]), named.get("revision")
    key = None if engine is None else MODEL_KEY[engine]
    return (str(settings[key]), None) if key is not None and key in settings else (None, None)


def _replaced(source: ModelSource, base: str, folder: Path) -> ModelSource:
    return replace(source, base=str(folder) if Path(base).is_dir() else base, revision=None)


def snapshot(model: str, revision: str = "main", cache_dir: str | None = None) -> Path | None:
    """Return the folder of a model's files in the local cache; None where it has not been downloaded.

    Args:
        model: Its name on the hub, `name` or `owner/name`.
        revision: Branch, tag or commit.
        cache_dir: A recipe's own cache folder; None for the client's.
    """
    root = Path(cache_dir or os.environ.get("HF_HUB_CACHE") or paths.hub_home() / "hub").expanduser()
    repository = root / f"models--{model.replace('/', '--')}"
    reference = repository / "refs" / revision
    try:
        commit = reference.read_text(encoding="ascii").strip() if reference.is_file() else revision
    except OSError:
        return None
    folder = repository / "snapshots" / commit
    return folder if folder.is_dir() else None
