"""Reads one run: finds its files, reads each, and joins what they say."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tunebook.errors import TunebookError
from tunebook.models.checkpoints import checkpoint_folders
from tunebook.runlog import phases
from tunebook.runlog.console import read_consoles
from tunebook.runlog.evaluations import from_results, from_series, read_eval_metrics, record_files
from tunebook.runlog.files import RunFiles, find_files
from tunebook.runlog.gpus import fullest, read_gpu_logs
from tunebook.runlog.records import Ending, Note, Restart, RunLog, Series, Sourced, Trainer
from tunebook.runlog.series import WentBack, merge_series
from tunebook.runlog.settings import OwnRecords, read_own_records, read_run_settings, trained_parameters
from tunebook.runlog.tensorboard import read_event_files
from tunebook.runlog.tolerant_json import numbers_of, read_object
from tunebook.runlog.trainer_files import read_states, read_trainer_log
from tunebook.runlog.wandb_run import read_wandb_runs

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from tunebook.runlog.console import Console
    from tunebook.runlog.records import Evaluation
    from tunebook.runlog.series import WentBack


# Logged once at the end, when they are closing figures and no curve.
_CLOSING = frozenset(
    {"total_flos", "train_loss", "train_samples_per_second", "train_steps_per_second", "train_runtime"}
)
_OF_TRAINING = frozenset({"loss", "learning_rate", "grad_norm", "reward"})
_WEIGHT = ("memory", "host memory", "error", "time limit", "preempted", "cancelled", "stall", "signal")
"""Of several logs of one start, which sign says most."""
_EVALUATED = (
    ("eval_results.json", "eval_", ""),
    ("all_results.json", "eval_", ""),
    ("predict_results.json", "predict_", "predict"),
)
"""Results files, what their figures are called there, and the name of the set where the file has none."""
_RESULTS = ("train_results.json", "eval_results.json", "all_results.json")


def read_run(folder: Path) -> RunLog:
    """Read everything that is known of the run in `folder`.

    That may also be a folder of logs only, or a single file: a console log, an event file, a `.wandb`, a
    CSV of nvidia-smi, a `trainer_state.json`. Damaged files are read as far as they go, with a note of what
    was lost.

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
        self._refuse_no_run()
        self.files: RunFiles = find_files(folder)
        self.states = read_states(self.files)
        self.wandb = read_wandb_runs(self.files)
        self.consoles = read_consoles(self.files)
        self.gpus = read_gpu_logs(self.files)
        self.settings = read_run_settings(folder)
        self.own: OwnRecords = read_own_records(folder / "tunebook")
        self.went_back: list[list[WentBack]] = []
        self.totals: list[tuple[str, int]] = []
        """Steps that a run was to take, by its `trainer_log.jsonl`."""
        self.closing: dict[str, Series] = {}
        self.counts_entries = False
        if self.files.pointers:
            message = f"Git LFS keeps {len(self.files.pointers)} files elsewhere, run `git lfs pull`: "
            message += self._named(self.files.pointers)
            self.notes.append(
                Note(kind="lost", file=self.files.name(self.files.pointers[0]), message=message)
            )

    def read(self) -> RunLog:
        self.notes += self.own.notes
        series = self._series()
        provenance = self.own.run
        evaluations = self._evaluations(series, provenance)
        evaluations += self._results_evaluated(evaluations, series)
        settings = self.settings
        results, results_source = self._results()
        recipe = provenance.get("recipe")
        engine = recipe.get("engine") if isinstance(recipe, dict) else None
        path = self.folder.resolve()
        trainer = self._trainer(series)
        stated = bool(self.states.state and self.states.state.trainer.global_step is not None)
        starts = phases.timed_starts(self.consoles.consoles)
        again = restarts_of(
            self.own.starts, self.consoles.consoles, self.went_back, series, self._checkpoint_steps()
        )
        runs = self.wandb.runs
        wall = phases.wall_seconds(
            self.own.starts, self.own.process, self.own.finished, starts, runs, restarts=len(again)
        )
        gpu_count = phases.gpu_count(self.own.starts, self.consoles.consoles, runs)
        gpus = (*self.gpus.gpus, *(gpu for run in runs for gpu in run.gpus))
        found = RunLog(
            name=self._name(path),
            path=path,
            engine=engine if isinstance(engine, str) else self._guess_engine(),
            series=series,
            evaluations=tuple(sorted(evaluations, key=lambda e: (e.after_training, e.step, e.dataset))),
            record_files=record_files(self.folder / "tunebook"),
            trainer=trainer,
            results=results,
            results_source=results_source,
            settings=(runs[-1].settings if runs and settings.text is None else {}) | settings.values,
            settings_source=", ".join(
                [
                    *([settings.source] if settings.source else []),
                    *(
                        f"{run.source} (config)"
                        for run in runs[-1:]
                        if run.settings and settings.text is None
                    ),
                ]
            )
            or None,
            recipe_text=settings.text,
            provenance=provenance,
            notes=tuple(self.notes),
            facts=self._facts(fullest(gpus)),
            phases=phases.phases_of(
                starts, evaluations, results, results_source, series, restarted=bool(again)
            ),
            restarts=again,
            gpus=gpus,
            wall_seconds=wall,
            gpu_count=gpu_count,
            gpu_hours=phases.gpu_hours(wall, gpu_count),
            counts_entries=self.counts_entries,
            ending=self._ending(trainer, series, results),
            trained=bool(
                stated
                or not _OF_TRAINING.isdisjoint(series)
                or any(name.startswith("train_") for name in results)
                or any(start.trained for console in self.consoles.consoles for start in console.starts)
            ),
        )
        begun = found.ending or any(run.settings for run in runs) or self.consoles.consoles or stated
        if not (found.series or found.evaluations or found.results or found.gpus or begun):
            if self.files.pointers:
                raise TunebookError(
                    f"{self.folder} holds only pointers of Git LFS ({self._named(self.files.pointers)}): the "
                    "files themselves are elsewhere",
                    fix="run `git lfs pull` in its repository",
                )
            raise TunebookError(
                f"{self.folder} is not a run: nothing in it was written by a Trainer (no trainer_state.json, "
                "trainer_log.jsonl, *_results.json, event file, .wandb file, log of nvidia-smi or console "
                "log with numbers in it)",
                fix="name the output_dir of a run, the folder that holds its checkpoint-* folders, or a log",
            )
        return found

    def _named(self, paths: Sequence[Path]) -> str:
        names = [self.files.name(path) for path in paths[:3]]
        return ", ".join(names) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")

    def _name(self, path: Path) -> str:
        """Of a single file of W&B the run's own name: the file has only its id."""
        if not self.folder.is_file():
            return path.name
        shown = self.wandb.runs[-1].name if self.wandb.runs else None
        return f"{shown} ({path.stem.removeprefix('run-')})" if shown else path.stem

    def _trainer(self, series: Mapping[str, Series]) -> Trainer | None:
        """What the state file says, else what the logs say of the steps."""
        if self.states.state:
            return self.states.state.trainer
        last = max((int(one.steps[-1]) for one in series.values() if len(one.steps)), default=None)
        for source, total in self.totals:
            return Trainer(source=source, global_step=last, max_steps=total)
        for console in reversed(self.consoles.consoles):
            if console.total_steps:
                steps = [step for step in (last, console.last_step) if step is not None]
                step = max(steps, default=None)
                return Trainer(source=console.source, global_step=step, max_steps=console.total_steps)
        return None

    def _ending(
        self, trainer: Trainer | None, series: Mapping[str, Series], results: Mapping[str, float]
    ) -> Ending | None:
        """What broke the last start off; a start that a later one followed says nothing of the run's end."""
        signs = [
            (console.sign, console.source, console.sign_after_training)
            for place, console in enumerate(self.consoles.consoles)
            if console.sign and not self._is_followed(place)
        ]
        signs += [(run.sign, run.source, False) for run in self.wandb.runs[-1:] if run.sign]
        if not signs:
            return None
        last = [int(one.steps[-1]) for one in series.values() if len(one.steps)]
        last += [console.last_step for console in self.consoles.consoles if console.last_step is not None]
        last += [trainer.global_step] if trainer and trainer.global_step is not None else []
        step, total = max(last, default=None), trainer.max_steps if trainer else None
        ended = "train_runtime" in results or bool(step and total and step >= total)
        sign, source, after = min(signs, key=lambda one: _WEIGHT.index(one[0].kind))
        return Ending(
            kind=sign.kind,
            title=sign.title,
            evidence=sign.evidence,
            source=source,
            step=step,
            total=total,
            after_training=after or ended,
        )

    def _is_followed(self, place: int) -> bool:
        """Whether a later log went on; of one start, errors may have a file of their own."""
        console = self.consoles.consoles[place]
        stem = console.source.rsplit(".", 1)[0]
        return any(
            later.series and later.source.rsplit(".", 1)[0] != stem and not later.source.startswith("wandb/")
            for later in self.consoles.consoles[place + 1 :]
        )

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

    def _checkpoint_steps(self) -> list[int]:
        return [
            int(path.name.removeprefix("checkpoint-")) for path in reversed(checkpoint_folders(self.folder))
        ]

    def _series(self) -> dict[str, Series]:
        """All sources of the run's series, the most exact first."""
        sources: list[Mapping[str, Series]] = [self.states.series]
        self.notes += self.states.notes
        for path in self.files.trainer_logs:
            log = read_trainer_log(path, self.files.name(path))
            self.notes.extend(log.notes)
            sources.append(log.series)
            self.went_back.append(log.went_back)
            if log.total_steps:
                self.totals.append((self.files.name(path), log.total_steps))
        sources.append(self.wandb.series)
        self.notes += self.wandb.notes
        events = read_event_files(self.files)
        self.notes.extend(events.notes)
        self.closing = events.closing
        sources.append(events.series)
        # How a log was read matters only where nothing better was there.
        better = any(sources)
        told = [note.message for console in self.consoles.consoles for note in console.notes if not better]
        told += [
            note.message for note in self.wandb.notes if not (self.states.series or self.files.trainer_logs)
        ]
        self.counts_entries = any(
            message.startswith(("no step count", "no train/global_step")) for message in told
        )
        sources.append(self.consoles.series)
        for console in self.consoles.consoles:
            self.notes.extend(
                note for note in console.notes if note.kind not in ("read", "left out") or not better
            )
        self.went_back += [
            self.wandb.went_back,
            events.went_back,
            self.consoles.went_back,
            self.states.went_back,
        ]
        self.notes += self.gpus.notes
        merged = merge_series(sources)
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
        # That of a reward model counts pairs.
        counts_tokens = (
            self._guess_engine() == "llamafactory"
            and not ours_at_work
            and self.settings.values.get("stage") != "rm"
        )
        logged = from_series(series, names, accuracy_counts_tokens=counts_tokens)
        path = self.folder / "tunebook" / "eval_metrics.jsonl"
        if not path.is_file():
            return logged
        read = read_eval_metrics(path, "tunebook/eval_metrics.jsonl")
        self.notes.extend(read.notes)
        ours = {evaluation.step for evaluation in read.evaluations}
        known = {evaluation.dataset for evaluation in read.evaluations}
        alone = len(known | {one.dataset for one in logged if one.dataset}) == 1
        return [_with_logged(one, logged, alone=alone) for one in read.evaluations] + [
            evaluation
            for evaluation in logged
            if evaluation.step not in ours or (evaluation.dataset and evaluation.dataset not in known)
        ]

    def _results_evaluated(
        self, known: Sequence[Evaluation], series: Mapping[str, Series]
    ) -> list[Evaluation]:
        """Evaluations that the results files alone hold: the Trainer saves its state before it makes them."""
        trainer = self.states.state.trainer if self.states.state else None
        last = (trainer.global_step if trainer else None) or max(
            (int(one.steps[-1]) for one in series.values() if len(one.steps)), default=0
        )
        ours = (self.folder / "tunebook" / "eval_metrics.jsonl").is_file()
        found: list[Evaluation] = [
            replace(one, after_training=True)
            for one in from_series(self.closing, (), accuracy_counts_tokens=False)
            if not ours and not any(_is_same(one, other) for other in known)
        ]
        for name, prefix, dataset in _EVALUATED:
            if ours and prefix == "eval_":
                continue  # every evaluation stands in there
            path = self.folder / name
            values = read_object(path) if path.is_file() and path not in self.files.pointers else None
            for one in from_results(numbers_of(values or {}), prefix, dataset, last, name):
                if not any(_is_same(one, other) for other in (*known, *found)):
                    found.append(one)
        return found

    def _results(self) -> tuple[dict[str, float], str | None]:
        found: dict[str, float] = {}
        sources = []
        for name in _RESULTS:
            path = self.folder / name
            if not path.is_file() or path in self.files.pointers:
                continue
            values = read_object(path)
            if values is None:
                self.notes.append(Note(kind="lost", file=name, message="damaged; nothing could be read"))
                continue
            numbers = numbers_of(values)
            if numbers.keys() - found.keys():
                sources.append(name)
            found = numbers | found
        if sources:
            return found, ", ".join(sources)
        state = self.states.state
        if state and state.summary:
            return dict(state.summary), state.trainer.source
        for run in reversed(self.wandb.runs):
            if closing := {name: run.summary[name] for name in sorted(_CLOSING) if name in run.summary}:
                return closing, run.source
        # The last start's figures: an earlier one may have ended early.
        for console in reversed(self.consoles.consoles):
            if console.summary:
                return dict(console.summary), console.source
        return {}, None

    def _facts(self, peak: Sourced | None) -> dict[str, Sourced]:
        found = {name: fact for console in self.consoles.consoles for name, fact in console.facts.items()}
        counted = trained_parameters(self.folder) if self.folder.is_dir() else None
        found |= {"trained_parameters": counted} if counted else {}
        return found | ({"peak_gpu_memory_mib": peak} if peak else {})

    def _guess_engine(self) -> str | None:
        if (self.folder / "trainer_log.jsonl").is_file():
            return "llamafactory"
        said = {console.banner for console in self.consoles.consoles}
        if "axolotl" in said or any(console.source == "debug.log" for console in self.consoles.consoles):
            return "axolotl"
        if "llamafactory" in said or (self.folder / "training_args.yaml").is_file():
            return "llamafactory"
        return next((run.engine for run in reversed(self.wandb.runs) if run.engine), None)


