"""Where the set-ups of several runs differ: settings of their recipes, environments, data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tunebook.checks.renamed import twins
from tunebook.report.records import Difference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.report.records import RunReport

# Differ between any two runs and say nothing about them.
_NOT_COMPARED = frozenset({"output_dir", "run_name", "wandb_name", "logging_dir", "overwrite_output_dir"})

# Beside the keys that `check` knows for one another: ours, and what the engines call their processes.
_TWINS = (
    *twins(),
    ("dataset_dir", "tunebook_dataset_dir"),
    ("preprocessing_num_workers", "dataset_num_proc"),
)
_SPELT_TWICE = {key: ", ".join(twin) for twin in _TWINS for key in twin}


def settings(runs: Sequence[RunReport]) -> tuple[Difference, ...]:
    """The settings in which the runs differ; of runs of both engines, under the names of both."""
    names = _SPELT_TWICE if len({run.engine for run in runs if run.engine}) > 1 else {}
    tables = {
        run.id: {
            names.get(setting.key, setting.key): _text(setting.value)
            for setting in run.settings
            if setting.key not in _NOT_COMPARED
        }
        for run in runs
    }
    found = []
    for key in dict.fromkeys(key for table in tables.values() for key in table):
        # Without a recipe, a key that is not written down may have any value: it is left out.
        values = {
            run.id: tables[run.id].get(key)
            for run in runs
            if key in tables[run.id] or run.recipe_text is not None
        }
        if len(set(values.values())) > 1:
            found.append(Difference(key=key, values=values))
    return tuple(found)


def environments(runs: Sequence[RunReport]) -> tuple[Difference, ...]:
    """Versions, machine, commit and data in which the runs that wrote them down differ."""
    tables = {run.id: _environment(run.provenance) for run in runs if run.provenance}
    found = []
    for key in dict.fromkeys(key for table in tables.values() for key in table):
        values = {run: table.get(key) for run, table in tables.items()}
        # Data that only one of them used is a matter of the recipe, which tells it.
        if key.startswith("data "):
            values = {run: value for run, value in values.items() if value is not None}
        if len(set(values.values())) > 1:
            found.append(Difference(key=key, values=values))
    return tuple(found)


def _environment(provenance: Mapping[str, Any]) -> dict[str, str]:
    git = provenance["git"]
    commit = f"{str(git['commit'])[:12]}{' with changes' if git['dirty'] else ''}" if git else None
    gpus = provenance["gpus"]
    found = {
        "host": provenance["host"],
        "GPUs": None if gpus is None else ", ".join(gpus) or "none",
        "git commit": commit,
        **{f"version of {name}": version for name, version in provenance["versions"].items()},
        **{
            f"data {name}": f"sha256 {facts['sha256'][:12]}"
            for name, facts in provenance["datasets"].items()
            if isinstance(facts["sha256"], str)
        },
    }
    return {key: value for key, value in found.items() if value is not None}


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # one engine's recipe says 3.0, the other's 3
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
