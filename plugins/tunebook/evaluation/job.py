"""What `tunebook eval` asks of an engine's process: written by us, read by `hooks.sweep` in that process."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunebook.errors import TunebookError
from tunebook.evaluation.records import Candidate
from tunebook.evaluation.shots import ShotsRequest
from tunebook.files import append_jsonl, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping


Method = Literal["answer", "generate", "perplexity"]

VARIABLE = "TUNEBOOK_EVAL_FILE"
"""Environment variable that names the job's file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalJob:
    """One start of an engine: models, one after another, on all the sets of its recipe."""

    folder: str
    """Where this start leaves its progress, failures and output."""
    candidates: tuple[Candidate, ...]
    journals: Mapping[str, Mapping[str, str]]
    """Subject's label -> set -> folder of its journal."""
    method: Method | None
    """None: what the sets' metrics ask for."""
    batch_size: int | None
    """Rows computed together; None for the recipe's."""
    batch_tokens: int | None
    """Most tokens of a batch: its rows times the longest of them; None for no such limit."""
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


def read_job(path: Path) -> EvalJob:
    """Read what `EvalJob.write` wrote."""
    values = json.loads(path.read_text(encoding="utf-8"))
    candidates = tuple(Candidate(**candidate) for candidate in values.pop("candidates"))
    shard, count = values.pop("shard")
    return EvalJob(candidates=candidates, shard=(shard, count), **values)


def job_of_environment() -> EvalJob | None:
    """The job that this process was started for, if it was."""
    path = os.environ.get(VARIABLE)
    return read_job(Path(path)) if path else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A model that could not be evaluated."""

    label: str
    reason: str


def write_failure(job: EvalJob, failure: Failure) -> None:
    """Write it down for the process that started this one; from any rank."""
    append_jsonl(Path(job.folder) / "failures.jsonl", asdict(failure))


def failures(job: EvalJob) -> list[Failure]:
    """What `write_failure` wrote, each model once."""
    path = Path(job.folder) / "failures.jsonl"
    if not path.is_file():
        return []
    found = [Failure(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    return list({failure.label: failure for failure in reversed(found)}.values())


def write_error(job: EvalJob, error: TunebookError) -> None:
    """Write down, for the process that started this one, that nothing can be done, and what would help."""
    write_json(Path(job.folder) / "error.json", {"problem": error.problem, "fix": error.fix})


def error_of(job: EvalJob) -> TunebookError | None:
    """What `write_error` wrote."""
    path = Path(job.folder) / "error.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return TunebookError(found["problem"], fix=found["fix"])


def write_progress(job: EvalJob, rank: int, progress: Mapping[str, Any]) -> None:
    """Write down how far a rank is: `done`, `total` and `kept` batches; `now`, its model and set."""
    path = Path(job.folder) / f"progress-{rank}.json"
    # Not synced to disk: it is read by a waiting process and worth nothing after a crash.
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(dict(progress)), encoding="utf-8")
    temporary.replace(path)


def progress_of(job: EvalJob) -> list[dict[str, Any]]:
    """What each rank wrote last."""
    found = []
    for path in sorted(Path(job.folder).glob("progress-*.json")):
        try:
            found.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRequest:
    """What a user asks of `tunebook eval`: its command line, read."""

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
    """How to load and ask models that no run of ours made."""
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
    raise TunebookError(f"--shard {text}: is not a share", fix="write I/M with I from 0 to M - 1, e.g. 0/4")
