"""Whether an evaluation happens at all, and whether what it measures are answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook import engines
from tunebook.checks.arithmetic import rows_in_files
from tunebook.engines.axolotl.engine import data_faults, locate_blocks
from tunebook.engines.axolotl.rules import DIRECTORY_KEY, PLUGIN, evaluation_faults
from tunebook.types import MEDIA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.checks.findings import Finding
    from tunebook.checks.recipe import CheckedRecipe


def check_evaluation(recipe: CheckedRecipe) -> Iterator[Finding]:
    """Every rule of this module that fits the engine."""
    if recipe.engine == "axolotl":
        yield from _axolotl(recipe)
    elif recipe.command == "train":
        yield from _nothing_to_do(recipe)
        yield from _what_is_measured(recipe)
        yield from _streamed_files(recipe)
        yield from _repeated_rows(recipe)
    if recipe.command == "train":
        yield from _what_is_not_measured(recipe)


def _nothing_to_do(recipe: CheckedRecipe) -> Iterator[Finding]:
    does = [key for key in ("do_train", "do_eval", "do_predict") if recipe.get(key)]
    if not does:
        yield recipe.warning(
            "do_train",
            "trains-nothing",
            "none of do_train, do_eval, do_predict is true: data and model are loaded, nothing else",
            fix="add do_train: true",
        )
    asks = [key for key in ("do_eval", "do_predict", "predict_with_generate") if recipe.get(key)]
    if recipe.get("eval_strategy") in ("steps", "epoch"):
        asks.append("eval_strategy")
    if asks and not recipe.evaluates:
        yield recipe.error(
            asks[0],
            "nothing-to-evaluate",
            f"`{asks[0]}` is set, and there is nothing to evaluate on",
            fix="add eval_dataset, or val_size: 0.1 to split off a tenth of the training rows",
        )
    if recipe.get("val_size") == 1 and isinstance(recipe.get("val_size"), int):
        yield recipe.warning(
            "val_size",
            "one-row",
            "1 is one row, not all of them",
            fix="give a share below 1, e.g. 0.1, or a number of rows",
        )
    if recipe.evaluates and not asks:
        key = "eval_dataset" if recipe.get("eval_dataset") else "val_size"
        yield recipe.warning(
            key,
            "never-evaluates",
            "nothing asks for an evaluation: the rows are loaded and never used",
            fix="add eval_strategy: steps and eval_steps",
        )


def _repeated_rows(recipe: CheckedRecipe) -> Iterator[Finding]:
    """LLaMA-Factory fills `num_samples` up with rows that it takes again: n and intervals are then wrong."""
    if recipe.get("streaming"):
        return
    for entry in recipe.entries(recipe.evaluation_sets):
        wanted, rows = entry.values.get("num_samples"), rows_in_files(entry)
        if rows and isinstance(wanted, int) and wanted > rows:
            yield recipe.warning(
                "eval_dataset",
                "repeated-rows",
                f"{entry.name} has {rows} rows and num_samples {wanted}: LLaMA-Factory takes some several "
                "times, and intervals come out too narrow",
                fix=f"take num_samples out of the entry {entry.name}",
            )


def _streamed_files(recipe: CheckedRecipe) -> Iterator[Finding]:
    """LLaMA-Factory cuts a local file into as many streams as there are workers, and fails on none."""
    if not recipe.get("streaming") or recipe.get("dataloader_num_workers"):
        return
    for entry in recipe.entries(engines.load(recipe.engine).dataset_names(recipe.values)):
        if entry.values.get("file_name"):
            yield recipe.error(
                "dataloader_num_workers",
                "settings-conflict",
                f"streams the local file of {entry.name} with no worker, on which LLaMA-Factory fails",
                fix="add dataloader_num_workers: 1",
            )
            return


def _what_is_measured(recipe: CheckedRecipe) -> Iterator[Finding]:
    measured = [entry.name for entry in recipe.entries(recipe.evaluation_sets) if entry.metrics]
    if (recipe.get("packing") or recipe.get("neat_packing")) and recipe.get("tokenized_path") and measured:
        yield recipe.error(
            "tokenized_path",
            "packed-evaluation",
            f"keeps packed rows, also of {', '.join(measured)}: no answer is separate from the next",
            fix="remove tokenized_path, or packing",
        )
    if recipe.get("train_on_prompt") and measured:
        yield recipe.error(
            "train_on_prompt",
            "packed-evaluation",
            f"takes loss on the prompts of {', '.join(measured)}, so no answer is separate from its prompt",
            fix="remove train_on_prompt",
        )


def _what_is_not_measured(recipe: CheckedRecipe) -> Iterator[Finding]:
    """Metrics that the run ignores, or refuses when it starts."""
    objective = recipe.objective
    for entry in recipe.entries(recipe.evaluation_sets):
        if not entry.metrics:
            continue
        names = ", ".join(spec.name for spec in entry.metrics)
        why = None if objective is None else objective.no_answers
        if objective is not None and why is not None:
            yield recipe.hint(
                objective.key,
                "metric-ignored",
                f"{objective.setting}: {why}: {names} of {entry.name} is left out of this run",
                fix=objective.advice,
            )
            continue
        columns = entry.values.get("columns")
        media = [name for name in MEDIA if isinstance(columns, dict) and columns.get(name)]
        if media and recipe.engine == "llamafactory" and objective is not None:
            yield recipe.error(
                "eval_dataset",
                "media-not-measured",
                f"{entry.name} has {', '.join(media)}, which our evaluation would leave out: its "
                "figures would be of the text only",
                fix=f'take "metric" out of {entry.name}: LLaMA-Factory then evaluates it by itself',
            )


# What decides, beside the columns, how a block of conversations becomes rows.
_MAKES_ROWS = (
    *("type", "chat_template", "chat_template_jinja", "roles_to_train", "train_on_eos", "train_on_eot"),
    "eot_tokens",
)


def _other_rows(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`evaluated-otherwise`: a template or labels of the evaluation that no training block has."""

    def made(block: Any) -> dict[str, Any]:
        return {key: block.get(key, recipe.get(key)) for key in _MAKES_ROWS}

    blocks = {key: recipe.get(key) for key in ("datasets", "test_datasets")}
    lists = {key: one if isinstance(one, list) else [] for key, one in blocks.items()}
    trained = [made(block) for block in lists["datasets"] if isinstance(block, dict)]
    for number, block in enumerate(lists["test_datasets"]):
        wanted = made(block) if isinstance(block, dict) else None
        same_type = [one for one in trained if wanted and one["type"] == wanted["type"]]
        if wanted and same_type and wanted not in same_type:
            differs = next(key for key in _MAKES_ROWS if wanted[key] != same_type[0][key])
            yield recipe.warning(
                f"test_datasets[{number}]",
                "evaluated-otherwise",
                f"{differs} is {wanted[differs]!r} here and {same_type[0][differs]!r} in `datasets`: "
                "rows are evaluated in another form than they are trained in",
                fix=f"give both blocks the same {differs}",
            )


