"""The real `tunebook infer` and `tunebook verify`, for the tests of both engines."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from engine_cases import OWN_START


def tunebook(*words, code=0) -> str:
    """Run the command; return its stdout."""
    command = [Path(sys.executable).parent / "tunebook", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, (done.stdout[-1500:], done.stderr[-1500:])
    return done.stdout


def verify(*words, code) -> dict:
    """What `tunebook verify --json` says, with the findings by check."""
    found = json.loads(tunebook("verify", *words, "--json", code=code))
    found["findings"] = {one["check"]: one for one in found["findings"]}
    return found


def differing(found) -> set[str]:
    return {check for check, one in found["findings"].items() if one["level"] == "differs"}


def rows_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def kill_after_some_rows(*words, part: Path) -> int:
    """Kill the command as soon as it has written an answer; return the whole answers that it left."""
    command = [Path(sys.executable).parent / "tunebook", *words]
    process = subprocess.Popen(
        command,
        env={**os.environ, **OWN_START},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)  # its child is sent a signal by the kernel
    return part.read_bytes().count(b"\n")
