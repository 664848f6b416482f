"""A split from beginning to end in one process: scan, plan, write, publish."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunebook import files
from tunebook.data.sources import asked_columns
from tunebook.errors import TunebookError
from tunebook.splits.entries import SplitDataset
from tunebook.splits.index import RowIndex
from tunebook.splits.manifest import Names, Outputs, finish, request_of
from tunebook.splits.parquet import scan_parquet, write_parquet
from tunebook.splits.plan import DEFAULT_MEMORY, PartPlan, SplitOptions, write_plan
from tunebook.splits.scan import CountTokens, IndexBuilder, Scanned, scan_text
from tunebook.splits.shuffle import write_shuffled
from tunebook.splits.staging import Staging
from tunebook.splits.write import NO_PROGRESS, Progress, WriteJob, write_in_order

MIN_MEMORY = 96 << 20
"""Bytes; Python, numpy and the buffers take half of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitJob:
    """Everything that a split needs to know."""

    dataset: SplitDataset
    options: SplitOptions
    names: Names
    out: Path
    memory: int = DEFAULT_MEMORY
    """Bytes that shuffling may take, the process itself included."""
    count_tokens: CountTokens | None = None
    progress: Progress = NO_PROGRESS

    @property
    def outputs(self) -> Outputs:
        """Names of what is written."""
        return Outputs(dataset=self.dataset, options=self.options, names=self.names)

    def staging(self, tasks: int = 0) -> Staging:
        """Where it is made."""
        request = request_of(self.dataset, self.options, self.names, self.memory)
        return Staging(out=self.out.absolute(), request=request, tasks=tasks)

    def index_builder(self, index: RowIndex) -> IndexBuilder:
        """What writes the row index of this split, or of a part of its source."""
        return IndexBuilder(
            index,
            self.options,
            columns=self.dataset.columns,
            count_tokens=self.count_tokens,
            asked=asked_columns(self.dataset.values),
        )

    def finished(self, tasks: int = 0) -> dict[str, Any] | None:
        """Return the manifest where exactly this split is finished already, which is said.

        Raises:
            TunebookError: `out` is something else, or the hold-out has the name of another entry.
        """
        manifest = self.staging(tasks).finished()
        if manifest is not None:
            self.progress.say(f"{self.out} holds this very split already")
            return manifest
        # A clash of names is found here, before hours are spent.
        self.outputs.registry(0)
        return None


def preview(job: SplitJob) -> tuple[Scanned, list[PartPlan]]:
    """Scan and plan in a temporary folder; write nothing.

    Raises:
        TunebookError: As `split`, but for space.
    """
    job.staging().finished()
    job.outputs.registry(0)
    with tempfile.TemporaryDirectory(prefix="tunebook-split-") as folder:
        return _scan_and_plan(job, RowIndex(folder=Path(folder)))


def split(job: SplitJob) -> dict[str, Any]:
    """Make the split; return its manifest.

    Raises:
        TunebookError: The data or the request is at fault, or there is no space; nothing is left behind.
    """
    manifest = job.finished()
    if manifest is not None:
        return manifest
    staging = job.staging()
    with staging.opened():
        scanned, plans = _scan_and_plan(job, staging.index)
        check_space(job, plans)
        if job.dataset.sources[0].format == "parquet":
            write = write_parquet
        else:
            write = write_shuffled if job.options.shuffle else write_in_order
        written = write(
            WriteJob(
                sources=job.dataset.sources,
                index=staging.index,
                options=job.options,
                plans=plans,
                paths=job.outputs.part_paths(staging.folder),
                joint=job.outputs.joint_path(staging.folder),
                memory=job.memory,
                progress=job.progress,
            )
        )
        return finish(staging, job.outputs, scanned, plans, written)


def _scan_and_plan(job: SplitJob, index: RowIndex) -> tuple[Scanned, list[PartPlan]]:
    """Read the sources and decide where each row goes; the index is written."""
    sources = job.dataset.sources
    job.progress.stage("reading", sum(source.size for source in sources))
    scan = scan_parquet if sources[0].format == "parquet" else scan_text
    with job.index_builder(index) as builder:
        scanned = scan(sources, job.options, builder, job.progress.on_bytes)
    for note in (*job.dataset.notes, *scanned.notes):
        job.progress.say(note)
    return scanned, write_plan(index, job.options, scanned.rows)


def check_space(job: SplitJob, plans: Sequence[PartPlan]) -> None:
    """Raise unless the disk has room for the parts and the temporary files.

    Raises:
        TunebookError: It has not.
    """
    data = sum(plan.bytes for plan in plans)
    needed = data * (2 if job.names.joint else 1)
    if job.options.shuffle:
        # Buckets shrink as parts grow: beyond the data it takes one bucket, and 12 bytes a row for keys.
        needed += min(data, job.memory) + 12 * sum(plan.rows for plan in plans)
    free = files.free_bytes(job.out)
    if needed > free:
        raise TunebookError(
            f"{job.out.absolute().parent}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free",
            fix="free some space, or choose another --output",
        )
