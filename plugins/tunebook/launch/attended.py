"""Launchers that stay until their nodes have ended: here, and over SSH.

Each node is one command, and none outlives us: it reads standard input until that closes, and then ends its
run (`launch_node.sh --attended`). We hold that input open: it closes when we end, however we end, also on the
other side of an ssh connection, where no signal of ours would arrive.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunebook.errors import TunebookError
from tunebook.launch import Launcher
from tunebook.launch.plan import FREE_PORT, render, write_record
from tunebook.text import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tunebook.launch import StartOptions
    from tunebook.launch.plan import LaunchPlan

END_SECONDS = 30.0
"""How long a node may take to end its run when asked; its own steps take 10 at most, see `processes.run`."""
SSH_FAILED = 255
"""What ssh itself exits with when it cannot connect, or has lost the connection."""

# Never ask: nobody is there to answer. Host keys are checked as ssh's own configuration says, by default
# against known_hosts, where an unknown key ends a BatchMode connection.
_SSH_OPTIONS = (
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    # A connection that has died is noticed after a minute.
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"),
)


class _Local(Launcher):
    """The nodes run here, one after the other by default."""

    def commands(self, plan: LaunchPlan, options: StartOptions) -> list[str]:  # noqa: ARG002
        """Return the command of each node."""
        return [f"bash {plan.folder / 'launch_node.sh'} --attended {rank}" for rank in range(plan.nodes)]

    def start(self, plan: LaunchPlan, options: StartOptions, say: Callable[[str], None]) -> int:
        """Run the nodes of a launch here; a joint one meets on a free port of this machine."""
        meeting = {}
        if plan.joint:
            port = plan.cluster.master_port or _free_port()
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        prefix = ["env", *(f"{name}={value}" for name, value in meeting.items())] if meeting else []
        nodes = [
            Node(
                rank=rank,
                where="here",
                argv=[*prefix, "bash", str(plan.folder / "launch_node.sh"), "--attended", str(rank)],
                output=plan.folder / f"local_node_{rank}.out",
            )
            for rank in range(plan.nodes)
        ]
        return _attend(plan, "local", nodes, options, say, default=1)


class _Ssh(Launcher):
    """The nodes run on the hosts of `--hosts`, all at once by default."""

    needs_hosts = True

    def files(self, plan: LaunchPlan) -> dict[str, str]:
        """Return the script that starts all nodes, and the hosts that it reads."""
        if not plan.hosts:
            return {}
        hosts = "".join(f"{host.target}\n" for host in plan.hosts)
        return {"launch_all_nodes.sh": render("launch_all_nodes.sh", plan), "hosts.txt": hosts}

    def commands(self, plan: LaunchPlan, options: StartOptions) -> list[str]:
        """Return the ssh command of each node."""
        ssh = " ".join(["ssh", *_SSH_OPTIONS, *plan.cluster.ssh])
        starts = LOCAL.commands(plan, options)
        return [
            f"{ssh} -- {host.target} {json.dumps(start)}"
            for host, start in zip(plan.hosts, starts, strict=True)
        ]

    def start(self, plan: LaunchPlan, options: StartOptions, say: Callable[[str], None]) -> int:
        """Run the nodes of a launch on its hosts.

        Raises:
            TunebookError: A joint launch's first host cannot be asked for a free port.
        """
        ssh = [*_SSH_OPTIONS, *plan.cluster.ssh]
        meeting = ""
        if plan.joint:
            port = plan.cluster.master_port or _free_port_of(plan, ssh)
            meeting = f"MASTER_ADDR={shlex.quote(plan.hosts[0].address)} MASTER_PORT={port} "
        nodes = []
        for rank, host in enumerate(plan.hosts):
            # ssh hands the remote shell one string: every word is quoted for it.
            remote = shlex.join(["bash", str(plan.folder / "launch_node.sh"), "--attended", str(rank)])
            nodes.append(
                Node(
                    rank=rank,
                    where=host.target,
                    argv=["ssh", *ssh, "--", host.target, meeting + remote],
                    output=plan.folder / f"ssh_node_{rank}.out",
                )
            )
        return _attend(plan, "ssh", nodes, options, say, default=plan.nodes)


LOCAL, SSH = _Local(), _Ssh()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _free_port_of(plan: LaunchPlan, options: list[str]) -> int:
    first = plan.hosts[0].target
    remote = shlex.join([str(plan.tunebook.parent / "python"), "-c", FREE_PORT])
    done = subprocess.run(
        ["ssh", "-n", *options, "--", first, remote], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0 or not done.stdout.strip().isdigit():
        raise TunebookError(
            f"{first} does not name a free port: {done.stderr.strip() or f'exit status {done.returncode}'}",
            fix=f"see that `ssh {first}` works without a password and has {plan.tunebook.parent}, "
            "or set master_port in cluster.yaml",
        )
    return int(done.stdout)


def _attend(
    plan: LaunchPlan,
    via: str,
    nodes: list[Node],
    options: StartOptions,
    say: Callable[[str], None],
    *,
    default: int,
) -> int:
    """Run all nodes, keep how each went, and return the exit status; `default` nodes at once."""

    def say_state(node: Node) -> None:
        say(f"node {node.rank} ({node.where}): {_words(node)}")

    started = utc_now()
    places = [{"rank": node.rank, "where": node.where} for node in nodes]
    write_record(plan, via, started=started, nodes=places)
    say(f"watch them: tunebook status {plan.output} --watch")
    limit = plan.nodes if plan.joint else options.parallel or plan.cluster.max_parallel or default
    code = 0
    try:
        run_nodes(nodes, limit=limit, fail_fast=options.fail_fast or plan.joint, changed=say_state)
    except Interrupted:
        code = 130
    ends = [
        {**place, "state": node.state, "exit_status": node.status}
        for place, node in zip(places, nodes, strict=True)
    ]
    write_record(plan, via, started=started, nodes=ends, ended=utc_now())
    bad = [node for node in nodes if node.state != "done"]
    for node in bad:
        say(
            f"node {node.rank} ({node.where}): {_words(node)}; "
            f"see {plan.output}/logs/node_{node.rank}.log and {node.output}"
        )
    if not bad:
        say(f"all {len(nodes)} nodes are done")
        runs = str(plan.output) if plan.joint else f"{plan.output}/node_*"
        say(f"next: tunebook report {runs} -o reports/{plan.name}")
    return code or (1 if bad else 0)


def _words(node: Node) -> str:
    return node.state if not node.status else f"{node.state}, exit status {node.status}"


@dataclass(slots=True, kw_only=True)
class Node:
    """One node's command and how it goes."""

    rank: int
    where: str
    """A host, or `here`."""
    argv: Sequence[str]
    output: Path
    """Where what the command itself says goes; the run has its own log."""
    state: str = "waiting"
    """`waiting`, `running`, `done`, `failed`, `stopped`, `unreachable`, `state unknown`, `not started`."""
    status: int | None = None
    """Exit status."""


