"""Finds what is merged: the models or adapters of runs, checkpoints and folders, their origin and base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunebook import files
from tunebook.errors import TunebookError
from tunebook.merging.tensors import adapter_weights, model_weights
from tunebook.models import checkpoints
from tunebook.models.source import find_model, local_folder
from tunebook.recipes import engine_yaml
from tunebook.runlog.trainer_files import read_trainer_state
from tunebook.runs import folder as run_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.merging.tensors import Weights
    from tunebook.types import EngineName

Kind = Literal["adapter", "model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What is known of the training."""

    engine: EngineName | None
    settings: Mapping[str, Any]
    """Keys of the recipe, from the contract or the run's recipe; empty where neither is there."""
    base: str | None
    """The model that was trained from."""
    revision: str | None
    contract: Mapping[str, Any] | None
    recipe: Mapping[str, Any]
    """The run's whole recipe where it is there; else `settings`."""

    @property
    def quantised(self) -> bool:
        """Whether the base was quantised while the adapter was trained."""
        keys = ("quantization_bit", "load_in_4bit", "load_in_8bit")
        asked = any(self.settings.get(key) for key in keys) or self.settings.get("adapter") == "qlora"
        return asked or bool(self.contract and self.contract.get("quantization"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One of the models or adapters to merge."""

    argument: str
    """As the user named it."""
    folder: Path
    """Where its weights are."""
    kind: Kind
    config: Mapping[str, Any]
    """`config.json` of a model, `adapter_config.json` of an adapter."""
    weights: Weights
    step: int | None
    """Optimizer steps, for a checkpoint of a run."""
    chosen: str
    """Why these weights, for the reader."""
    origin: Origin


def find_input(argument: str, checkpoint: str | None) -> Input:
    """Find the weights that an argument names.

    Args:
        argument: A run's output folder, a checkpoint of it, the folder of a model or adapter, or a
            downloaded model's name.
        checkpoint: `best`, `last` or a step, for a run; None for the weights in the folder itself.

    Raises:
        TunebookError: There are none, or they are not whole.
    """
    run = Path(argument).expanduser()
    if checkpoint is None:
        _refuse_unfinished(run)
    source = find_model(argument, checkpoint=checkpoint)
    folder = source.folder
    if folder.name.startswith("checkpoint-"):
        fault = checkpoints.fault(folder, to_resume=False)
        if fault:
            raise TunebookError(f"{folder}: {fault}", fix="take another checkpoint of the run")
    kind = _kind(folder)
    if kind is None:
        raise _no_weights(folder)
    weights = adapter_weights(folder) if kind == "adapter" else model_weights(folder)
    assert weights is not None
    name = folder.name.removeprefix("checkpoint-")
    return Input(
        argument=argument,
        folder=folder,
        kind=kind,
        config=read_json(folder / ("adapter_config.json" if kind == "adapter" else "config.json")),
        weights=weights,
        step=int(name) if name.isdigit() and folder.name != name else None,
        chosen=source.chosen if checkpoint is None else _why(run, folder, checkpoint),
        origin=Origin(
            engine=source.engine,
            settings=source.settings,
            base=source.base,
            revision=source.revision,
            contract=source.contract,
            recipe=_recipe(folder, source.engine) or source.settings,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The model that adapters were trained on."""

    name: str
    """As the adapters, or the user, name it."""
    folder: Path
    config: Mapping[str, Any]
    weights: Weights
    notes: tuple[str, ...]


def find_base(adapters: Sequence[Input], override: str | None) -> Base:
    """Find the base model of adapters.

    Args:
        adapters: All of one base, as `differences` has proved.
        override: The folder or hub name that the user gave; None for what the adapters name.

    Raises:
        TunebookError: It is not on this machine, or its weights are quantised or not safetensors.
    """
    first = adapters[0]
    named = first.origin.base
    revision = first.origin.revision
    name = override or named
    if not name:
        raise TunebookError(
            f"{first.folder}/adapter_config.json: base_model_name_or_path is empty",
            fix="name the base with --base",
        )
    folder = local_folder(name, revision if override is None else None)
    if folder is None:
        raise TunebookError(
            f"the base model {name} is not on this machine",
            fix=f"download it (`hf download {name}`), or name its folder with --base"
            if len(Path(name).parts) <= 2 and not name.startswith((".", "/", "~"))
            else "name its folder with --base",
        )
    config = read_json(folder / "config.json")
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown")
        raise TunebookError(
            f"{folder}: the base's own weights are quantised ({method}): rounding would lose the adapter",
            fix="give the unquantised model with --base",
        )
    weights = model_weights(folder)
    if weights is None:
        raise TunebookError(
            f"{folder}: holds no model.safetensors", fix="download the safetensors files of the base model"
        )
    notes = []
    if override is not None and named and local_folder(named, revision) != folder:
        notes.append(f"the base is {override}, as --base says; the adapter names {named}")
    stated = first.config.get("base_model_name_or_path")
    if override is None and stated and Path(str(stated)).name != Path(name).name:
        # A folder may be named relative to where training was started.
        notes.append(f"the base is {name}, as the contract says; adapter_config.json names {stated}")
    if any(adapter.origin.quantised for adapter in adapters):
        notes.append(
            "the adapter was trained on a quantised copy of the base and is merged into the unquantised "
            "weights: it was never evaluated on exactly these"
        )
    return Base(name=name, folder=folder, config=config, weights=weights, notes=tuple(notes))


def _recipe(folder: Path, engine: EngineName | None) -> dict[str, Any] | None:
    run = folder.parent if folder.name.startswith("checkpoint-") else folder
    kept = run / run_folder.FOLDER / "recipe.yaml"
    return engine_yaml.read_mapping(kept, engine) if engine and kept.is_file() else None


def _refuse_unfinished(run: Path) -> None:
    """An interrupted run's checkpoint is merged when it is asked for, not by default."""
    found = checkpoints.checkpoint_folders(run)
    if not found or _kind(run) or any(run.glob("pytorch_model*.bin")):
        return
    whole = [path.name for path in found if checkpoints.fault(path, to_resume=False) is None]
    raise TunebookError(
        f"{run}: the run has written no final weights: it was interrupted or is not done",
        fix=f"choose one of its checkpoints ({', '.join(whole) or 'none of them is whole'}): "
        "--checkpoint best, last or STEP",
    )


def _why(run: Path, folder: Path, checkpoint: str) -> str:
    if checkpoint == "last":
        passed = checkpoints.last_whole_checkpoint(run, to_resume=False).passed_over
        return "; ".join(
            [
                "the last whole checkpoint",
                *(f"{path.name} was passed over: {reason}" for path, reason in passed),
            ]
        )
    if checkpoint == "best":
        state = read_trainer_state(folder / "trainer_state.json", "trainer_state.json")
        best = state.trainer.best_metric if state and state.trainer.best_checkpoint == folder.name else None
        return "the best checkpoint" if best is None else f"the best checkpoint, at {best:.6g}"
    return "the step asked for"


def _kind(folder: Path) -> Kind | None:
    if (folder / "adapter_model.safetensors").is_file():
        return "adapter"
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    return "model" if single.is_file() or index.is_file() else None


def _no_weights(folder: Path) -> TunebookError:
    if list(folder.glob("*.bin")):
        return TunebookError(
            f"{folder}: its weights are pickled (*.bin), which can run code when they are read",
            fix="save it again with transformers, which writes safetensors",
        )
    if (folder / "latest").is_file() or any(folder.glob("global_step*")):
        return TunebookError(
            f"{folder}: holds DeepSpeed's partitions of the weights and no model.safetensors",
            fix="run zero_to_fp32.py in that folder, or train with stage3_gather_16bit_weights_on_model_save",
        )
    if any(folder.glob("pytorch_model_fsdp*")):
        return TunebookError(
            f"{folder}: holds FSDP's shards of the weights and no model.safetensors",
            fix="run `accelerate merge-weights` on the shards first",
        )
    return TunebookError(
        f"{folder}: holds neither model.safetensors nor adapter_model.safetensors",
        fix="name a run's output folder, a checkpoint, a model or an adapter",
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        TunebookError: It is missing, or not a JSON object.
    """
    try:
        found = files.read_json(path)
    except OSError as err:
        raise TunebookError(f"{path}: {err.strerror}", fix="copy the whole folder") from err
    except ValueError as err:
        raise TunebookError(f"{path}: is not JSON: {err}", fix="copy the file again") from err
    if not isinstance(found, dict):
        raise TunebookError(f"{path}: is not a JSON object", fix="copy the file again")
    return found
