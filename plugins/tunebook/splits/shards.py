"""A split done by a job array: each task scans and deals one range of bytes, a last step puts them together.

Tasks share the hidden folder on a shared file system and wait for nobody: what another task has not
published yet, a task works out for itself. The result is that of one process, byte for byte.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tunebook.errors import TunebookError
from tunebook.splits.checks import BadRow
from tunebook.splits.chunks import read_chunks
from tunebook.splits.copy import by_target, slices
from tunebook.splits.deal import EVAL
from tunebook.splits.heap import keep_freed_memory
from tunebook.splits.outputs import finish
from tunebook.splits.parquet_split import hash_file
from tunebook.splits.parts import BARE, Part, State, layout_of
from tunebook.splits.plan import PartPlan, write_plan
from tunebook.splits.ranges import Ranges, published
from tunebook.splits.run import Job, check_names, check_space
from tunebook.splits.scan import Scanned, TapeScan, Where, checks_for
from tunebook.splits.shuffle import allow_open_files
from tunebook.splits.sources import check_unchanged
from tunebook.splits.spans import Block
from tunebook.splits.tapes import Tapes
from tunebook.splits.texts import parse_rows
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
