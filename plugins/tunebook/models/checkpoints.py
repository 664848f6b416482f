"""Which checkpoint folders are whole, judged only by their files.

A run that is killed while it saves leaves a folder that the engines take for the last checkpoint. They
fail on it or, where only the optimizer's file is missing, resume with a fresh optimizer and without a word.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunebook import files
from tunebook.models import safetensors

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME = re.compile(r"checkpoint-(\d+)")


class PassedOver(NamedTuple):
    """A checkpoint that cannot be used, and why."""

    path: Path
    reason: str


class LastCheckpoint(NamedTuple):
    """The newest whole checkpoint of a run, and the newer ones that are not."""

    path: Path | None
    passed_over: list[PassedOver]
    """Newest first; only those newer than `path`."""


def checkpoint_folders(output_dir: Path) -> list[Path]:
    """Return the `checkpoint-<step>` folders of a run, whole or not, by rising step."""
    if not output_dir.is_dir():
        return []
    steps = {path: _NAME.fullmatch(path.name) for path in output_dir.iterdir() if path.is_dir()}
    return sorted(
        (path for path, match in steps.items() if match), key=lambda path: int(path.name.split("-")[1])
    )


def best_step(output_dir: Path) -> int | None:
    """Return the step of the checkpoint that the Trainer calls the best, by the newest state of the run.

    None where it chose none. LLaMA-Factory writes the state beside the weights too, Axolotl only in the
    checkpoints.
    """
    for folder in (output_dir, *reversed(checkpoint_folders(output_dir))):
        try:
            state = files.read_json(folder / "trainer_state.json")
        except (OSError, ValueError):
            continue
        named = state.get("best_model_checkpoint") if isinstance(state, dict) else None
        match = _NAME.fullmatch(Path(named).name) if isinstance(named, str) else None
        return int(match[1]) if match else None
    return None


def last_whole_checkpoint(output_dir: Path, *, to_resume: bool = True) -> LastCheckpoint:
    """Find the newest whole checkpoint of a run.

    Args:
        output_dir: The engine's `output_dir`; need not exist.
        to_resume: Whether the state of optimizer, schedule and random numbers must be there too. Without
            it the weights are enough, as for evaluation or after `save_only_model`.
    """
    passed_over: list[PassedOver] = []
    for path in reversed(checkpoint_folders(output_dir)):
        reason = fault(path, to_resume=to_resume)
        if reason is None:
            return LastCheckpoint(path, passed_over)
        passed_over.append(PassedOver(path, reason))
    return LastCheckpoint(None, passed_over)


def fault(checkpoint: Path, *, to_resume: bool = True) -> str | None:
    """Say why a checkpoint is not whole, or None if it is.

    It is whole when `trainer_state.json`, which the Trainer writes last, can be read; the weights (full or
    adapter, in one file or in shards, or DeepSpeed's or FSDP's own layout) are as long as their headers say;
    and, `to_resume`, so is the training state. Bytes are not compared with anything.
    """
    state = checkpoint / "trainer_state.json"
    if not state.is_file():
        return "trainer_state.json is missing: saving was cut off"
    try:
        step = files.read_json(state).get("global_step")
    except (ValueError, AttributeError):
        return "trainer_state.json is cut off"
    if type(step) is not int:
        return "trainer_state.json names no global_step"
    return _weights_fault(checkpoint) or (_training_state_fault(checkpoint) if to_resume else None)


def _weights_fault(checkpoint: Path) -> str | None:
    weights = sorted(checkpoint.glob("*.safetensors"))
    for index in sorted(checkpoint.glob("*.index.json")):
        try:
            shards = {checkpoint / shard for shard in files.read_json(index)["weight_map"].values()}
        except (ValueError, KeyError, AttributeError, TypeError):
            return f"{index.name} is cut off"
        missing = sorted(shard.name for shard in shards if not shard.is_file())
        if missing:
            return f"{missing[0]} is missing"
    for file in weights:
        try:
            safetensors.read_whole(file)
        except safetensors.DamagedHeaderError as damage:
            return f"{file.name} {damage}"
    pickled = [checkpoint / name for name in ("pytorch_model.bin", "adapter_model.bin")]
    pickled = [path for path in pickled if path.exists()] + sorted(
        checkpoint.glob("pytorch_model-*-of-*.bin")
    )
    reason = _archives_fault(pickled)
    if reason:
        return reason
    if (checkpoint / "adapter_model.safetensors").exists() and not (
        checkpoint / "adapter_config.json"
    ).is_file():
        return "adapter_config.json is missing"
    if weights or pickled or _deepspeed_folder(checkpoint) or any(checkpoint.glob("pytorch_model_fsdp*")):
        return None
    return "there are no weights in it"


def _training_state_fault(checkpoint: Path) -> str | None:
    rng = sorted(checkpoint.glob("rng_state*.pth"))
    if not rng:
        return "there is no rng_state*.pth"
    if (checkpoint / "latest").exists():
        return _deepspeed_fault(checkpoint, ranks=len(rng)) or _archives_fault(rng)
    optimizer = [
        checkpoint / "optimizer.pt",
        *checkpoint.glob("optimizer_*"),
        *checkpoint.glob("optimizer.bin"),
    ]
    if not any(path.exists() for path in optimizer):
        return "optimizer.pt is missing: resuming would start with a fresh optimizer"
    if not (checkpoint / "scheduler.pt").exists():
        return "scheduler.pt is missing: resuming would start the learning rate anew"
    return _archives_fault(
        [path for path in (*optimizer, checkpoint / "scheduler.pt", *rng) if path.is_file()]
    )


def _deepspeed_folder(checkpoint: Path) -> Path | None:
    """Return the `global_step<N>` folder that `latest` names, where it is there."""
    latest = checkpoint / "latest"
    if not latest.is_file():
        return None
    folder = checkpoint / (latest.read_text(encoding="utf-8", errors="replace").strip() or "?")
    return folder if folder.is_dir() else None


def _deepspeed_fault(checkpoint: Path, *, ranks: int) -> str | None:
    folder = _deepspeed_folder(checkpoint)
    if folder is None:
        return "the folder that `latest` names is missing"
    optimizer = sorted(folder.glob("*_optim_states.pt"))
    # ZeRO writes one optimizer file a rank; every rank also writes its own random state.
    if len(optimizer) < ranks:
        return f"{folder.name} holds the optimizer states of {len(optimizer)} of {ranks} ranks"
    model = sorted(folder.glob("*_model_states.pt"))
    return _archives_fault([*model, *optimizer]) if model else f"{folder.name} holds no *_model_states.pt"


def _archives_fault(paths: Iterable[Path]) -> str | None:
    """`torch.save` writes a zip archive, whose table of contents comes last: a cut file has none."""
    for path in paths:
        if not zipfile.is_zipfile(path):
            return f"{path.name} is cut off"
    return None
