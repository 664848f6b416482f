"""Finds the files of a run by kind, and the kind of a single file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunebook.models.checkpoints import checkpoint_folders

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAGIC = b":W&B"
"""What a `.wandb` file begins with."""
CONSOLES = ("*.log", "*.out", "*.err", "*.txt", "*.o[0-9]*", "*.e[0-9]*")
_CONSOLE_FOLDERS = ("", "logs/", "log/", "slurm/")
_CSV = ("*.csv", "logs/*.csv", "tunebook/*.csv", "gpu/*.csv")
_HEAD = 4096
_POINTER = b"version https://git-lfs"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """The files of a run by kind, those of a kind in the order of their names."""

    base: Path
    """The folder that the files' names are given below."""
    states: list[Path] = field(default_factory=list)
    """`trainer_state.json` of the folder, then of its checkpoints, the newest step first."""
    trainer_logs: list[Path] = field(default_factory=list)
    events: list[Path] = field(default_factory=list)
    wandb: list[Path] = field(default_factory=list)
    consoles: list[Path] = field(default_factory=list)
    gpu_logs: list[Path] = field(default_factory=list)
    pointers: list[Path] = field(default_factory=list)
    """Files of any kind whose content Git LFS keeps elsewhere; they are in no other list."""

    def name(self, path: Path) -> str:
        """A file's name for the reader of a report."""
        return str(path.relative_to(self.base))


def find_files(folder: Path) -> RunFiles:
    """Find the files of the run in `folder`, or say what the single file `folder` is.

    Raises:
        OSError: A folder or file cannot be read.
    """
    if folder.is_file():
        return _single(folder)
    states = [place / "trainer_state.json" for place in (folder, *reversed(checkpoint_folders(folder)))]
    trainer_log = folder / "trainer_log.jsonl"
    patterns = [f"{place}{pattern}" for place in _CONSOLE_FOLDERS for pattern in CONSOLES]
    found = RunFiles(
        base=folder,
        states=[path for path in states if path.is_file()],
        trainer_logs=[trainer_log] if trainer_log.is_file() else [],
        events=sorted(folder.rglob("events.out.tfevents.*"), key=by_name),
        wandb=sorted(folder.rglob("run-*.wandb"), key=by_name),
        # W&B keeps a copy of what was printed beside its own file.
        consoles=_globbed(folder, [*patterns, "wandb/*/files/output.log"]),
        gpu_logs=_globbed(folder, _CSV),
    )
    for paths in (*_lists(found), sorted(folder.glob("*_results.json"))):
        pointers = [path for path in paths if is_pointer(path)]
        found.pointers.extend(pointers)
        paths[:] = [path for path in paths if path not in pointers]
    return found


def _lists(found: RunFiles) -> tuple[list[Path], ...]:
    return (
        found.states,
        found.trainer_logs,
        found.events,
        found.wandb,
        found.consoles,
        found.gpu_logs,
    )


def is_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS leaves in its place until `git lfs pull`."""
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def utf8(data: bytes) -> bytes:
    """The text of a file as UTF-8 without a mark; PowerShell's `>` writes UTF-16.

    >>> utf8("loss".encode("utf-16"))
    b'loss'
    """
    if data.startswith(_UTF16):
        return data.decode("utf-16", "replace").encode()
    return data.removeprefix(_UTF8_MARK)


def _globbed(folder: Path, patterns: Iterable[str]) -> list[Path]:
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return sorted(found, key=by_name)


def by_name(path: Path) -> list[tuple[int, int, str]]:
    """A key that sorts `slurm-99.out` before `slurm-100.out`."""
    parts = re.split(r"(\d+)", str(path))
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def _single(path: Path) -> RunFiles:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    base = path.parent
    if head.startswith(_POINTER):
        return RunFiles(base=base, pointers=[path])
    head = utf8(head)
    if head.startswith(MAGIC):
        return RunFiles(base=base, wandb=[path])
    if "tfevents" in path.name:
        return RunFiles(base=base, events=[path])
    if path.suffix == ".json" and head.lstrip().startswith(b"{"):
        return RunFiles(base=base, states=[path])
    if path.suffix == ".jsonl" and b'"current_steps"' in head:
        return RunFiles(base=base, trainer_logs=[path])
    if path.suffix == ".csv":
        return RunFiles(base=base, gpu_logs=[path])
    return RunFiles(base=base, consoles=[path])
