"""Reads the logs of a run that are not the Trainer's own files: events, W&B, consoles, GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tunebook.runlog.console import Console, read_console
from tunebook.runlog.gpus import read_gpu_csv
from tunebook.runlog.records import Note
from tunebook.runlog.series import Joined, WentBack, join_starts
from tunebook.runlog.tensorboard import read_events
from tunebook.runlog.wandb_run import WandbRun, read_wandb

if TYPE_CHECKING:
    from tunebook.runlog.files import RunFiles
    from tunebook.runlog.records import Gpu, Series


class EventLogs(NamedTuple):
    """The scalars of all event files of a run."""

    series: dict[str, Series]
    went_back: list[WentBack]
    notes: list[Note]


class WandbLogs(NamedTuple):
    """The runs of W&B that are starts of this run, the earliest first, and their series joined."""

    runs: list[WandbRun]
    series: dict[str, Series]
    went_back: list[WentBack]
    notes: list[Note]


class ConsoleLogs(NamedTuple):
    """The console logs that a Trainer printed into, the earliest first, and their series joined."""

    consoles: list[Console]
    series: dict[str, Series]
    went_back: list[WentBack]


class GpuLogs(NamedTuple):
    """The cards that nvidia-smi watched, and what was lost."""

    gpus: list[Gpu]
    notes: list[Note]


def read_event_files(files: RunFiles) -> EventLogs:
    """Read every TensorBoard event file below a run folder; a restarted run continues in a later file.

    Raises:
        OSError: A file cannot be read.
    """
    read = [read_events(path, files.name(path)) for path in files.events]
    read.sort(key=lambda events: float("inf") if events.started is None else events.started)
    # The closing evaluation, of the weights that were kept, has a file of its own: it must not overwrite
    # what the last step measured.
    curves = [events.series for events in read if any(len(one.steps) > 1 for one in events.series.values())]
    joined = join_starts(curves or [events.series for events in read])
    return EventLogs(joined.series, joined.went_back, [note for events in read for note in events.notes])


def read_wandb_runs(files: RunFiles) -> WandbLogs:
    """Read every `.wandb` file below a run folder.

    W&B's folder may also hold other experiments: those of which the Trainer's `output_dir` is another.

    Raises:
        OSError: A file cannot be read.
    """
    read = [run for path in files.wandb if (run := read_wandb(path, files.name(path))) is not None]
    read.sort(key=lambda run: float("inf") if run.started is None else run.started)
    notes = [note for run in read for note in run.notes]
    places = {place for run in read if isinstance(place := run.settings.get("output_dir"), str)}
    if len(places) > 1:
        chosen = next((p for p in places if _last_part(p) == files.base.resolve().name), None)
        chosen = chosen or next(p for run in reversed(read) if (p := run.settings.get("output_dir")))
        others = [run for run in read if run.settings.get("output_dir") != chosen]
        read = [run for run in read if run.settings.get("output_dir") == chosen]
        names = ", ".join(run.source for run in others)
        message = f"is of output_dir {chosen}; of other runs, and left out: {names}"
        notes.append(Note(kind="read", file=read[-1].source, message=message))
    joined = join_starts([run.series for run in read])
    return WandbLogs(read, joined.series, joined.went_back, notes)


def _last_part(place: str) -> str:
    return place.rstrip("/").rsplit("/", 1)[-1]


def read_consoles(files: RunFiles) -> ConsoleLogs:
    """Read every console log of a run that a Trainer printed into, or that tells of phases.

    Raises:
        OSError: A file cannot be read.
    """
    read = [
        console for path in files.consoles if (console := read_console(path, files.name(path))) is not None
    ]
    # Python's sort is stable: logs without a clock stay in the order of their names.
    read.sort(key=lambda console: console.started or 0.0)
    joined: Joined = join_starts([console.series for console in read])
    went_back = [place for console in read for place in console.went_back] + joined.went_back
    return ConsoleLogs(read, joined.series, sorted(went_back, key=lambda place: place.first_again))


def read_gpu_logs(files: RunFiles) -> GpuLogs:
    """Read every log of nvidia-smi; other CSV files are passed over.

    Raises:
        OSError: A file cannot be read.
    """
    read = [log for path in files.gpu_logs if (log := read_gpu_csv(path, files.name(path))) is not None]
    return GpuLogs([gpu for log in read for gpu in log.gpus], [note for log in read for note in log.notes])