class Interrupted(BaseException):
    """Ctrl-C, or another stopping signal; raised when all nodes have been ended."""


def run_nodes(nodes: Sequence[Node], *, limit: int, fail_fast: bool, changed: Callable[[Node], None]) -> None:
    """Run all nodes to their end; their states and exit statuses are set.

    Args:
        nodes: What to run.
        limit: How many at once.
        fail_fast: The first failure ends the others.
        changed: Called at each change of a node's state.

    Raises:
        Interrupted: A stopping signal came; every node was ended first, or is `state unknown`.
    """
    if asyncio.run(_run_all(nodes, limit, fail_fast, changed)):
        raise Interrupted


async def _run_all(
    nodes: Sequence[Node], limit: int, fail_fast: bool, changed: Callable[[Node], None]
) -> bool:
    stopping = asyncio.Event()
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupt)
    turn = asyncio.Semaphore(limit)

    async def one(node: Node) -> None:
        async with turn:
            if stopping.is_set():
                _set(node, "not started", changed)
                return
            await _run_one(node, stopping, changed)
            if fail_fast and node.state not in ("done", "stopped"):
                stopping.set()

    await asyncio.gather(*(one(node) for node in nodes))
    return interrupted


async def _run_one(node: Node, stopping: asyncio.Event, changed: Callable[[Node], None]) -> None:
    node.output.parent.mkdir(parents=True, exist_ok=True)
    with node.output.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *node.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            # Ctrl-C in a terminal is only for us: ssh would die of it before the run is ended.
            start_new_session=True,
        )
    _set(node, "running", changed)
    ended = asyncio.ensure_future(process.wait())
    stop = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({ended, stop}, return_when=asyncio.FIRST_COMPLETED)
    asked = not ended.done()
    if asked:
        assert process.stdin is not None
        process.stdin.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(ended), END_SECONDS)
    stop.cancel()
    if not ended.done():
        process.kill()
        await ended
        _set(node, "state unknown", changed)
        return
    node.status = ended.result()
    _set(node, _state(node.status, asked), changed)


def _state(status: int, asked: bool) -> str:
    if status == SSH_FAILED:
        # The run may live on until the other side notices that the connection is lost.
        return "state unknown" if asked else "unreachable"
    if status == 0:
        return "done"
    return "stopped" if asked or status == 128 + signal.SIGUSR1 else "failed"


def _set(node: Node, state: str, changed: Callable[[Node], None]) -> None:
    node.state = state
    changed(node)
