"""The hosts file: a node a line, as ssh knows it and, where that differs, as the other nodes know it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tunebook.errors import TunebookError, join_errors

# No leading dash: ssh would take it for an option.
_TARGET = re.compile(r"(?:[A-Za-z0-9_][\w.\-]*@)?[A-Za-z0-9_][\w.\-]*")
_ADDRESS = re.compile(r"[A-Za-z0-9_:][\w.:\-]*")


class Host(NamedTuple):
    """One node."""

    target: str
    """`[user@]host`, or a name from ssh's own configuration."""
    address: str
    """Where other nodes reach it in a joint job."""


def read_hosts(path: Path) -> tuple[Host, ...]:
    """Read a hosts file: `[user@]host [address]` a line; `#` begins a comment.

    Raises:
        TunebookError: It cannot be read, names no host, or a line is no host; all such lines are named.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise TunebookError(f"cannot read {path}: {err}", fix="name a file with a host a line") from err
    hosts, faults = [], []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        target, address = words[0], words[1] if len(words) > 1 else words[0].rpartition("@")[2]
        if len(words) > 2 or not _TARGET.fullmatch(target) or not _ADDRESS.fullmatch(address):
            faults.append(
                TunebookError(
                    f"{path}:{number}: {line.strip()!r} is no host", fix="write `[user@]host [address]`"
                )
            )
        hosts.append(Host(target, address))
    if faults:
        raise join_errors(faults)
    if not hosts:
        raise TunebookError(f"{path} names no host", fix="write a host a line")
    twice = {host.target for host in hosts if [h.target for h in hosts].count(host.target) > 1}
    if twice:
        raise TunebookError(f"{path} names {', '.join(sorted(twice))} twice", fix="name each node once")
    return tuple(hosts)
