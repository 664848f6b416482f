"""Finds in the last lines of a log what broke a run off: an error, a full card, a signal, the scheduler."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from tunebook.redact import redact
from tunebook.runlog.timeline import PROGRESS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.runlog.records import EndKind

_LONGEST = 600
"""Characters of a line that are shown."""


class EndSign(NamedTuple):
    """What the end of a log says."""

    kind: EndKind
    title: str
    evidence: str
    at: int


_SIZE = r"[\d.]+ ?[KMGT]i?B"
_ASKED = re.compile(rf"[Tt]ried to allocate ({_SIZE})")
_CARD = (
    re.compile(rf"total capacity of (?P<total>{_SIZE}) of which (?P<free>{_SIZE}) is free"),
    re.compile(rf"(?P<total>{_SIZE}) total capacity;.*?(?P<free>{_SIZE}) free"),
)
_MEMORY = re.compile(
    r"^.*(?:(?:CUDA|HIP|XPU|MPS|NPU)(?: backend)?(?: error:)? out of memory|OutOfMemoryError"
    r"|CU(?:BLAS|DNN)_STATUS_ALLOC_FAILED).*$",
    re.MULTILINE,
)
_SIGNS: tuple[tuple[EndKind, str, str], ...] = (
    ("host memory", "out of host memory", r"^.*Detected \d+ oom[-_]kill event.*$"),
    ("host memory", "out of host memory", r"^.*exceeded (?:job )?memory limit.*being killed.*$"),
    ("host memory", "out of host memory", r"^srun: error: .*: Out Of Memory.*$"),
    ("host memory", "out of host memory", r"^.*(?:TERM_MEMLIMIT|OOMKilled\b).*$"),
    ("host memory", "out of host memory", r"^.*DefaultCPUAllocator: .*allocate memory.*$"),
    ("host memory", "a data loader's process was killed", r"^.*DataLoader worker .*is killed by signal.*$"),
    ("time limit", "the job's time limit", r"^.*CANCELLED AT \S+\s+DUE TO TIME LIMIT.*$"),
    ("time limit", "the job's time limit", r"^.*(?:job killed: walltime|TERM_RUNLIMIT).*$"),
    ("preempted", "the job was preempted", r"^.*CANCELLED AT \S+\s+DUE TO (?:PREEMPTION|JOB REQUEUE).*$"),
    ("preempted", "its node failed", r"^.*CANCELLED AT \S+\s+DUE TO NODE.*$"),
    ("cancelled", "the job was cancelled", r"^.*error: \*\*\* (?:JOB|STEP) .*CANCELLED AT .*$"),
    ("stall", "NCCL time-out", r"^.*Watchdog caught collective operation timeout.*$"),
    ("signal", "killed (SIGKILL)", r"^.*(?:\bSIGKILL\b|return code = -9\b|exitcode\s*: -9\b).*$"),
    ("signal", "killed (SIGKILL)", r"^(?:.*: line \d+: +\d+ +|\[\d+\][+-]? *\d* *)?Killed\b.*$"),
    ("signal", "ended by SIGTERM", r"^.*(?:SIGTERM death signal|Process \d+ got signal: 15).*$"),
    ("signal", "crashed (segmentation fault)", r"^.*(?:Segmentation fault|\bSIGSEGV\b).*$"),
    ("signal", "crashed (bus error)", r"^.*(?:\bBus error|\bSIGBUS\b).*$"),
    ("signal", "aborted", r"^.*(?:Aborted \(core dumped\)|\bSIGABRT\b).*$"),
)
_LINES: tuple[tuple[EndKind, str, re.Pattern[str]], ...] = tuple(
    (kind, title, re.compile(line, re.MULTILINE)) for kind, title, line in _SIGNS
)
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)")
_PREFIX = re.compile(r"(?:\[[\w:.-]+\]:? ?|\d+: ?|\S+ \d+ ?: ?)*$")
_EXCEPTION = re.compile(r"(?P<name>[A-Za-z_][\w.]*)(?:: ?(?P<said>.*))?$")
_WRAPPERS = re.compile(
    r"(?:ChildFailedError|CalledProcessError|SystemExit|BrokenPipeError|ProcessExitedException)$"
)
_SECOND = re.compile(
    r"DistBackendError|NCCL communicator was aborted|Connection (?:closed|reset) by peer|recvValue failed"
)
"""What other ranks raise once one of them has failed."""
_INTERRUPTED = re.compile(r"(?:KeyboardInterrupt|SignalException)$")
_LOGGED = re.compile(r"\{'(?:loss|train_loss)'")


def end_sign(tail: bytes) -> EndSign | None:
    """What broke a run off, as the end of its log says; None where nothing does, or it went on afterwards."""
    text = tail.decode("utf-8", "replace")
    if not _anything(text):
        return None
    raised, told = _raised(text)
    signs = (*_signs(text), *raised)
    found = [one for one in signs if not _went_on(text, one.at)]
    for kind in ("memory", "host memory"):
        if (first := next((one for one in found if one.kind == kind), None)) is not None:
            return first
    # A job that hangs after an error runs into its time limit: what comes first is the cause.
    causes = [one for one in found if one.kind in ("error", "time limit", "preempted", "cancelled")]
    if causes:
        return min(causes, key=lambda one: one.at)
    last = [one for kind in ("stall", "signal") for one in found if one.kind == kind]
    last += [one for one in told if not _went_on(text, one.at)]
    return last[0] if last else None


_ANY = re.compile(
    r"Traceback|Error\b|out of memory|error: \*\*\*|oom[-_]kill|SIG[A-Z]{3}|[Kk]illed|Watchdog|fault"
    r"|Bus error|Aborted|TERM_|exitcode|return code"
)


def _anything(text: str) -> bool:
    return _ANY.search(text) is not None


def _signs(text: str) -> Iterator[EndSign]:
    for match in _MEMORY.finditer(text):
        said = _line(match[0])
        yield EndSign(
            "memory", _memory_title(text[match.start() : match.start() + 1500]), said, match.start()
        )
    for kind, title, pattern in _LINES:
        if (line := pattern.search(text)) is not None:
            yield EndSign(kind, title, _line(line[0]), line.start())


def _memory_title(said: str) -> str:
    """`CUDA out of memory: 9.28 GiB asked for, 1.2 GiB free of 23.69 GiB`, as far as it is said."""
    device = re.search(r"(CUDA|HIP|XPU|MPS|NPU)", said)
    title = f"{device[1] if device else 'GPU'} out of memory"
    asked = _ASKED.search(said)
    card = next((match for pattern in _CARD if (match := pattern.search(said))), None)
    parts = [f"{asked[1]} asked for"] if asked else []
    parts += [f"{card['free']} free of {card['total']}"] if card else []
    return f"{title}: {', '.join(parts)}" if parts else title


class _Raised(NamedTuple):
    """Exceptions: the one that ended the program, and one that only tells of another process's end."""

    own: list[EndSign]
    told: list[EndSign]


