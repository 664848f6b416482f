"""Where a run writes and reads back: folders that are in use, missing or ignored."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import engines, files
from tunebook.checks.recipe import as_number, is_no_hub_name
from tunebook.errors import TunebookError
from tunebook.models.checkpoints import fault
from tunebook.redact import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tunebook.checks.findings import Finding
    from tunebook.checks.recipe import CheckedRecipe


def check_outputs(recipe: CheckedRecipe) -> Iterator[Finding]:
    """Every rule about one recipe's folders, and where it reports to."""
    yield from _missing_models(recipe)
    folder = recipe.get("output_dir")
    if isinstance(folder, str) and Path(folder).exists() and not Path(folder).is_dir():
        yield recipe.error("output_dir", "mixed-output", f"{folder} is a file", fix="set another output_dir")
    if recipe.engine == "axolotl":
        yield from _mixed(recipe, full=not recipe.get("adapter"))
        return
    if recipe.command != "train":
        return
    if not recipe.get("output_dir"):
        yield recipe.warning(
            "output_dir",
            "no-output-dir",
            "there is no output_dir: every such run writes into trainer_output",
            fix="add output_dir: output/<name>",
        )
    yield from _mixed(recipe, full=recipe.effective("finetuning_type") == "full")
    yield from _old_checkpoints(recipe)
    tokens = recipe.get("tokenized_path")
    if isinstance(tokens, str) and recipe.locate(tokens) is not None and recipe.get("dataset"):
        yield recipe.warning(
            "tokenized_path",
            "stale-tokens",
            f"{tokens} exists, so dataset, template and cutoff_len of this recipe are not read",
            fix="remove the folder, or the key",
        )
    checkpoint = recipe.get("resume_from_checkpoint")
    there = recipe.locate(checkpoint) if isinstance(checkpoint, str) and checkpoint else None
    broken = fault(there) if there is not None and there.is_dir() else "there is no such folder"
    if isinstance(checkpoint, str) and checkpoint and broken:
        yield recipe.error(
            "resume_from_checkpoint",
            "missing-checkpoint",
            f"{checkpoint}: {broken}",
            fix="name a checkpoint folder, or remove the key: the newest whole one is found",
        )
    trackers = recipe.get("report_to")
    if isinstance(trackers, str) and "," in trackers:
        listed = f"[{', '.join(part.strip() for part in trackers.split(','))}]"
        yield recipe.error(
            "report_to",
            "report-to",
            f"{trackers!r} is taken for one name",
            fix=f"write report_to: {listed}",
            edit=recipe.rewrite("report_to", listed),
        )
    if recipe.get("export_dir"):
        yield recipe.warning(
            "export_dir",
            "export-in-training",
            "training does not export; `llamafactory-cli export` does, from a file of its own",
            fix="remove it and export from a file of its own",
        )


def _missing_models(recipe: CheckedRecipe) -> Iterator[Finding]:
    """A model or adapter of this machine that is not there: nothing would be loaded."""
    # A demo's model is made by `make demo`, as its data are.
    ours = recipe.home / "recipes" in Path(recipe.file).resolve().parents
    for key in engines.load(recipe.engine).model_keys:
        value = recipe.get(key)
        # Adapters may be several, with commas between.
        for part in value.split(",") if isinstance(value, str) else ():
            if is_no_hub_name(part.strip()) and recipe.locate(part.strip()) is None:
                yield recipe.finding(
                    key,
                    rule="missing-model",
                    severity="hint" if ours else "error",
                    message=f"there is no folder {part.strip()}, and no model on a hub has such a name",
                    fix="make it as the recipe says"
                    if ours
                    else "correct the path; `check --without-files` leaves out what is not on this machine",
                )


def check_across(recipes: Sequence[CheckedRecipe]) -> Iterator[Finding]:
    """`output-clash`: of several files checked together, those that write into one folder."""
    first: dict[Path, CheckedRecipe] = {}
    for recipe in recipes:
        value = recipe.get("output_dir")
        if not isinstance(value, str) or recipe.command != "train":
            continue
        folder = Path(value).absolute()
        other = first.setdefault(folder, recipe)
        if other is not recipe and other.file != recipe.file:
            yield recipe.hint(
                "output_dir",
                "output-clash",
                f"{other.file} writes there too",
                fix="give each run an output_dir of its own",
            )


