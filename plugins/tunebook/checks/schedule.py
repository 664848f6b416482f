"""Learning rate, warmup and optimizer: options that a scheduler does not take, and names that mislead."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from tunebook.checks.learning_rate import SCHEDULERS
from tunebook.checks.recipe import as_number
from tunebook.engines.schema import load_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tunebook.checks.findings import Finding
    from tunebook.checks.recipe import CheckedRecipe

_WITH_FLOOR = "cosine_with_min_lr"
_EIGHT_BIT = {
    "adamw_bnb_8bit": "paged_adamw_8bit",
    "adamw_8bit": "paged_adamw_8bit",
    "lion_8bit": "paged_lion_8bit",
}
_FULL_TUNING_RATE = 5e-5
# axolotl/utils/schemas/enums.py and config.py, beside the Trainer's own names.
_OF_AXOLOTL = ("reduce_lr_on_plateau", "one_cycle", "rex", "greedy")
_OPTIMIZERS_OF_AXOLOTL = (
    *("optimi_adamw", "ao_adamw_4bit", "ao_adamw_8bit", "ao_adamw_fp8", "adopt_adamw", "adamc"),
    *("came_pytorch", "muon", "dion", "sinkgd", "polora", "q_galore_adamw8bit"),
    *("flash_adamw", "flash_adam", "flash_sgd", "flash_sgdw", "flash_lion"),
)
_SLIP = 0.85


def check_schedule(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`scheduler-options`, `min-lr`, `two-warmups`, `not-paged`, `steps-over-epochs`, `high-rate`."""
    options = recipe.get("lr_scheduler_kwargs", {})
    name = recipe.setting("scheduler")
    if isinstance(options, dict) and isinstance(name, str) and name in SCHEDULERS:
        yield from _options(recipe, name, options)
    if recipe.engine == "axolotl":
        yield from _names(recipe)
    yield from _warmup(recipe)
    yield from _optimizer(recipe)
    limit, epochs = as_number(recipe.get("max_steps")), recipe.get(recipe.name("epochs"))
    if limit and limit > 0 and epochs is not None and "max_steps" not in recipe.overridden:
        place = recipe.places.get("max_steps")
        # An overlay that shortens a run is meant to win.
        if place is None or place.file == recipe.file:
            yield recipe.hint(
                "max_steps",
                "steps-over-epochs",
                f"max_steps wins over {recipe.name('epochs')}: {epochs}",
                fix=None,
            )


def _options(recipe: CheckedRecipe, name: str, options: Mapping[str, object]) -> Iterator[Finding]:
    taken = SCHEDULERS[name]
    for option in options:
        if option in taken:
            continue
        path = f"lr_scheduler_kwargs.{option}"
        close = difflib.get_close_matches(str(option), taken, n=1, cutoff=0.5)
        ignored = name in ("constant", "constant_with_warmup")
        if option.startswith("min_lr") and not close:
            fix = f"set {recipe.name('scheduler')}: {_WITH_FLOOR}"
        elif close:
            fix = f"did you mean {close[0]}?"
        else:
            fix = f"remove it; {name} takes {', '.join(taken) or 'none'}"
        yield recipe.finding(
            path,
            rule="scheduler-options",
            severity="warning" if ignored else "error",
            message=f"the scheduler {name} takes no {option}"
            + ("; it is ignored" if ignored else ": training ends with a TypeError"),
            fix=fix,
            # min_lr_factor is meant as a share, min_lr is not: only a misspelling is corrected.
            edit=recipe.rename(path, close[0])
            if close and difflib.SequenceMatcher(None, option, close[0]).ratio() >= 0.85
            else None,
        )
    yield from _floor(recipe, name, options)
    if name == "warmup_stable_decay" and options.get("num_decay_steps") is None:
        yield recipe.error(
            "lr_scheduler_kwargs" if options else recipe.name("scheduler"),
            "scheduler-options",
            "warmup_stable_decay needs num_decay_steps",
            fix="add lr_scheduler_kwargs: {num_decay_steps: <steps>}",
        )


