"""What a run is doing now, by the files it leaves and by its process; nothing is asked of it."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tunebook import files
from tunebook.errors import TunebookError
from tunebook.models.checkpoints import checkpoint_folders, last_whole_checkpoint
from tunebook.runlog.console import DICTIONARY, parse_entries
from tunebook.runlog.ends import end_sign
from tunebook.runlog.records import PhaseName
from tunebook.runlog.timeline import BAR, SIGNS, last_number
from tunebook.runlog.tolerant_json import as_float, read_object
from tunebook.runs import folder as run_folder
from tunebook.runs import processes

if TYPE_CHECKING:
    from collections.abc import Mapping


Life = Literal["running", "finished", "failed", "stopped", "killed", "unknown"]

_LAST_LINE_BYTES = 64 << 10
_TRAINER_LOG = "trainer_log.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What is known of a run now; None for what is not."""

    folder: Path
    life: Life
    """`killed`: its process is gone and has not said how. `unknown`: it was started on another host, or
    without tunebook; see `seconds_silent`."""
    detail: str
    """Exit status, signal or host, in words, and what the log says of it; empty while it runs here."""
    by_engine: bool
    """It was started by the engine's own command: `stop` cannot ask it for a checkpoint."""
    phase: str | None
    """Only of a run that may still be alive."""
    part: tuple[int, int] | None
    """Done and total of the phase's own bar, e.g. examples tokenised."""
    step: int | None
    total_steps: int | None
    loss: float | None
    figures: Mapping[str, float]
    """Of the last evaluation: what checkpoints are chosen by, and the loss."""
    figures_of: str | None
    """The dataset that was evaluated last."""
    figures_step: int | None
    rows_per_second: float | None
    tokens_per_second: float | None
    seconds_left: float | None
    seconds_silent: float | None
    """Since anything was last written."""
    pid: int | None
    host: str | None
    log: Path | None
    gpus: tuple[GpuUse, ...]


def find_runs(root: Path) -> list[Path]:
    """Return the run folders at or below `root`, by their start, the newest first."""
    marks = [
        mark
        for name in ("run.json", processes.ENGINE_FILE, "eval_metrics.jsonl")
        for mark in root.glob(f"**/{run_folder.FOLDER}/{name}")
    ]
    found = {mark.parent.parent: mark.stat().st_mtime for mark in sorted(marks, key=lambda mark: mark.name)}
    # LLaMA-Factory's own log, of a start without our hook; one without epochs is of a prediction.
    for mark in root.glob(f"**/{_TRAINER_LOG}"):
        if mark.parent not in found and "epoch" in _last_lines(mark):
            found[mark.parent] = mark.stat().st_mtime
    return sorted(found, key=lambda folder: -found[folder])


def read_state(folder: Path, *, now: float | None = None) -> RunState:
    """Read the state of the run in `folder`.

    Args:
        folder: The run's `output_dir`.
        now: Seconds since the epoch; by default this moment.

    Raises:
        TunebookError: There is no run in it.
    """
    ours = folder / run_folder.FOLDER
    record = _record(ours)
    if not record and not ours.is_dir() and not (folder / _TRAINER_LOG).is_file():
        raise TunebookError(
            f"{folder} holds no run",
            fix="name the output_dir of a run; `tunebook status` lists those below output/",
        )
    log = _log(folder, record)
    said = _read(log)
    trainer = _last_lines(folder / _TRAINER_LOG)
    evaluation = _last_lines(ours / "eval_metrics.jsonl", only=1)
    life, detail = _life(record, ours)
    since = _started(record)
    if (not record and life == "unknown") or (life == "killed" and record.get("by_engine")):
        # A process that falls over on its way out, behind its last file, has still done its work.
        by_files = _life_by_files(folder, said, trainer, since)
        if not record or by_files[0] == "finished":
            life, detail = by_files
    if record and life in ("failed", "killed") and said and said.broken_by:
        detail = f"{detail}: {said.broken_by}"
    saved = [] if since is None and "current_steps" in trainer else _saved(folder, since)
    step, total = _steps(said, trainer, saved if life not in ("running", "unknown") else [])
    alive = life in ("running", "unknown")
    pid = record.get("pid")
    rate = said.steps_per_second if said else None
    loss = said.loss if said and said.loss is not None else as_float(trainer.get("loss"))
    tokens = said.tokens_per_second if said else None
    return RunState(
        folder=folder,
        life=life,
        detail=detail,
        by_engine=record.get("by_engine") is True,
        phase=said.phase if alive and said else None,
        part=_part(said) if alive else None,
        step=step,
        total_steps=total,
        loss=loss,
        figures=_lead(evaluation),
        figures_of=evaluation.get("dataset"),
        figures_step=evaluation.get("step"),
        rows_per_second=rate * said.rows_per_step if alive and said and rate and said.rows_per_step else None,
        tokens_per_second=(tokens or as_float(trainer.get("throughput"))) if alive else None,
        seconds_left=said.seconds_left if alive and said else None,
        seconds_silent=_silence(folder, log, now),
        pid=pid if isinstance(pid, int) else None,
        host=record.get("host"),
        log=log,
        gpus=tuple(gpus_of([pid, *processes.descendants(pid)]))
        if life == "running" and isinstance(pid, int)
        else (),
    )