def _axolotl(recipe: CheckedRecipe) -> Iterator[Finding]:
    plugins = recipe.get("plugins", [])
    if isinstance(plugins, list) and PLUGIN in plugins and recipe.locate(str(recipe.registry_folder)):
        folder = recipe.registry_folder or ""
        root = next((place for place in recipe.folders if (place / folder).exists()), recipe.folders[0])
        faulty = False
        for error in evaluation_faults(recipe.values, root):
            key = next(
                (
                    word
                    for word in error.problem.replace(":", " ").replace("`", " ").split()
                    if word in recipe.values
                ),
                None,
            )
            yield recipe.error(key, "axolotl-evaluation", error.problem, fix=error.fix)
            faulty = True
        if not faulty:
            values, _ = locate_blocks(
                {**recipe.values, DIRECTORY_KEY: str(root / folder)}, recipe.folders[1:]
            )
            for error in data_faults(values):
                yield recipe.error("test_datasets", "axolotl-evaluation", error.problem, fix=error.fix)
            yield from _other_rows(recipe)
        return
    asked = [
        key
        for key in ("eval_strategy", "evaluation_strategy", "eval_steps", "evals_per_epoch")
        if recipe.get(key)
    ]
    if recipe.evaluates and not asked and not recipe.get("rl"):
        key = "test_datasets" if recipe.get("test_datasets") else "val_set_size"
        yield recipe.warning(
            key,
            "never-evaluates",
            "nothing asks for an evaluation: these rows are set aside and never used",
            fix="add eval_steps or evals_per_epoch"
            if key == "test_datasets"
            else "add eval_steps or evals_per_epoch, or set val_set_size: 0",
        )
