"""Builds the rows of a recipe by its engine's own loader and encoder.

Run as `python -m tunebook.hooks.row_probe JOB.json LOG` by `tunebook.lengths.asking`, which reads the answer.
No weights are loaded, and no row is kept: of each its length is written down, or the text by which it is
asked. What stops the engine is an error here.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunebook.errors import TunebookError
from tunebook.files import write_json
from tunebook.hooks.infer import engine_prints_to
from tunebook.hooks.measured_rows import BATCH_ROWS, Rows, Set
from tunebook.lengths.counting import FastDiffers, counted_by

_ROWS_PER_WORKER = 20_000


def main() -> None:
    """Do a job."""
    # Nothing is downloaded. Read when the engine is imported, which is later.
    os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with engine_prints_to(Path(sys.argv[2])):
        answer(job)


def answer(job: Mapping[str, Any]) -> None:
    """Build the rows that a job asks for, and write what is to be known of each set into a folder of its own.

    Where the user has to fix something, `problem.json` says what.
    """
    folder = Path(job["folder"])
    try:
        try:
            _build(job, folder, fast=True)
        except FastDiffers:
            _build(job, folder, fast=False)
    except TunebookError as error:
        write_json(folder / "problem.json", {"problem": error.problem, "fix": error.fix})


def _build(job: Mapping[str, Any], folder: Path, *, fast: bool) -> None:
    if job["engine"] == "llamafactory":
        from tunebook.hooks.row_probe_llamafactory import Engine
    else:
        from tunebook.hooks.row_probe_axolotl import Engine  # type: ignore[assignment]
    with Engine(job, folder, fast=fast) as engine:
        for place, one in enumerate(job["sets"]):
            own = folder / str(place)
            own.mkdir(exist_ok=True)
            loaded = engine.load(one)
            found = loaded.questions() if job["want"] == "questions" else _lengths(loaded, own, job["limit"])
            write_json(own / "answer.json", {**found, **engine.facts()})


def _lengths(loaded: Set, folder: Path, wanted: int | None) -> dict[str, Any]:
    rows = _measure(loaded)
    rule, form, limit = loaded.rule(rows)
    return {
        "rows": loaded.rows,
        "files": loaded.files,
        "reasons": rows.save(folder / "rows.npz"),
        "rule": rule,
        "form": form._asdict(),
        "limit": limit,
        "limit_taken": 0 if wanted is None else wanted - limit,
        "media": _times(rows.media),
        "counted_by": counted_by(rows.compared or None),
    }


def _measure(loaded: Set) -> Rows:
    """Measure a set, a large one by several processes. They are forked: starting an engine takes seconds."""
    workers = min(len(os.sched_getaffinity(0)), loaded.rows // _ROWS_PER_WORKER)
    if workers < 2:
        return loaded.measure(0, loaded.rows)
    step = -(-loaded.rows // (4 * workers * BATCH_ROWS)) * BATCH_ROWS
    starts = range(0, loaded.rows, step)
    found = Rows()
    with _fork_sharing(loaded), multiprocessing.get_context("fork").Pool(workers) as pool:
        for part in pool.imap(_measure_part, [(start, min(start + step, loaded.rows)) for start in starts]):
            if isinstance(part, FastDiffers):
                raise part
            if isinstance(part, tuple):
                raise TunebookError(part[0], fix=part[1])
            found.extend(part)
    return found


_shared: list[Set] = []
"""The set that forked processes measure: what is loaded cannot be sent."""


@contextmanager
def _fork_sharing(loaded: Set) -> Iterator[None]:
    _shared.append(loaded)
    try:
        yield
    finally:
        _shared.pop()


def _measure_part(part: tuple[int, int]) -> Rows | FastDiffers | tuple[str, str]:
    """Return rows, or what the other process is to raise: an error of ours as its problem and its fix."""
    try:
        return _shared[-1].measure(*part)
    except FastDiffers as differs:
        return differs
    except TunebookError as error:
        return error.problem, error.fix


def _times(files: set[str]) -> dict[str, list[int]]:
    """Size and time of change of each file that is here: another picture of that name is other tokens."""
    here = {name: Path(name).stat() for name in sorted(files) if Path(name).is_file()}
    return {name: [status.st_size, status.st_mtime_ns] for name, status in here.items()}


if __name__ == "__main__":
    main()
