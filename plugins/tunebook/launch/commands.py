"""The command that starts one node: here, or over ssh."""

from __future__ import annotations

import shlex
import socket
import subprocess
from typing import TYPE_CHECKING

from tunebook.errors import TunebookError
from tunebook.launch.nodes import Node
from tunebook.launch.render import FREE_PORT

if TYPE_CHECKING:
    from tunebook.launch.job import Job

# Never ask: nobody is there to answer. Host keys are checked as ssh's own configuration says, by default
# against known_hosts, where an unknown key ends a BatchMode connection.
SSH_OPTIONS = (
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    # A connection that has died is noticed after a minute.
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"),
)


def local_nodes(job: Job) -> list[Node]:
    """Return the nodes of a job that runs here; a joint one meets on a free port of this machine."""
    meeting = {}
    if job.joint:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(job.cluster.master_port or _free_port())}
    prefix = ["env", *(f"{name}={value}" for name, value in meeting.items())] if meeting else []
    return [
        Node(
            rank=rank,
            where="here",
            argv=[*prefix, "bash", str(job.folder / "launch_node.sh"), "--attended", str(rank)],
            output=job.folder / f"local_node_{rank}.out",
        )
        for rank in range(job.nodes)
    ]


def ssh_nodes(job: Job) -> list[Node]:
    """Return the nodes of a job that runs on `job.hosts`.

    Raises:
        TunebookError: A joint job's first host cannot be asked for a free port.
    """
    options = [*SSH_OPTIONS, *job.cluster.ssh]
    meeting = ""
    if job.joint:
        port = job.cluster.master_port or _free_port_of(job, options)
        meeting = f"MASTER_ADDR={shlex.quote(job.hosts[0].address)} MASTER_PORT={port} "
    nodes = []
    for rank, host in enumerate(job.hosts):
        # ssh hands the remote shell one string: every word is quoted for it.
        remote = shlex.join(["bash", str(job.folder / "launch_node.sh"), "--attended", str(rank)])
        nodes.append(
            Node(
                rank=rank,
                where=host.target,
                argv=["ssh", *options, "--", host.target, meeting + remote],
                output=job.folder / f"ssh_node_{rank}.out",
            )
        )
    return nodes


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _free_port_of(job: Job, options: list[str]) -> int:
    first = job.hosts[0].target
    remote = shlex.join([str(job.tunebook.parent / "python"), "-c", FREE_PORT])
    done = subprocess.run(
        ["ssh", "-n", *options, "--", first, remote], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0 or not done.stdout.strip().isdigit():
        raise TunebookError(
            f"{first} does not name a free port: {done.stderr.strip() or f'exit status {done.returncode}'}",
            fix=f"see that `ssh {first}` works without a password and has {job.tunebook.parent}, "
            "or set master_port in cluster.yaml",
        )
    return int(done.stdout)
