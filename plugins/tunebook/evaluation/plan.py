"""Plans `tunebook eval` before anything is written or started.

Models that are loaded and asked alike share one process of the engine, so that their base is loaded once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook import engines, paths
from tunebook.checks.data import check_datasets
from tunebook.data.registry import load_registry
from tunebook.errors import Faults, TunebookError, join_errors
from tunebook.evaluation.job import EvalJob
from tunebook.evaluation.models import find_models
from tunebook.evaluation.records import digest, journal_key, result_name, settings_words
from tunebook.evaluation.shots_data import with_shots
from tunebook.runs import provenance
from tunebook.runs.folder import VOLATILE_KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.data.registry import Registry
    from tunebook.engines import Engine
    from tunebook.evaluation.job import EvalRequest
    from tunebook.evaluation.models import Argument
    from tunebook.evaluation.records import Candidate
    from tunebook.types import DatasetEntry, EngineName


JOURNAL = ".journal"
_ORDER = ("base", "adapter", "full", "endpoint")

# Besides those of a run: they decide how fast, not what.
_VOLATILE = VOLATILE_KEYS | {
    *("preprocessing_batch_size", "low_cpu_mem_usage", "data_shared_file_system", "offload_folder"),
    *("dataset_num_proc", "dataset_processes", "dataset_keep_in_memory", "dataloader_pin_memory"),
}


class EvalUnit(NamedTuple):
    """One model on one set: its journal, and the name of its result."""

    candidate: Candidate
    dataset: str
    journal: Path
    name: str
    about: dict[str, Any]
    """What the result says about its settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineGroup:
    """Models that one process of an engine evaluates."""

    engine: EngineName
    environment: Path
    values: dict[str, Any]
    """The evaluation recipe, without what belongs to one start."""
    sets: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    adapter: str | None
    units: tuple[EvalUnit, ...]
    job: EvalJob


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalPlan:
    """Everything that one command does."""

    request: EvalRequest
    groups: tuple[EngineGroup, ...]
    notes: tuple[str, ...]


class _Asked(NamedTuple):
    """A model with what it is evaluated on."""

    model: Argument
    environment: Path
    values: dict[str, Any]
    sets: tuple[str, ...]
    deciding: dict[str, dict[str, Any]]
    """By set: what decides the answers, besides the weights."""
    rows: dict[str, dict[str, Any]]
    """By set: the data, for people."""
    shots: dict[str, Any] | None
    """The examples before each question."""
    notes: list[str]


def plan_evaluation(request: EvalRequest) -> EvalPlan:
    """Find, check and group everything.

    Raises:
        TunebookError: Something the user must fix first; the faults of all models together.
    """
    home = paths.home()
    faults = Faults()
    looked_at: dict[tuple[Path, str], dict[str, Any]] = {}
    asked = []
    for model in find_models(request, home, faults):
        with faults.gather():
            asked.append(_ask(model, request, home, looked_at))
    faults.refuse()
    together: dict[str, list[_Asked]] = {}
    for one in asked:
        key = {
            "engine": one.model.recipe.engine,
            "environment": str(one.environment),
            "base": one.model.base,
            "deciding": one.deciding,
        }
        together.setdefault(digest(key), []).append(one)
    groups = tuple(_group(key, members, request) for key, members in together.items())
    notes = tuple(dict.fromkeys(note for one in asked for note in (*one.model.notes, *one.notes)))
    return EvalPlan(request=request, groups=groups, notes=notes)


def _ask(
    model: Argument, request: EvalRequest, home: Path, looked_at: dict[tuple[Path, str], dict[str, Any]]
) -> _Asked:
    engine = engines.load(model.recipe.engine)
    environment = paths.engine_environment(model.recipe.engine)
    refuse_no_hook(engine, environment)
    try:
        values, sets = engine.evaluation(model.recipe.values, datasets=request.datasets or None, home=home)
    except TunebookError as error:
        raise TunebookError(f"{model.label}: {error.problem}", fix=error.fix) from error
    shots, more = None, list[str]()
    if request.shots is not None:
        made = with_shots(request.shots, model.recipe.values, values, model.recipe.engine, home=home)
        values, shots, more = made.values, made.shots.as_data(), made.notes
    registry = load_registry(Path(str(values[engine.registry_key])))
    names = engine.evaluation_sets(values)
    entries = {name: registry.entry(name) for name in names}
    new = {name: entry for name, entry in entries.items() if (registry.path, name) not in looked_at}
    check_sets(registry, new, values, request)
    # Data may be large, and the runs of a command mostly have one set.
    looked_at |= {(registry.path, name): provenance.dataset_facts(entry) for name, entry in new.items()}
    lasting = {
        key: value
        for key, value in values.items()
        if key not in _VOLATILE and key not in engine.set_keys and key != engine.model_keys[0]
    }
    facts = {name: looked_at[registry.path, name] for name in entries}
    versions = paths.installed_versions(
        environment, (model.recipe.engine, "torch", "transformers", "peft", "tokenizers")
    )
    deciding, rows = {}, {}
    for label in sets:
        members = label.split("+") if label not in entries else [label]
        deciding[label] = {
            "engine": model.recipe.engine,
            "versions": versions,
            "recipe": lasting,
            "data": {
                name: {**_without_place(entries[name].values), "sha256": facts[name]["sha256"]}
                for name in members
            },
            "block": _block(values, label),
            "method": request.method,
            "batch_size": request.batch_size,
            "batch_tokens": request.batch_tokens,
            "max_samples": request.max_samples,
        }
        rows[label] = {name: facts[name] for name in members}
    return _Asked(model, environment, values, sets, deciding, rows, shots, more)


