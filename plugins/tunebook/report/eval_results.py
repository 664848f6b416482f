"""Adds what `tunebook eval` measured after training to the run that it belongs to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.errors import TunebookError, join_errors
from tunebook.runlog import Evaluation, Note, RunLog
from tunebook.runlog.evaluations import evaluation_of
from tunebook.runlog.tolerant_json import as_int, read_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FOLDER = "eval_results"
"""What `tunebook eval` calls its folder by default; looked for in a run and beside it."""
FORMAT = 1


class Result(NamedTuple):
    """One result file: one model on one set."""

    path: Path
    model: Mapping[str, Any]
    values: Mapping[str, Any]
    """All that the file holds."""


def read_results(folders: Sequence[Path]) -> list[Result]:
    """Read the results in folders that were named.

    Raises:
        TunebookError: A folder holds none, or a file cannot be read; of several faults all are named.
    """
    found, errors = [], []
    for folder in folders:
        if not folder.is_dir():
            errors.append(
                TunebookError(f"there is no folder {folder}", fix="name what `tunebook eval -o` made")
            )
            continue
        here = list(_results_in(folder, errors))
        if not here and not errors:
            errors.append(
                TunebookError(
                    f"{folder} holds no results of an evaluation",
                    fix="name the folder that `tunebook eval` wrote to, by default eval_results",
                )
            )
        found += here
    if errors:
        raise join_errors(errors)
    return found


def _results_in(folder: Path, errors: list[TunebookError]) -> Iterator[Result]:
    for path in sorted(folder.glob("*.json")):
        values = read_object(path)
        if values is None:
            errors.append(TunebookError(f"{path} is damaged", fix="run `tunebook eval` again; it goes on"))
            continue
        model = values.get("model")
        if not isinstance(model, dict) or not isinstance(values.get("values"), dict):
            continue
        if values.get("format") != FORMAT:
            problem = f"{path} has format {values.get('format')!r}; this tunebook reads {FORMAT}"
            errors.append(TunebookError(problem, fix="run `tunebook eval` again with this version"))
            continue
        yield Result(path, model, values)


def with_results(run: RunLog, named: Sequence[Result]) -> RunLog:
    """The run with the evaluations of its checkpoints and of its base model that it has not made itself.

    Args:
        run: As read.
        named: Results from folders that were named; those in `eval_results` in the run or beside it are
            found without.
    """
    errors: list[TunebookError] = []
    beside = [run.path / FOLDER, run.path.parent / FOLDER] if run.path.is_dir() else []
    results = {result.path.resolve(): result for result in named}
    for folder in beside:
        if folder.is_dir():
            results |= {result.path.resolve(): result for result in _results_in(folder, errors)}
    # Figures that a run logged and figures of the same weights afterwards are the same: the run's own stay.
    known = {(one.dataset, one.step) for one in run.evaluations if not one.after_training}
    files = dict(run.record_files)
    added: dict[tuple[str, int], Evaluation] = {}
    for result in results.values():
        evaluation = _evaluation(result) if _belongs(result, run) else None
        if evaluation is None or (evaluation.dataset, evaluation.step) in known:
            continue
        key = evaluation.dataset, evaluation.step
        added[key] = evaluation
        records = result.path.with_name(str(result.values.get("records", "")))
        if records.is_file():
            files[key] = records
    if not added and not errors:
        return run
    notes = [Note(kind="lost", file=FOLDER, message=error.problem) for error in errors]
    if added:
        message = f"{len(added)} evaluations of `tunebook eval` after training were added"
        notes.append(Note(kind="read", file=FOLDER, message=message))
    return replace(
        run,
        evaluations=tuple(
            sorted((*run.evaluations, *added.values()), key=lambda e: (e.after_training, e.step, e.dataset))
        ),
        record_files=files,
        notes=(*run.notes, *notes),
    )


def _belongs(result: Result, run: RunLog) -> bool:
    """Whether a result is of the run's weights, or of the model that it was trained from."""
    own, base = result.model.get("run"), result.model.get("base")
    if result.model.get("kind") == "base":
        names = (run.settings.get("model_name_or_path"), run.settings.get("base_model"))
        return isinstance(base, str) and any(
            _same_place(base, name) for name in names if isinstance(name, str)
        )
    return isinstance(own, str) and (_same_place(own, str(run.path)) or _moved(own, run.path))


def _same_place(one: str, other: str) -> bool:
    return one == other or Path(one).resolve() == Path(other).resolve()


def _moved(named: str, folder: Path) -> bool:
    """Whether a run that is no longer where the result says may be this one."""
    return not Path(named).exists() and Path(named).name == folder.name


def _evaluation(result: Result) -> Evaluation | None:
    source = f"{result.path.parent.name}/{result.path.name}"
    found = evaluation_of({**result.values, "step": result.model.get("step")}, source)
    if found is None:
        return None
    # Time after training is not the run's; and these are points of its curves, at the steps of their weights.
    return replace(
        found,
        dataset=f"{found.dataset}{_settings(result.values.get('settings'))}",
        epoch=None,
        seconds=None,
        tokens=None,
        after_training=False,
    )


def _settings(settings: object) -> str:
    """In what a set was asked otherwise than in training, which gives other figures; part of its name."""
    if not isinstance(settings, dict):
        return ""
    shots = settings.get("shots")
    count = as_int(shots.get("n")) if isinstance(shots, dict) else None
    words = [
        f"{count} shot" if count else "",
        f"{settings['max_samples']:,} rows" if isinstance(settings.get("max_samples"), int) else "",
        str(settings.get("method") or ""),
        "through an endpoint" if settings.get("endpoint") else "",
    ]
    listed = ", ".join(word for word in words if word)
    return f" ({listed})" if listed else ""
