"""Works out how long a run was in each phase and in all, and on how many GPUs, from whatever says so."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from tunebook.runlog.records import Phase, PhaseName, Sourced

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.runlog.console import Console
    from tunebook.runlog.records import Evaluation, Series
    from tunebook.runlog.timeline import RunStart
    from tunebook.runlog.wandb_run import WandbRun

_BEFORE_AND_AFTER: tuple[PhaseName, ...] = (
    "starting",
    "loading data",
    "tokenising",
    "loading model",
    "saving",
)
_PROCESSES = re.compile(r"--(?:nproc[_-]per[_-]node|num[_-]processes)[= ](\d+)(?!\S)")
_NODES = re.compile(r"--(?:nnodes|num[_-]machines)[= ](\d+)(?!\S)")
_VISIBLE = re.compile(r"(?<!\S)CUDA_VISIBLE_DEVICES=(\S*)")
_ONE_PROCESS = re.compile(r"--launcher[= ]python(?!\S)")


class TimedStart(NamedTuple):
    """A start with timestamps, and its log's name."""

    start: RunStart
    source: str
    seconds: float
    """From its first stamp to its last."""


def timed_starts(consoles: Sequence[Console]) -> list[TimedStart]:
    """The starts with stamps, the earliest first; of two logs of the same start the longer counts."""
    found: list[TimedStart] = []
    timed = [
        TimedStart(start, console.source, round(start.ended - start.began, 3))
        for console in consoles
        for start in console.starts
        if start.began is not None and start.ended is not None
    ]
    for one in sorted(timed, key=lambda one: -one.seconds):
        if not any(_overlap(one.start, other.start) for other in found):
            found.append(one)
    return sorted(found, key=lambda one: one.start.began or 0.0)


def _overlap(one: RunStart, other: RunStart) -> bool:
    if one.began is None or one.ended is None or other.began is None or other.ended is None:
        return False
    return one.began < other.ended and other.began < one.ended


def phases_of(
    starts: Sequence[TimedStart],
    evaluations: Sequence[Evaluation],
    results: Mapping[str, float],
    results_source: str | None,
    series: Mapping[str, Series],
    *,
    restarted: bool,
) -> tuple[Phase, ...]:
    """The phases that are known of, in the order of a run."""
    found: dict[PhaseName, Phase] = {}
    by_stamps = ", ".join(dict.fromkeys(one.source for one in starts)) + " (timestamps)"
    for name in _BEFORE_AND_AFTER:
        times = sum(one.start.stretches.get(name, 0) for one in starts)
        known = [one.start.seconds[name] for one in starts if name in one.start.seconds]
        if known or times:
            seconds = round(sum(known), 3) if known else None
            found[name] = Phase(name=name, seconds=seconds, stretches=times or None, source=by_stamps)
    if (evaluating := _evaluating(evaluations, results, results_source)) is not None:
        found["evaluating"] = evaluating
    within = [one.seconds for one in evaluations if not one.after_training]
    saving = sum(one.start.seconds.get("saving", 0.0) for one in starts if not one.start.finished)
    training = _training(starts, by_stamps, results, results_source, series, restarted=restarted)
    if training is not None:
        found["training"] = _without(training, within, saving)
    return tuple(found[name] for name in get_args(PhaseName) if name in found)


def _evaluating(
    evaluations: Sequence[Evaluation], results: Mapping[str, float], results_source: str | None
) -> Phase | None:
    seconds = [one.seconds for one in evaluations]
    sources = list(dict.fromkeys(one.source for one in evaluations))
    closing = results.get("eval_runtime")
    if closing is not None and closing not in seconds and not any(one.after_training for one in evaluations):
        seconds.append(closing)
        sources.append(f"{results_source}")
    if not seconds:
        return None
    known = [one for one in seconds if one is not None]
    return Phase(
        name="evaluating",
        seconds=round(sum(known), 4) if len(known) == len(seconds) else None,
        stretches=len(seconds),
        source=", ".join(sources),
    )