def _mixed(recipe: CheckedRecipe, *, full: bool) -> Iterator[Finding]:
    """LLaMA-Factory crashes at the end where an adapter and a whole model meet in one folder."""
    value = recipe.get("output_dir")
    folder = Path(value) if isinstance(value, str) else None
    if folder is None or not folder.is_dir() or recipe.get("overwrite_output_dir"):
        return
    adapter = (folder / "adapter_config.json").is_file()
    weights = any(folder.glob("model*.safetensors"))
    if (full and adapter) or (not full and weights and not adapter):
        held, made = ("an adapter", "a whole model") if full else ("a whole model", "an adapter")
        yield recipe.error(
            "output_dir",
            "mixed-output",
            f"{value} holds {held} of an earlier run, and gets {made} beside it",
            fix="set another output_dir",
        )


def _old_checkpoints(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`overwrite_output_dir` starts again and keeps the old files, from which a later start may go on."""
    value = recipe.get("output_dir")
    held = sorted(Path(value).glob("checkpoint-*")) if isinstance(value, str) else []
    if held and recipe.get("overwrite_output_dir"):
        yield recipe.hint(
            "output_dir",
            "old-checkpoints",
            f"{value} holds {held[-1].name} of an earlier run; overwrite_output_dir keeps it, "
            "and a later start may go on from there",
            fix="set another output_dir, or remove the folder",
        )


# Free space on disk for what a run is sure to write.

LEAST_BYTES = 1 << 30
"""Free space that every run needs: adapters, logs and evaluation records are small, but not nothing."""

# Full training keeps two Adam states of 4 bytes beside each weight of 2, so an optimizer's file is four
# times as large as the weights. Smaller optimizers exist: the estimate leaves out what is uncertain above
# it (further checkpoints up to save_total_limit), and counts one checkpoint and the final model.
_OPTIMIZER_PER_WEIGHT = 4


def check_disk(output_dir: Path, values: Mapping[str, Any], model: Path | None) -> None:
    """Check that one checkpoint and the final model fit.

    Args:
        output_dir: Where the run writes; need not exist.
        values: The resolved recipe.
        model: The folder of the base model; None where it is not on this machine.

    Raises:
        TunebookError: They do not.
    """
    needed = max(LEAST_BYTES, estimate_bytes(values, weight_bytes(model) if model else 0))
    free = files.free_bytes(output_dir)
    if free < needed:
        raise TunebookError(
            f"not enough space on disk: {output_dir} has {free / 2**30:.1f} GiB free, and one "
            f"checkpoint with the final model needs about {needed / 2**30:.1f} GiB",
            fix="free some space, or set output_dir to a larger disk",
        )


def estimate_bytes(values: Mapping[str, Any], weights: int) -> int:
    """Return the bytes of one checkpoint and the final model; 0 where only adapters are saved.

    Args:
        values: The recipe.
        weights: Bytes of the base model's weight files.
    """
    if values.get("finetuning_type", "lora") != "full":
        return 0
    optimizer = 0 if values.get("save_only_model") else _OPTIMIZER_PER_WEIGHT
    return weights * (2 + optimizer)


def weight_bytes(model: Path) -> int:
    """Return the bytes of the weight files in a model's folder."""
    weights = list(model.glob("*.safetensors")) or list(model.glob("*.bin"))
    return sum(path.stat().st_size for path in weights)


# Secrets in a recipe: it is kept in the run folder and shared.

_VARIABLES = {
    "hf_hub_token": "HF_TOKEN",
    "hub_token": "HF_TOKEN",
    "swanlab_api_key": "SWANLAB_API_KEY",
    "comet_api_key": "COMET_API_KEY",
}
_SECRET_KEY = re.compile(r"(?:token|key|secret|password|passwd|credentials?)$", re.IGNORECASE)
_LIST_POSITION = re.compile(r"\[\d+\]$")


def check_secrets(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`secret`; the value itself is never shown."""
    for path, place in recipe.places.items():
        raw = place.raw
        key = _LIST_POSITION.sub("", path).rpartition(".")[2]
        # A placeholder such as <your key> is no secret.
        if not raw or "<" in raw or raw.lower() in ("null", "~", "none", "true", "false"):
            continue
        # Nor is a number one.
        named = _SECRET_KEY.search(key) and as_number(raw) is None and redact(raw, key) != raw
        if named or redact(raw) != raw:
            finding = recipe.error(
                path,
                "secret",
                "a secret: the run folder would keep a copy of it",
                fix=f"remove it and set {_VARIABLES.get(key, 'an environment variable')} instead",
            )
            yield replace(finding, text=f"{key}: ...")
