"""Runs a function in a process of its own that outlives the terminal, and knows it again later.

A pid alone is not enough to know a process by: the system gives it to another one in time. Host, start of
the machine and start of the process are kept beside it.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunebook import files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PID_FILE = "run.pid"
"""Holds the pid alone, for `kill $(cat run.pid)`."""
RECORD_FILE = "process.json"

Life = Literal["running", "ended", "unknown"]


def detach(work: Callable[[], int], log: Path) -> int:
    """Start `work` in a new session, its output appended to `log`, and return the pid of its process.

    The process ends with the status that `work` returns. Open files and locks are shared with it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    sys.stdout.flush()
    sys.stderr.flush()
    # Twice, so that the process is nobody's child and leaves no zombie with whoever called us.
    reader, writer = os.pipe()
    first = os.fork()
    if first:
        os.close(writer)
        os.close(output)
        os.waitpid(first, 0)
        with os.fdopen(reader, "rb") as stream:
            return int(stream.read())
    status = 1
    try:
        os.setsid()
        second = os.fork()
        if second:
            os.write(writer, str(second).encode())
            status = 0
        else:
            os.close(reader)
            os.close(writer)
            silence = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((silence, 0), (output, 1), (output, 2)):
                os.dup2(source, target)
            status = work()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        # Not sys.exit: what the caller's interpreter has registered is the caller's.
        os._exit(status)


def record_self(folder: Path, more: Mapping[str, Any]) -> None:
    """Write into `folder` which process this is, and `more` beside it."""
    files.write_atomic(folder / PID_FILE, f"{os.getpid()}\n")
    _write_record(folder, more)


def record_end(folder: Path, more: Mapping[str, Any]) -> None:
    """Keep the record, and take the pid away: it will be another process's."""
    _write_record(folder, more)
    with suppress(FileNotFoundError):
        (folder / PID_FILE).unlink()


def _write_record(folder: Path, more: Mapping[str, Any]) -> None:
    identity = {
        "pid": os.getpid(),
        "started_ticks": _started_ticks(os.getpid()),
        "boot": _boot(),
        "host": os.uname().nodename,
    }
    files.write_json(folder / RECORD_FILE, {**identity, **more})


def life(record: Mapping[str, Any]) -> Life:
    """Say whether the process that `record_self` wrote down still runs.

    `unknown` where it was started on another host, or where there is no `/proc` to look at.
    """
    if record.get("host") != os.uname().nodename or not Path("/proc/self/stat").exists():
        return "unknown"
    if record.get("boot") != _boot():
        return "ended"
    pid = record.get("pid")
    ticks = _started_ticks(pid) if isinstance(pid, int) else None
    return "running" if ticks is not None and ticks == record.get("started_ticks") else "ended"


def _started_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; None where it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # `pid (name) state ppid ...`, where the name may hold anything; the start is the 22nd field (proc(5)).
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _boot() -> str | None:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None
