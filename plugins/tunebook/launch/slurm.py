"""Submits to SLURM, asks it about jobs, and ends them, through its own commands."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tunebook.errors import TunebookError

_ID = re.compile(r"^(\d+)(;\S+)?$")


def submit(script: Path, *, after: str | None = None) -> str:
    """Submit a script, optionally to start once jobs have ended well, and return the job's id.

    Args:
        script: The rendered file.
        after: Ids of jobs, with colons between.

    Raises:
        TunebookError: There is no SLURM here, or it refuses; with its own words.
    """
    _require("sbatch")
    options = [f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes"] if after else []
    done = subprocess.run(
        ["sbatch", "--parsable", *options, str(script)], capture_output=True, text=True, check=False
    )
    lines = done.stdout.split()
    found = _ID.match(lines[-1]) if lines else None
    if done.returncode != 0 or found is None:
        raise TunebookError(
            f"sbatch refuses {script}: {done.stderr.strip() or done.stdout.strip()}",
            fix="mend cluster.yaml by what it says, or the script itself, and submit that by hand",
        )
    return found[1]


def ask_to_stop(job_id: str) -> None:
    """Have a job's runs write a checkpoint and end, and not be requeued by it; see submit.slurm.

    Raises:
        TunebookError: SLURM refuses.
    """
    _scancel("--batch", "--signal=USR1", job_id)


def cancel(job_id: str) -> None:
    """End a job, waiting or running.

    Raises:
        TunebookError: SLURM refuses.
    """
    _scancel(job_id)


def states(job_id: str) -> dict[str, str]:
    """Return the states of a job's tasks, e.g. `{"7_0": "RUNNING"}`; SLURM forgets ended ones in time."""
    _require("squeue")
    done = subprocess.run(
        ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T", "--jobs", job_id],
        capture_output=True,
        text=True,
        check=False,
    )
    pairs = (line.split() for line in done.stdout.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _scancel(*arguments: str) -> None:
    _require("scancel")
    done = subprocess.run(["scancel", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TunebookError(f"scancel: {done.stderr.strip()}", fix="see `squeue --me`")


def _require(program: str) -> None:
    if shutil.which(program) is None:
        raise TunebookError(
            f"there is no {program} on this machine",
            fix="run this where your SLURM's commands are, such as a login node",
        )
