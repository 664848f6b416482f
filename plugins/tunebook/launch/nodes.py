"""Runs one command for each node, some at a time, and sees to it that none outlives us.

Each command reads standard input until it closes, and then ends its run (`launch_node.sh --attended`). We
hold that input open: it closes when we end, however we end, also on the other side of an ssh connection,
where no signal of ours would arrive.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

END_SECONDS = 30.0
"""How long a node may take to end its run when asked; its own steps take 10 at most, see `processes.run`."""
SSH_FAILED = 255
"""What ssh itself exits with when it cannot connect, or has lost the connection."""


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
    _process: asyncio.subprocess.Process | None = field(default=None, repr=False)


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
            # Ctrl-C in a terminal is for us alone: ssh would die of it before the run is ended.
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
    _set(node, _how(node.status, asked), changed)


def _how(status: int, asked: bool) -> str:
    if status == SSH_FAILED:
        # Behind a lost connection the run may live on until the other side notices.
        return "state unknown" if asked else "unreachable"
    if status == 0:
        return "done"
    return "stopped" if asked or status == 128 + signal.SIGUSR1 else "failed"


def _set(node: Node, state: str, changed: Callable[[Node], None]) -> None:
    node.state = state
    changed(node)