def _raised(text: str) -> _Raised:
    found: list[EndSign] = []
    rest: list[EndSign] = []
    for header in _TRACEBACK.finditer(text):
        line = _exception(text, header.start())
        if line is None:
            continue
        match = _EXCEPTION.match(line)
        assert match is not None
        name = match["name"].rsplit(".", 1)[-1]
        if _INTERRUPTED.search(name):
            found.append(EndSign("cancelled", "stopped by hand or by a signal", _line(line), header.start()))
        elif _WRAPPERS.search(name) or _SECOND.search(line):
            rest.append(EndSign("error", name, _line(line), header.start()))
        else:
            found.append(EndSign("error", name, _line(line), header.start()))
    # A chain of exceptions ends in the one that was not caught.
    return _Raised(found[-1:], rest[-1:])


def _exception(text: str, at: int) -> str | None:
    """The line that names the exception, and what it says, of the traceback that begins at a place."""
    begun = max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1
    prefix = text[begun:at]
    boxed = "╭" in prefix or "─" in prefix
    prefix = "" if boxed or not _PREFIX.fullmatch(prefix) else prefix
    lines = text[text.find("\n", at) + 1 :].splitlines() if "\n" in text[at:] else []
    for place, line in enumerate(lines[:400]):
        own = line.removeprefix(prefix) if prefix else line
        if boxed and own.lstrip().startswith(("│", "╰", "╭", "|")):
            continue
        if not own.strip() or own[0].isspace():
            continue
        match = _EXCEPTION.match(own)
        if match is None:
            continue
        more = [one.removeprefix(prefix).strip() for one in lines[place + 1 : place + 4]]
        said = match["said"] or ""
        # Some messages begin on the next line.
        return (
            own if said.strip() or match["name"].endswith("Interrupt") else f"{own} {' '.join(more)}".strip()
        )
    return None


def _went_on(text: str, at: int) -> bool:
    """Whether training went on after a place: its bar moved on, or entries stand on both sides of it.

    Python writes the entries of a killed process late, all after its error: those alone say nothing.
    """
    before, after = _last_bar(text[:at]), _last_bar(text[at:])
    if before is not None and after is not None:
        return after > before + 1
    logged = _LOGGED.search(text[at:]) is not None
    return logged and _LOGGED.search(text[:at]) is not None


def _last_bar(text: str) -> int | None:
    done = None
    for bar in PROGRESS.finditer(text.encode()):
        if bar["label"] is None:
            done = int(bar["done"])
    return done


def _line(text: str) -> str:
    """One line as it is shown: without bars before it, cut, and without secrets."""
    text = " ".join(text.rsplit("\r", 1)[-1].split())
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    shown: str = redact(text)
    return shown