def _training(
    starts: Sequence[TimedStart],
    by_stamps: str,
    results: Mapping[str, float],
    results_source: str | None,
    series: Mapping[str, Series],
    *,
    restarted: bool,
) -> Phase | None:
    """Training with what lies within it; the Trainer's own figure is of the last start only."""
    runtime = results.get("train_runtime")
    clock = series.get("elapsed_seconds")
    stamped = [one for one in starts if one.start.trained and one.start.seconds.get("training")]
    if runtime is not None and not restarted:
        return Phase(
            name="training", seconds=runtime, stretches=1, source=f"{results_source} (train_runtime)"
        )
    if stamped and len(stamped) == sum(one.start.trained for one in starts):
        seconds = sum(one.start.seconds.get("training", 0.0) for one in stamped)
        seconds += sum(one.start.seconds.get("saving", 0.0) for one in stamped if not one.start.finished)
        return Phase(name="training", seconds=seconds, stretches=len(stamped), source=by_stamps)
    if clock is not None and len(clock.values):
        seconds = float(clock.values[-1])
        return Phase(name="training", seconds=seconds, stretches=None, source=f"{clock.source} (clock)")
    if series:
        return Phase(name="training", seconds=None, stretches=None, source="no clock was logged")
    return None


def _without(training: Phase, evaluations: Sequence[float | None], saving: float) -> Phase:
    """Training without the evaluations and savings within it, as far as these are known."""
    if training.seconds is None:
        return training
    known = [seconds for seconds in evaluations if seconds is not None]
    source = training.source
    if len(known) < len(evaluations):
        return replace(
            training, source=f"{source}, evaluations not taken off: how long they took is not known"
        )
    source += ", without evaluations" if known else ""
    left = round(training.seconds - sum(known) - saving, 4)
    if left < 0:
        return replace(training, seconds=None, source=f"{source}, which took longer than all of training")
    return replace(training, seconds=left, source=source)


def wall_seconds(
    records: Sequence[tuple[str, Mapping[str, Any]]],
    process: Mapping[str, Any],
    finished: Mapping[str, Any],
    starts: Sequence[TimedStart],
    wandb: Sequence[WandbRun],
    *,
    restarts: int,
) -> Sourced | None:
    """Seconds from start to end over all starts, without the time between them; None where one is unknown."""
    runtimes = [run.runtime for run in wandb]
    if restarts == 0:
        began = _moment(process.get("started")) or (
            _moment(records[-1][1].get("started")) if records else None
        )
        ended = _moment(process.get("ended")) or _moment(finished.get("finished"))
        if began is not None and ended is not None and ended >= began:
            source = "tunebook/process.json" if process.get("ended") else "tunebook/run.json, finished.json"
            return Sourced(value=ended - began, source=source)
    if runtimes and len(runtimes) == restarts + 1 and None not in runtimes:
        seconds = sum(one for one in runtimes if one is not None)
        return Sourced(value=seconds, source=f"{', '.join(run.source for run in wandb)} (runtime)")
    if starts and len(starts) == restarts + 1:
        sources = ", ".join(dict.fromkeys(one.source for one in starts))
        seconds = sum(one.seconds for one in starts)
        return Sourced(value=seconds, source=f"{sources} (first to last timestamp)") if seconds > 0 else None
    return None


def _moment(text: object) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None
    except ValueError:
        return None


def gpu_count(
    records: Sequence[tuple[str, Mapping[str, Any]]],
    consoles: Sequence[Console],
    wandb: Sequence[WandbRun],
) -> Sourced | None:
    """How many GPUs the run had: by its command and the cards of its host, else by what its logs say."""
    if records:
        source, record = records[-1]
        cards, command = record.get("gpus"), record.get("command")
        if isinstance(cards, list) and cards and isinstance(command, list):
            return Sourced(value=_by_command(len(cards), " ".join(map(str, command))), source=source)
    for console in consoles:
        if console.gpu_count:
            return Sourced(value=console.gpu_count, source=f"{console.source} (world size)")
    for run in wandb:
        if run.gpu_count:
            return Sourced(value=run.gpu_count, source=f"{run.source} (cards of the host)")
    return None


def _by_command(cards: int, command: str) -> int:
    """Both engines start a process on each visible card, where the command does not say how many."""
    nodes = int(match[1]) if (match := _NODES.search(command)) else 1
    if match := _PROCESSES.search(command):
        # accelerate counts the processes of all machines, torchrun those of one.
        return int(match[1]) * (1 if "num" in match[0] else nodes)
    if _ONE_PROCESS.search(command):
        return 1
    if (match := _VISIBLE.search(command)) and match[1]:
        cards = min(cards, len([device for device in match[1].split(",") if device.strip()]))
    return cards * nodes


def gpu_hours(wall: Sourced | None, gpus: Sourced | None) -> Sourced | None:
    """Wall time times GPUs; None where one of them is not known."""
    if wall is None or gpus is None:
        return None
    return Sourced(value=wall.value * gpus.value / 3600, source=f"{wall.source} x {gpus.source}")
