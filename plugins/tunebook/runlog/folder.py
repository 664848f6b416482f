"""Reads one run folder: finds its files, reads each, and joins what they say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.runlog.columns import merge
from tunebook.runlog.evaluations import from_series, read_eval_metrics
from tunebook.runlog.examples import record_files
from tunebook.runlog.records import Note, RunLog, Series, Sourced
from tunebook.runlog.settings import read_settings
from tunebook.runlog.speed import steps_per_second
from tunebook.runlog.tolerant_json import as_float, read_object
from tunebook.runlog.trainer_log import read_trainer_log
from tunebook.runlog.trainer_state import TrainerState, read_trainer_state
from tunebook.runlog.weights import trained_parameters

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tunebook.runlog.records import Evaluation

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_RESULTS = ("train_results.json", "eval_results.json", "all_results.json")


def read_run(folder: Path) -> RunLog:
    """Read everything that is known of the run in `folder`.

    Damaged files are read as far as they go, with a note of what was lost.

    Raises:
        TunebookError: There is no such folder, it is empty, holds no run, or cannot be read.
    """
    try:
        return _Reader(folder).read()
    except OSError as err:
        raise TunebookError(
            f"cannot read {err.filename or folder}: {err.strerror}",
            fix="make the file readable for you, or copy the run folder to where it is",
        ) from err


class _Reader:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[Note] = []

    def read(self) -> RunLog:
        self._refuse_no_run()
        state = self._state()
        series = self._series(state)
        provenance = self._provenance()
        evaluations = self._evaluations(series, provenance)
        settings = read_settings(self.folder)
        results, results_source = self._results(state)
        recipe = provenance.get("recipe")
        engine = recipe.get("engine") if isinstance(recipe, dict) else None
        found = RunLog(
            name=self.folder.resolve().name,
            path=self.folder.resolve(),
            engine=engine if isinstance(engine, str) else self._guess_engine(),
            series=series,
            evaluations=tuple(sorted(evaluations, key=lambda e: (e.after_training, e.step, e.dataset))),
            record_files=record_files(self.folder / "tunebook"),
            trainer=state.trainer if state else None,
            results=results,
            results_source=results_source,
            settings=settings.values,
            settings_source=settings.source,
            recipe_text=settings.text,
            provenance=provenance,
            notes=tuple(self.notes),
            facts=self._facts(),
        )
        if not (found.series or found.evaluations or found.results):
            raise TunebookError(
                f"{self.folder} is not a run folder: it holds no trainer_state.json, trainer_log.jsonl, "
                "*_results.json or tunebook/eval_metrics.jsonl with anything in it",
                fix="name the output_dir of a run, the folder that holds its checkpoint-* folders",
            )
        return found

    def _refuse_no_run(self) -> None:
        if not self.folder.exists():
            raise TunebookError(f"there is no folder {self.folder}", fix="name the output_dir of a run")
        if not self.folder.is_dir():
            raise TunebookError(
                f"{self.folder} is a file, not a run folder", fix="name the output_dir of a run"
            )
        if not any(self.folder.iterdir()):
            raise TunebookError(
                f"{self.folder} is empty: no run has written into it",
                fix="name the output_dir of a run that has logged at least one step",
            )

    def _state(self) -> TrainerState | None:
        """The state at the top of the folder, else that of the newest checkpoint that has one."""
        places = [self.folder, *_checkpoints(self.folder)]
        for place in places:
            path = place / "trainer_state.json"
            if not path.is_file():
                continue
            source = str(path.relative_to(self.folder))
            state = read_trainer_state(path, source)
            if state is None:
                self.notes.append(Note(kind="lost", file=source, message="damaged; nothing could be read"))
                continue
            self.notes.extend(state.notes)
            return state
        return None

    def _series(self, state: TrainerState | None) -> dict[str, Series]:
        sources: list[Mapping[str, Series]] = [state.series] if state else []
        path = self.folder / "trainer_log.jsonl"
        if path.is_file():
            log = read_trainer_log(path, path.name)
            self.notes.extend(log.notes)
            sources.append(log.series)
        merged = merge(sources)
        if "train_tokens_per_second" not in merged and (speed := steps_per_second(merged)) is not None:
            merged[speed.name] = speed
        return merged

    def _evaluations(self, series: Mapping[str, Series], provenance: Mapping[str, Any]) -> list[Evaluation]:
        datasets = provenance.get("datasets")
        names = {key[0] for key in record_files(self.folder / "tunebook")}
        names |= set(datasets) if isinstance(datasets, dict) else set()
        # Our own evaluation logs token_accuracy beside accuracy; LLaMA-Factory calls the former the latter.
        ours_at_work = any(name.endswith("_token_accuracy") for name in series)
        counts_tokens = self._guess_engine() == "llamafactory" and not ours_at_work
        logged = from_series(series, names, accuracy_counts_tokens=counts_tokens)
        path = self.folder / "tunebook" / "eval_metrics.jsonl"
        if not path.is_file():
            return logged
        read = read_eval_metrics(path, "tunebook/eval_metrics.jsonl")
        self.notes.extend(read.notes)
        ours = {evaluation.step for evaluation in read.evaluations}
        known = {evaluation.dataset for evaluation in read.evaluations}
        return read.evaluations + [
            evaluation
            for evaluation in logged
            if evaluation.step not in ours or (evaluation.dataset and evaluation.dataset not in known)
        ]

    def _results(self, state: TrainerState | None) -> tuple[dict[str, float], str | None]:
        found: dict[str, float] = {}
        sources = []
        for name in _RESULTS:
            path = self.folder / name
            if not path.is_file():
                continue
            values = read_object(path)
            if values is None:
                self.notes.append(Note(kind="lost", file=name, message="damaged; nothing could be read"))
                continue
            numbers = {
                key: number for key, value in values.items() if (number := as_float(value)) is not None
            }
            if numbers.keys() - found.keys():
                sources.append(name)
            found = numbers | found
        if state and state.summary and not sources:
            return dict(state.summary), state.trainer.source
        return found, ", ".join(sources) or None

    def _provenance(self) -> dict[str, Any]:
        path = self.folder / "tunebook" / "run.json"
        if not path.is_file():
            return {}
        found = read_object(path)
        if found is None:
            self.notes.append(
                Note(kind="lost", file="tunebook/run.json", message="damaged; nothing could be read")
            )
            return {}
        return found

    def _facts(self) -> dict[str, Sourced]:
        found = trained_parameters(self.folder)
        return {"trained_parameters": found} if found else {}

    def _guess_engine(self) -> str | None:
        if (self.folder / "trainer_log.jsonl").is_file():
            return "llamafactory"
        debug_log = self.folder / "debug.log"
        return "axolotl" if debug_log.is_file() else None


def _checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, the newest step first."""
    found = [(int(m[1]), path) for path in folder.iterdir() if (m := _CHECKPOINT.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]