def _group(key: str, members: Sequence[_Asked], request: EvalRequest) -> EngineGroup:
    first = members[0]
    candidates: dict[str, Candidate] = {}
    owners: dict[str, _Asked] = {}
    for one in members:
        for candidate in one.model.candidates:
            candidates.setdefault(candidate.label, candidate)
            owners.setdefault(candidate.label, one)
    units = []
    # What uses the base before what replaces it.
    for candidate in sorted(candidates.values(), key=lambda one: _ORDER.index(one.kind)):
        owner = owners[candidate.label]
        units += [_unit(candidate, dataset, owner, request) for dataset in owner.sets]
    shard = "" if request.shard == (0, 1) else f"-{request.shard[0]}of{request.shard[1]}"
    job_key = digest({"group": key, "candidates": [unit.journal.name for unit in units]})
    journals: dict[str, dict[str, str]] = {}
    for unit in units:
        journals.setdefault(unit.candidate.label, {})[unit.dataset] = str(unit.journal)
    ordered = tuple(dict.fromkeys(unit.candidate for unit in units))
    return EngineGroup(
        engine=first.model.recipe.engine,
        environment=first.environment,
        values=first.values,
        sets=first.sets,
        candidates=ordered,
        adapter=next((one.model.adapter for one in members if one.model.adapter), None),
        units=tuple(units),
        job=EvalJob(
            folder=str((request.output / JOURNAL / "jobs" / f"{job_key[:16]}{shard}").absolute()),
            candidates=ordered,
            journals=journals,
            method=request.method,
            batch_size=request.batch_size,
            batch_tokens=request.batch_tokens,
            cache_on_host=request.cache_on_host,
            device_map=request.device_map,
            max_samples=request.max_samples,
            shard=request.shard,
        ),
    )


def _unit(candidate: Candidate, dataset: str, owner: _Asked, request: EvalRequest) -> EvalUnit:
    deciding = owner.deciding[dataset]
    shots = owner.shots["n"] if owner.shots else 0
    words = settings_words(method=request.method, max_samples=request.max_samples, shots=shots)
    name = result_name(
        recipe=owner.model.recipe_name,
        run_label="" if candidate.kind == "base" else owner.model.label,
        dataset=dataset,
        candidate=candidate,
        settings=words,
        digest=digest(deciding),
    )
    journal = request.output / JOURNAL / journal_key(candidate, dataset, deciding)
    about = {
        "engine": owner.model.recipe.engine,
        "recipe": {"name": owner.model.recipe_name, "values": deciding["recipe"]},
        "versions": deciding["versions"],
        "data": owner.rows[dataset],
        "method": request.method,
        "batch_size": request.batch_size,
        "batch_tokens": request.batch_tokens,
        "max_samples": request.max_samples,
        "shots": owner.shots,
    }
    return EvalUnit(candidate, dataset, journal.absolute(), name, about)


def _without_place(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Data is identified by its content: two nodes have the same data in two places."""
    return {key: value for key, value in entry.items() if key != "file_name"}


def _block(values: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """What an Axolotl recipe says of one set beyond its registry entry, such as a slice."""
    names, blocks = values.get("tunebook_eval_datasets"), values.get("test_datasets")
    if not isinstance(names, list) or not isinstance(blocks, list) or name not in names:
        return None
    return {key: value for key, value in blocks[names.index(name)].items() if key != "path"}


def check_sets(
    registry: Registry,
    entries: Mapping[str, DatasetEntry],
    values: Mapping[str, Any],
    request: EvalRequest,
) -> None:
    """Refuse data that cannot be evaluated as asked.

    Args:
        registry: Of the sets.
        entries: The sets to look at.
        values: The evaluation recipe.
        request: What is asked.

    Raises:
        TunebookError: One for each fault.
    """
    limit = values.get("max_samples")
    errors = check_datasets(
        registry, entries, list(entries), max_rows=limit if isinstance(limit, int) else None
    )
    if request.method in ("answer", "generate"):
        errors += [
            TunebookError(
                f"--method {request.method}: {name} carries no metric that could judge an answer",
                fix=f'add a "metric" to its entry in {registry.path}, or use --method perplexity',
            )
            for name, entry in entries.items()
            if not any(spec.reads_answers for spec in entry.metrics)
        ]
    if errors:
        raise join_errors(errors)


def refuse_no_hook(engine: Engine, environment: Path) -> None:
    """Refuse an environment whose engine would start without tunebook.

    Raises:
        TunebookError: It would; the error says how to fix that.
    """
    if not engine.uses_startup_hook:
        return
    if os.environ.get("TUNEBOOK_HOOK") == "0":
        raise TunebookError(
            "TUNEBOOK_HOOK=0 keeps tunebook out of the engine, so nothing can be measured",
            fix="unset TUNEBOOK_HOOK",
        )
    if not paths.has_startup_hook(environment):
        raise TunebookError(
            f"{environment} has the engine but not tunebook, so nothing can be measured",
            fix=f"`{environment}/bin/python -m pip install tunebook`",
        )