def _names(recipe: CheckedRecipe) -> Iterator[Finding]:
    """Axolotl takes any text for both, and the Trainer refuses it once the model is loaded."""
    shared = load_schema("llamafactory")["keys"]["optim"]["choices"]
    known = {"lr_scheduler": (*SCHEDULERS, *_OF_AXOLOTL), "optimizer": (*shared, *_OPTIMIZERS_OF_AXOLOTL)}
    for key, names in known.items():
        value = recipe.get(key)
        close = difflib.get_close_matches(str(value), names, n=1, cutoff=_SLIP)
        # A plugin may bring an optimizer: only what looks like a known name is wrong.
        if value is not None and value not in names and close:
            yield recipe.error(
                key,
                "bad-choice",
                f"no {key.removeprefix('lr_')} is called {value}",
                fix=f"did you mean {close[0]}?",
                edit=recipe.rewrite(key, close[0]),
            )


def _floor(recipe: CheckedRecipe, name: str, options: Mapping[str, object]) -> Iterator[Finding]:
    lowest, share = as_number(options.get("min_lr")), as_number(options.get("min_lr_rate"))
    peak = recipe.number("learning_rate")
    if name in (_WITH_FLOOR, "cosine_warmup_with_min_lr"):
        if lowest is not None and share is not None:
            yield recipe.error(
                "lr_scheduler_kwargs",
                "min-lr",
                "min_lr and min_lr_rate cannot both be set",
                fix="remove one of them",
            )
        elif lowest is None and share is None:
            yield recipe.error(
                "lr_scheduler_kwargs" if options else recipe.name("scheduler"),
                "min-lr",
                f"{name} needs min_lr (a rate) or min_lr_rate (a share of learning_rate)",
                fix="add lr_scheduler_kwargs: {min_lr: 1.0e-6}",
            )
    if lowest is not None and peak and lowest >= peak:
        yield recipe.error(
            "lr_scheduler_kwargs.min_lr",
            "min-lr",
            f"min_lr is a rate, not a share: {lowest:g} is not below learning_rate {peak:g}",
            fix=f"set min_lr below {peak:g}, or write min_lr_rate: {lowest:g}",
        )
    end = as_number(options.get("lr_end"))
    if name == "polynomial" and peak and (1e-7 if end is None else end) >= peak:
        yield recipe.error(
            "lr_scheduler_kwargs.lr_end",
            "min-lr",
            f"lr_end must be below learning_rate {peak:g}",
            fix="set a smaller lr_end",
        )


def _warmup(recipe: CheckedRecipe) -> Iterator[Finding]:
    ratio, steps = as_number(recipe.get("warmup_ratio")), as_number(recipe.get("warmup_steps"))
    if ratio and steps and recipe.engine == "llamafactory":
        yield recipe.warning(
            "warmup_ratio",
            "two-warmups",
            "warmup_ratio and warmup_steps are both set; warmup_ratio wins",
            fix="remove one of them",
        )
    if ratio and ratio >= 1:
        yield recipe.error(
            "warmup_ratio",
            "two-warmups",
            f"warmup_ratio is a share of the run, and {ratio:g} is not below 1",
            fix=f"write warmup_steps: {ratio:g}, or a share such as 0.03",
        )


def _optimizer(recipe: CheckedRecipe) -> Iterator[Finding]:
    key = recipe.name("optimizer")
    name = recipe.get(key)
    paged = _EIGHT_BIT.get(name) if isinstance(name, str) else None
    if paged:
        place = recipe.places.get(key)
        promised = place is not None and "paged" in place.text.partition("#")[2].lower()
        yield recipe.finding(
            key,
            rule="not-paged",
            severity="warning" if promised else "hint",
            message=f"{name} is 8-bit but not paged: its states stay in GPU memory",
            fix=f"write {key}: {paged} if paging is wanted",
        )
    full = (
        recipe.effective("finetuning_type") == "full"
        if recipe.engine == "llamafactory"
        else not recipe.get("adapter")
    )
    rate = recipe.number("learning_rate")
    if full and rate and rate >= _FULL_TUNING_RATE and recipe.command == "train":
        yield recipe.hint(
            "learning_rate",
            "high-rate",
            f"{rate:g} is high for full fine-tuning of a trained model; 1e-6 to 2e-5 is usual",
            fix=None,
        )
