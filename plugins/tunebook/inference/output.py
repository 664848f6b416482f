"""The file of answers while it grows: what is kept after a kill, and when it must not be resumed.

Answers go into `<file>.part`, in the order of the input, and `<file>.settings.json` says with which settings.
The file itself appears when the last answer is written.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tunebook import files, paths
from tunebook.errors import TunebookError
from tunebook.runs import processes
from tunebook.types import Command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.models.source import ModelSource
    from tunebook.types import EngineName


_QUIET = {"AXOLOTL_DO_NOT_TRACK": "1", "AXOLOTL_TEE_STDOUT": "0", "TOKENIZERS_PARALLELISM": "false"}
"""Axolotl would send home and write down what is meant for trainings, and this is not one."""


class Begun(NamedTuple):
    """What is done already."""

    state: Literal["new", "unfinished", "finished"]
    rows: int
    """Answers that are there already."""


def part_of(path: Path) -> Path:
    """Return the file into which answers are written until the last one is there."""
    return path.with_name(f"{path.name}.part")


def settings_of(path: Path) -> Path:
    """Return the file of the settings that gave the answers."""
    return path.with_name(f"{path.name}.settings.json")


def begin(path: Path, settings: Mapping[str, Any], *, overwrite: bool) -> Begun:
    """Find out what is there already, drop a torn last line, and write down the settings.

    Args:
        path: The file of answers.
        settings: Everything that the answers depend on; the same settings give the same answers.
        overwrite: Begin anew, whatever is there.

    Raises:
        TunebookError: What is there was made with other settings, or nothing says with which.
    """
    part, record = part_of(path), settings_of(path)
    if path.is_dir():
        raise TunebookError(f"{path}: is a folder", fix="name a file with -o")
    if overwrite:
        part.unlink(missing_ok=True)
        files.write_json(record, settings)
        return Begun("new", 0)
    there = next((file for file in (path, part) if file.exists()), None)
    if there is None:
        files.write_json(record, settings)
        return Begun("new", 0)
    _refuse_changes(there, record, settings)
    if there == path:
        return Begun("finished", _whole_lines(path))
    return Begun("unfinished", _whole_lines(part, cut=True))


def finish(path: Path) -> None:
    """Give the file its name."""
    part_of(path).replace(path)


def _refuse_changes(there: Path, record: Path, settings: Mapping[str, Any]) -> None:
    fix = "choose another file with -o, or begin anew with --overwrite"
    try:
        old = files.read_json(record)
        assert isinstance(old, dict)
    except (OSError, ValueError, AssertionError):
        raise TunebookError(f"{there} exists, and nothing says what made it", fix=fix) from None
    # As JSON reads them back.
    new = json.loads(json.dumps(settings))
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if changed:
        listing = ", ".join(f"{key} {_short(old.get(key))} -> {_short(new.get(key))}" for key in changed)
        raise TunebookError(f"{there} was begun with other settings: {listing}", fix=fix)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _whole_lines(path: Path, *, cut: bool = False) -> int:
    """Count the lines that hold an object each; with `cut`, remove what comes after them."""
    rows = end = 0
    with path.open("rb") as stream:
        for line in stream:
            try:
                whole = line.endswith(b"\n") and isinstance(json.loads(line), dict)
            except ValueError:
                whole = False
            if not whole:
                break
            rows, end = rows + 1, end + len(line)
    if cut and end != path.stat().st_size:
        with path.open("rb+") as stream:
            stream.truncate(end)
    return rows


def environment_of(engine: EngineName | None) -> Path:
    """Return the environment that has the engine; for none, any that has transformers and torch.

    Raises:
        TunebookError: There is none.
    """
    if engine is not None:
        return paths.engine_environment(engine)
    running = Path(sys.prefix)
    if len(paths.installed_versions(running, ["transformers", "torch"])) == 2:
        return running
    try:
        return paths.engine_environment("llamafactory")
    except TunebookError:
        return paths.engine_environment("axolotl")


def weights_of(source: ModelSource, *, base: bool = False) -> dict[str, Any]:
    """Return what `hooks.loading.Weights` is made of.

    Args:
        source: The model.
        base: The model that it was trained from, written to as the trained one.

    Raises:
        TunebookError: Nothing says which model it was trained from.
    """
    if base and source.base is None:
        raise TunebookError(
            f"{source.folder}: nothing says which model it was trained from",
            fix="omit --base, or name its recipe with --recipe",
        )
    on_base = base or source.adapter is not None
    compute = source.contract["dtype"]["compute"] if source.contract is not None else None
    return {
        "engine": source.engine,
        "settings": dict(source.settings),
        "model": str(source.base) if on_base else str(source.folder.absolute()),
        "revision": source.revision if on_base else None,
        "adapter": None if base or source.adapter is None else str(source.adapter.absolute()),
        "compute": compute,
    }


def run_module(module: str, job: Mapping[str, Any], engine: EngineName | None, *words: str) -> int:
    """Run `python -m <module> JOB.json LOG [words]`, with our own streams; return its exit status.

    Raises:
        TunebookError: It failed without saying why; the message ends with what the engine printed last.
        KeyboardInterrupt: We were asked to stop; the process has been ended.
    """
    python = environment_of(engine) / "bin" / "python"
    with tempfile.TemporaryDirectory(prefix="tunebook-job-") as folder:
        path, log = Path(folder) / "job.json", Path(folder) / "log"
        path.write_text(json.dumps(job, ensure_ascii=False), encoding="utf-8")
        ended = processes.run(
            Command(argv=(str(python), "-m", module, str(path), str(log), *words), env=_QUIET)
        )
        if ended.stopped_by is not None:
            raise KeyboardInterrupt
        if ended.code not in (0, 2):
            said = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
            tail = "\n".join(said.splitlines()[-15:])
            raise TunebookError(
                f"{module} {ended.how}; the last it said:\n{tail}",
                fix="see the message above; `tunebook doctor` shows what the environment lacks",
            )
        return ended.code
