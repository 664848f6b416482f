"""Imports an engine once, then forks a process for every start of it that is asked for.

An import takes as long as a tiny training, so the tests of an engine make most of their starts here. The command
that a test gives goes up to its first own line (sitecustomize.py); it hands over its words, folder,
environment and open files, and waits. What runs then is the same program, from its own first line on.

A start is left to itself where its environment differs in a variable that was read during the import.

Usage: python -c 'from fork_server import main; main()' SOCKET_FD ENGINE. Ends when its stdin is closed.
"""

import fcntl
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import ClassVar, NamedTuple

from tunebook.hooks import startup

MODULES = {
    "llamafactory": ("llamafactory.train.tuner", "tunebook.hooks.attach", "bitsandbytes", "deepspeed"),
    "axolotl": (
        "axolotl.cli.main",
        "axolotl.cli.train",
        "axolotl.cli.config",
        "axolotl.common.datasets",
        "axolotl.core.builders",
        "axolotl.prompt_strategies.chat_template",
        "axolotl.train",
        "axolotl.utils.schemas.config",
        "tunebook.hooks.axolotl",
        "tunebook.hooks.axolotl_alpaca",
        "transformers.trainer",
    ),
}
MORE_MODULES = (  # of both, which they import once they train
    "torch._inductor.compile_fx",
    "torch.distributed.run",
    "tunebook.metrics.gsm8k",
    "tunebook.metrics.yes_no",
    "transformers.models.qwen3.modeling_qwen3",
)
READ_OTHERWISE = (
    *("CUDA_", "GLOO_", "KMP_", "LD_", "MALLOC_", "MKL_", "NCCL_", "OMP_", "OPENBLAS_"),  # by C libraries
    *("PYTHON", "TUNEBOOK_HOOK"),  # before the import
)
READ_FOR_NOTHING = {"COLUMNS", "LINES"}
"""Python's readline sets them to the size of the terminal."""
BOUND_LATE = "transformers.trainer"
"""What our hooks bind to it depends on the environment, so that is done after the fork."""
OWN_THREADS = {"jemalloc_bg_thd"}
"""Of PyArrow's allocator, which sees to forks itself."""


class Request(NamedTuple):
    """A start that a client asks for."""

    prefix: str
    argv: list[str]
    cwd: str
    umask: int
    env: dict[str, str]
    files: list[int]
    """The numbers of its open files."""
    received: list[int]
    """Their numbers in this process."""

    @property
    def words(self) -> list[str]:
        """The program and its arguments."""
        return self.argv[2:] if self.argv[1] == "-u" else self.argv[1:]


class RemembersReading(type(os.environ)):
    """The environment of a process; its variables that somebody has asked for by name."""

    names: ClassVar[set[str]] = set()

    def __getitem__(self, name):
        if sys._getframe(1).f_code.co_name != "__iter__":  # who lists them all asks for none
            self.names.add(name)
        return super().__getitem__(name)

    def __contains__(self, name):
        self.names.add(name)
        return super().__contains__(name)


