"""Reads one run folder: finds its files, reads each, and joins what they say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.runlog.columns import merge
from tunebook.runlog.console import Console, read_console
from tunebook.runlog.evaluations import from_series, read_eval_metrics
from tunebook.runlog.examples import record_files
from tunebook.runlog.logs import read_consoles, read_event_files
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
# Logged once at the end, when they are closing figures and no curve.
_CLOSING = frozenset(
    {"total_flos", "train_loss", "train_samples_per_second", "train_steps_per_second", "train_runtime"}
)
_RESULTS = ("train_results.json", "eval_results.json", "all_results.json")


def read_run(folder: Path) -> RunLog:
    """Read everything that is known of the run in `folder`, which may also be a single console log.

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
        self.consoles: list[Console] = []

    def read(self) -> RunLog:
        self._refuse_no_run()
        state = self._state()
        self.consoles = self._consoles()
        series = self._series(state)
        provenance = self._provenance()
        evaluations = self._evaluations(series, provenance)
        settings = read_settings(self.folder)
        results, results_source = self._results(state)
        recipe = provenance.get("recipe")
        engine = recipe.get("engine") if isinstance(recipe, dict) else None
        path = self.folder.resolve()
        found = RunLog(
            name=path.stem if self.folder.is_file() else path.name,
            path=path,
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
                f"{self.folder} is not a run: nothing in it was written by a Trainer (no trainer_state.json, "
                "trainer_log.jsonl, *_results.json, event file or console log with numbers in it)",
                fix="name the output_dir of a run, the folder that holds its checkpoint-* folders, or a log",
            )
        return found

    def _refuse_no_run(self) -> None:
        if not self.folder.exists():
            raise TunebookError(
                f"there is no file or folder {self.folder}", fix="name the output_dir of a run"
            )
        if self.folder.is_dir() and not any(self.folder.iterdir()):
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

    def _consoles(self) -> list[Console]:
        if self.folder.is_dir():
            return read_consoles(self.folder)
        console = read_console(self.folder, self.folder.name)
        return [console] if console else []

    def _series(self, state: TrainerState | None) -> dict[str, Series]:
        """All sources of the run's series, the most exact first."""
        sources: list[Mapping[str, Series]] = [state.series] if state else []
        path = self.folder / "trainer_log.jsonl"
        if path.is_file():
            log = read_trainer_log(path, path.name)
            self.notes.extend(log.notes)
            sources.append(log.series)
        if self.folder.is_dir():
            events = read_event_files(self.folder)
            self.notes.extend(events.notes)
            sources.append(events.series)
        for console in self.consoles:
            sources.append(console.series)
            # How a log was read matters only where nothing better was there.
            better = len(sources) > 1
            self.notes.extend(note for note in console.notes if note.kind != "read" or not better)
        merged = merge(sources)
        for name in _CLOSING:
            merged.pop(name, None)
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
        if not sources:
            for console in self.consoles:
                if console.summary:
                    return dict(console.summary), console.source
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
        found = {name: fact for console in self.consoles for name, fact in console.facts.items()}
        counted = trained_parameters(self.folder) if self.folder.is_dir() else None
        return found | ({"trained_parameters": counted} if counted else {})

    def _guess_engine(self) -> str | None:
        if (self.folder / "trainer_log.jsonl").is_file():
            return "llamafactory"
        if (self.folder / "debug.log").is_file() or any("axolotl" in c.banner for c in self.consoles):
            return "axolotl"
        return "llamafactory" if any("llamafactory" in c.banner for c in self.consoles) else None


def _checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, the newest step first."""
    if not folder.is_dir():
        return []
    found = [(int(m[1]), path) for path in folder.iterdir() if (m := _CHECKPOINT.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]
