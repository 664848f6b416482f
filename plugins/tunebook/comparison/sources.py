"""Finds the files that a name on the command line stands for: a run, one of its checkpoints, or a file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunebook.data.rows import READABLE
from tunebook.errors import TunebookError
from tunebook.runlog.evaluations import read_eval_metrics, record_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.runlog.records import Evaluation

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_AT = re.compile(r"(?P<run>.+)@(?P<step>\d+|base|last|best)")


class Source(NamedTuple):
    """One side: a single file, or a run's files of records by dataset."""

    label: str
    given: str
    files: Mapping[str | None, Path]
    """Under None a file that was named itself: its rows name their dataset, or have none."""
    chosen: Mapping[str, str]
    """Dataset -> the step and why this one, for runs."""


def find_source(given: str) -> Source:
    """Find what `given` names: FILE, RUN, RUN@STEP, RUN@best, RUN@last, RUN@base or RUN/checkpoint-STEP.

    The figures of `tunebook eval` (`<name>.json`) stand for the records beside them.

    A run stands for its best evaluated step on each dataset, by the figure that its metric selects by, and
    for its last one where nothing says what is best.

    Raises:
        TunebookError: There is no such file or run, or the run has no records of that step.
    """
    path = Path(given)
    if path.is_file():
        if path.suffix not in READABLE:
            raise TunebookError(
                f"cannot read predictions from {path}: its name ends in {path.suffix!r}",
                fix="name a run, or a .jsonl, .json or .csv file",
            )
        return Source(path.stem, given, {None: _records_of(path)}, {})
    step = "best"
    if not path.exists() and (match := _AT.fullmatch(given)):
        path, step = Path(match["run"]), match["step"]
    elif match := _CHECKPOINT.fullmatch(path.name):
        path, step = path.parent, match[1]
    if not path.is_dir():
        raise TunebookError(
            f"{given}: there is no such run or file",
            fix="name a run's output_dir, RUN@STEP, RUN/checkpoint-STEP, or a file of predictions",
        )
    return _of_run(given, path, step)


def _records_of(path: Path) -> Path:
    """The records behind the figures of `tunebook eval`; any other file is what it is."""
    beside = path.with_suffix(".jsonl")
    if path.suffix != ".json" or not beside.is_file():
        return path
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return path
    return beside if isinstance(figures, dict) and figures.get("records") == beside.name else path


def _of_run(given: str, run: Path, wanted: str) -> Source:
    folder = run / "tunebook" if (run / "tunebook").is_dir() else run
    found = record_files(folder)
    if not found:
        raise TunebookError(
            f"{run} holds no records of evaluated examples (eval_records-<dataset>-<step>.jsonl)",
            fix='evaluate a dataset that carries a "metric", or name a file of predictions',
        )
    steps: dict[str, list[int]] = {}
    for dataset, step in found:
        steps.setdefault(dataset, []).append(step)
    evaluations = _evaluations(folder)
    files: dict[str | None, Path] = {}
    chosen = {}
    for dataset, known in sorted(steps.items()):
        step, why = _choose(wanted, sorted(known), [e for e in evaluations if e.dataset == dataset])
        if step in known:
            files[dataset] = found[dataset, step]
            chosen[dataset] = f"step {step}{why}"
    if not files:
        there = "; ".join(f"{name}: {', '.join(map(str, sorted(known)))}" for name, known in steps.items())
        raise TunebookError(
            f"{run} has no records of step {0 if wanted == 'base' else wanted}; it has {there}",
            fix=f"name one of these steps, as in {run}@{max(step for _, step in found)}",
        )
    name = run.resolve().name
    taken = {path.stem.rpartition("-")[2] for path in files.values()}
    return Source(f"{name}@{taken.pop()}" if len(taken) == 1 else name, given, files, chosen)


def _evaluations(folder: Path) -> list[Evaluation]:
    path = folder / "eval_metrics.jsonl"
    return read_eval_metrics(path, path.name).evaluations if path.is_file() else []


def _choose(wanted: str, known: list[int], evaluations: list[Evaluation]) -> tuple[int, str]:
    if wanted == "base":
        return 0, ", before training"
    if wanted.isdigit():
        return int(wanted), ""
    judged = [
        (e.values[e.select_by] * (1 if e.larger_is_better else -1), -e.step, e.select_by)
        for e in evaluations
        if e.select_by is not None and e.select_by in e.values and e.step in known
    ]
    if wanted == "best" and judged:
        _, negative, figure = max(judged)
        return -negative, f", the best by {figure}"
    return known[-1], ", the last"
