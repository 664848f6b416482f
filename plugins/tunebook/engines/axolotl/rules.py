"""Settings of an Axolotl recipe with which the asked-for evaluation would not happen, or not be true.

Axolotl accepts each of them without a message. The rules are read twice: before the engine is started, and by
the option model of our plugin inside it, for those who call `axolotl train` themselves.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from tunebook.data.registry import load_registry
from tunebook.engines.objectives import objective
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PLUGIN = "tunebook.hooks.axolotl.TunebookPlugin"
"""What a recipe names under `plugins:`."""

DIRECTORY_KEY = "tunebook_dataset_dir"
NAMES_KEY = "tunebook_eval_datasets"
OPTIONS = (DIRECTORY_KEY, NAMES_KEY)
"""The plugin's two options: where the registry is, and the entry of each block of `test_datasets`."""


def evaluation_faults(values: Mapping[str, Any], root: Path) -> list[TunebookError]:
    """Return everything that prevents the evaluation that our plugin is asked for.

    Args:
        values: The recipe as written, before the engine fills in its defaults.
        root: The folder that relative paths start from: where the engine is started.
    """
    names, blocks = values.get(NAMES_KEY), values.get("test_datasets")
    faults = list(_misspelt_options(values))
    trained_for = objective("axolotl", values)
    if trained_for is not None and trained_for.no_answers is not None:
        return faults  # the plugin says so when the run starts, and leaves the evaluation to Axolotl
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        faults.append(
            TunebookError(
                f"{NAMES_KEY} is {names!r}: the plugin has nothing to measure",
                fix=f"set `{NAMES_KEY}: [NAME, ...]`, one registry entry for each block of `test_datasets`",
            )
        )
        names = []
    if not isinstance(blocks, list) or not blocks:
        faults.append(
            TunebookError(
                "there is no `test_datasets`: the plugin measures named evaluation sets, not a split",
                fix="set `test_datasets` to the blocks of the evaluation sets, and remove `val_set_size`",
            )
        )
    elif names and len(names) != len(blocks):
        faults.append(
            TunebookError(
                f"{NAMES_KEY} has {len(names)} names for the {len(blocks)} blocks of `test_datasets`",
                fix=f"give `{NAMES_KEY}` one name for each block, in their order",
            )
        )
    elif trained_for is not None and len(names) > 1:
        faults.append(
            TunebookError(
                f"with `{trained_for.setting}` Axolotl merges the {len(names)} blocks of `test_datasets` "
                "into one set, and their rows cannot be told apart",
                fix=f"keep one block, and one name in `{NAMES_KEY}`",
            )
        )
    faults += _registry_faults(values.get(DIRECTORY_KEY), names, root)
    faults += _unreadable_rows(values)
    faults += _cadence_faults(values)
    faults += _best_model_faults(values)
    return faults


def _misspelt_options(values: Mapping[str, Any]) -> Iterator[TunebookError]:
    for key in values:
        if key.startswith("tunebook_") and key not in OPTIONS:
            close = difflib.get_close_matches(key, OPTIONS, n=1, cutoff=0.5)
            yield TunebookError(
                f"{key} is no option of the plugin",
                fix=f"did you mean {close[0]}?" if close else f"the options are {' and '.join(OPTIONS)}",
            )


def _registry_faults(directory: Any, names: list[str], root: Path) -> Iterator[TunebookError]:
    if not isinstance(directory, str) or not directory:
        yield TunebookError(
            f"{DIRECTORY_KEY} is {directory!r}",
            fix=f"set `{DIRECTORY_KEY}` to the folder that holds dataset_info.json",
        )
        return
    try:
        registry = load_registry(root / directory)
    except TunebookError as error:
        yield TunebookError(f"{DIRECTORY_KEY}: {error.problem}", fix=f"set `{DIRECTORY_KEY}`: {error.fix}")
        return
    for name in names:
        try:
            registry.entry(name)
        except TunebookError as error:
            yield TunebookError(f"{NAMES_KEY}: {error.problem}", fix=error.fix)
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield TunebookError(f"{NAMES_KEY} names {name!r} twice", fix=f"name each set of `{NAMES_KEY}` once")


def _unreadable_rows(values: Mapping[str, Any]) -> Iterator[TunebookError]:
    """Settings that leave no single answer in a row, or no rows that can be counted."""
    if values.get("dataloader_drop_last"):
        yield TunebookError(
            "`dataloader_drop_last: true` leaves out the rows of the last, incomplete batch",
            fix="set `dataloader_drop_last: false`",
        )
    if values.get("train_on_inputs"):
        yield TunebookError(
            "`train_on_inputs: true` takes loss on the prompts: no answer can be separated from its prompt",
            fix="set `train_on_inputs: false`",
        )
    if values.get("streaming"):
        yield TunebookError(
            "`streaming: true`: Axolotl loads no evaluation set beside a stream, but where it is packed and "
            "from a hub, which was not tried",
            fix=f"remove `streaming`, or take {PLUGIN} out of `plugins`",
        )


def _cadence_faults(values: Mapping[str, Any]) -> Iterator[TunebookError]:
    strategy = values.get("eval_strategy")
    if strategy == "no" or not (strategy or values.get("eval_steps") or values.get("evals_per_epoch")):
        why = "`eval_strategy: no`" if strategy == "no" else "no `eval_steps` and no `evals_per_epoch`"
        yield TunebookError(
            f"{why}: the evaluation sets would never be evaluated",
            fix="set `eval_steps` or `evals_per_epoch`",
        )


def _best_model_faults(values: Mapping[str, Any]) -> Iterator[TunebookError]:
    """Axolotl keeps the last model, in silence, unless both step counts are set and fit each other."""
    wanted = values.get("load_best_model_at_end") or values.get("early_stopping_patience")
    if not wanted:
        if values.get("metric_for_best_model"):
            yield TunebookError(
                "`metric_for_best_model` by itself chooses nothing: the last model is kept",
                fix="set `load_best_model_at_end: true`, or remove `metric_for_best_model`",
            )
        return
    key = "load_best_model_at_end" if values.get("load_best_model_at_end") else "early_stopping_patience"
    eval_steps = _steps(values, "eval_steps", "evals_per_epoch")
    save_steps = _steps(values, "save_steps", "saves_per_epoch")
    if eval_steps is None:
        yield TunebookError(
            f"`{key}` has no effect without `eval_steps`: Axolotl leaves it out in silence",
            fix="set `eval_steps` or `evals_per_epoch` instead of `eval_strategy`",
        )
    elif save_steps is None:
        yield TunebookError(
            f"`{key}` has no effect without `save_steps`: Axolotl leaves it out in silence",
            fix="set `save_steps` to a multiple of `eval_steps`, or `saves_per_epoch`",
        )
    elif save_steps % eval_steps != 0:
        yield TunebookError(
            f"`{key}` has no effect: `save_steps` ({save_steps:g}) is no multiple of `eval_steps` "
            f"({eval_steps:g}), and Axolotl leaves it out in silence",
            fix="set `save_steps` to a multiple of `eval_steps`",
        )


def _steps(values: Mapping[str, Any], key: str, per_epoch_key: str) -> float | None:
    """Steps as Axolotl computes them: a count, or a share of the run below 1."""
    per_epoch = values.get(per_epoch_key)
    if per_epoch:
        share = 1.0 / (per_epoch * float(values.get("num_epochs") or 1))
        return share if share < 1.0 else None
    steps = values.get(key)
    return float(steps) if steps else None
