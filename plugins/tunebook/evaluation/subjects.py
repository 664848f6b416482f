"""Which models a run, or a folder with a model, has to be evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunebook.errors import TunebookError
from tunebook.evaluation.records import Subject
from tunebook.models.checkpoints import checkpoint_folders, fault
from tunebook.runlog.evaluations import read_eval_metrics
from tunebook.runs.folder import FOLDER

if TYPE_CHECKING:
    from collections.abc import Sequence


class Weights(NamedTuple):
    """A folder with weights, and the optimizer steps behind them."""

    path: Path
    step: int


class Found(NamedTuple):
    """What of a run is to be evaluated."""

    weights: list[Weights]
    """By rising step."""
    notes: list[str]


def is_run(folder: Path) -> bool:
    """Whether tunebook has trained into this folder."""
    return (folder / FOLDER / "recipe.yaml").is_file()


def whole_weights(run: Path) -> tuple[dict[int, Path], list[str]]:
    """Return the folders of a run whose weights are whole, by step, and why others are passed over.

    Its checkpoints; under its own step also what lies in the run's folder itself, where no checkpoint has it.
    """
    found, passed = {}, []
    for path in checkpoint_folders(run):
        reason = fault(path, to_resume=False)
        if reason is None and not _loadable(path):
            reason = "its weights are DeepSpeed's or FSDP's own files: convert them, as with zero_to_fp32.py"
        if reason is None:
            found[int(path.name.split("-")[1])] = path
        else:
            passed.append(f"passing over {path}: {reason}")
    if _loadable(run):
        state = _state(run) or (_state(found[max(found)]) if found else {})
        best = state.get("best_model_checkpoint") and state.get("best_global_step")
        step = best or state.get("global_step")
        if isinstance(step, int):
            found.setdefault(step, run)
        elif not found:
            found[0] = run
    return found, passed


def choose(run: Path, wanted: str) -> Found:
    """Choose weights of a run.

    Args:
        run: Its output_dir.
        wanted: `best`, `last`, `all`, or steps with commas between. `best` is the last where nothing tells.

    Raises:
        TunebookError: No weights are whole, a step is not there, or `wanted` is none of these.
    """
    there, notes = whole_weights(run)
    if not there:
        why = "".join(f"\n  {note}" for note in notes)
        raise TunebookError(
            f"{run} has no checkpoint whose weights are whole{':' if why else ''}{why}",
            fix="train on: `tunebook train` goes on from what is whole, or name another run",
        )
    steps = sorted(there)
    if wanted == "all":
        chosen = steps
    elif wanted == "last":
        chosen = steps[-1:]
    elif wanted == "best":
        best = _best_step(run, there)
        if best is None:
            notes.append(f"{run}: nothing tells which step was best; evaluating the last, {steps[-1]}")
        chosen = [steps[-1] if best is None else best]
    else:
        chosen = _steps(run, wanted, steps)
    return Found([Weights(there[step], step) for step in chosen], notes)


def subject_of(weights: Weights, *, label: str, base: str, run: Path | None) -> Subject:
    """Return the subject that a folder with weights is."""
    adapter = (weights.path / "adapter_config.json").is_file()
    return Subject(
        label=label,
        kind="adapter" if adapter else "full",
        path=str(weights.path.absolute()),
        base=base,
        run=None if run is None else str(run),
        step=weights.step,
    )


def labels(runs: Sequence[Path]) -> list[str]:
    """Name each run by as much of the end of its path as tells it from the others.

    >>> labels([Path("output/a/node_0"), Path("output/b/node_0"), Path("output/c")])
    ['a.node_0', 'b.node_0', 'c']
    """
    parts = [run.absolute().parts for run in runs]
    found = []
    for own in parts:
        length = 1
        while length < len(own) and sum(other[-length:] == own[-length:] for other in parts) > 1:
            length += 1
        found.append(".".join(own[-length:]))
    return found


def _steps(run: Path, wanted: str, steps: list[int]) -> list[int]:
    parts = [part.strip().removeprefix("checkpoint-") for part in wanted.split(",")]
    if not all(part.isdigit() for part in parts):
        raise TunebookError(
            f"--checkpoints {wanted}: is neither a list of steps nor best, last or all",
            fix="write e.g. --checkpoints all, or --checkpoints 100,200",
        )
    chosen = sorted({int(part) for part in parts})
    missing = [step for step in chosen if step not in steps]
    if missing:
        raise TunebookError(
            f"{run} has no whole checkpoint of step {', '.join(map(str, missing))}",
            fix=f"it has {', '.join(map(str, steps))}",
        )
    return chosen


def _best_step(run: Path, there: dict[int, Path]) -> int | None:
    """By the trainer's own choice; else by the figure that the run's metric selects by."""
    # LLaMA-Factory writes the state beside the weights too; Axolotl leaves it in the checkpoints alone.
    for folder in (run, *reversed(checkpoint_folders(run))):
        state = _state(folder)
        step = state.get("best_global_step") if state.get("best_model_checkpoint") else None
        if step in there:
            return int(step)
        if state:
            break
    file = run / FOLDER / "eval_metrics.jsonl"
    if not file.is_file():
        return None
    judged = [
        (one.values[one.select_by] * (1 if one.larger_is_better else -1), -one.step)
        for one in read_eval_metrics(file, file.name).evaluations
        if one.select_by is not None and one.select_by in one.values and one.step in there
    ]
    return -max(judged)[1] if judged else None


def _loadable(folder: Path) -> bool:
    patterns = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")
    described = any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))
    return described and any(path for pattern in patterns for path in folder.glob(pattern))


def _state(folder: Path) -> dict[str, object]:
    try:
        found = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
