"""A split from beginning to end in one process: scan, plan, write, publish."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunebook import files
from tunebook.errors import TunebookError
from tunebook.splits.entries import Subject
from tunebook.splits.outputs import Names, Outputs, finish, request_of
from tunebook.splits.parquet_split import scan_parquet, write_parquet
from tunebook.splits.parts import State
from tunebook.splits.plan import DEFAULT_MEMORY, PartPlan, SplitOptions, write_plan
from tunebook.splits.scan import CountTokens, Scanned, scan_sources
from tunebook.splits.spans import Tapes
from tunebook.splits.workshop import Workshop
from tunebook.splits.writing import SILENT, Listener, TextWriter

MIN_MEMORY = 96 << 20
"""Bytes; Python, numpy and the buffers take half of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that a split needs to know."""

    subject: Subject
    options: SplitOptions
    names: Names
    out: Path
    memory: int = DEFAULT_MEMORY
    """Bytes that shuffling may take, the process itself included."""
    count_tokens: CountTokens | None = None
    listener: Listener = SILENT

    @property
    def outputs(self) -> Outputs:
        """Names of what is written."""
        return Outputs(subject=self.subject, options=self.options, names=self.names)

    def workshop(self, tasks: int = 0) -> Workshop:
        """Where it is made."""
        request = request_of(self.subject, self.options, self.names, self.memory)
        return Workshop(out=self.out.absolute(), request=request, tasks=tasks)


def preview(job: Job) -> tuple[Scanned, list[PartPlan]]:
    """Scan and plan in a temporary folder; write nothing.

    Raises:
        TunebookError: As `split`, but for space.
    """
    job.workshop().finished()
    check_names(job)
    with tempfile.TemporaryDirectory(prefix="tunebook-split-") as folder:
        return scan_and_plan(job, Tapes(folder=Path(folder)))


def split(job: Job) -> dict[str, Any]:
    """Make the split; return its manifest.

    Raises:
        TunebookError: The data or the request is at fault, or there is no space; nothing is left behind.
    """
    workshop = job.workshop()
    manifest = workshop.finished()
    if manifest is not None:
        job.listener.say(f"{job.out} holds this very split already")
        return manifest
    check_names(job)
    with workshop.opened():
        scanned, plans = scan_and_plan(job, workshop.tapes)
        check_space(job, plans)
        states, joint = _write(job, workshop, plans)
        return finish(workshop, job.outputs, scanned, plans, states, joint)


def scan_and_plan(job: Job, tapes: Tapes) -> tuple[Scanned, list[PartPlan]]:
    """Read the sources and decide where each row goes; the tapes are written."""
    sources = job.subject.sources
    job.listener.stage("reading", sum(source.size for source in sources))
    scan = scan_parquet if sources[0].format == "parquet" else scan_sources
    scanned = scan(
        sources,
        job.options,
        tapes,
        columns=job.subject.columns,
        count_tokens=job.count_tokens,
        on_bytes=job.listener.on_bytes,
    )
    for note in (*job.subject.notes, *scanned.notes):
        job.listener.say(note)
    return scanned, write_plan(tapes, job.options, scanned.rows)


def check_space(job: Job, plans: Sequence[PartPlan]) -> None:
    """Raise unless the disk has room for the parts and what is needed meanwhile.

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


def check_names(job: Job) -> None:
    """Find a clash of names before hours are spent.

    Raises:
        TunebookError: The hold-out has the name of another entry.
    """
    job.outputs.registry(0)


def _write(job: Job, workshop: Workshop, plans: Sequence[PartPlan]) -> tuple[list[State], State | None]:
    if job.subject.sources[0].format == "parquet":
        return write_parquet(
            job.subject.sources,
            workshop.tapes,
            job.options,
            plans,
            paths=job.outputs.part_paths(workshop.folder),
            joint=job.outputs.joint_path(workshop.folder),
            memory=job.memory,
            stage=job.listener.stage,
            on_bytes=job.listener.on_bytes,
        )
    with TextWriter(job.outputs, workshop, plans, memory=job.memory, listener=job.listener) as writer:
        return writer.shuffled() if job.options.shuffle else writer.in_order()
