"""What tunebook costs where it is always paid: in `tunebook --help`, and in every Python start by its hook.

Prints CPU time (user + system, of the child process) beside the peer of the same run, `python -c pass`, and
the ratio. Times are the least of several runs, since other work on the machine only adds.

Example:
  python benchmarks/startup.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import tunebook
from tunebook import paths

RUNS = 15

# The line that `site` executes in every Python start, timed alone: the whole start varies by more.
HOOK = """
import sys, time
from pathlib import Path
sys.path[:0] = [{package!r}]
line = Path({hook!r}).read_text()
started = time.process_time()
exec(line)
print(time.process_time() - started)
"""


def cpu_seconds(argv: list[str]) -> float:
    """CPU time of one process: the least of `RUNS`."""
    least = float("inf")
    for _ in range(RUNS):
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{argv} failed")
        least = min(least, usage.ru_utime + usage.ru_stime)
    return least


def hook_seconds() -> float:
    """CPU time of the hook's own line in a fresh interpreter: the least of `RUNS`."""
    hook = Path(sysconfig.get_path("purelib")) / paths.HOOK_FILE
    script = HOOK.format(package=str(Path(tunebook.__file__).parents[1]), hook=str(hook))
    return min(
        float(subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, check=True).stdout)
        for _ in range(RUNS)
    )


def main() -> None:
    command = str(Path(sys.executable).with_name("tunebook"))
    python = cpu_seconds([sys.executable, "-c", "pass"])
    rows = [
        ("python -c pass", python),
        ("  of it the hook", hook_seconds()),
        ("tunebook --help", cpu_seconds([command, "--help"])),
        ("tunebook ls --help", cpu_seconds([command, "ls", "--help"])),
        ("tunebook train --help", cpu_seconds([command, "train", "--help"])),
    ]
    print(f"{'command':24} {'CPU':>9} {'/ python -c pass':>17}")
    for name, seconds in rows:
        print(f"{name:24} {seconds * 1000:6.1f} ms {seconds / python:16.2f}x")


if __name__ == "__main__":
    main()
