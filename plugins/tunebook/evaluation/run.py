"""Starts engines for what is not evaluated yet, and follows their progress."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunebook import engines, files
from tunebook.errors import TunebookError
from tunebook.evaluation import job as jobs
from tunebook.evaluation.finalise import missing
from tunebook.evaluation.journal import Journal
from tunebook.recipes import engine_yaml
from tunebook.runs import processes, provenance
from tunebook.types import Command

if TYPE_CHECKING:
    from tunebook.evaluation.job import EvalJob, Failure
    from tunebook.evaluation.plan import EngineGroup, EvalUnit

_POLL_SECONDS = 0.3
_TAIL_LINES = 15


class EngineProgress(NamedTuple):
    """How far an engine is, in batches."""

    done: int
    """Including those kept from an earlier start."""
    total: int
    kept: int
    now: str
    """The model and the set at work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStart:
    """One start of an engine."""

    job: EvalJob
    """Of the models that are not finished."""
    recipe_file: Path
    values: dict[str, object]
    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEnd:
    """How a start ended."""

    failures: list[Failure]
    stopped: bool
    """By a signal to us."""
    warnings: list[str]
    """What tunebook has printed about the rows inside the engine."""


def is_complete(unit: EvalUnit) -> bool:
    """Whether every answer of this model to this set is there."""
    journal = Journal(unit.journal)
    header = journal.header()
    return header is not None and missing(header, journal.rows(), journal.finished()) == 0


def start_of(group: EngineGroup, *, gpus: int) -> EngineStart | None:
    """What to start for a group; None where everything is finished.

    Args:
        group: Of the plan.
        gpus: How many to use; 0 for the CPU.

    Raises:
        TunebookError: The engine cannot be started in this way.
    """
    open_ = {unit.candidate.label for unit in group.units if not is_complete(unit)}
    left = tuple(candidate for candidate in group.candidates if candidate.label in open_)
    if not left:
        return None
    job = replace(group.job, candidates=left)
    engine = engines.load(group.engine)
    folder = Path(job.folder)
    first = left[0]
    values = engine.evaluation_start(
        group.values,
        folder=folder,
        whole_model=first.path if first.kind == "full" else first.base,
        adapter=group.adapter,
    )
    environ = dict(os.environ)
    spread: dict[str, str] = {}
    if job.device_map is not None:
        # One process with all GPUs. accelerate takes a torchrun of one process for one that trains.
        spread = {"NPROC_PER_NODE": "1", "NNODES": "1", "ACCELERATE_BYPASS_DEVICE_MAP": "true"}
        environ, gpus = {**environ, **spread}, min(gpus, 1)
        if engine.device_map_key is not None:
            values = {**values, engine.device_map_key: job.device_map}
    file = folder / "recipe.yaml"
    command = engine.evaluate(file, values, environment=group.environment, gpus=gpus, environ=environ)
    command = replace(command, env={**command.env, **spread, jobs.VARIABLE: str(job.path)})
    return EngineStart(job=job, recipe_file=file, values=values, command=command)


def usable_gpus() -> int:
    """How many GPUs an engine that we start would use."""
    return provenance.visible_gpus(len(provenance.gpus()), os.environ)


def run(start: EngineStart, on_progress: Callable[[EngineProgress], None]) -> EngineEnd:
    """Run an engine to its end.

    Args:
        start: From `start_of`.
        on_progress: Called from another thread, whenever there may be progress.

    Raises:
        TunebookError: The engine could not evaluate anything; with its own reason, where it gave one.
    """
    job = start.job
    job.write()
    files.write_atomic(start.recipe_file, engine_yaml.dump(start.values))
    log = Path(job.folder) / "engine.log"
    # Its output is of no use, unless it fails.
    shell = ("sh", "-c", 'log=$1; shift; exec "$@" >"$log" 2>&1', "sh", str(log))
    command = replace(start.command, argv=(*shell, *start.command.argv))
    over = threading.Event()

    def follow() -> None:
        while not over.wait(_POLL_SECONDS):
            _report(job, on_progress)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        ended = processes.run(command)
    finally:
        over.set()
        follower.join()
    if ended.stopped_by:
        return EngineEnd(failures=[], stopped=True, warnings=[])
    _report(job, on_progress)
    error = jobs.error_of(job)
    if error is not None:
        raise error
    found = jobs.failures(job)
    if ended.code != 0:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        raise TunebookError(
            f"the engine {ended.how}; it said last:\n" + "\n".join(tail),
            fix=f"see {log}; what is finished is kept, and the same command continues from it",
        )
    return EngineEnd(failures=found, stopped=False, warnings=_warnings(log))


def _warnings(log: Path) -> list[str]:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    warnings = (line.partition("[tunebook] warning: ")[2] for line in lines)
    return list(dict.fromkeys(f"warning: {line}" for line in warnings if line))


def _report(job: EvalJob, on_progress: Callable[[EngineProgress], None]) -> None:
    ranks = jobs.progress_of(job)
    if ranks:
        kept = max(rank["kept"] for rank in ranks)
        on_progress(
            EngineProgress(
                done=kept + sum(rank["done"] for rank in ranks),
                total=kept + sum(rank["total"] for rank in ranks),
                kept=kept,
                now=str(ranks[0]["now"]),
            )
        )
