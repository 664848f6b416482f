"""Finds the runs below a folder, whoever made them."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunebook.runlog.files import CONSOLES, utf8

if TYPE_CHECKING:
    from collections.abc import Iterable

_STATES = frozenset({"trainer_state.json", "trainer_log.jsonl", "train_results.json", "all_results.json"})
_OURS = frozenset({"run.json", "engine.json", "eval_metrics.jsonl"})
_EVALUATED = frozenset({"eval_results.json", "predict_results.json"})
_MODEL = ("config.json", "adapter_config.json")
_NO_RUNS = frozenset({"__pycache__", "node_modules", "site-packages"})
_LOG_FOLDERS = frozenset({"logs", "log", "slurm"})
# The Trainer's own folder of event files: runs/Nov28_21-58-42_host.
_EVENTS_OF_TRAINER = re.compile(r"[A-Z][a-z]{2}\d\d_\d\d-\d\d-\d\d_.*")
_PRINTED = re.compile(
    rb"'loss'|\"loss\"|\d(?:it/s|s/it)[\],]|Traceback \(most recent|out of memory|CANCELLED AT|'eval_loss'"
)
_ENDS = 64 << 10


class FoundRun(NamedTuple):
    """One place that `read_run` reads."""

    path: Path
    """A folder, or a single file of W&B or of a console."""
    sure: bool
    """Whether a Trainer has left its mark; else only logs lie there, which may hold no run."""


def runs_below(root: Path, *, without: Path | None = None) -> list[FoundRun]:
    """Find the runs at or below `root`, by their names.

    A folder is a run by what a Trainer leaves: `trainer_state.json`, also in a checkpoint,
    `trainer_log.jsonl`, `*_results.json`, or our own `tunebook/`. Logs, event files and files of W&B count
    only where no such folder is around them or below them. Links are not followed.

    Args:
        root: Where to look.
        without: A folder that is left out, such as the one for reports.
    """
    sure: set[Path] = set()
    events: set[Path] = set()
    evaluated: set[Path] = set()
    wandb: list[Path] = []
    consoles: list[Path] = []
    left_out = without.resolve() if without else None
    for place, folders, names in os.walk(root):
        here = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _NO_RUNS
            and not (left_out and name == left_out.name and (here / name).resolve() == left_out)
        )
        found = set(names)
        if here.name.startswith("checkpoint-") and here != root:
            if "trainer_state.json" in found:
                sure.add(here.parent)
            folders.clear()
            continue
        if here.name == "tunebook" and here != root and not _OURS.isdisjoint(found):
            sure.add(here.parent)
        if not _STATES.isdisjoint(found):
            sure.add(here)
        if not _EVALUATED.isdisjoint(found):
            evaluated.add(here)
        for name in names:
            if name.startswith("events.out.tfevents."):
                events.add(_owner_of_events(here, root))
            elif name.startswith("run-") and name.endswith(".wandb"):
                wandb.append(here / name)
            elif "wandb" not in here.parts and any(Path(name).match(pattern) for pattern in CONSOLES):
                consoles.append(here / name)
    found_runs = {path: FoundRun(path, sure=True) for path in sure}
    for path in sorted(events | evaluated, key=lambda path: -len(path.parts)):
        if not _is_taken(path, found_runs):
            found_runs[path] = FoundRun(path, sure=False)
    loose = [path for path in wandb if not _is_below(path, found_runs)]
    around = {*found_runs, *(path.parent for path in loose)}
    logs: dict[Path, list[Path]] = {}
    for path in consoles:
        home = path.parent.parent if path.parent.name in _LOG_FOLDERS and path.parent != root else path.parent
        if not _is_taken(home, around) and _is_printed(path):
            logs.setdefault(home, []).append(path)
    for home, paths in logs.items():
        # In a folder of logs alone each is of another run; output and errors of one have the same stem.
        alone = len({path.stem for path in paths}) > 1 and not any((home / name).is_file() for name in _MODEL)
        loose += paths if alone else [home]
    found_runs |= {path: FoundRun(path, sure=False) for path in loose}
    return [found_runs[path] for path in sorted(found_runs)]


def _owner_of_events(folder: Path, root: Path) -> Path:
    if folder not in (root, root / "runs") and folder.parent.name == "runs" and folder.parent != root:
        return folder.parent.parent if _EVENTS_OF_TRAINER.fullmatch(folder.name) else folder
    return folder


def _is_below(path: Path, runs: Iterable[Path]) -> bool:
    found = set(runs)
    return path in found or any(parent in found for parent in path.parents)


def _is_taken(path: Path, runs: Iterable[Path]) -> bool:
    """Whether a run is at, around or below a path."""
    return _is_below(path, runs) or any(path in run.parents for run in runs)


def _is_printed(path: Path) -> bool:
    """Whether a text is a training's, by its beginning and its end."""
    with suppress(OSError), path.open("rb") as file:
        head = utf8(file.read(_ENDS))
        file.seek(max(0, path.stat().st_size - _ENDS))
        return bool(_PRINTED.search(head) or _PRINTED.search(utf8(file.read())))
    return False
