"""`cluster.yaml`: a site's settings, for every recipe; and the hosts file."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tunebook.errors import TunebookError, join_errors

# An `#SBATCH` line is read by sbatch, not by a shell: nothing can be quoted there, and a newline would begin
# a line of the script.
_DIRECTIVE = re.compile(r"[\w.,:/=%@+\-\[\]&|*()]+")
_TIME = re.compile(r"(\d+-)?\d+(:\d+){0,2}")
_HOST = re.compile(r"[A-Za-z0-9]([\w.\-]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The keys of `cluster.yaml`; all may be left out."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str | None = None
    """As sbatch's `--time`: minutes, or [days-]hours:minutes:seconds."""
    gres: str | None = None
    """For each node, e.g. `gpu:4`."""
    gpus_per_node: int | None = None
    """Processes of torchrun on a node; by default what nvidia-smi counts there."""
    constraint: str | None = None
    cpus_per_task: int | None = None
    mem: str | None = None
    """For each node, e.g. `500G`; `0` is all of it."""
    exclusive: bool = False
    max_parallel: int | None = None
    """How many nodes may run at once; by default all."""
    signal_seconds: int = 300
    """A run is asked for its checkpoint this long before the time limit."""
    requeue: bool = True
    """Whether a job that reached its time limit is put back into the queue."""
    sbatch: tuple[str, ...] = ()
    """Further options of sbatch, one each, e.g. `--mail-type=END`."""
    container: str | None = None
    """Image for `srun --container-image` (pyxis)."""
    container_mounts: str | None = None
    modules: tuple[str, ...] = ()
    setup: str = ""
    """Shell lines that every node runs first, e.g. `source /shared/venv/bin/activate`."""
    command: tuple[str, ...] = ()
    """What starts tunebook on a node, e.g. `[apptainer, exec, --nv, /shared/image.sif, tunebook]`; by default
    the command that rendered the files, by its absolute path."""
    interface: str | None = None
    """Network interface for NCCL and gloo, e.g. `eth0`; needed where host names resolve to 127.0.1.1."""
    master_port: int | None = None
    """Of a joint job; by default a free one of the first node."""
    ssh: tuple[str, ...] = ()
    """Further options of ssh, one each, e.g. `-oProxyJump=login`."""


_DIRECTIVES = ("partition", "account", "qos", "gres", "constraint", "mem")


def read_cluster(path: Path | None) -> Cluster:
    """Read `cluster.yaml`; without a path, every key has its default.

    Raises:
        TunebookError: It cannot be read, or a key or value is wrong; all faults are named.
    """
    if path is None:
        return Cluster()
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise TunebookError(f"cannot read {path}: {err.strerror}", fix="name your cluster.yaml") from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise TunebookError(
            f"{path}: is not YAML: {str(err).splitlines()[0]}", fix="correct the line"
        ) from err
    if values is None:
        return Cluster()
    if not isinstance(values, dict):
        raise TunebookError(f"{path}: must hold keys and values", fix="see docs/launch.md for the keys")
    faults = list(_faults(path, values))
    if faults:
        raise join_errors(faults)
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return Cluster(**{**values, **lists})


def _faults(path: Path, values: dict[Any, Any]) -> list[TunebookError]:
    known = {field.name: str(field.type) for field in fields(Cluster)}
    faults = []
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            fix = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
            faults.append(TunebookError(f"{path}: {key}: no such key", fix=fix))
            continue
        problem = _problem(key, value, known[key])
        if problem:
            faults.append(TunebookError(f"{path}: {key}: {value!r} {problem[0]}", fix=problem[1]))
    return faults


def _problem(key: str, value: Any, kind: str) -> tuple[str, str] | None:
    """What is wrong with a value, and its fix."""
    if value is None and "None" in kind:
        return None
    if kind.startswith("tuple"):
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            return "is not a list of texts", f"write `{key}: [...]`"
        if key == "sbatch" and not all(
            part.startswith("--") and _DIRECTIVE.fullmatch(part) for part in value
        ):
            return (
                "holds something that is not an option of sbatch",
                "write each as --name=value, without spaces or quotes",
            )
        if key == "modules" and not all(_DIRECTIVE.fullmatch(part) for part in value):
            return "holds something that is not a module's name", "write names such as cuda/12.4"
        return None
    if kind.startswith("bool"):
        return None if isinstance(value, bool) else ("is neither true nor false", "write true or false")
    if kind.startswith("int"):
        good = isinstance(value, int) and not isinstance(value, bool) and value > 0
        return None if good else ("is not a whole number above 0", "write a number such as 4")
    if not isinstance(value, str):
        # YAML reads 24:00:00 as a number of base 60.
        return "is not a text", f'put it in quotes: {key}: "..."'
    if key == "time" and not _TIME.fullmatch(value):
        return "is not a time limit", 'write "24:00:00" or "2-12:00:00"'
    if key in _DIRECTIVES and not _DIRECTIVE.fullmatch(value):
        return "cannot be written into a line for sbatch", "leave out spaces, quotes and line ends"
    if key == "interface" and not _HOST.fullmatch(value):
        return "is not a network interface", "see `ip link` for their names"
    return None


# The hosts file: one node per line, as ssh knows it and, where that differs, as the other nodes know it.

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
    """Read a hosts file: `[user@]host [address]`, one per line; `#` begins a comment.

    Raises:
        TunebookError: It cannot be read, names no host, or has lines that are not hosts; all are named.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise TunebookError(f"cannot read {path}: {err}", fix="name a file with one host per line") from err
    hosts, faults = [], []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        target, address = words[0], words[1] if len(words) > 1 else words[0].rpartition("@")[2]
        if len(words) > 2 or not _TARGET.fullmatch(target) or not _ADDRESS.fullmatch(address):
            faults.append(
                TunebookError(
                    f"{path}:{number}: {line.strip()!r} is not a host", fix="write `[user@]host [address]`"
                )
            )
        hosts.append(Host(target, address))
    if faults:
        raise join_errors(faults)
    if not hosts:
        raise TunebookError(f"{path} names no host", fix="write one host per line")
    twice = {host.target for host in hosts if [h.target for h in hosts].count(host.target) > 1}
    if twice:
        raise TunebookError(f"{path} names {', '.join(sorted(twice))} twice", fix="name each node once")
    return tuple(hosts)