# Derives speed from the clock that a log carries, where the engine logged none.

_MIN_SECONDS = 10.0


def _is_same(one: Evaluation, other: Evaluation) -> bool:
    """Whether two evaluations have the same figures, as far as both have them."""
    shared = one.values.keys() & other.values.keys()
    return bool(shared) and all(
        math.isclose(one.values[name], other.values[name], rel_tol=1e-6, abs_tol=1e-9) for name in shared
    )


def steps_per_second(series: Mapping[str, Series]) -> Series | None:
    """Optimizer steps per second over stretches of at least 10 s and of a hundredth of the run.

    The clock is in whole seconds, so that a stretch of 10 s is right to a tenth. It runs on during
    evaluation and saving.

    Returns:
        None where no clock was logged or the run is shorter than three stretches.
    """
    clock = series.get("elapsed_seconds")
    if clock is None or len(clock.steps) < 2:
        return None
    stretch = max(_MIN_SECONDS, float(clock.values[-1] - clock.values[0]) / 100)
    kept = [0]
    for at, seconds in enumerate(clock.values.tolist()):
        if seconds - clock.values[kept[-1]] >= stretch:
            kept.append(at)
    if len(kept) < 4:
        return None
    steps, seconds = clock.steps[kept], clock.values[kept]
    return Series(
        name="steps_per_second",
        steps=steps[1:],
        values=np.diff(steps) / np.diff(seconds),
        source=f"{clock.source} (elapsed_time, over stretches of at least {stretch:.0f} s)",
    )


