"""The stages that write the parts of a text file, each of which is taken up where the journal says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunebook.splits import shuffle
from tunebook.splits.copy import copy_rows
from tunebook.splits.outputs import Outputs
from tunebook.splits.parts import BARE, Layout, Part, State, layout_of, state_from_json
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
        journal: dict[str, Any],
        plans: Sequence[PartPlan],
        *,
        memory: int,
        listener: Listener,
    ) -> None:
        self._workshop, self._journal, self._plans = workshop, journal, plans
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
            on_bytes=self._listener.on_bytes,
        )
        return [part.finish() for part in parts], self._joint.finish() if self._joint else None

    def shuffled(self) -> tuple[list[State], State | None]:
        """The same in random order, by way of buckets."""
        buckets = shuffle.plan_buckets(self._plans, self._memory, self._workshop.work)
        if self._journal["stage"] != "gather":
            self._scatter(buckets)
        self._listener.stage("shuffling", self._data)
        shuffle.allow_open_files(len(self._paths))
        parts, done = self._take_up(self._paths, self._layout)
        for number, bucket in enumerate(buckets):
            if number < done:
                size = 0
            else:
                size = shuffle.gather(bucket, parts[bucket.part], self._layout.newline)
                self._save("gather", number + 1, parts)
            self._listener.on_bytes(size)
            bucket.rows.unlink(missing_ok=True)
            bucket.keys.unlink(missing_ok=True)
        return [part.finish() for part in parts], self._joint.finish() if self._joint else None

    def _scatter(self, buckets: Sequence[shuffle.Bucket]) -> None:
        self._listener.stage("dealing", self._data)
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
            seed=self._seed,
            joint=self._joint,
            spans_done=done,
            save=save,
            on_bytes=self._listener.on_bytes,
        )
        for part in flat:
            part.state()
            part.close()
        self._journal |= {"stage": "gather", "done": 0, "parts": None}
        self._journal["joint"] = list(self._joint.state()) if self._joint else None
        self._workshop.save(self._journal)

    def _take_up(self, paths: Sequence[Path], layout: Layout) -> tuple[list[Part], int]:
        """Open the parts as the journal left them, or anew."""
        saved = self._journal.get("parts")
        for path in (*paths, *([self._joint_path] if self._joint_path else [])):
            path.parent.mkdir(parents=True, exist_ok=True)
        if self._joint_path is not None and self._joint is None:
            kept = self._journal.get("joint")
            self._joint = self._part(self._joint_path, self._layout, kept)
        states = [None] * len(paths) if saved is None else saved
        parts = [self._part(path, layout, state) for path, state in zip(paths, states, strict=True)]
        return parts, int(self._journal.get("done", 0))

    def _part(self, path: Path, layout: Layout, saved: Sequence[Any] | None) -> Part:
        part = Part(path, layout, state_from_json(saved) if saved else None)
        self._open.callback(part.close)
        return part

    def _save(self, stage: str, done: int, parts: Sequence[Part]) -> None:
        self._journal |= {"stage": stage, "done": done, "parts": [list(part.state()) for part in parts]}
        self._journal["joint"] = list(self._joint.state()) if self._joint else None
        self._workshop.save(self._journal)
