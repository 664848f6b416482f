"""Finds what a run, a checkpoint or a folder holds: a model or an adapter, and where it comes from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunebook import checkpoints, engine_yaml, run_folder
from tunebook.errors import TunebookError
from tunebook.merging.weights import adapter_weights, model_weights
from tunebook.runlog.trainer_state import read_trainer_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.merging.weights import Weights
    from tunebook.types import EngineName

Kind = Literal["adapter", "model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The run that a folder belongs to, as far as files tell."""

    run: Path | None = None
    engine: EngineName | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """The resolved recipe; empty where the run was not started through tunebook."""

    @property
    def base(self) -> str | None:
        """The model that the recipe starts from."""
        found = self.recipe.get("model_name_or_path") or self.recipe.get("base_model")
        return str(found) if found else None

    @property
    def quantised(self) -> bool:
        """Whether the base was quantised while the adapter was trained."""
        keys = ("quantization_bit", "load_in_4bit", "load_in_8bit")
        return any(self.recipe.get(key) for key in keys) or self.recipe.get("adapter") == "qlora"


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
        argument: A run's output folder, a checkpoint of it, or the folder of a model or adapter.
        checkpoint: `best`, `last` or a step, for a run; None for the weights that stand in the folder itself.

    Raises:
        TunebookError: There are none, or they are not whole.
    """
    folder = Path(argument).expanduser()
    if not folder.is_dir():
        raise TunebookError(
            f"{argument}: is no folder", fix="name a run, a checkpoint, a model or an adapter"
        )
    found = checkpoints.checkpoint_folders(folder)
    if checkpoint is not None:
        if not found:
            raise TunebookError(
                f"{argument}: holds no checkpoint-* folders, so --checkpoint {checkpoint} names nothing",
                fix="leave --checkpoint away, or name the run's output folder",
            )
        chosen, why = _choose(folder, checkpoint)
        return _read(argument, chosen, why, run=folder)
    if not _kind(folder) and found:
        whole = [path.name for path in found if checkpoints.fault(path, to_resume=False) is None]
        raise TunebookError(
            f"{argument}: the run has written no final weights: it was interrupted or is not done",
            fix=f"choose one of its checkpoints ({', '.join(whole) or 'none of them is whole'}): "
            "--checkpoint best, last or STEP",
        )
    inside_run = folder.name.startswith("checkpoint-")
    if inside_run:
        fault = checkpoints.fault(folder, to_resume=False)
        if fault:
            raise TunebookError(f"{argument}: {fault}", fix="take another checkpoint of the run")
    why = "the checkpoint named" if inside_run else "the weights that stand in the folder"
    return _read(argument, folder, why, run=folder.absolute().parent if inside_run else folder)


def _choose(run: Path, checkpoint: str) -> tuple[Path, str]:
    if checkpoint == "best":
        return _best(run)
    if checkpoint == "last":
        last = checkpoints.last_whole_checkpoint(run, to_resume=False)
        if last.path is None:
            reasons = "; ".join(f"{path.name}: {reason}" for path, reason in last.passed_over)
            raise TunebookError(
                f"{run}: no checkpoint is whole: {reasons}", fix="train again from an earlier state"
            )
        passed = [f"{path.name} was passed over: {reason}" for path, reason in last.passed_over]
        return last.path, "; ".join(["the last whole checkpoint", *passed])
    if not checkpoint.isdigit():
        raise TunebookError(
            f"--checkpoint {checkpoint!r} is no step", fix="write best, last or a number of steps"
        )
    folder = run / f"checkpoint-{int(checkpoint)}"
    if not folder.is_dir():
        there = ", ".join(
            path.name.removeprefix("checkpoint-") for path in checkpoints.checkpoint_folders(run)
        )
        raise TunebookError(
            f"{run}: there is no checkpoint of step {checkpoint}", fix=f"choose one of {there}"
        )
    _refuse_damaged(folder)
    return folder, "the step asked for"


def _best(run: Path) -> tuple[Path, str]:
    """The best checkpoint by the newest `trainer_state.json` that can be read, of the run or a checkpoint."""
    states = []
    for folder in (*checkpoints.checkpoint_folders(run), run):
        path = folder / "trainer_state.json"
        state = read_trainer_state(path, path.name) if path.is_file() else None
        if state is not None and state.trainer.global_step is not None:
            states.append((state.trainer.global_step, path, state.trainer))
    if not states:
        raise TunebookError(
            f"{run}: no trainer_state.json of it can be read, so nobody knows its best checkpoint",
            fix="choose --checkpoint last or STEP",
        )
    _, path, trainer = max(states, key=lambda state: state[0])
    if trainer.best_checkpoint is None or trainer.best_metric is None:
        raise TunebookError(
            f"{path}: names no best checkpoint: there is no metric_for_best_model, or no evaluation yet",
            fix="compare the checkpoints with `tunebook report` and choose --checkpoint STEP",
        )
    folder = run / trainer.best_checkpoint
    if not folder.is_dir():
        raise TunebookError(
            f"{run}: the best checkpoint, {trainer.best_checkpoint} with {trainer.best_metric:g}, is gone",
            fix="choose another with --checkpoint STEP; save_total_limit may have removed it",
        )
    _refuse_damaged(folder)
    return folder, f"the best checkpoint by {path.parent.name}/{path.name}: {trainer.best_metric:g}"


def _refuse_damaged(folder: Path) -> None:
    fault = checkpoints.fault(folder, to_resume=False)
    if fault:
        raise TunebookError(f"{folder}: {fault}", fix="take another checkpoint of the run: --checkpoint STEP")


def _kind(folder: Path) -> Kind | None:
    if (folder / "adapter_model.safetensors").is_file():
        return "adapter"
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    return "model" if single.is_file() or index.is_file() else None


def _read(argument: str, folder: Path, why: str, *, run: Path) -> Input:
    kind = _kind(folder)
    if kind is None:
        raise _no_weights(folder)
    weights = adapter_weights(folder) if kind == "adapter" else model_weights(folder)
    assert weights is not None
    config = read_json(folder / ("adapter_config.json" if kind == "adapter" else "config.json"))
    name = folder.name.removeprefix("checkpoint-")
    step = int(name) if name.isdigit() and folder.name != name else None
    return Input(
        argument=argument, folder=folder, kind=kind, config=config, weights=weights, step=step, chosen=why,
        origin=_origin(run),
    )  # fmt: skip


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
        TunebookError: It is missing, or no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise TunebookError(f"{path}: {err.strerror}", fix="copy the whole folder") from err
    except ValueError as err:
        raise TunebookError(f"{path}: is no JSON: {err}", fix="copy the file again") from err
    if not isinstance(found, dict):
        raise TunebookError(f"{path}: holds no JSON object", fix="copy the file again")
    return found


def _origin(run: Path) -> Origin:
    folder = run / run_folder.FOLDER
    if not (folder / "recipe.yaml").is_file() or not (folder / "run.json").is_file():
        return Origin()
    engine: EngineName = read_json(folder / "run.json")["recipe"]["engine"]
    return Origin(run=run, engine=engine, recipe=engine_yaml.read_mapping(folder / "recipe.yaml", engine))