def _life(record: Mapping[str, Any], ours: Path) -> tuple[Life, str]:
    if not record:
        return (
            ("finished", "") if (ours / "finished.json").is_file() else ("unknown", "not started by tunebook")
        )
    if "exit_status" not in record:
        lives = processes.life(record)
        if lives == "running":
            return "running", ""
        return (
            ("killed", "its process is gone") if lives == "ended" else ("unknown", f"on {record.get('host')}")
        )
    if record["exit_status"] == 0:
        return "finished", ""
    by = record.get("stopped_by")
    if by:
        return "stopped", "as asked" if by == "request" else f"by {by}"
    if record.get("error"):
        return "failed", str(record["error"])
    code = record["exit_status"]
    return "failed", processes.ended_how(code) if isinstance(code, int) else str(code)


def _life_by_files(
    folder: Path, said: LogState | None, trainer: Mapping[str, Any], since: float | None
) -> tuple[Life, str]:
    """How a run went of which no process is known: by what an engine writes last of all."""
    results, state = folder / "train_results.json", _json(folder / "trainer_state.json")
    # LLaMA-Factory writes both after training; a later start into the folder logs other steps.
    same = not state or trainer.get("current_steps") in (None, state.get("global_step"))
    if same and results.is_file() and results.stat().st_mtime >= (since or 0):
        return "finished", ""
    if said and said.saved:
        return "finished", ""
    if said and said.broken_by:
        return "failed", said.broken_by
    return "unknown", "not started by tunebook"


class _Steps(NamedTuple):
    step: int | None
    total: int | None


def _saved(folder: Path, since: float | None) -> list[_Steps]:
    """What the Trainer's states of the folder and of its last checkpoint say, if they were written since."""
    found = []
    for path in (folder, *checkpoint_folders(folder)[-1:]):
        state = path / "trainer_state.json"
        if state.is_file() and state.stat().st_mtime >= (since or 0):
            read = _json(state)
            if type(read.get("global_step")) is int:
                found.append(_Steps(read["global_step"], read.get("max_steps")))
    return found


def _steps(said: LogState | None, trainer: Mapping[str, Any], saved: list[_Steps]) -> _Steps:
    """The last step and how many there are to be: by the console, else by LLaMA-Factory's log.

    Of a run that has ended what was saved has been trained, whatever a log that was cut off says.
    """
    told = [_Steps(said.step, said.total_steps)] if said else []
    told.append(_Steps(trainer.get("current_steps"), trainer.get("total_steps")))
    step, total = next((one for one in told if one.step is not None), _Steps(None, None))
    furthest = max(saved, key=lambda one: one.step or 0, default=_Steps(None, None))
    if furthest.step is not None and furthest.step > (step or 0):
        step, total = furthest.step, furthest.total or total
    return _Steps(step, total or next((one.total for one in told if one.total), None))


def _json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = files.read_json(path)
        return found if isinstance(found, dict) else {}
    return {}


def _log(folder: Path, record: Mapping[str, Any]) -> Path | None:
    """The log that the run was to write; else, as for a folder that was copied here, the one in it.

    One that was written last before the run was started is an earlier start's.
    """
    named = record.get("log")
    candidates = [Path(named)] if isinstance(named, str) else []
    candidates += [folder / "train.log", folder / "debug.log"]
    since = _started(record) or 0
    return next((path for path in candidates if path.is_file() and path.stat().st_mtime >= since), None)


def _started(record: Mapping[str, Any]) -> float | None:
    """When the last start was, in seconds since the epoch; None where nothing says."""
    with suppress(KeyError, TypeError, ValueError):
        # It is written in whole seconds.
        return datetime.fromisoformat(record["started"]).timestamp() - 1
    return None


