"""What an output folder holds: nothing yet, this recipe's run, or another's; and its lock.

`<output_dir>/tunebook/` keeps the resolved `recipe.yaml` and `run.json` of the latest start (earlier ones
become `run-1.json`, `run-2.json`, ...), and `finished.json` once the engine has ended well.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tunebook import files
from tunebook.errors import TunebookError
from tunebook.models.checkpoints import PassedOver, checkpoint_folders, last_whole_checkpoint
from tunebook.recipes import engine_yaml
from tunebook.runs import token_cache

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.types import EngineName

FOLDER = "tunebook"

VOLATILE_KEYS = frozenset(
    {
        *("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "overwrite_cache", "cache_dir"),
        *("run_name", "report_to", "logging_dir", "plot_loss", "disable_tqdm", "log_level", "ddp_timeout"),
        *("preprocessing_num_workers", "dataloader_num_workers", "save_total_limit"),
    }
)
"""Keys that change neither what is computed nor when: two recipes that differ in these are one."""

# What our own start leaves before the engine has done anything, with `run-N.json` of earlier starts,
# `recipe-node_N.yaml` of a joint job's other nodes, and files that are being written.
_OF_THE_START = frozenset(
    {"recipe.yaml", "run.json", "lock", "run.pid", "process.json", "engine.json", "stop", "stopped"}
)


class Holding(NamedTuple):
    """What an output folder holds of a recipe's run."""

    state: Literal["nothing", "unfinished", "finished"]
    checkpoint: Path | None
    """The newest whole checkpoint of an unfinished run."""
    passed_over: list[PassedOver]
    """Newer checkpoints that are not whole."""


def recipe_sha256(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 that two recipes share when they compute the same thing."""
    return hashlib.sha256(json.dumps(_lasting(values), sort_keys=True, default=str).encode()).hexdigest()


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the keys that make two recipes differ, sorted."""
    old, new = _lasting(old), _lasting(new)
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def _lasting(values: Mapping[str, Any]) -> dict[str, Any]:
    """What decides what is computed. Where tokenised rows are kept does not."""
    lasting = {key: value for key, value in values.items() if key not in VOLATILE_KEYS}
    kept, prepared = lasting.get("tokenized_path"), lasting.get("dataset_prepared_path")
    if isinstance(kept, str) and token_cache.is_ours(kept):
        del lasting["tokenized_path"]
    # Axolotl always keeps them, and the name of the folder says whether the data is the same.
    if isinstance(prepared, str) and token_cache.is_ours(prepared):
        lasting["dataset_prepared_path"] = Path(prepared).name
    return lasting


def examine(output_dir: Path, values: Mapping[str, Any], engine: EngineName) -> Holding:
    """Find out what `output_dir` holds of the run of this recipe.

    Raises:
        TunebookError: It holds another recipe's run, or one that tunebook did not start.
    """
    if not _engine_left_something(output_dir):
        return Holding("nothing", None, [])
    recipe = output_dir / FOLDER / "recipe.yaml"
    aside = "or `overwrite_output_dir=true` to move the old folder aside"
    if not recipe.is_file():
        raise TunebookError(
            f"{output_dir} holds a run that tunebook did not start",
            fix=f"set another output_dir, {aside}, or continue it with the engine's own command",
        )
    old = engine_yaml.read_mapping(recipe, engine)
    differing = differing_keys(old, values)
    if differing:
        changes = [f"{key} {old.get(key)!r} -> {values.get(key)!r}" for key in differing[:8]]
        raise TunebookError(
            f"{output_dir} holds the run of another recipe; it differs in {', '.join(changes)}"
            + (", ..." if len(differing) > 8 else ""),
            fix=f"set another output_dir, {aside}",
        )
    if (output_dir / FOLDER / "finished.json").is_file():
        return Holding("finished", None, [])
    found = last_whole_checkpoint(output_dir)
    return Holding("unfinished", found.path, found.passed_over)


def recorded_data(output_dir: Path) -> dict[str, str]:
    """Return the SHA-256 of each dataset's files, by entry, that the latest start wrote down."""
    try:
        record = files.read_json(output_dir / FOLDER / "run.json")
        datasets = dict(record["datasets"])
        return {name: facts["sha256"] for name, facts in datasets.items() if facts["sha256"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def move_aside(output_dir: Path) -> Path:
    """Rename `output_dir` to the first free `<output_dir>.replaced-N` and return that; nothing is deleted."""
    number = 1
    while (target := output_dir.with_name(f"{output_dir.name}.replaced-{number}")).exists():
        number += 1
    output_dir.rename(target)
    return target


def keep_earlier_start(output_dir: Path) -> None:
    """Rename `run.json` to the first free `run-N.json`, since this start will write its own."""
    record = output_dir / FOLDER / "run.json"
    if not record.is_file():
        return
    number = 1
    while (earlier := record.with_name(f"run-{number}.json")).exists():
        number += 1
    record.rename(earlier)


def lock(output_dir: Path) -> int | None:
    """Make `output_dir`'s run this process's own, and return the open file that says so.

    Whoever inherits the file holds the lock too, so an engine keeps it when its parent is killed. None on a
    file system without locks.

    Raises:
        TunebookError: Another process is training into this folder.
    """
    path = output_dir / FOLDER / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        owner = os.read(descriptor, 200).decode(errors="replace").strip()
        os.close(descriptor)
        raise TunebookError(
            f"{output_dir} is being trained into right now{f' by {owner}' if owner else ''}",
            fix="wait for that run or stop it, or set another output_dir",
        ) from err
    except OSError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode())
    return descriptor


def release(descriptor: int | None) -> None:
    """Give up what `lock` returned."""
    if descriptor is not None:
        with suppress(OSError):
            os.close(descriptor)


def _engine_left_something(output_dir: Path) -> bool:
    """Whether more than our own start, or files that are no run's, is in the folder."""
    if not output_dir.is_dir():
        return False
    ours = output_dir / FOLDER
    if ours.is_dir() and any(
        path.name not in _OF_THE_START and not path.name.startswith(("run-", "recipe-", "."))
        for path in ours.iterdir()
    ):
        return True
    marks = ("trainer_state.json", "trainer_log.jsonl", "all_results.json", "training_args.bin")
    models = ("model.safetensors", "adapter_model.safetensors", "model.safetensors.index.json")
    return bool(checkpoint_folders(output_dir)) or any(
        (output_dir / name).exists() for name in marks + models
    )
