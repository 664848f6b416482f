"""A split done by a job array: each task scans and writes one range of bytes, a last step joins the pieces.

Tasks share the hidden folder on a shared file system and wait for nobody: what another task has not
published yet, a task works out for itself. The result is that of one process, byte for byte.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tunebook import files
from tunebook.errors import TunebookError
from tunebook.splits.assign import EVAL
from tunebook.splits.checks import BadRow, Checks
from tunebook.splits.csv_rows import NotRfc4180
from tunebook.splits.index import Block, RowIndex, keep_freed_memory
from tunebook.splits.manifest import finish
from tunebook.splits.plan import PartPlan, write_plan
from tunebook.splits.rows import header_block, read_from
from tunebook.splits.run import SplitJob, check_space
from tunebook.splits.scan import Scanned, Where, checks_for, parse_rows
from tunebook.splits.sources import SourceFile, check_unchanged, hash_file
from tunebook.splits.write import (
    PartWriter,
    Written,
    WrittenParts,
    allow_open_files,
    by_target,
    read_planned,
)

_READ_BYTES = 1 << 20
_NEWLINE, _QUOTE = ord("\n"), ord('"')


def run_task(job: SplitJob, task: int, tasks: int) -> None:
    """Do the share of one task, from 0: scan, plan, and write its rows as one piece of each part.

    Raises:
        TunebookError: The split is of a kind that only one process can make, or as `run.split`.
    """
    _check_possible(job)
    if job.finished(tasks) is not None:
        return
    source, staging = job.dataset.sources[0], job.staging(tasks)
    with staging.opened():
        shared = _SharedFolder(job=job, folder=staging.work, tasks=tasks)
        keep_freed_memory()
        job.progress.stage("reading", source.size)
        if source.format == "csv":
            shared.quotes(task)
        # Its own range first, so that tasks that run together share the work.
        for number in (*range(task, tasks), *range(task)):
            shared.scan(number)
        shared.plan()
        check_unchanged(source)
        _write_piece(shared, task)
        done = sum(shared.piece(number).exists() for number in range(tasks))
    job.progress.say(f"task {task} of {tasks} is done, {done} in all; when all are, give --merge {tasks}")


def merge(job: SplitJob, tasks: int) -> dict[str, Any]:
    """Join the pieces of all tasks, and return the manifest of the split.

    Raises:
        TunebookError: Tasks are missing.
    """
    _check_possible(job)
    manifest = job.finished(tasks)
    if manifest is not None:
        return manifest
    source, staging = job.dataset.sources[0], job.staging(tasks)
    shared = _SharedFolder(job=job, folder=staging.work, tasks=tasks)
    missing = [number for number in range(tasks) if not shared.piece(number).exists()]
    if missing:
        raise TunebookError(
            f"{job.out}: tasks {', '.join(map(str, missing))} of {tasks} have not finished",
            fix=f"give the same command with --shard <task>/{tasks} for each",
        )
    with staging.opened():
        plans = shared.part_plans()
        check_space(job, plans)
        job.progress.stage("merging", sum(plan.bytes for plan in plans))
        paths = job.outputs.part_paths(staging.folder)
        parts = [_join(shared, str(part), path) for part, path in enumerate(paths)]
        joint_path = job.outputs.joint_path(staging.folder)
        joint = _join(shared, "joint", joint_path) if joint_path is not None else None
        found = [shared.found(number) for number in range(tasks)]
        scanned = Scanned(
            rows=sum(each["rows"] for each in found),
            hashes={str(source.path): hash_file(source.path)},
            bad=tuple(BadRow(*bad) for each in found for bad in each["bad"]),
            n_bad=sum(each["n_bad"] for each in found),
            notes=(),
        )
        check_unchanged(source)
        return finish(staging, job.outputs, scanned, plans, WrittenParts(parts, joint))


def _check_possible(job: SplitJob) -> None:
    sources = job.dataset.sources
    if len(sources) > 1 or sources[0].format not in ("csv", "jsonl"):
        raise TunebookError(
            f"{job.dataset.name}: tasks share one CSV or JSONL file, and this is "
            + (f"{len(sources)} files" if len(sources) > 1 else sources[0].format),
            fix="split it in one process, without --shard",
        )
    if job.options.shuffle:
        raise TunebookError(
            "tasks keep the order of the source, which --shuffle does not",
            fix="add --no-shuffle; the trainer shuffles with its own seed",
        )


def _write_piece(shared: _SharedFolder, task: int) -> None:
    """Write the rows of one range into a file for each part."""
    job = shared.job
    if shared.piece(task).exists():
        return
    spans = [len(shared.index(number).kinds) for number in range(shared.tasks)]
    start, stop = sum(spans[:task]), sum(spans[: task + 1])
    n_parts = len(job.outputs.part_paths(shared.folder))
    allow_open_files(n_parts + 1)
    job.progress.stage("writing", shared.index(task).lengths.total())
    with _published(shared.piece(task)) as folder, ExitStack() as stack:
        parts = [stack.enter_context((folder / str(part)).open("wb")) for part in range(n_parts)]
        joint = stack.enter_context((folder / "joint").open("wb")) if job.names.joint else None
        for block in read_planned(job.dataset.sources, shared.plan(), start, stop):
            for part, chosen in by_target(block.parts(n_parts)):
                parts[part].write(b"".join(block.slices(chosen)))
            if joint is not None:
                joint.write(b"".join(block.slices(np.flatnonzero(block.destinations != EVAL))))
            job.progress.on_bytes(len(block.data))


def _join(shared: _SharedFolder, name: str, path: Path) -> Written:
    with PartWriter(path, shared.job.dataset.sources[0]) as part:
        for task in range(shared.tasks):
            piece = shared.piece(task) / name
            part.extend(piece)
            shared.job.progress.on_bytes(piece.stat().st_size)
        return part.finish()


@dataclass(frozen=True, slots=True, kw_only=True)
class _SharedFolder:
    """What tasks publish for each other: the row index of each range of the file, the plan, the pieces."""

    job: SplitJob
    folder: Path
    tasks: int

    @property
    def source(self) -> SourceFile:
        """The file."""
        return self.job.dataset.sources[0]

    def piece(self, task: int) -> Path:
        """The folder of what a task has written."""
        return self.folder / f"piece_{task}"

    def index(self, number: int) -> RowIndex:
        """The row index of a range, once it is scanned."""
        return RowIndex(folder=self.folder / f"range_{number}")

    def found(self, number: int) -> dict[str, Any]:
        """What the scan of a range found besides."""
        values: dict[str, Any] = json.loads((self.index(number).folder / "meta.json").read_text())
        return values

    def scan(self, number: int) -> None:
        """Scan a range and publish its row index, unless a task has.

        Raises:
            TunebookError: A row is bad, or the file is CSV that only one process can read.
        """
        job, source = self.job, self.source
        if self.index(number).folder.exists():
            return
        checks = checks_for([source], job.options)
        with _published(self.index(number).folder) as folder:
            with job.index_builder(RowIndex(folder=folder)) as builder:
                for block in self._blocks(number, checks):
                    rows = partial(parse_rows, source, block.rows())
                    builder.add(block.lengths, block.kinds, rows, Where(source.path, 0))
                    job.progress.on_bytes(len(block.data))
            found = {"rows": builder.rows, "bad": list(checks.bad), "n_bad": checks.n_bad}
            files.write_json(folder / "meta.json", found)

    def plan(self) -> RowIndex:
        """Return the index of the whole file with its destinations, as one process plans it."""
        whole = RowIndex(folder=self.folder / "plan")
        if not whole.folder.exists():
            with _published(whole.folder) as folder:
                for name in ("lengths", "kinds", "groups", "tokens"):
                    pieces = [self.index(number).folder / name for number in range(self.tasks)]
                    _concatenate([piece for piece in pieces if piece.exists()], folder / name)
                rows = sum(self.found(number)["rows"] for number in range(self.tasks))
                plans = write_plan(RowIndex(folder=folder), self.job.options, rows)
                files.write_json(folder / "parts.json", [asdict(plan) for plan in plans])
        return whole

    def part_plans(self) -> list[PartPlan]:
        """What each part will hold, by the plan that is published."""
        return [PartPlan(**plan) for plan in json.loads((self.folder / "plan" / "parts.json").read_text())]

    def _blocks(self, number: int, checks: Checks) -> Iterator[Block]:
        source = self.source
        start = self._first_row(number)
        stop = self._bound(number + 1) if number + 1 < self.tasks else None
        if number == 0 and source.start:
            yield header_block(source)
        if stop is not None and start >= stop:
            return
        try:
            yield from read_from(source, checks, start, stop)
        except NotRfc4180 as err:
            raise TunebookError(
                f"{source.path}: a quote inside an unquoted field, or a lone carriage return, near byte "
                f"{err.args[0]}: such a file cannot be cut into ranges",
                fix="split it in one process, without --shard",
            ) from err

    def _bound(self, number: int) -> int:
        start, size = self.source.start, self.source.size
        return start + (size - start) * number // self.tasks

    def _first_row(self, number: int) -> int:
        """Offset of the first row that begins in the range, or after it."""
        if number == 0:
            return self.source.start
        csv = self.source.format == "csv"
        # A newline ends a row unless the quotes before it, in all of the file, are odd in number.
        inside = csv and sum(map(self.quotes, range(number))) % 2 == 1
        # The row may begin right at the bound: then the newline before it is the byte before.
        offset = self._bound(number) - 1
        with self.source.path.open("rb") as stream:
            stream.seek(offset)
            if csv and stream.read(1) == b'"':
                inside = not inside
            stream.seek(offset)
            while data := stream.read(_READ_BYTES):
                buffer = np.frombuffer(data, np.uint8)
                newlines = buffer == _NEWLINE
                if csv:
                    odd = (np.cumsum(buffer == _QUOTE) + inside) % 2 == 1
                    newlines &= ~odd
                    inside = bool(odd[-1])
                found = np.flatnonzero(newlines)
                if len(found):
                    return offset + int(found[0]) + 1
                offset += len(data)
        return self.source.size

    def quotes(self, number: int) -> int:
        """Return the number of quotes in a range; counted and published where no task has."""
        path = self.folder / f"quotes_{number}.json"
        if path.exists():
            return int(json.loads(path.read_text()))
        found, left = 0, self._bound(number + 1) - self._bound(number)
        with self.source.path.open("rb") as stream:
            stream.seek(self._bound(number))
            while data := stream.read(min(left, _READ_BYTES)):
                found += data.count(b'"')
                left -= len(data)
        files.write_json(path, found)
        return found


def _concatenate(pieces: list[Path], whole: Path) -> None:
    with whole.open("wb") as target:
        for piece in pieces:
            with piece.open("rb") as stream:
                shutil.copyfileobj(stream, target, _READ_BYTES)


@contextmanager
def _published(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` in one step; if another task was first, it is dropped."""
    temporary = folder.with_name(f"{folder.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