def _read(log: Path | None) -> LogState | None:
    with suppress(OSError):
        return read_log(log) if log else None
    return None


def _part(said: LogState | None) -> tuple[int, int] | None:
    if said is None or said.part_done is None or said.part_total is None:
        return None
    return said.part_done, said.part_total


def _lead(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The figure that checkpoints are chosen by, then the loss."""
    values = evaluation.get("values")
    if not isinstance(values, dict):
        return {}
    names = dict.fromkeys([evaluation.get("select_by"), "loss"])
    return {name: number for name in names if name and (number := as_float(values.get(name))) is not None}


def _silence(folder: Path, log: Path | None, now: float | None) -> float | None:
    paths = [
        folder / _TRAINER_LOG,
        folder / run_folder.FOLDER / "eval_metrics.jsonl",
        *([log] if log else []),
    ]
    times = []
    for path in paths:
        with suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(0.0, (time.time() if now is None else now) - max(times)) if times else None


def newest_checkpoint(folder: Path) -> str | None:
    """Return the name of a run's newest whole checkpoint, which is found by opening its files."""
    with suppress(OSError):
        found = last_whole_checkpoint(folder).path
        return found.name if found else None
    return None


def is_running(folder: Path) -> bool:
    """Whether the process of the run in `folder` runs on this host; its files are not read."""
    ours = folder / run_folder.FOLDER
    return _life(_record(ours), ours)[0] == "running"


def _record(ours: Path) -> dict[str, Any]:
    """Of the last start: by `tunebook train`, or by the engine's own command."""
    found = {}
    for name in (processes.RECORD_FILE, processes.ENGINE_FILE):
        with suppress(OSError):
            found[name] = read_object(ours / name) or {}
    if not any(found.values()):
        return {}
    last = max(found, key=lambda name: (bool(found[name]), str(found[name].get("started", ""))))
    return {**found[last], "by_engine": last == processes.ENGINE_FILE}


def _last_lines(path: Path, only: int = 50) -> dict[str, Any]:
    """What the last whole lines of a file of JSON lines say, the last word of each key.

    The file may be in the midst of being written.
    """
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _LAST_LINE_BYTES))
            lines = stream.read().split(b"\n")
    except OSError:
        return {}
    found: dict[str, Any] = {}
    for line in reversed(lines):
        with suppress(ValueError):
            one = json.loads(line)
            if isinstance(one, dict) and only:
                only -= 1
                found = one | found
    return found


# Which GPUs the processes of a run use, and how busy these are, as nvidia-smi says.

_APPS = ("--query-compute-apps=gpu_uuid,pid,used_memory",)
_CARDS = ("--query-gpu=uuid,index,utilization.gpu,memory.used,memory.total",)
_FORMAT = "--format=csv,noheader,nounits"


class GpuUse(NamedTuple):
    """One card that a run uses."""

    number: int
    utilization: float | None
    """Percent of the last sampling period; None where the driver does not say."""
    run_mib: float | None
    """Memory of the run's own processes; None in containers, where the driver does not show processes."""
    used_mib: float | None
    total_mib: float | None


def gpus_of(pids: Iterable[int]) -> list[GpuUse]:
    """Return the cards that any of these processes uses; none where there is no nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return []
    return parse_uses(_ask(_APPS), _ask(_CARDS), set(pids))


def parse_uses(apps: str, cards: str, pids: set[int]) -> list[GpuUse]:
    """Join nvidia-smi's two tables, in CSV without units, for the processes `pids`."""
    memory: dict[str, float | None] = {}
    for row in _rows(apps, 3):
        uuid, pid, used = row
        if pid.isdigit() and int(pid) in pids:
            number = _number(used)
            earlier = memory.get(uuid)
            memory[uuid] = number if earlier is None else earlier + (number or 0.0)
    found = []
    for uuid, index, busy, used, total in _rows(cards, 5):
        if uuid in memory:
            found.append(GpuUse(int(index), _number(busy), memory[uuid], _number(used), _number(total)))
    return found


def _rows(text: str, columns: int) -> list[list[str]]:
    rows = ([cell.strip() for cell in row] for row in csv.reader(text.splitlines()))
    return [row for row in rows if len(row) == columns]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None  # "[N/A]", "[Not Supported]"


