"""Runs `tunebook eval` on runs that an engine has just made, shared by the tests of both engines."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from engine_cases import OWN_START

TUNEBOOK = Path(sys.executable).parent / "tunebook"

TIMES = {"generation_seconds"}
"""Figures that differ from one evaluation to the next."""


def evaluate(*arguments, code=0, **env):
    """Run the literal `tunebook eval`, and return what it left in its -o folder and what it said."""
    done = subprocess.run(
        [TUNEBOOK, "eval", *map(str, arguments), "--json"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr[-3000:] + done.stdout[-500:]
    return json.loads(done.stdout), done.stderr


def by_label(told: dict) -> dict:
    return {(one["model"]["label"], one["dataset"]): one for one in told["results"]}


def in_training(run: Path, dataset: str, step: int) -> dict[str, float]:
    """The figures that the training itself left of a step."""
    lines = (run / "tunebook" / "eval_metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return next(one["values"] for one in found if (one["dataset"], one["step"]) == (dataset, step))


def files_of(folder: Path) -> dict[str, bytes]:
    """Result files and rankings; not what is kept to go on from."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def records_of(folder: Path, result: dict) -> list[dict]:
    return [json.loads(line) for line in (folder / result["records"]).read_text().splitlines()]


def parts(folder: Path) -> int:
    """Bytes that have been finished so far."""
    return sum(path.stat().st_size for path in folder.glob(".journal/*/part-*.jsonl"))


def kill_within(*arguments, folder: Path, after: int) -> int:
    """Start `tunebook eval`, kill it and its engine once so many more bytes are finished; the bytes finished."""
    before = parts(folder)
    child = subprocess.Popen(
        [TUNEBOOK, "eval", *map(str, arguments)],
        env={**os.environ, **OWN_START},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while parts(folder) < before + after and child.poll() is None:
        time.sleep(0.002)
    running = child.poll() is None
    for pid in [child.pid, *descendants(child.pid)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    child.wait()
    assert running, "it ended before it could be killed: the test says nothing"
    return parts(folder)


def descendants(pid: int) -> list[int]:
    from tunebook.runs.processes import descendants as below

    return below(pid)


def tear(folder: Path, seed: int) -> None:
    """Cut one part in the midst of a line, as a machine that loses its power may."""
    draw = random.Random(seed)
    part = draw.choice(sorted(folder.glob(".journal/*/part-*.jsonl")))
    content = part.read_bytes()
    part.write_bytes(content[: draw.randrange(len(content))])
