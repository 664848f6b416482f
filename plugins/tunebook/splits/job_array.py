"""A split done by a job array: each task scans and deals one range of bytes, a last step puts them together.

Tasks share the hidden folder on a shared file system and wait for nobody: what another task has not
published yet, a task works out for itself. The result is that of one process, byte for byte.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tunebook.errors import TunebookError
from tunebook.splits.assign import EVAL
from tunebook.splits.checks import BadRow, Checks
from tunebook.splits.copy import by_target, read_chunks, slices
from tunebook.splits.outputs import finish
from tunebook.splits.parquet_split import hash_file
from tunebook.splits.parts import BARE, Part, State, layout_of
from tunebook.splits.plan import PartPlan, write_plan
from tunebook.splits.record_ends import NotRfc4180
from tunebook.splits.rows import gap_block, read_from
from tunebook.splits.run import Job, check_names, check_space
from tunebook.splits.scan import Scanned, TapeScan, Where, checks_for, parse_rows
from tunebook.splits.shuffle import allow_open_files
from tunebook.splits.sources import SourceFile, check_unchanged
from tunebook.splits.spans import Block, Tapes, keep_freed_memory
from tunebook.splits.workshop import Workshop, replace_json

_PLAN = "plan"
_JOINT = "joint"


def run_task(job: Job, task: int, tasks: int) -> None:
    """Do the share of one task, from 0: scan, plan, and write its rows as one piece of each part.

    Raises:
        TunebookError: The split is of a kind that only one process can make, or as `run.split`.
    """
    _check_shardable(job)
    workshop = job.workshop(tasks)
    if workshop.finished() is not None:
        job.listener.say(f"{job.out} holds this very split already")
        return
    check_names(job)
    with workshop.opened():
        ranges = _ranges(job, workshop)
        keep_freed_memory()
        job.listener.stage("reading", job.subject.sources[0].size)
        ranges.publish_quotes(task)
        # Its own range first, so that tasks that run together share the work.
        for number in (*range(task, tasks), *range(task)):
            ranges.publish(number, partial(_scan, job), checks_for(job.subject.sources, job.options))
        plan = _publish_plan(job, workshop, ranges)
        check_unchanged(job.subject.sources[0])
        _write_piece(job, workshop, plan, ranges, task)
        done = sum(_piece(workshop, number).exists() for number in range(tasks))
    job.listener.say(f"task {task} of {tasks} is done, {done} in all; when all are, give --merge {tasks}")


def merge(job: Job, tasks: int) -> dict[str, Any]:
    """Put the pieces of all tasks together, and return the manifest of the split.

    Raises:
        TunebookError: Tasks are missing.
    """
    _check_shardable(job)
    workshop = job.workshop(tasks)
    manifest = workshop.finished()
    if manifest is not None:
        job.listener.say(f"{job.out} holds this very split already")
        return manifest
    missing = [number for number in range(tasks) if not _piece(workshop, number).exists()]
    if missing:
        raise TunebookError(
            f"{job.out}: tasks {', '.join(map(str, missing))} of {tasks} have not finished",
            fix=f"give the same command with --shard <task>/{tasks} for each",
        )
    with workshop.opened():
        source = job.subject.sources[0]
        ranges = _ranges(job, workshop)
        plans = _read_plan(workshop)
        check_space(job, plans)
        job.listener.stage("merging", sum(plan.bytes for plan in plans))
        paths = job.outputs.part_paths(workshop.folder)
        pieces = [[_piece(workshop, task) / str(part) for task in range(tasks)] for part in range(len(paths))]
        states = [_join(path, pieces[part], job) for part, path in enumerate(paths)]
        joint_path = job.outputs.joint_path(workshop.folder)
        joint = None
        if joint_path is not None:
            joint = _join(joint_path, [_piece(workshop, task) / _JOINT for task in range(tasks)], job)
        metas = [ranges.meta(number) for number in range(tasks)]
        scanned = Scanned(
            rows=sum(meta["rows"] for meta in metas),
            hashes={str(source.path): hash_file(source.path)},
            bad=tuple(BadRow(*bad) for meta in metas for bad in meta["bad"]),
            n_bad=sum(meta["n_bad"] for meta in metas),
            notes=(),
        )
        check_unchanged(source)
        return finish(workshop, job.outputs, scanned, plans, states, joint)


def _check_shardable(job: Job) -> None:
    sources = job.subject.sources
    if len(sources) > 1 or sources[0].format not in ("csv", "jsonl"):
        raise TunebookError(
            f"{job.subject.name}: tasks share one CSV or JSONL file, and this is "
            + (f"{len(sources)} files" if len(sources) > 1 else sources[0].format),
            fix="split it in one process, without --shard",
        )
    if job.options.shuffle:
        raise TunebookError(
            "tasks keep the order of the source, which --shuffle does not",
            fix="add --no-shuffle; the trainer shuffles with its own seed",
        )


def _ranges(job: Job, workshop: Workshop) -> Ranges:
    return Ranges(source=job.subject.sources[0], count=workshop.tasks, folder=workshop.work)


def _scan(job: Job, blocks: Iterator[Block], tapes: Tapes) -> int:
    source = job.subject.sources[0]
    where = Where(source.path, 0)
    with TapeScan(tapes, job.options, columns=job.subject.columns, count_tokens=job.count_tokens) as scan:
        for block in blocks:
            scan.add(block.lengths, block.kinds, partial(parse_rows, source, block.rows()), where)
            job.listener.on_bytes(len(block.data))
        return scan.rows


def _publish_plan(job: Job, workshop: Workshop, ranges: Ranges) -> Tapes:
    """Put the tapes of all ranges behind each other and plan the whole, as one process would."""
    folder = workshop.work / _PLAN
    if not folder.exists():
        with published(folder) as temporary:
            tapes = Tapes(folder=temporary)
            for whole, names in (
                (tapes.lengths, [ranges.tapes(number).lengths for number in range(ranges.count)]),
                (tapes.kinds, [ranges.tapes(number).kinds for number in range(ranges.count)]),
                (tapes.groups, [ranges.tapes(number).groups for number in range(ranges.count)]),
                (tapes.tokens, [ranges.tapes(number).tokens for number in range(ranges.count)]),
            ):
                _concatenate([tape.path for tape in names], whole.path)
            rows = sum(ranges.meta(number)["rows"] for number in range(ranges.count))
            plans = write_plan(tapes, job.options, rows)
            replace_json(temporary / "parts.json", [asdict(plan) for plan in plans])
    return Tapes(folder=folder)


def _read_plan(workshop: Workshop) -> list[PartPlan]:
    return [PartPlan(**plan) for plan in json.loads((workshop.work / _PLAN / "parts.json").read_text())]


def _concatenate(pieces: list[Path], whole: Path) -> None:
    with whole.open("wb") as target:
        for piece in pieces:
            if piece.exists():
                with piece.open("rb") as stream:
                    shutil.copyfileobj(stream, target, 1 << 20)


def _write_piece(job: Job, workshop: Workshop, plan: Tapes, ranges: Ranges, task: int) -> None:
    """Deal the rows of one range into a file for each part."""
    if _piece(workshop, task).exists():
        return
    spans = [len(ranges.tapes(number).kinds) for number in range(ranges.count)]
    begin, stop = sum(spans[:task]), sum(spans[: task + 1])
    n_parts = len(job.outputs.part_paths(workshop.folder))
    allow_open_files(n_parts + 1)
    job.listener.stage("writing", ranges.tapes(task).lengths.total())
    with published(_piece(workshop, task)) as folder, ExitStack() as stack:
        parts = [Part(folder / str(part), BARE) for part in range(n_parts)]
        joint = Part(folder / _JOINT, BARE) if job.names.joint else None
        for part in (*parts, *([joint] if joint else [])):
            stack.callback(part.close)
        for chunk in read_chunks(job.subject.sources, plan, begin, stop):
            targets = np.where(chunk.destinations == EVAL, n_parts - 1, chunk.destinations)
            for target, chosen in by_target(targets):
                parts[target].write(slices(chunk, chosen))
            kept = np.flatnonzero(chunk.destinations != EVAL)
            if joint is not None and len(kept):
                joint.write(slices(chunk, kept))
            job.listener.on_bytes(len(chunk.data))


def _join(path: Path, pieces: list[Path], job: Job) -> State:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Part(path, layout_of(job.subject.sources[0]))
    for piece in pieces:
        part.extend(piece)
        job.listener.on_bytes(piece.stat().st_size)
    return part.finish()


def _piece(workshop: Workshop, task: int) -> Path:
    return workshop.work / f"piece_{task}"


# A text file cut into ranges of bytes for a job array, each scanned on its own from its first whole row.

_READ_BYTES = 1 << 20
_NEWLINE, _QUOTE = 10, 34
META = "meta.json"

Scan = Callable[[Iterator[Block], Tapes], int]
"""Writes the tapes of blocks and returns how many rows they hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """The ranges of one file, and what is published of them in a folder that all tasks share."""

    source: SourceFile
    count: int
    folder: Path

    def tapes(self, number: int) -> Tapes:
        """The tapes of a range, once they are published."""
        return Tapes(folder=self.folder / f"range_{number}")

    def meta(self, number: int) -> dict[str, Any]:
        """What is known of a range besides its tapes."""
        values: dict[str, Any] = json.loads((self.folder / f"range_{number}" / META).read_text())
        return values

    def publish(self, number: int, scan: Scan, checks: Checks) -> None:
        """Scan a range and publish its tapes, unless somebody has.

        Raises:
            TunebookError: A row is bad, or the file is CSV that only one process can read.
        """
        if (self.folder / f"range_{number}").exists():
            return
        with published(self.folder / f"range_{number}") as folder:
            rows = scan(self._blocks(number, checks), Tapes(folder=folder))
            replace_json(folder / META, {"rows": rows, "bad": list(checks.bad), "n_bad": checks.n_bad})

    def _blocks(self, number: int, checks: Checks) -> Iterator[Block]:
        source = self.source
        start = self._first_row(number)
        stop = self._bound(number + 1) if number + 1 < self.count else None
        if number == 0 and source.start:
            with source.path.open("rb") as stream:
                yield gap_block(stream.read(source.start))
        if stop is not None and start >= stop:
            return
        try:
            yield from read_from(source, checks, start, stop)
        except NotRfc4180 as err:
            raise TunebookError(
                f"{source.path}: a quote inside an unquoted field, or a lone carriage return, near byte "
                f"{err.args[0]}: ranges of such a file cannot be told apart",
                fix="split it in one process, without --shard",
            ) from err

    def _bound(self, number: int) -> int:
        start, size = self.source.start, self.source.size
        return start + (size - start) * number // self.count

    def _first_row(self, number: int) -> int:
        """Offset of the first row that begins in the range, or after it."""
        if number == 0:
            return self.source.start
        bound = self._bound(number)
        inside = self.source.format == "csv" and sum(map(self._quotes, range(number))) % 2 == 1
        # The row may begin right at the bound: then the newline before it is the byte before.
        offset = bound - 1
        with self.source.path.open("rb") as stream:
            stream.seek(offset)
            if self.source.format == "csv" and stream.read(1) == b'"':
                inside = not inside
            stream.seek(offset)
            while data := stream.read(_READ_BYTES):
                buffer = np.frombuffer(data, np.uint8)
                newlines = buffer == _NEWLINE
                if self.source.format == "csv":
                    odd = (np.cumsum(buffer == _QUOTE) + inside) % 2 == 1
                    newlines &= ~odd
                    inside = bool(odd[-1])
                found = np.flatnonzero(newlines)
                if len(found):
                    return offset + int(found[0]) + 1
                offset += len(data)
        return self.source.size

    def _quotes(self, number: int) -> int:
        """Quotes in a range; counted where nobody has published them."""
        path = self.folder / f"quotes_{number}.json"
        if path.exists():
            return int(json.loads(path.read_text()))
        found, left = 0, self._bound(number + 1) - self._bound(number)
        with self.source.path.open("rb") as stream:
            stream.seek(self._bound(number))
            while data := stream.read(min(left, _READ_BYTES)):
                found += data.count(b'"')
                left -= len(data)
        replace_json(path, found)
        return found

    def publish_quotes(self, number: int) -> None:
        """Count the quotes of a range for the tasks that come behind it."""
        if self.source.format == "csv":
            self._quotes(number)


@contextmanager
def published(folder: Path) -> Iterator[Path]:
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
