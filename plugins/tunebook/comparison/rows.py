"""Rows of one side: a run's records, or a file of predictions in any of the usual shapes."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook import files
from tunebook.data.rows import READABLE, iter_rows
from tunebook.errors import TunebookError
from tunebook.models.chosen import AT, best_of, whole_weights
from tunebook.runlog.evaluations import record_files
from tunebook.scoring.prediction_files import PREDICTION_COLUMNS, REFERENCE_COLUMNS, text_in
from tunebook.types import Score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class Columns(NamedTuple):
    """Columns that the command line names; None for those to be found."""

    prediction: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class AnsweredRow:
    """One answered example."""

    dataset: str
    index: int
    prompt: str
    """Empty where the file holds none."""
    prediction: str
    reference: str
    scores: Mapping[str, Any]
    """The verdicts that the run wrote down, by metric; empty for a file of predictions."""


def read_answered_rows(
    path: Path, columns: Columns, on_bytes: Callable[[int], None] | None = None
) -> Iterator[AnsweredRow]:
    """Yield the rows of a file, one at a time.

    A row's number is its `index`, and without one its place in the file, from 0. The prompt is `prompt`; or
    `instruction` and `input`; or `history_titles` and `candidate_title`. A file of training rows
    (instruction, input, output) with predictions beside them has its reference in `output`.

    Raises:
        TunebookError: The file cannot be read, a column is missing or a value is no text.
    """
    found: Columns | None = None
    for place, values in enumerate(iter_rows(path, on_bytes=on_bytes)):
        if found is None:
            found = _columns(path, values, columns)
        index = values.get("index", place)
        scores = values.get("scores")
        yield AnsweredRow(
            dataset=str(values.get("dataset", "")),
            index=_index(path, place, index),
            prompt=_prompt(values),
            prediction=text_in(path, place, values, str(found.prediction)),
            reference=text_in(path, place, values, str(found.reference)),
            scores=scores if isinstance(scores, dict) else {},
        )
    if found is None:
        raise TunebookError(f"{path} holds no rows", fix="name a file with one prediction a row")


def recorded_score(entry: Mapping[str, Any]) -> Score:
    """The verdict of one metric as a run wrote it down."""
    return Score(
        values={str(name): float(value) for name, value in entry.get("values", {}).items()},
        parsed=entry.get("parsed"),
        reference=entry.get("reference"),
        rule=entry.get("rule"),
        reason=entry.get("reason"),
    )


def _columns(path: Path, row: Mapping[str, Any], asked: Columns) -> Columns:
    # `output` is a prediction in some files and the reference in training rows: it is the prediction only
    # where no other column is, and the reference only where it is not the prediction.
    predictions = [*(name for name in PREDICTION_COLUMNS if name != "output"), "output"]
    prediction = _first(path, row, asked.prediction, predictions, "--prediction-column")
    references = [name for name in (*REFERENCE_COLUMNS, "output") if name != prediction]
    return Columns(prediction, _first(path, row, asked.reference, references, "--reference-column"))


def _first(path: Path, row: Mapping[str, Any], asked: str | None, usual: list[str], option: str) -> str:
    for name in [asked] if asked is not None else usual:
        if name in row:
            return name
    wanted = repr(asked) if asked is not None else " or ".join(map(repr, usual))
    raise TunebookError(
        f"{path} has no column {wanted}; it has {', '.join(map(repr, row))}",
        fix=f"name the right one with {option}",
    )


def _index(path: Path, place: int, value: object) -> int:
    if isinstance(value, str) and value.isdigit():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TunebookError(
            f"{path}, row {place + 1}: index is {value!r}, which is no row number",
            fix="write whole numbers from 0, or leave the column out to number the rows in their order",
        )
    return value


def _prompt(row: Mapping[str, Any]) -> str:
    if isinstance(row.get("prompt"), str):
        return str(row["prompt"])
    if "instruction" in row:
        return "\n".join(str(row[name]) for name in ("instruction", "input") if row.get(name))
    if "candidate_title" in row:
        history = row.get("history_titles") or []
        titles = history if isinstance(history, str) else "; ".join(map(str, history))
        user = f"user {row['user_id']}: " if "user_id" in row else ""
        return f"{user}watched {titles}\ncandidate: {row['candidate_title']}"
    return ""


# Finds the files that a name on the command line means: a run, one of its checkpoints, or a file.

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class PredictionSource(NamedTuple):
    """One side: a single file, or a run's files of records by dataset."""

    label: str
    given: str
    files: Mapping[str | None, Path]
    """Under None a file that was named itself: its rows name their dataset, or have none."""
    chosen: Mapping[str, str]
    """Dataset -> the step and why this one, for runs."""


def find_predictions(given: str) -> PredictionSource:
    """Find what `given` names: FILE, RUN, RUN@STEP, RUN@best, RUN@last, RUN@base or RUN/checkpoint-STEP.

    The figures of `tunebook eval` (`<name>.json`) mean the records beside them.

    A run means its best step, as in every command: the Trainer's choice, else by the figure that its metric
    selects by, and its last one where nothing says what is best. Steps whose weights are still there go
    before others.

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
        return _of_file(path, given)
    step = "best"
    if not path.exists() and (match := AT.fullmatch(given)) and match["step"] != "all":
        path, step = Path(match["run"]), match["step"]
    elif match := _CHECKPOINT.fullmatch(path.name):
        path, step = path.parent, match[1]
    if not path.is_dir():
        raise TunebookError(
            f"{given}: there is no such run or file",
            fix="name a run's output_dir, RUN@STEP, RUN/checkpoint-STEP, or a file of predictions",
        )
    return _of_run(given, path, step)


def _of_file(path: Path, given: str) -> PredictionSource:
    """Of a result of `tunebook eval`, named by figures or records, its model and records; else the file."""
    figures, beside = path.with_suffix(".json"), path.with_suffix(".jsonl")
    if figures.is_file() and beside.is_file():
        with suppress(ValueError):
            found = files.read_json(figures)
            if isinstance(found, dict) and found.get("records") == beside.name:
                model = found.get("model")
                label = model.get("label") if isinstance(model, dict) else None
                return PredictionSource(label or path.stem, given, {None: beside}, {})
    return PredictionSource(path.stem, given, {None: path}, {})


def _of_run(given: str, run: Path, wanted: str) -> PredictionSource:
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
    files: dict[str | None, Path] = {}
    chosen = {}
    step, why = _choose(wanted, run, sorted({step for _, step in found}))
    for dataset in sorted(steps):
        if (dataset, step) in found:
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
    return PredictionSource(f"{name}@{taken.pop()}" if len(taken) == 1 else name, given, files, chosen)


def _choose(wanted: str, run: Path, known: list[int]) -> tuple[int, str]:
    if wanted == "base":
        return 0, ", before training"
    if wanted.isdigit():
        return int(wanted), ""
    saved = whole_weights(run).by_step
    there = [step for step in known if step in saved] or known
    if wanted == "best" and (best := best_of(run, there)) is not None:
        return best.step, f", {best.why}"
    return there[-1], ", the last"