# Works out how often a run was started again, and where, from all that shows it.

_CHECKPOINT = re.compile(r"checkpoint-(\d+)/?$")


class _Seen(NamedTuple):
    """A restart as one source shows it; None for what it does not."""

    source: str
    resumed_at: int | None = None
    last_before: int | None = None
    first_again: int | None = None


def restarts_of(
    records: Sequence[tuple[str, Mapping[str, Any]]],
    consoles: Sequence[Console],
    went_back: Sequence[Sequence[WentBack]],
    series: Mapping[str, Series],
    checkpoints: Collection[int],
) -> tuple[Restart, ...]:
    """The restarts of a run, by the source that shows most of them, filled up from sources that show as many.

    Args:
        records: File and content of the starts that tunebook wrote down, the earliest first.
        consoles: The earliest first.
        went_back: Of each kind of log, where its steps went back, the most trusted kind first.
        series: The joined series, for the interval of logging.
        checkpoints: Steps of the checkpoints in the folder.
    """
    interval = _interval(series.get("loss"))
    lists = [_by_records(records), _by_consoles(consoles)]
    lists += [_by_steps(places, checkpoints, interval) for places in went_back]
    longest = max(lists, key=len)
    alike = [one for one in lists if len(one) == len(longest)]
    found = []
    for same in zip(*alike, strict=True):
        resumed_at = next((one.resumed_at for one in same if one.resumed_at is not None), None)
        steps = next((one for one in same if one.first_again is not None), same[0])
        found.append(_restart(same[0].source, resumed_at, steps.last_before, steps.first_again))
    return tuple(found)


