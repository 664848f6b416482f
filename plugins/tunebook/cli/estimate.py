"""`tunebook estimate`: GPU memory by term, steps, sizes and time of a recipe, before it is run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunebook import memory, paths
from tunebook.cli.parts import overlay_option
from tunebook.data.registry import data_files, load_registry
from tunebook.data.rows import READABLE, iter_rows
from tunebook.errors import TunebookError
from tunebook.memory.from_recipe import read_run, schedule
from tunebook.memory.shapes import known_as, left_out
from tunebook.recipes.overlays import resolve_named

if TYPE_CHECKING:
    from tunebook.memory.from_recipe import Run
    from tunebook.types import Recipe

_GIB = 2**30
_EVALUATION_TERMS = {
    "resident": "resident",
    "layer": "layer",
    "cache": "keys and values",
    "attention": "mask, repeated keys",
    "logits": "logits",
    "logits_float": "logits in fp32",
    "context": "context",
    "total": "total",
    "after_training": "total after training",
}


@click.command("estimate")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@overlay_option
@click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="GPUs of the run.")
@click.option(
    "--gpu-gb", type=click.FloatRange(min=1), help="A GPU's memory in GiB: what fits, and what to change."
)
@click.option(
    "--config", "config_path", metavar="PATH", help="The model's config.json, where it is not known."
)
@click.option("--rows", type=click.IntRange(min=1), help="Training rows, where the data is not here.")
@click.option(
    "--tokens-per-second", type=click.FloatRange(min=0, min_open=True), help="Of all GPUs; adds a time."
)
@click.option(
    "--answer-tokens", type=click.IntRange(min=1), default=16, show_default=True, help="Of an evaluation row."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; sizes in bytes.")
def estimate(
    recipe: str,
    overrides: tuple[str, ...],
    overlay_names: tuple[str, ...],
    gpus: int,
    gpu_gb: float | None,
    config_path: str | None,
    rows: int | None,
    tokens_per_second: float | None,
    answer_tokens: int,
    as_json: bool,
) -> None:
    """Estimate memory, steps, sizes and time of a recipe.

    Only the recipe and the model's config.json are read: no weights, no GPU, no engine. docs/memory.md gives
    the formulas and how far they were from published measurements.

    \b
    Example:
      tunebook estimate llamafactory/qwen3-0.6b/qlora_sft_movielens --gpu-gb 24
    """
    resolved = resolve_named(recipe, paths.home() / "recipes", overlay_names, overrides).recipe
    run = read_run(resolved)
    if rows is None:
        rows = _count_rows(resolved)
    found = _gather(
        run, config_path or run.model, gpus=gpus, gpu_gb=gpu_gb, rows=rows, answer_tokens=answer_tokens,
        tokens_per_second=tokens_per_second,
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _print(found, resolved.name)


def _gather(
    run: Run,
    model: str,
    *,
    gpus: int,
    gpu_gb: float | None,
    rows: int | None,
    answer_tokens: int,
    tokens_per_second: float | None,
) -> dict[str, Any]:
    """Everything the command prints, as one mapping; sizes in bytes; what is not known is left out."""
    config = memory.find_config(model)
    shape = memory.read_shape(config)
    setup = memory.read_setup(**run.arguments, gpus=gpus)
    training = memory.estimate_setup(shape, setup)
    stock = memory.evaluate_setup(shape, setup, rows=run.eval_rows)
    answers = memory.evaluate_setup(shape, setup, rows=run.eval_rows, answer_tokens=answer_tokens)
    writing = memory.generate_setup(shape, config, setup, rows=run.eval_rows, new_tokens=answer_tokens)
    notes = [*run.assumed, *left_out(config, shape)]
    taken = known_as(model)
    if taken not in (None, model) and config == memory.find_config(str(taken)):
        notes.insert(0, f"{model}: sizes of {taken}, by its name")
    found: dict[str, Any] = {
        "model": run.model,
        "notes": notes,
        "gpus": gpus,
        "training": {**asdict(training), "terms": dict(training.terms)},
        "evaluation": {
            "rows": run.eval_rows,
            "answer_tokens": answer_tokens,
            **{
                name: {**asdict(one), "total": one.total, "after_training": one.after_training}
                for name, one in (("stock", stock), ("answer_positions", answers), ("generation", writing))
            },
        },
    }
    if rows is not None:
        plan = schedule(
            rows=rows,
            micro_batch=setup.micro_batch,
            accumulation=run.accumulation,
            gpus=gpus,
            epochs=run.epochs,
            max_steps=run.max_steps,
            seq_len=setup.seq_len,
        )
        found["schedule"] = asdict(plan)
        if tokens_per_second is not None:
            found["schedule"]["seconds_at_most"] = plan.tokens / tokens_per_second
    if gpu_gb is not None:
        found["card"] = {
            "gpu_gb": gpu_gb,
            "fits": max(training.total, stock.total) <= gpu_gb * _GIB,
            "evaluation_fits_only_with_answer_positions": answers.total <= gpu_gb * _GIB < stock.total,
            "largest_batch": memory.largest_batch(shape, setup, gpu_gb),
            "longest_context": memory.longest_context(shape, setup, gpu_gb),
        }
    found["ladder"] = [asdict(lever) for lever in memory.oom_ladder(shape, setup)]
    return found


def _count_rows(recipe: Recipe) -> int | None:
    """Count the training rows where their files are here; None where they are not, or are no text files."""
    values = recipe.values
    if recipe.engine == "axolotl":
        blocks = values.get("datasets") or []
        files = [Path(str(block.get("path"))) for block in blocks if isinstance(block, dict)]
        return _rows_of(files)
    names = values.get("dataset")
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names or [])
    try:
        registry = load_registry(Path(values.get("dataset_dir", "data")))
        entries = [registry.entry(name) for name in names]
    except TunebookError:
        return None  # `check` says what is wrong with it; memory needs no rows
    total = 0
    for entry in entries:
        try:
            count = _rows_of(data_files(entry))
        except TunebookError:
            # The files are made by a script that has not been run: the memory is still worth printing.
            return None
        if count is None:
            return None
        limits = [limit for limit in (entry.values.get("num_samples"), values.get("max_samples")) if limit]
        total += min([count, *limits])
    share = values.get("val_size") or 0
    return total - round(total * share if share < 1 else share) if total else None


def _rows_of(files: list[Path]) -> int | None:
    if not files or any(file.suffix not in READABLE or not file.is_file() for file in files):
        return None
    return sum(1 for file in files for _ in iter_rows(file))


def _print(found: dict[str, Any], name: str) -> None:
    """Print tables to standard output."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    training, evaluation = found["training"], found["evaluation"]
    console.print(f"{name}: {found['model']}, {found['gpus']} GPU, per GPU", soft_wrap=True)
    for note in found["notes"]:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    table = Table("training", "GiB", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for term, size in training["terms"].items():
        if size >= 0.005 * _GIB:
            table.add_row(term, f"{size / _GIB:.2f}")
    table.add_row("total", f"{training['total'] / _GIB:.2f}", style="bold")
    table.add_row("likely between", f"{training['low'] / _GIB:.1f} and {training['high'] / _GIB:.1f}")
    if training["host"]:
        table.add_row("host memory, all GPUs", f"{training['host'] / _GIB:.1f}")
    console.print(table)
    table = Table(
        f"evaluation, {evaluation['rows']} rows",
        "all positions",
        "answer positions",
        "generation",
        box=None,
        pad_edge=False,
    )
    for term, name in _EVALUATION_TERMS.items():
        sizes = [f"{evaluation[way][term] / _GIB:.2f}" for way in ("stock", "answer_positions", "generation")]
        table.add_row(name, *sizes, style="bold" if term == "total" else "")
    console.print(table)
    piece = evaluation["generation"]["read_at_a_time"]
    reading = f"read {piece:,} tokens at a time" if piece else "read whole"
    console.print(
        f"generation: {evaluation['answer_tokens']} new tokens after prompts up to the limit, {reading}",
        soft_wrap=True,
    )
    console.print(
        f"parameters {training['params']:,}, trained {training['trainable']:,}; "
        f"adapter file {training['adapter_file'] / 2**20:.1f} MiB, "
        f"optimizer file {training['optimizer_file'] / 2**20:,.0f} MiB",
        soft_wrap=True,
    )
    _print_schedule(found)
    _print_card(found)
    table = Table("when memory runs out, in this order", "saves", "then", "costs", box=None, pad_edge=False)
    for lever in found["ladder"]:
        table.add_row(
            lever["name"], f"{lever['saved'] / _GIB:.1f}", f"{lever['total'] / _GIB:.1f} GiB", lever["price"]
        )
    console.print(table)


def _print_schedule(found: dict[str, Any]) -> None:
    plan = found.get("schedule")
    if plan is None:
        click.echo("steps and time: the training data is not here; give --rows N")
        return
    line = (
        f"{plan['rows']:,} rows, {plan['rows_per_step']} a step: {plan['steps']:,} steps, "
        f"at most {plan['tokens'] / 1e6:,.1f} M tokens (every row at the length limit)"
    )
    if "seconds_at_most" in plan:
        line += f", at most {plan['seconds_at_most'] / 3600:,.1f} h"
    click.echo(line)


def _print_card(found: dict[str, Any]) -> None:
    card = found.get("card")
    if card is None:
        return
    verdict = "fits" if card["fits"] else "does not fit"
    if card["evaluation_fits_only_with_answer_positions"]:
        verdict += "; its evaluation fits only at answer positions"
    click.echo(
        f"{card['gpu_gb']:g} GiB: {verdict}. Largest micro-batch {card['largest_batch']:,} at this length, "
        f"longest row {card['longest_context']:,} tokens at this micro-batch."
    )
