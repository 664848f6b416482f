"""Runs an engine as a child and sees to it that nothing of it stays behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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
                # Ctrl-C in a terminal goes to its whole foreground group: here it reaches us alone, once.
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
