"""A split from beginning to end in one process: scan, plan, write, publish."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunebook import files
from tunebook.errors import TunebookError
from tunebook.splits import shuffle
from tunebook.splits.copy import copy_rows
from tunebook.splits.entries import Subject
from tunebook.splits.options import DEFAULT_MEMORY, SplitOptions
from tunebook.splits.outputs import Names, Outputs, finish, request_of
from tunebook.splits.parquet_split import scan_parquet, write_parquet
from tunebook.splits.parts import BARE, Part, State, layout_of, state_from_json
from tunebook.splits.plan import PartPlan, write_plan
from tunebook.splits.rows import BadRow
from tunebook.splits.scan import CountTokens, OnBytes, Scanned, scan_sources
from tunebook.splits.tapes import Tapes
from tunebook.splits.workshop import Workshop

MIN_MEMORY = 96 << 20
"""Bytes; Python, numpy and the buffers take half of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """What hears how a split goes."""

    stage: Callable[[str, int], None] = lambda _name, _total: None
    """Told a stage's name and its bytes when it begins."""
    on_bytes: OnBytes = lambda _: None
    say: Callable[[str], None] = lambda _: None
    """Told a sentence for the user."""


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
    listener: Listener = Listener()

    @property
    def outputs(self) -> Outputs:
        """Names of what is written."""
        return Outputs(subject=self.subject, options=self.options, names=self.names)

    def workshop(self, tasks: int = 1) -> Workshop:
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
    """Make the split, or finish one that was cut off; return its manifest.

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
        journal = workshop.journal()
        if journal.get("stage") is None:
            scanned, plans = scan_and_plan(job, workshop.tapes)
            check_space(job, plans)
            journal = {
                "stage": "write",
                "scanned": _scanned_to_json(scanned),
                "plans": [asdict(p) for p in plans],
            }
            workshop.save(journal)
        else:
            job.listener.say("taking up the split that was cut off")
        scanned = _scanned_from_json(journal["scanned"])
        plans = [PartPlan(**plan) for plan in journal["plans"]]
        states, joint = _write(job, workshop, journal, plans)
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


def _write(
    job: Job, workshop: Workshop, journal: dict[str, Any], plans: Sequence[PartPlan]
) -> tuple[list[State], State | None]:
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
    writer = _Writer(job, workshop, journal, plans)
    return writer.shuffled() if job.options.shuffle else writer.in_order()


class _Writer:
    """The stages that write text, each of which can be taken up where the journal says."""

    def __init__(
        self, job: Job, workshop: Workshop, journal: dict[str, Any], plans: Sequence[PartPlan]
    ) -> None:
        self._job, self._workshop, self._journal, self._plans = job, workshop, journal, plans
        self._sources = job.subject.sources
        self._layout = layout_of(self._sources[0])
        self._paths = job.outputs.part_paths(workshop.folder)
        self._joint_path = job.outputs.joint_path(workshop.folder)
        self._data = sum(plan.bytes for plan in plans)
        self._joint: Part | None = None

    def in_order(self) -> tuple[list[State], State | None]:
        self._job.listener.stage("writing", self._data)
        shuffle.allow_open_files(len(self._paths))
        parts, done = self._take_up(self._paths, self._layout)

        def save(spans: int) -> None:
            self._save("write", spans, parts)

        copy_rows(
            self._sources,
            self._workshop.tapes,
            parts,
            joint=self._joint,
            spans_done=done,
            save=save,
            on_bytes=self._job.listener.on_bytes,
        )
        return [part.finish() for part in parts], self._joint.finish() if self._joint else None

    def shuffled(self) -> tuple[list[State], State | None]:
        buckets = shuffle.plan_buckets(self._plans, self._job.memory, self._workshop.work)
        if self._journal["stage"] != "gather":
            self._scatter(buckets)
        self._job.listener.stage("shuffling", self._data)
        shuffle.allow_open_files(len(self._paths))
        parts, done = self._take_up(self._paths, self._layout)
        for number, bucket in enumerate(buckets):
            if number < done:
                size = 0
            else:
                size = shuffle.gather(bucket, parts[bucket.part], self._layout.newline)
                self._save("gather", number + 1, parts)
            self._job.listener.on_bytes(size)
            bucket.rows.unlink(missing_ok=True)
            bucket.keys.unlink(missing_ok=True)
        return [part.finish() for part in parts], self._joint.finish() if self._joint else None

    def _scatter(self, buckets: Sequence[shuffle.Bucket]) -> None:
        self._job.listener.stage("dealing", self._data)
        shuffle.allow_open_files(2 * len(buckets))
        files_of = [path for bucket in buckets for path in (bucket.rows, bucket.keys)]
        flat, done = self._take_up(files_of, BARE)

        def save(spans: int) -> None:
            self._save("write", spans, flat)

        shuffle.scatter(
            self._sources,
            self._workshop.tapes,
            buckets,
            list(zip(flat[::2], flat[1::2], strict=True)),
            seed=self._job.options.seed,
            joint=self._joint,
            spans_done=done,
            save=save,
            on_bytes=self._job.listener.on_bytes,
        )
        for part in flat:
            part.state()
            part.close()
        self._journal |= {"stage": "gather", "done": 0, "parts": None}
        self._journal["joint"] = list(self._joint.state()) if self._joint else None
        self._workshop.save(self._journal)

    def _take_up(self, paths: Sequence[Path], layout: Any) -> tuple[list[Part], int]:
        """Open the parts as the journal left them, or anew."""
        saved = self._journal.get("parts")
        for path in (*paths, *([self._joint_path] if self._joint_path else [])):
            path.parent.mkdir(parents=True, exist_ok=True)
        if self._joint_path is not None and self._joint is None:
            kept = self._journal.get("joint")
            self._joint = Part(self._joint_path, self._layout, state_from_json(kept) if kept else None)
        if saved is None:
            return [Part(path, layout) for path in paths], int(self._journal.get("done", 0))
        states = map(state_from_json, saved)
        return [Part(path, layout, state) for path, state in zip(paths, states, strict=True)], int(
            self._journal["done"]
        )

    def _save(self, stage: str, done: int, parts: Sequence[Part]) -> None:
        self._journal |= {"stage": stage, "done": done, "parts": [list(part.state()) for part in parts]}
        self._journal["joint"] = list(self._joint.state()) if self._joint else None
        self._workshop.save(self._journal)


def _scanned_to_json(scanned: Scanned) -> dict[str, Any]:
    return asdict(scanned)


def _scanned_from_json(values: dict[str, Any]) -> Scanned:
    return Scanned(
        rows=values["rows"],
        hashes=values["hashes"],
        bad=tuple(BadRow(*bad) for bad in values["bad"]),
        n_bad=values["n_bad"],
        notes=tuple(values["notes"]),
    )