def _ask(arguments: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", *arguments, _FORMAT], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


# The console log: phase, progress, speed, loss. Both engines draw tqdm bars with carriage returns between
# lines of several loggers; ranks may be interleaved. The latest sign in the text decides, so a few hundred
# kilobytes of its end are enough, however long the log.

HEAD_BYTES = 2 << 20
"""Where the counts are announced."""
TAIL_BYTES = 256 << 10

_TOTAL = re.compile(rb"Total optimization steps = ([\d,]+)|Maximum number of steps set at (\d+)")
_BATCH = re.compile(rb"Total train batch size [^=\n]*= ([\d,]+)|^  \"batch_size\": (\d+)", re.MULTILINE)


class LogState(NamedTuple):
    """The state of a run, as far as its log says; None for what it does not say."""

    phase: PhaseName
    step: int | None
    total_steps: int | None
    part_done: int | None
    """How far the phase's own bar is, e.g. examples tokenised or evaluation batches done."""
    part_total: int | None
    steps_per_second: float | None
    seconds_left: float | None
    """Of training, evaluations not counted in: the bar's own estimate."""
    loss: float | None
    """The last one logged; NaN where it was."""
    rows_per_step: int | None
    """Examples per optimizer step, over all ranks."""
    tokens_per_second: float | None
    saved: bool
    """The last start has trained to its end and saved what it trained, as Axolotl says."""
    broken_by: str | None
    """What broke the run off, in a few words."""


def read_log(path: Path) -> LogState:
    """Read the head and the tail of a console log.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
        size = stream.seek(0, 2)
        stream.seek(max(0, size - TAIL_BYTES))
        tail = stream.read(TAIL_BYTES)
    return parse_log(head, tail)


def parse_log(head: bytes, tail: bytes) -> LogState:
    """Read the state of a run from the beginning and the end of its log, which may overlap."""
    total = _total_by_bar(head) or last_number(_TOTAL, head) or last_number(_TOTAL, tail)
    phase, at = _latest_sign(tail)
    if at < 0:
        phase, _ = _latest_sign(head)
    step = part_done = part_total = None
    rate = left = None
    for bar in BAR.finditer(tail):
        done, whole = int(bar["done"]), int(bar["total"])
        if bar["label"] is None and (whole == total or (total is None and phase == "training")):
            step, total, rate, left = done, whole, _rate(bar), _seconds(bar["left"])
            # Drawn again after an evaluation's or a checkpoint's lines: training goes on.
            if bar.start() > at and done < whole:
                phase, part_done, part_total = "training", None, None
        elif bar.start() >= at:
            part_done, part_total = done, whole
    if phase == "training":
        part_done = part_total = None
    logged = [entry for entry in parse_entries(DICTIONARY.findall(tail))[0] if "loss" in entry]
    last = logged[-1] if logged else {}
    tokens = next((last[key] for key in last if key.startswith("tokens/") and "per_sec" in key), None)
    broken = end_sign(tail)
    return LogState(
        phase=phase,
        step=step,
        total_steps=total,
        part_done=part_done,
        part_total=part_total,
        steps_per_second=rate,
        seconds_left=left,
        loss=as_float(last.get("loss")),
        rows_per_step=last_number(_BATCH, head),
        tokens_per_second=as_float(tokens),
        saved=tail.rfind(b"Model successfully saved to") > tail.rfind(b"Starting trainer..."),
        broken_by=broken.title if broken else None,
    )


def _latest_sign(text: bytes) -> tuple[PhaseName, int]:
    """The phase whose sign comes last, and where; `starting` and -1 where there is none."""
    found: tuple[PhaseName, int] = ("starting", -1)
    for phase, pattern in SIGNS:
        last = -1
        for match in pattern.finditer(text):
            last = match.start()
        if last > found[1]:
            found = (phase, last)
    return found


def _total_by_bar(head: bytes) -> int | None:
    """Steps by the first bar of training: what Axolotl announces leaves `max_steps` out of account."""
    start = max(head.rfind(b"Starting trainer..."), head.rfind(b"***** Running training *****"))
    bars = BAR.finditer(head, start) if start >= 0 else ()
    return next((int(bar["total"]) for bar in bars if bar["label"] is None), None)


def _rate(bar: re.Match[bytes]) -> float | None:
    """Steps per second: tqdm turns the fraction over where a step takes longer than a second."""
    number = as_float(bar["rate"].decode())
    if not number:
        return None
    return number if bar["unit"].endswith(b"/s") else 1 / number


def _seconds(clock: bytes) -> float | None:
    parts = clock.decode().split(":")
    if not all(part.isdigit() for part in parts):
        return None
    seconds = 0.0
    for part in parts:
        seconds = seconds * 60 + int(part)
    return seconds