def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    del sys.path[0], sys.modules["__main__"].main  # of this start
    before = dict(os.environ)
    ours, bind = startup._BINDINGS.pop(BOUND_LATE)
    os.environ.__class__ = RemembersReading
    for module in (*MODULES[sys.argv[2]], *MORE_MODULES):
        importlib.import_module(module)
    list(sys.modules["transformers"].MODEL_FOR_CAUSAL_LM_MAPPING)  # each model's configuration
    os.environ.__class__ = RemembersReading.__base__
    changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
    threads = [Path(task, "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    assert len(set(threads) - OWN_THREADS) == 1, f"a process with threads is not to be forked: {threads}"
    gc.collect()
    gc.freeze()
    request = Server(listener, before, RemembersReading.names).serve()
    become(request, changed)
    getattr(importlib.import_module(ours), bind)(sys.modules[BOUND_LATE])
    sys.modules["numpy"].random.seed()  # as at a start; Python's own generator sees to itself
    run(request.words)


class Server:
    """Forks a child for each client, and tells it how the child has ended. One thread: a fork keeps no other."""

    def __init__(self, listener: socket.socket, environment: dict[str, str], read: set[str]) -> None:
        self.environment = environment
        self.read = read
        self.children: dict[socket.socket, int] = {}  # of clients that wait
        self.selector = selectors.DefaultSelector()
        self.selector.register(sys.stdin, selectors.EVENT_READ, self._end)
        self.selector.register(listener, selectors.EVENT_READ, partial(self._answer, listener))

    def serve(self) -> Request:
        """Answer for ever; returns in each child, with what it is to run."""
        while True:
            for key, _ in self.selector.select():
                if (request := key.data()) is not None:
                    return request

    def _end(self) -> None:
        for child in self.children.values():
            os.kill(child, signal.SIGKILL)
        os._exit(0)

    def _answer(self, listener: socket.socket) -> Request | None:
        client, _ = listener.accept()
        request = receive(client)
        before, after, theirs = self.environment, os.environ, request.env
        different = [
            name
            for name in sorted({*before, *theirs} - READ_FOR_NOTHING)
            if (name in self.read or name.startswith(READ_OTHERWISE))
            # An import may also have set it to what they have.
            and theirs.get(name) not in (before.get(name), after.get(name))
        ]
        taken = not different and request.prefix == os.path.realpath(sys.prefix)
        child = os.fork() if taken else None
        if child == 0:
            return request
        for number in request.received:
            os.close(number)
        print("forked" if taken else f"not taken {different}", request.words, file=sys.stderr, flush=True)
        if child is None:
            client.close()
            return None
        send(client, child)
        self.children[client] = child
        process = os.pidfd_open(child)
        self.selector.register(client, selectors.EVENT_READ, partial(self._gone, client))
        self.selector.register(process, selectors.EVENT_READ, partial(self._ended, client, process))
        return None

    def _gone(self, client: socket.socket) -> None:
        """End the child of a client that was killed."""
        if client in self.children:
            os.kill(self.children[client], signal.SIGKILL)
            self.selector.unregister(client)

    def _ended(self, client: socket.socket, process: int) -> None:
        _, status = os.waitpid(self.children.pop(client), 0)
        self.selector.unregister(process)
        os.close(process)
        if client in self.selector.get_map():
            self.selector.unregister(client)
            send(client, os.waitstatus_to_exitcode(status))
        client.close()


def receive(client: socket.socket) -> Request:
    """Read what a client asks for, and take its files over."""
    size, received, _, _ = socket.recv_fds(client, 4, 64, socket.MSG_CMSG_CLOEXEC)
    content = client.makefile("rb").read(int.from_bytes(size, "big"))
    return Request(**json.loads(content), received=received)


def send(client: socket.socket, number: int) -> None:
    with suppress(BrokenPipeError):  # it has just been killed
        client.sendall(b"%d\n" % number)


def become(request: Request, changed: dict[str, str]) -> None:
    """Take over the files, folder and environment of the client.

    Args:
        request: What it is.
        changed: Variables that the import has set: it would have done so there.
    """
    # First out of the way: one may have come under the number that another is to get.
    received = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 500) for number in request.received]
    for number, wanted in zip(received, request.files, strict=True):
        os.dup2(number, wanted)
        os.close(number)
    unbuffered = request.argv[1] == "-u" or bool(request.env.get("PYTHONUNBUFFERED"))
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty(), write_through=unbuffered)
    sys.stderr.reconfigure(write_through=unbuffered)
    os.chdir(request.cwd)
    os.umask(request.umask)
    os.environ.clear()
    os.environ.update(request.env | changed)
    sys.orig_argv[:] = request.argv


def run(words: list[str]) -> None:
    """Run `-m MODULE ARGUMENT...` or `SCRIPT ARGUMENT...` as Python runs it."""
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, str(Path.cwd()))
        runpy._run_module_as_main(words[1])
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        started = sys.modules["__main__"]
        started.__file__ = words[0]
        started.__loader__ = SourceFileLoader("__main__", words[0])
        exec(started.__loader__.get_code("__main__"), vars(started))
