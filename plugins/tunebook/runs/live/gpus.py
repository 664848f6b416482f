"""Which GPUs the processes of a run use, and how busy these are, as nvidia-smi tells."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Iterable
from typing import NamedTuple

_APPS = ("--query-compute-apps=gpu_uuid,pid,used_memory",)
_CARDS = ("--query-gpu=uuid,index,utilization.gpu,memory.used,memory.total",)
_FORMAT = "--format=csv,noheader,nounits"


class GpuUse(NamedTuple):
    """One card that a run uses."""

    number: int
    utilization: float | None
    """Percent of the last sampling period; None where the driver does not say."""
    run_mib: float | None
    """Memory of the run's own processes; None in containers, where the driver does not tell processes."""
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
