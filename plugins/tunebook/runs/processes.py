"""Runs an engine as a child of which nothing is left running, and a run in the background."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tunebook import files
from tunebook.text import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    from tunebook.types import Command


GRACE_SECONDS = 5.0
"""How long processes are waited for after SIGINT, and again after SIGTERM, before they are killed."""
_STRAGGLER_SECONDS = 2.0
"""How long descendants may outlive the child before they get SIGTERM."""

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Ended(NamedTuple):
    """How a child ended."""

    code: int
    """The exit status as a shell gives it: 128 + N for signal N."""
    stopped_by: signal.Signals | None
    """The signal that made us end it; None where it ended by itself."""

    @property
    def how(self) -> str:
        """How it ended, e.g. `ended with status 1`, or by which signal it was killed."""
        return ended_how(self.code)


def ended_how(code: int) -> str:
    """Say what an exit status means.

    >>> ended_how(1), ended_how(139)
    ('ended with status 1', 'was killed by SIGSEGV (Segmentation fault)')
    """
    try:
        number = signal.Signals(code - 128)
    except ValueError:
        return f"ended with status {code}"
    if number == signal.SIGKILL:
        return "was killed by SIGKILL (most often the kernel's, because memory ran out)"
    return f"was killed by {number.name} ({signal.strsignal(number)})"


class _Interruption(BaseException):
    """Raised by our signal handler. Not an Exception: nothing in between may swallow it."""


class _Watch:
    """Handler of the signals: SIGUSR1 only asks; the first other interrupts the wait, later ones hurry."""

    def __init__(self, ask: Callable[[], None] | None) -> None:
        self.first: signal.Signals | None = None
        self.waiting = True
        self.repeats = 0
        self._ask = ask

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            if self._ask is not None:
                self._ask()
        elif self.first is None and self.waiting:
            self.first = signal.Signals(number)
            raise _Interruption
        else:
            self.repeats += 1


def run(
    command: Command, *, keep_open: tuple[int, ...] = (), ask_to_save: Callable[[], None] | None = None
) -> Ended:
    """Run `command` to its end, its output going where ours goes.

    On SIGINT, SIGTERM or SIGHUP the child and all its descendants get SIGINT, then SIGTERM, then SIGKILL,
    each after `GRACE_SECONDS` or at the next such signal. Descendants that outlive the child are ended too.

    Args:
        command: What to run.
        keep_open: File descriptors that the child inherits.
        ask_to_save: What SIGUSR1 does; None leaves that signal as it is. The child is not sent it.
    """
    # A launcher that is interrupted kills torchrun at once, and torchrun's workers are in sessions of their
    # own: no process group holds them all. As their subreaper we inherit every orphan, and so find them.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    with _watching(ask_to_save) as watch:
        try:
            child = subprocess.Popen(
                command.argv,
                env=os.environ | command.env,
                stdin=subprocess.DEVNULL,
                # Ctrl-C in a terminal goes to its whole foreground group: here it reaches only us, once.
                process_group=0,
                pass_fds=keep_open,
                # Should we be killed outright, the engine does not go on unseen.
                preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
            )
            code = child.wait()
            watch.waiting = False
        except _Interruption:
            _end_descendants([signal.SIGINT, signal.SIGTERM, signal.SIGKILL], watch)
            assert watch.first is not None
            return Ended(128 + watch.first, watch.first)
        _wait_for_none(_STRAGGLER_SECONDS, watch)
        _end_descendants([signal.SIGTERM, signal.SIGKILL], watch)
        return Ended(code if code >= 0 else 128 - code, None)


@contextmanager
def _watching(ask_to_save: Callable[[], None] | None) -> Iterator[_Watch]:
    watch = _Watch(ask_to_save)
    numbers = _STOPPING if ask_to_save is None else (*_STOPPING, signal.SIGUSR1)
    # One that is ignored stays ignored: `nohup` and background jobs of a shell mean it so.
    caught = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    earlier = {number: signal.signal(number, watch) for number in caught}
    try:
        yield watch
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _end_descendants(signals: list[signal.Signals], watch: _Watch) -> None:
    for number in signals:
        for pid in descendants(os.getpid()):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        _wait_for_none(GRACE_SECONDS, watch)


def _wait_for_none(seconds: float, watch: _Watch) -> None:
    """Wait until no descendant is left, for so long, or until a further signal says to hurry."""
    deadline, repeats = time.monotonic() + seconds, watch.repeats
    while descendants(os.getpid()) and time.monotonic() < deadline and watch.repeats == repeats:
        time.sleep(0.05)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def node_rank(environ: Mapping[str, str]) -> int:
    """Return which node of a joint job this is, from 0; 0 where there is only one."""
    rank = environ.get("NODE_RANK", "0")
    return int(rank) if environ.get("NNODES", "1") != "1" and rank.isdigit() else 0


def descendants(pid: int) -> list[int]:
    """Return the running processes below `pid`, parents before children. Empty where there is no `/proc`."""
    children: dict[int, list[int]] = {}
    ended = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # `pid (name) state parent ... threads ...`, where the name may hold spaces and parentheses.
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(folder.name))
            # A process is called a zombie as soon as its first thread has ended. While others have not, it
            # still runs and keeps its children.
            if fields[0] == "Z" and fields[17] == "1":
                ended.add(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(0), [])
        found += below
        waiting += below
    return [process for process in found if process not in ended]


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


# A process that outlives the terminal, and is known again later. A pid is not enough for that: the system
# gives it to another process in time. Host, start of the machine and start of the process are kept beside it.

PID_FILE = "run.pid"
"""Holds only the pid, for `kill $(cat run.pid)`."""
RECORD_FILE = "process.json"
ENGINE_FILE = "engine.json"
"""As `RECORD_FILE`, of an engine that was started by its own command."""

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
    _write_record(folder / RECORD_FILE, more)


def record_end(folder: Path, more: Mapping[str, Any]) -> None:
    """Keep the record, and take the pid away: it will be another process's."""
    _write_record(folder / RECORD_FILE, more)
    with suppress(FileNotFoundError):
        (folder / PID_FILE).unlink()


class EngineRecord:
    """Keeps in a run's folder that this process trains it, and when Python ends, how that went.

    Of a process that is killed the folder says only that it has begun, which tells as much.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / ENGINE_FILE
        self._begun = {"started": utc_now()}
        self.trained = False
        """Set once the training has come to its end; evaluations and savings may follow."""
        _write_record(self._file, self._begun)
        atexit.register(self._end)

    def _end(self) -> None:
        # What Python has just printed the traceback of; nothing after a plain sys.exit().
        error = getattr(sys, "last_type", None)
        interrupted = error is not None and issubclass(error, KeyboardInterrupt)
        how: dict[str, Any] = {"exit_status": 0 if self.trained else 1, "stopped_by": None}
        if interrupted or (error is None and not self.trained):
            how = {"exit_status": 130, "stopped_by": "SIGINT" if interrupted else "the engine"}
        elif error is not None:
            how = {"exit_status": 1, "stopped_by": None, "error": error.__name__}
        with suppress(OSError):
            _write_record(self._file, {**self._begun, "ended": utc_now(), **how})


def _write_record(file: Path, more: Mapping[str, Any]) -> None:
    identity = {
        "pid": os.getpid(),
        "started_ticks": _started_ticks(os.getpid()),
        "boot": _boot(),
        "host": os.uname().nodename,
    }
    files.write_json(file, {**identity, **more})


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
