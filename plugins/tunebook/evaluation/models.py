"""Finds the runs and models that a command line names, their weights, and the recipes that load them."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunebook import engines, files
from tunebook.errors import Faults, TunebookError
from tunebook.evaluation.records import Candidate
from tunebook.models.chosen import AT, best_of, whole_weights
from tunebook.recipes import overlays
from tunebook.recipes.catalog import find_recipe, read_recipe
from tunebook.runs.folder import FOLDER
from tunebook.training.resolve import locate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.evaluation.job import EvalRequest
    from tunebook.types import Recipe


_SHARDING = ("deepspeed", "fsdp_config")
_QUANTIZATION = ("quantization_bit", "load_in_4bit", "load_in_8bit", "gptq")
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One run or model that the command line names: its recipe, and the models of it to evaluate."""

    recipe: Recipe
    """Resolved, its paths on this machine."""
    recipe_name: str
    """For the names of results."""
    label: str
    base: str
    """What it was trained from; for a model that no run of ours made, itself."""
    candidates: tuple[Candidate, ...]
    adapter: str | None
    """An adapter of `base`, where the recipe trains one and there is one."""
    notes: tuple[str, ...]


def find_models(request: EvalRequest, home: Path, faults: Faults) -> list[Argument]:
    """Find everything that the command line names, each once.

    Args:
        request: What is asked.
        home: tunebook's own folder.
        faults: Collects what is neither a run nor a model, has no whole weights, or needs a recipe.
    """
    root = home / "recipes"
    found: dict[tuple[Path, str], None] = {}
    for given in request.models:
        found.setdefault(_split(given, request.checkpoints), None)
    folders = list(dict.fromkeys(folder for folder, _ in found))
    label_of = dict(zip(folders, labels(folders), strict=True))
    models = []
    for folder, wanted in found:
        label = label_of[folder]
        with faults.gather():
            if is_run(folder):
                models.append(_of_run(folder, wanted, label, request, home, root))
            else:
                models.append(_of_model(folder, label, request, home, root))
    return models


def _split(given: str, checkpoints: str) -> tuple[Path, str]:
    path = _path(given)
    if not path.exists() and (match := AT.fullmatch(given)) and match["step"] != "base":
        return Path(match["run"]), match["step"]
    match = _CHECKPOINT.fullmatch(path.name)
    if match and is_run(path.parent):
        return path.parent, match[1]
    return path, checkpoints


def _path(given: str) -> Path:
    """The path without `.` and `..` in it: results are named after its last part."""
    path = Path(os.path.normpath(given))
    return path if path.name else path.absolute()


def _of_run(run: Path, wanted: str, label: str, request: EvalRequest, home: Path, root: Path) -> Argument:
    file = run / FOLDER / "recipe.yaml"
    recipe, notes = _resolve(read_recipe(file, root), request, home, root)
    engine = engines.load(recipe.engine)
    chosen = choose(run, wanted)
    base = _base(recipe, engine)
    given = tuple(
        candidate_of(one, label=f"{label}@{one.step}", base=base, run=run) for one in chosen.weights
    )
    if request.base:
        given = (_base_candidate(base, recipe), *given)
    anywhere, _ = whole_weights(run)
    adapters = [path for path in anywhere.values() if (path / "adapter_config.json").is_file()]
    return Argument(
        recipe=recipe,
        recipe_name=_recorded_name(run) or run.name,
        label=label,
        base=base,
        candidates=given,
        adapter=str(adapters[0].absolute()) if adapters else None,
        notes=(*notes, *chosen.notes),
    )


def _of_model(folder: Path, label: str, request: EvalRequest, home: Path, root: Path) -> Argument:
    on_hub = not folder.exists() and len(folder.parts) <= 2 and not folder.is_absolute()
    if not folder.is_dir() and not (on_hub and request.recipe):
        raise TunebookError(
            f"{folder}: there is no such run or model",
            fix=_near(folder) or "name a run's output_dir, RUN@STEP, RUN/checkpoint-STEP or a model's folder",
        )
    if request.recipe is None:
        raise TunebookError(
            f"{folder}: is not the output_dir of a run that tunebook started, so nothing says how "
            "to load and ask it",
            fix="name a recipe with its template and evaluation set: --recipe RECIPE",
        )
    recipe, notes = _resolve(find_recipe(request.recipe, root), request, home, root)
    engine = engines.load(recipe.engine)
    path = str(folder.absolute()) if folder.exists() else str(folder)
    if folder.is_dir() and (folder / "adapter_config.json").is_file():
        base = _base(recipe, engine)
        weights = WeightsFolder(folder, 0)
        candidate = candidate_of(weights, label=label, base=base, run=None)
        given = (_base_candidate(base, recipe), candidate) if request.base else (candidate,)
        return Argument(
            recipe=recipe,
            recipe_name=recipe.name,
            label=label,
            base=base,
            candidates=given,
            adapter=path,
            notes=notes,
        )
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise TunebookError(
            f"{folder}: is neither a run nor a model: there is no config.json",
            fix="name the folder that holds the weights",
        )
    quantized = [key for key in _QUANTIZATION if recipe.values.get(key)]
    if quantized:
        keys = ", ".join(quantized)
        notes = (*notes, f"{folder}: {keys} of the recipe is for a base under an adapter and is left out")
    own = {
        key: value
        for key, value in recipe.values.items()
        # An adapter that the recipe continues from is in the model already.
        if key not in engine.model_keys[1:] and key not in _QUANTIZATION
    }
    return Argument(
        recipe=replace(recipe, values={**own, engine.model_keys[0]: path}),
        recipe_name=recipe.name,
        label=label,
        base=path,
        candidates=(Candidate(label=label, kind="full", path=path, base=path, run=None, step=0),),
        adapter=None,
        notes=notes,
    )


