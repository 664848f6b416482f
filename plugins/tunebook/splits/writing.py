"""The stages that write the parts of a text file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tunebook.splits import shuffle
from tunebook.splits.copy import copy_rows
from tunebook.splits.outputs import Outputs
from tunebook.splits.parts import BARE, Layout, Part, State, layout_of
from tunebook.splits.plan import PartPlan
from tunebook.splits.scan import OnBytes
from tunebook.splits.workshop import Workshop


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """What hears how a split goes."""

    stage: Callable[[str, int], None] = lambda _name, _total: None
    """Told a stage's name and its bytes when it begins."""
    on_bytes: OnBytes = lambda _: None
    say: Callable[[str], None] = lambda _: None
    """Told a sentence for the user."""


SILENT = Listener()
"""Hears nothing."""


class TextWriter:
    """The stages that write text; a context manager, behind which no part is open."""

    def __init__(
        self,
        outputs: Outputs,
        workshop: Workshop,
        plans: Sequence[PartPlan],
        *,
        memory: int,
        listener: Listener,
    ) -> None:
        self._workshop, self._plans = workshop, plans
        self._memory, self._seed, self._listener = memory, outputs.options.seed, listener
        self._sources = outputs.subject.sources
        self._layout = layout_of(self._sources[0])
        self._paths = outputs.part_paths(workshop.folder)
        self._joint_path = outputs.joint_path(workshop.folder)
        self._data = sum(plan.bytes for plan in plans)
        self._joint: Part | None = None
        self._open = ExitStack()

    def __enter__(self) -> TextWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def in_order(self) -> tuple[list[State], State | None]:
        """Write each part in the order of the source; return what became of the parts and the joint file."""
        self._listener.stage("writing", self._data)
        shuffle.allow_open_files(len(self._paths))
        parts = self._parts(self._paths, self._layout)
        copy_rows(
            self._sources,
            self._workshop.tapes,
            parts,
            joint=self._joint,
            on_bytes=self._listener.on_bytes,
        )
        return [part.finish() for part in parts], self._joint.finish() if self._joint else None

    def shuffled(self) -> tuple[list[State], State | None]:
        """The same in random order, by way of buckets."""
        buckets = shuffle.plan_buckets(self._plans, self._memory, self._workshop.work)
        self._scatter(buckets)
        self._listener.stage("shuffling", self._data)
        shuffle.allow_open_files(len(self._paths))
        parts = self._parts(self._paths, self._layout)
        for bucket in buckets:
            self._listener.on_bytes(shuffle.gather(bucket, parts[bucket.part], self._layout.newline))
            bucket.rows.unlink(missing_ok=True)
            bucket.keys.unlink(missing_ok=True)
        return [part.finish() for part in parts], self._joint.finish() if self._joint else None

    def _scatter(self, buckets: Sequence[shuffle.Bucket]) -> None:
        self._listener.stage("dealing", self._data)
        shuffle.allow_open_files(2 * len(buckets))
        files_of = [path for bucket in buckets for path in (bucket.rows, bucket.keys)]
        flat = self._parts(files_of, BARE)
        shuffle.scatter(
            self._sources,
            self._workshop.tapes,
            buckets,
            list(zip(flat[::2], flat[1::2], strict=True)),
            seed=self._seed,
            joint=self._joint,
            on_bytes=self._listener.on_bytes,
        )
        for part in flat:
            part.close()

    def _parts(self, paths: Sequence[Path], layout: Layout) -> list[Part]:
        """Open the parts, and with the first of them the joint file."""
        for path in (*paths, *([self._joint_path] if self._joint_path else [])):
            path.parent.mkdir(parents=True, exist_ok=True)
        if self._joint_path is not None and self._joint is None:
            self._joint = self._part(self._joint_path, self._layout)
        return [self._part(path, layout) for path in paths]

    def _part(self, path: Path, layout: Layout) -> Part:
        part = Part(path, layout)
        self._open.callback(part.close)
        return part
