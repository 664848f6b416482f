"""Starts one of our modules in the environment of a model's engine, out of the user's sight."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import paths
from tunebook.errors import TunebookError
from tunebook.runs import processes
from tunebook.types import Command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.models.source import ModelSource
    from tunebook.types import EngineName

_QUIET = {"AXOLOTL_DO_NOT_TRACK": "1", "AXOLOTL_TEE_STDOUT": "0", "TOKENIZERS_PARALLELISM": "false"}
"""What Axolotl sends home and writes down is about trainings, and this is none."""


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
        TunebookError: Nothing tells which model it was trained from.
    """
    if base and source.base is None:
        raise TunebookError(
            f"{source.folder}: nothing tells the model that it was trained from",
            fix="leave --base away, or name its recipe with --recipe",
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
    """Run `python -m <module> JOB.json LOG [words]`, its streams being ours; return its exit status.

    Raises:
        TunebookError: It failed in a way that it did not explain; the end of what the engine said is told.
        KeyboardInterrupt: We were told to stop; the process has been ended.
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
                f"{module} ended with status {ended.code}; the last it said:\n{tail}",
                fix="see the message above; `tunebook doctor` tells what the environment lacks",
            )
        return ended.code
