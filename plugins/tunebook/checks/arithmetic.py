"""Effective batch, steps and warmup of a recipe, as the Trainer will count them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunebook.checks.learning_rate import learning_rate, warmup_steps
from tunebook.checks.recipe import as_number
from tunebook.data import registry
from tunebook.data import rows as data_files
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.checks.findings import Finding
    from tunebook.checks.recipe import CheckedRecipe
    from tunebook.types import DatasetEntry

# Counting is worth it while it costs milliseconds.
_COUNTED_BYTES = 2 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """What a recipe comes to. None: it is not known without reading more."""

    batch: int
    """Rows of one forward pass on one GPU."""
    accumulation: int
    gpus: int
    rows: int | None
    """Rows trained on in an epoch."""
    steps: int | None
    """Optimizer steps of the whole run."""
    warmup: int | None
    """Steps of these that warm up."""

    @property
    def effective_batch(self) -> int:
        """Rows of one optimizer step."""
        return self.batch * self.accumulation * self.gpus


def arithmetic(recipe: CheckedRecipe, steps: int | None = None) -> Arithmetic | None:
    """Return what the recipe comes to; None where its batch is no number.

    Args:
        recipe: The recipe.
        steps: Steps of the run, where the caller knows them.
    """
    batch = as_number(recipe.setting("batch") or 1)
    accumulation = as_number(recipe.setting("accumulation") or 1)
    if not batch or not accumulation or batch < 1 or accumulation < 1:
        return None
    rows = _training_rows(recipe)
    steps = steps or _steps(recipe, rows, int(batch), int(accumulation))
    return Arithmetic(
        batch=int(batch),
        accumulation=int(accumulation),
        gpus=recipe.gpus,
        rows=rows,
        steps=steps,
        warmup=None if steps is None else warmup_steps(recipe.engine, recipe.values, steps),
    )


def check_arithmetic(recipe: CheckedRecipe) -> Iterator[Finding]:
    """The hint line `arithmetic`, and counts that leave nothing to train or nothing but warmup."""
    if recipe.command != "train":
        return
    for setting in ("batch", "accumulation"):
        key = recipe.name(setting)
        number = as_number(recipe.get(key))
        if number is not None and number < 1:
            yield recipe.error(
                key, "bad-count", f"{number:g} rows cannot be trained on", fix=f"set {key}: 1 or more"
            )
    counted = arithmetic(recipe)
    if counted is None:
        return
    if counted.steps and counted.warmup is not None and counted.warmup >= counted.steps:
        key = "warmup_ratio" if as_number(recipe.get("warmup_ratio")) else "warmup_steps"
        yield recipe.warning(
            key,
            "all-warmup",
            f"{counted.warmup} warmup steps of {counted.steps}: the learning rate never falls",
            fix="set a smaller warmup_steps, or warmup_ratio: 0.03",
        )
    yield recipe.hint(None, "arithmetic", in_words(recipe, counted), fix=None)


def effective_batch_fault(recipe: CheckedRecipe, wanted: int) -> Finding | None:
    """Return what is wrong where the effective batch is another than `wanted`; None where it is that."""
    counted = arithmetic(recipe)
    if counted is None or counted.effective_batch == wanted:
        return None
    key = recipe.name("accumulation")
    steps, rest = divmod(wanted, counted.batch * counted.gpus)
    return recipe.error(
        key,
        "effective-batch",
        f"{in_words(recipe, counted)}; {wanted} is wanted",
        fix=f"set {key}: {steps}"
        if steps and not rest
        else f"choose a batch and a number of GPUs that divide {wanted}",
    )


def in_words(recipe: CheckedRecipe, counted: Arithmetic) -> str:
    """Return the arithmetic as one line."""
    gpus = f"{counted.gpus} GPU{'s' if counted.gpus > 1 else ''}"
    line = (
        f"effective batch {counted.effective_batch} "
        f"({counted.batch} per GPU x {counted.accumulation} accumulated x {gpus})"
    )
    if counted.rows is not None:
        line += f", {counted.rows:,} rows"
    if counted.steps is not None:
        line += f", {counted.steps:,} steps"
        if counted.warmup is not None:
            line += f", {counted.warmup:,} of them warmup"
    elif as_number(recipe.get("warmup_steps")):
        line += f", {recipe.get('warmup_steps')} warmup steps"
    return line


def preview(recipe: CheckedRecipe, steps: int | None) -> str:
    """Return the learning rate at the start, each tenth of the run and the end, a line each.

    Raises:
        TunebookError: The steps, the rate or the scheduler are not known.
    """
    counted = arithmetic(recipe, steps)
    if counted is None or counted.steps is None:
        raise TunebookError(
            f"{recipe.file}: the steps of the run cannot be counted without its rows",
            fix="give --steps N, or max_steps=N",
        )
    peak = recipe.number("learning_rate")
    name = str(recipe.setting("scheduler"))
    warmup = counted.warmup or 0
    if not peak:
        raise TunebookError(f"{recipe.file}: names no learning_rate", fix="add learning_rate: 1.0e-4")
    try:
        rate = learning_rate(recipe.engine, recipe.values, peak=peak, steps=counted.steps)
    except (ValueError, TypeError) as err:
        raise TunebookError(
            f"{recipe.file}: the learning rate is not known: {err}", fix="see `tunebook check`"
        ) from err
    tenths = {round(counted.steps * tenth / 10): f"{tenth * 10} %" for tenth in range(11)}
    tenths[warmup] = f"{tenths[warmup]}, end of warmup" if warmup in tenths else "end of warmup"
    lines = [f"{recipe.file}: {name}, {counted.steps:,} steps, {warmup:,} of them warmup"]
    lines += [f"  step {step:>9,}  {rate(step):.4e}  {label}" for step, label in sorted(tenths.items())]
    return "\n".join(lines)


def _training_rows(recipe: CheckedRecipe) -> int | None:
    if recipe.engine != "llamafactory" or recipe.get("streaming") or recipe.get("packing"):
        return None
    names = recipe.get("dataset")
    names = names.split(",") if isinstance(names, str) else names if isinstance(names, list) else []
    wanted = tuple(dict.fromkeys(str(name).strip() for name in names))
    entries = recipe.entries(wanted)
    if not entries or len(entries) < len(wanted) or recipe.get("mix_strategy", "concat") != "concat":
        return None
    limit = recipe.get("max_samples")
    counts = [_count(entry) for entry in entries]
    rows = 0
    for count in counts:
        if count is None:
            return None
        rows += min(count, limit) if isinstance(limit, int) else count
    held_back = as_number(recipe.get("val_size")) or 0
    return rows - (math.ceil(held_back * rows) if held_back < 1 else int(held_back))


def _count(entry: DatasetEntry) -> int | None:
    """Rows that LLaMA-Factory takes of an entry: as many as `num_samples` says, if need be some twice."""
    rows, wanted = rows_in_files(entry), entry.values.get("num_samples")
    return wanted if rows and isinstance(wanted, int) else rows


def rows_in_files(entry: DatasetEntry) -> int | None:
    """Rows of an entry's files; None where they are not here or too large to be counted at once."""
    try:
        files = registry.data_files(entry)
        known = files and all(path.suffix in data_files.READABLE for path in files)
        if not known or sum(path.stat().st_size for path in files) > _COUNTED_BYTES:
            return None
        return sum(1 for path in files for _ in data_files.iter_rows(path))
    except (TunebookError, OSError):
        return None


def _steps(recipe: CheckedRecipe, rows: int | None, batch: int, accumulation: int) -> int | None:
    limit = as_number(recipe.get("max_steps"))
    if limit and limit > 0:
        return int(limit)
    epochs = as_number(recipe.setting("epochs"))
    if not rows or not epochs or rows < 1:
        return None
    batches = math.ceil(rows / (batch * recipe.gpus))
    return math.ceil(epochs * max(1, math.ceil(batches / accumulation)))
