import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunebook.runs.processes import descendants, run
from tunebook.types import Command

# A process with a child, whose first thread ends while another goes on: what an engine full of threads
# looks like in the moment it is killed.
FIRST_THREAD_GONE = """
import ctypes, subprocess, threading, time
child = subprocess.Popen(["sleep", "60"])
threading.Thread(target=time.sleep, args=(60,)).start()
print(child.pid, flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_process_whose_first_thread_has_ended_still_counts_and_so_do_its_children():
    others = set(descendants(os.getpid()))  # of tests before this one: a browser's driver, say
    parent = subprocess.Popen([sys.executable, "-c", FIRST_THREAD_GONE], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    try:
        deadline = time.monotonic() + 10
        while " Z " not in Path(f"/proc/{parent.pid}/stat").read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [pid for pid in descendants(os.getpid()) if pid not in others] == [parent.pid, child]
    finally:
        os.kill(child, signal.SIGKILL)
        parent.kill()
        parent.wait()
        parent.stdout.close()


def test_a_process_that_has_ended_does_not_count():
    process = subprocess.Popen(["true"])
    time.sleep(0.2)
    assert process.pid not in descendants(os.getpid())
    process.wait()


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 5", 5), ("kill -15 $$", 143)])
def test_the_exit_status_is_that_of_a_shell(script, code):
    assert run(Command(argv=("sh", "-c", script), env={})) == (code, None)


def test_the_handlers_of_signals_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    run(Command(argv=("true",), env={}))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
