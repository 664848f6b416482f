"""`tunebook bench`: a short real training of a recipe, timed."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunebook import engines, files, memory
from tunebook.bench import Figures, bench_values, figures_of
from tunebook.cli.parts import overlay_option, say
from tunebook.errors import TunebookError
from tunebook.memory.from_recipe import read_run
from tunebook.recipes import engine_yaml
from tunebook.runs import processes, provenance
from tunebook.training.plan import plan_training

if TYPE_CHECKING:
    from tunebook.memory.shapes import Shape
    from tunebook.training.plan import TrainPlan

_GIB = 2**30


@click.command("bench")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@overlay_option
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True, help="Steps to time.")
@click.option("--warmup", type=click.IntRange(min=0), default=3, show_default=True, help="Steps before them.")
@click.option(
    "--attention", metavar="NAME,...", help="Attention implementations to compare, by the engine's own names."
)
@click.option("--synthetic", is_flag=True, help="Random weights of the model's size, LLaMA-Factory only.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list on stdout.")
def bench(
    recipe: str,
    overrides: tuple[str, ...],
    overlay_names: tuple[str, ...],
    steps: int,
    warmup: int,
    attention: str | None,
    synthetic: bool,
    as_json: bool,
) -> None:
    """Time a short training of a recipe: speed, memory, use of the GPU.

    The recipe's engine trains a few steps on the recipe's data, without evaluation and saving, in a folder
    that is removed. Give the tokens per second to `tunebook estimate --tokens-per-second`.

    \b
    Example:
      tunebook bench llamafactory/demo/full_sft_recommend --steps 10
    """
    names: list[str | None] = [*attention.split(",")] if attention else [None]
    found = []
    with tempfile.TemporaryDirectory(prefix="tunebook-bench-") as folder:
        plan = plan_training(recipe, overlay_names, [*overrides, f"output_dir={folder}"])
        for number, name in enumerate(names):
            output = Path(folder) / str(number)
            values = bench_values(
                {**plan.recipe.values, "output_dir": str(output)},
                plan.recipe.engine,
                steps=steps + warmup,
                attention=name,
                synthetic=synthetic,
            )
            if not as_json:
                say(f"training {steps + warmup} steps, {name or 'attention as the recipe says'}")
            raw = _train(plan, values, output)
            shape, full, estimated = _expected(plan, len(provenance.gpus()) or 1)
            figures = figures_of(raw, warmup=min(warmup, len(raw["steps"]) - 1), shape=shape, full=full)
            found.append({"asked": name, **asdict(figures), "estimated_bytes": estimated})
            if not as_json:
                _print(figures, estimated)
    if as_json:
        click.echo(json.dumps(found, indent=2))


def _train(plan: TrainPlan, values: dict[str, Any], output: Path) -> dict[str, Any]:
    """Run the engine on `values`, and return what `hooks.timing` has written."""
    recipe, left, log = output / "recipe.yaml", output / "steps.json", output / "log"
    files.write_atomic(recipe, engine_yaml.dump(values))
    command = engines.load(plan.recipe.engine).train(
        recipe,
        values,
        environment=plan.environment,
        gpus=provenance.visible_gpus(len(plan.gpus), os.environ),
        environ=os.environ,
    )
    # The engine's own output is of no use here, unless it fails.
    shell = ("sh", "-c", 'log=$1; shift; exec "$@" >"$log" 2>&1', "sh", str(log))
    command = replace(
        command, argv=(*shell, *command.argv), env={**command.env, "TUNEBOOK_BENCH_FILE": str(left)}
    )
    ended = processes.run(command)
    if ended.stopped_by:
        raise KeyboardInterrupt
    if not left.is_file():
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise TunebookError(
            f"the engine {ended.how} before its steps were made; it said last:\n{tail}",
            fix="mend what it says; else `tunebook doctor` says whether the start-up hook is on",
        )
    return dict(json.loads(left.read_text(encoding="utf-8")))


def _expected(plan: TrainPlan, gpus: int) -> tuple[Shape | None, bool, float | None]:
    """The model's shape, whether all of it is trained, and the estimated bytes of one GPU."""
    run = read_run(plan.recipe)
    full = run.arguments.get("method") == "full"
    try:
        config = memory.find_config(run.model)
        estimate = memory.estimate(config, **{**run.arguments, "gpus": gpus})
        return memory.read_shape(config), full, estimate.total
    except (TunebookError, ValueError):
        return None, full, None


def _print(figures: Figures, estimated: float | None) -> None:
    def gib(size: float | None) -> str:
        return "not known" if size is None else f"{size / _GIB:.2f} GiB"

    lines = {
        "device": f"{figures.ranks} x {figures.device}, attention {figures.attention or 'not known'}",
        "step": f"{figures.step_seconds:.3f} s, the median of {figures.steps}; "
        f"90 % below {figures.step_seconds_p90:.3f} s",
        "speed": f"{figures.tokens_per_second:,.0f} tokens/s, {figures.rows_per_second:,.1f} rows/s",
        "waiting for data": f"{figures.loading_share:.1%} of the time",
        "model FLOPs used": "not known for this device or model"
        if figures.mfu is None
        else f"{figures.mfu:.1%} of the device's peak",
    }
    if figures.peak_allocated_bytes is None:
        lines["memory"] = (
            f"{gib(figures.peak_resident_bytes)} of host memory; there is no GPU to compare with"
        )
    else:
        lines["GPU memory"] = (
            f"{gib(figures.peak_allocated_bytes)} allocated, {gib(figures.peak_reserved_bytes)} reserved; "
            f"estimated {gib(estimated)}"
        )
    for name, value in lines.items():
        click.echo(f"{name:18}{value}")