def _by_records(records: Sequence[tuple[str, Mapping[str, Any]]]) -> list[_Seen]:
    found = []
    for place, (source, record) in enumerate(records):
        checkpoint = record.get("resumed_from")
        match = _CHECKPOINT.search(checkpoint) if isinstance(checkpoint, str) else None
        if match:
            found.append(_Seen(source, int(match[1])))
        elif place and checkpoint is None:
            found.append(_Seen(source, 0))
        elif place:
            found.append(_Seen(source))
    return found


def _by_consoles(consoles: Sequence[Console]) -> list[_Seen]:
    found: list[_Seen] = []
    for console in consoles:
        for start in console.starts:
            # A second log of the same start says the same.
            if start.resumed_at is not None and not (found and found[-1].resumed_at == start.resumed_at):
                found.append(_Seen(console.source, start.resumed_at))
    return found


def _with_logged(one: Evaluation, logged: Sequence[Evaluation], *, alone: bool) -> Evaluation:
    """Add the engine's own figures to an evaluation of ours beside it, which has no loss: see `Prepared`.

    Args:
        one: Of ours.
        logged: The engine's.
        alone: There is one set, whose name the engine does not log.
    """
    if "loss" in one.values or one.after_training:
        return one
    names = (one.dataset, "") if alone else (one.dataset,)
    found = [own.values for own in logged if own.step == one.step and own.dataset in names]
    return replace(
        one, values={name: value for own in found for name, value in own.items()} | dict(one.values)
    )


def _by_steps(places: Sequence[WentBack], checkpoints: Collection[int], interval: int) -> list[_Seen]:
    found: dict[int, _Seen] = {}
    for place in places:
        near = [step for step in checkpoints if place.first_again - interval <= step < place.first_again]
        at = near[0] if len(near) == 1 else None
        if place.first_again <= interval:
            at = 0
        # Two logs of one start go back at the same step.
        found[place.first_again] = _Seen(place.source, at, place.last_before, place.first_again)
    return list(found.values())


def _interval(loss: Series | None) -> int:
    return round(float(np.median(np.diff(loss.steps)))) if loss is not None and len(loss.steps) > 1 else 1


def _restart(source: str, at: int | None, last: int | None, first: int | None) -> Restart:
    repeated = None
    if last is not None and first is not None:
        repeated = max(0, last - (first - 1 if at is None else at))
    if at is None:
        message = "was started again" if first is None else f"was started again before step {first}"
    else:
        message = f"resumed at step {at}" if at else "was started again from the beginning"
    if repeated and last is not None:
        message += f"; steps {last - repeated + 1} to {last} were taken again, and the later values count"
    return Restart(resumed_at_step=at, steps_repeated=repeated, source=source, message=message)
