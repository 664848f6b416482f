"""The launcher of SLURM: submits, asks about jobs, and ends them, through SLURM's own commands."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.launch import Launcher
from tunebook.launch.plan import FOLDER, render, write_record
from tunebook.text import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tunebook.launch import StartOptions
    from tunebook.launch.plan import LaunchPlan

_ID = re.compile(r"^(\d+)(;\S+)?$")


class _Slurm(Launcher):
    """The nodes are an array job, or one job over all."""

    has_queue = True

    def files(self, plan: LaunchPlan) -> dict[str, str]:
        """Return the job script."""
        return {"submit.slurm": render("submit.slurm", plan)}

    def commands(self, plan: LaunchPlan, options: StartOptions) -> list[str]:
        """Return the command that submits."""
        return [" ".join(["sbatch", "--parsable", *_dependency(options.after), str(_script(plan))])]

    def start(self, plan: LaunchPlan, options: StartOptions, say: Callable[[str], None]) -> int:
        """Submit the launch as one job, and return at once.

        Raises:
            TunebookError: There is no SLURM here, or it refuses.
        """
        (plan.folder / _NO_REQUEUE).unlink(missing_ok=True)
        job_id = submit(_script(plan), after=options.after)
        write_record(plan, "slurm", started=utc_now(), job_id=job_id)
        say(f"submitted as job {job_id}")
        say(f"watch it: tunebook status {plan.output} --watch, or squeue --jobs {job_id}")
        say(f"end it: tunebook stop {plan.output}")
        return 0

    def stop(self, run: Path, record: Mapping[str, Any], *, now: bool, dry_run: bool) -> str:
        """Cancel the tasks that wait, and ask the others for a checkpoint.

        Raises:
            TunebookError: SLURM refuses.
        """
        job_id = str(record["job_id"])
        if dry_run:
            return f"would stop job {job_id} of SLURM"
        # Without this file a job that was asked to stop goes back into the queue, as before its time limit.
        (run / FOLDER / _NO_REQUEUE).touch()
        for task, state in states(job_id).items():
            if state == "PENDING":
                _scancel(task)
        if now:
            _scancel(job_id)
            return f"{run}: cancelled job {job_id}"
        _scancel("--batch", "--signal=USR1", job_id)
        return f"{run}: asked job {job_id} for a checkpoint; see `tunebook status {run}`"


SLURM = _Slurm()

_NO_REQUEUE = "no_requeue"
"""Below the launch's folder; submit.slurm looks for it."""


def _script(plan: LaunchPlan) -> Path:
    return plan.folder / "submit.slurm"


def _dependency(after: str | None) -> list[str]:
    return [f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes"] if after else []


def submit(script: Path, *, after: str | None = None) -> str:
    """Submit a script, optionally to start once jobs have ended well, and return the job's id.

    Args:
        script: The rendered file.
        after: Ids of jobs, with colons between.

    Raises:
        TunebookError: There is no SLURM here, or it refuses; with its own words.
    """
    _require("sbatch")
    argv = ["sbatch", "--parsable", *_dependency(after), str(script)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    lines = done.stdout.split()
    found = _ID.match(lines[-1]) if lines else None
    if done.returncode != 0 or found is None:
        raise TunebookError(
            f"sbatch refuses {script}: {done.stderr.strip() or done.stdout.strip()}",
            fix="correct cluster.yaml by what it says, or the script itself, and submit that by hand",
        )
    return found[1]


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
