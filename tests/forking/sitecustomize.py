"""Lets a start of an engine be made by a process that has imported it already (see fork_server.py).

Engine tests put this folder on PYTHONPATH, so that every Python start below them reads it first. It acts only on
the programs named here, and where the server takes the request; else the start goes on as any other.
"""

# ruff: noqa: PTH109, PTH120, PTH208 - pathlib would cost each of these starts more than all else here
import os
import sys

_PROGRAMS = ("llamafactory-cli", "axolotl", "torchrun")
_MODULES = ("tunebook.hooks.", "axolotl.cli.", "torch.distributed.run")
_SCRIPTS = os.path.realpath(os.path.dirname(__file__) + "/../engines")


def _forked(argv: list[str]) -> bool:
    """Whether this is the start of an engine: its command, a rank of it, or a script of these tests."""
    words = argv[2:] if argv[1:2] == ["-u"] else argv[1:]
    if not words:
        return False
    if words[0] == "-m":
        return words[1].startswith(_MODULES)
    folder, name = os.path.split(os.path.realpath(words[0]))
    if folder == os.path.realpath(sys.prefix + "/bin"):
        return name in _PROGRAMS
    return folder == _SCRIPTS or folder.endswith("/llamafactory")


def _hand_over(address: str) -> None:
    import json
    import signal
    import socket

    # Python opens what it opens for itself not inheritable: these are the streams and what we were given.
    files = [number for number in map(int, os.listdir("/proc/self/fd")) if _inheritable(number)]
    request = {
        "prefix": os.path.realpath(sys.prefix),
        "argv": sys.orig_argv,
        "cwd": os.getcwd(),
        "umask": os.umask(0o22),
        "env": dict(os.environ),
        "files": files,
    }
    os.umask(request["umask"])
    content = json.dumps(request).encode()
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(address)
        socket.send_fds(server, [len(content).to_bytes(4, "big")], files)
        server.sendall(content)
        answers = server.makefile("r")
        child = int(answers.readline())
    except (OSError, ValueError):
        return  # there is no server, or it leaves this one to itself

    def forward(number, _frame):
        os.kill(child, number)

    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
    ):
        signal.signal(number, forward)
    code = int(answers.readline())
    if code < 0:  # ended by a signal: so are we
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _inheritable(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:  # the one that the folder was listed by
        return False


if os.environ.get("TUNEBOOK_FORK_SERVER") and _forked(sys.orig_argv):
    _hand_over(os.environ["TUNEBOOK_FORK_SERVER"])