def _resolve(recipe: Recipe, request: EvalRequest, home: Path, root: Path) -> tuple[Recipe, tuple[str, ...]]:
    recipe = overlays.resolve(recipe, root, (), request.overrides).recipe
    # Nothing is sharded in an evaluation, and a file that says how may be gone.
    values = {key: value for key, value in recipe.values.items() if key not in _SHARDING}
    faults = Faults()
    values, notes = locate(values, engines.load(recipe.engine), (home,), faults)
    faults.refuse()
    return replace(recipe, values=values), tuple(notes)


def _base(recipe: Recipe, engine: engines.Engine) -> str:
    value = recipe.values.get(engine.model_keys[0])
    if not isinstance(value, str) or not value:
        raise TunebookError(
            f"{recipe.path}: names no base model", fix=f"set {engine.model_keys[0]}=FOLDER_OR_NAME"
        )
    return str(Path(value).absolute()) if Path(value).is_dir() else value


def _base_candidate(base: str, recipe: Recipe) -> Candidate:
    bits = recipe.values.get("quantization_bit")
    bits = bits or next((n for n in (4, 8) if recipe.values.get(f"load_in_{n}bit")), None)
    what = f"base, {bits} bit" if bits else "base"
    return Candidate(label=f"{Path(base).name} ({what})", kind="base", path=base, base=base, run=None, step=0)


def _recorded_name(run: Path) -> str | None:
    try:
        record = files.read_json(run / FOLDER / "run.json")
        name = record["recipe"]["name"] if isinstance(record, Mapping) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None


def _near(folder: Path) -> str | None:
    parent = folder.parent
    if not parent.is_dir():
        return None
    there = [path.name for path in parent.iterdir() if path.is_dir()]
    close = difflib.get_close_matches(folder.name, there, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(str(parent / name) for name in close)}?" if close else None


class WeightsFolder(NamedTuple):
    """A folder with weights, and their optimizer steps."""

    path: Path
    step: int


class ChosenWeights(NamedTuple):
    """Which weights of a run are evaluated."""

    weights: list[WeightsFolder]
    """By rising step."""
    notes: list[str]


def is_run(folder: Path) -> bool:
    """Whether tunebook has trained into this folder."""
    return (folder / FOLDER / "recipe.yaml").is_file()


def choose(run: Path, wanted: str) -> ChosenWeights:
    """Choose weights of a run.

    Args:
        run: Its output_dir.
        wanted: `best`, `last`, `all`, or steps with commas between. `best` is the last where nothing says.

    Raises:
        TunebookError: No weights are whole, a step is not there, or `wanted` is none of these.
    """
    there, notes = whole_weights(run)
    if not there:
        why = "".join(f"\n  {note}" for note in notes)
        raise TunebookError(
            f"{run} has no checkpoint whose weights are whole{':' if why else ''}{why}",
            fix="train more: `tunebook train` resumes from what is whole, or name another run",
        )
    steps = sorted(there)
    if wanted == "all":
        chosen = steps
    elif wanted == "last":
        chosen = steps[-1:]
    elif wanted == "best":
        best = best_of(run, there)
        if best is None:
            notes.append(f"{run}: nothing says which step was best; evaluating the last, {steps[-1]}")
        chosen = [steps[-1] if best is None else best.step]
    else:
        chosen = _steps(run, wanted, steps)
    return ChosenWeights([WeightsFolder(there[step], step) for step in chosen], notes)


def candidate_of(weights: WeightsFolder, *, label: str, base: str, run: Path | None) -> Candidate:
    """Return the candidate that a folder with weights is."""
    adapter = (weights.path / "adapter_config.json").is_file()
    return Candidate(
        label=label,
        kind="adapter" if adapter else "full",
        path=str(weights.path.absolute()),
        base=base,
        run=None if run is None else str(run),
        step=weights.step,
    )


def labels(runs: Sequence[Path]) -> list[str]:
    """Name each run by as much of the end of its path as makes it unique.

    >>> labels([Path("output/a/node_0"), Path("output/b/node_0"), Path("output/c")])
    ['a.node_0', 'b.node_0', 'c']
    """
    parts = [run.absolute().parts for run in runs]
    found = []
    for own in parts:
        length = 1
        while length < len(own) and sum(other[-length:] == own[-length:] for other in parts) > 1:
            length += 1
        found.append(".".join(own[-length:]))
    return found


def _steps(run: Path, wanted: str, steps: list[int]) -> list[int]:
    parts = [part.strip().removeprefix("checkpoint-") for part in wanted.split(",")]
    if not all(part.isdigit() for part in parts):
        raise TunebookError(
            f"--checkpoints {wanted}: is neither a list of steps nor best, last or all",
            fix="write e.g. --checkpoints all, or --checkpoints 100,200",
        )
    chosen = sorted({int(part) for part in parts})
    missing = [step for step in chosen if step not in steps]
    if missing:
        raise TunebookError(
            f"{run} has no whole checkpoint of step {', '.join(map(str, missing))}",
            fix=f"it has {', '.join(map(str, steps))}",
        )
    return chosen
