"""What the process of an engine is told to evaluate: written by us, read by `hooks.sweep` in that process."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunebook.errors import TunebookError
from tunebook.evaluation.records import Subject
from tunebook.evaluation.shots import ShotsRequest
from tunebook.files import append_jsonl, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping


Method = Literal["answer", "generate", "perplexity"]

VARIABLE = "TUNEBOOK_EVAL_FILE"
"""Environment variable that names the job's file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One start of an engine: models, one after another, on all the sets of its recipe."""

    folder: str
    """Where this start leaves its progress, failures and output."""
    subjects: tuple[Subject, ...]
    journals: Mapping[str, Mapping[str, str]]
    """Subject's label -> set -> folder of its journal."""
    method: Method | None
    """None: what the sets' metrics ask for."""
    batch_size: int | None
    """Rows computed together; None for the recipe's."""
    batch_tokens: int | None
    """Rows times the longest of them, at most; None for no such limit."""
    max_samples: int | None
    """Rows of a fixed, seeded subset; None for all."""
    cache_on_host: bool = False
    """Generation keeps its keys and values in host memory."""
    device_map: str | None = None
    """`auto`: one process spreads the model over all GPUs. None: a whole model for each process."""
    shard: tuple[int, int] = (0, 1)
    """This start's share of the batches: which, and of how many."""

    @property
    def path(self) -> Path:
        """The job's file."""
        return Path(self.folder) / "job.json"

    def write(self) -> None:
        """Write the file, and remove what an earlier start of the same job left to read."""
        folder = Path(self.folder)
        for old in (*folder.glob("progress-*.json"), folder / "error.json", folder / "failures.jsonl"):
            old.unlink(missing_ok=True)
        write_json(self.path, asdict(self))


def read_job(path: Path) -> Job:
    """Read what `Job.write` wrote."""
    values = json.loads(path.read_text(encoding="utf-8"))
    subjects = tuple(Subject(**subject) for subject in values.pop("subjects"))
    shard, count = values.pop("shard")
    return Job(subjects=subjects, shard=(shard, count), **values)


def job_of_environment() -> Job | None:
    """The job that this process was started for, if it was."""
    path = os.environ.get(VARIABLE)
    return read_job(Path(path)) if path else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A model that could not be evaluated."""

    label: str
    reason: str


def leave_failure(job: Job, failure: Failure) -> None:
    """Tell whoever started this process; from any rank."""
    append_jsonl(Path(job.folder) / "failures.jsonl", asdict(failure))


def failures(job: Job) -> list[Failure]:
    """What `leave_failure` was told, each model once."""
    path = Path(job.folder) / "failures.jsonl"
    if not path.is_file():
        return []
    found = [Failure(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    return list({failure.label: failure for failure in reversed(found)}.values())


def leave_error(job: Job, error: TunebookError) -> None:
    """Tell whoever started this process that it cannot do anything, and what would help."""
    write_json(Path(job.folder) / "error.json", {"problem": error.problem, "fix": error.fix})


def error_of(job: Job) -> TunebookError | None:
    """What `leave_error` was told."""
    path = Path(job.folder) / "error.json"
    if not path.is_file():
        return None
    told = json.loads(path.read_text(encoding="utf-8"))
    return TunebookError(told["problem"], fix=told["fix"])


def leave_progress(job: Job, rank: int, progress: Mapping[str, Any]) -> None:
    """Say how far one rank is: `done`, `total` and `kept` batches, and `now`, the model and set at work."""
    path = Path(job.folder) / f"progress-{rank}.json"
    # Not synced to disk: it is read by a waiting process and worth nothing after a crash.
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(dict(progress)), encoding="utf-8")
    temporary.replace(path)


def progress_of(job: Job) -> list[dict[str, Any]]:
    """What each rank said last."""
    found = []
    for path in sorted(Path(job.folder).glob("progress-*.json")):
        try:
            found.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return found


# What a user asks `tunebook eval` for.


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The command line, read."""

    models: tuple[str, ...]
    """Runs, `RUN@STEP`, checkpoints, or models."""
    output: Path
    checkpoints: str = "best"
    """`best`, `last`, `all`, or steps with commas between."""
    base: bool = False
    """Evaluate what the runs were trained from, too."""
    datasets: tuple[str, ...] = ()
    """Registry entries; empty for each recipe's own."""
    recipe: str | None = None
    """Of models that no run left: how they are to be loaded and asked."""
    overrides: tuple[str, ...] = ()
    method: Method | None = None
    batch_size: int | None = None
    batch_tokens: int | None = None
    cache_on_host: bool = False
    device_map: str | None = None
    max_samples: int | None = None
    shard: tuple[int, int] = (0, 1)
    shots: ShotsRequest | None = None
    """Examples before each question."""


def parse_shard(text: str) -> tuple[int, int]:
    """Read `I/M`.

    >>> parse_shard("0/4")
    (0, 4)

    Raises:
        TunebookError: It has another form, or I is not below M.
    """
    number, slash, count = text.partition("/")
    if slash and number.isdigit() and count.isdigit() and int(number) < int(count):
        return int(number), int(count)
    raise TunebookError(f"--shard {text}: is no share", fix="write I/M with I from 0 to M - 1, e.g. 0/4")
