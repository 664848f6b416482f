"""Which weights a run's name stands for: the same in `eval`, `compare`, `infer`, `verify` and `merge`."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook import files
from tunebook.models import contract
from tunebook.models.checkpoints import best_step, checkpoint_folders, fault

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

AT = re.compile(r"(?P<run>.+)@(?P<step>\d+|base|best|last|all)")
"""`RUN@STEP` and its like; not every command takes each word."""


class Best(NamedTuple):
    """The best step of a run."""

    step: int
    why: str
    """In words that follow `step N,`."""


def best_of(run: Path, steps: Collection[int]) -> Best | None:
    """Return the best of these steps: the Trainer's choice, else by what the metric selects by.

    Of several sets the first that was evaluated decides, of equal steps the one with the lower loss, else the
    earlier one. Step 0, the base, is not chosen. None where nothing says what is best.
    """
    trainers = best_step(run)
    if trainers in steps:
        return Best(int(trainers or 0), "the Trainer's choice of the best")
    dataset: str | None = None
    judged: dict[int, tuple[float, float, str]] = {}
    for line in _evaluations(run):
        with suppress(KeyError, TypeError, ValueError):
            name, step = str(line["select_by"]), int(line["step"])
            value = float(line["values"][name]) * (1 if line.get("larger_is_better", True) else -1)
            dataset = line["dataset"] if dataset is None else dataset
            if line["dataset"] == dataset and step and step in steps and value == value:
                judged[step] = (value, -float(line["values"].get("loss", 0.0)), name)
    if not judged:
        return None
    step = max(judged, key=lambda one: (*judged[one][:2], -one))
    return Best(step, f"the best by {judged[step][2]}")


def _evaluations(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's `eval_metrics.jsonl` that were written in training, damaged ones left out."""
    for file in (run / "tunebook" / "eval_metrics.jsonl", run / "eval_metrics.jsonl"):
        if file.is_file():
            found = []
            for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError):
                    line = json.loads(text)
                    if isinstance(line, dict) and line.get("in_training", True):
                        found.append(line)
            return found
    return []


class WholeWeights(NamedTuple):
    """The weights of a run that can be loaded."""

    by_step: dict[int, Path]
    notes: list[str]
    """Why others are not taken."""


def whole_weights(run: Path) -> WholeWeights:
    """Return the folders of a run whose weights are whole, by step.

    These are its checkpoints, and the run's own folder where no checkpoint has the step of its weights.
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
    step = final_step(run)
    if step is not None:
        found.setdefault(step, run)
    elif _loadable(run) and not found:
        found[0] = run
    return WholeWeights(found, passed)


def final_step(run: Path) -> int | None:
    """Return the step of the weights in the run's own folder; None where there are none, or nothing says."""
    if not _loadable(run):
        return None
    own = _json(run / contract.FILE).get("step")
    if isinstance(own, int):
        return own
    for folder in (run, *reversed(checkpoint_folders(run))):
        state = _json(folder / "trainer_state.json")
        if state:
            step = (state.get("best_model_checkpoint") and state.get("best_global_step")) or state.get(
                "global_step"
            )
            return step if isinstance(step, int) else None
    return None


def _loadable(folder: Path) -> bool:
    patterns = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")
    described = any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))
    return described and any(path for pattern in patterns for path in folder.glob(pattern))


def _json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = files.read_json(path)
        return found if isinstance(found, dict) else {}
    return {}
