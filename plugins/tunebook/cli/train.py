"""`tunebook train`: checks a recipe, starts its engine, and says how it ended."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from tunebook import engine_yaml, files, processes, provenance, run_folder
from tunebook.checkpoints import checkpoint_folders, last_whole_checkpoint
from tunebook.redact import redact
from tunebook.train_plan import plan_training

if TYPE_CHECKING:
    from tunebook.train_plan import TrainPlan


@click.command("train")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("-o", "--overlay", "overlays", multiple=True, metavar="NAME|PATH", help="Merge an overlay in.")
@click.option("--dry-run", is_flag=True, help="Print what would be run and written, and do neither.")
@click.pass_context
def train(
    ctx: click.Context, recipe: str, overrides: tuple[str, ...], overlays: tuple[str, ...], dry_run: bool
) -> None:
    """Train a recipe with its engine.

    RECIPE is a name from `tunebook ls` or the path of a YAML file. A run that was stopped goes on from its
    last whole checkpoint. The exit status is the engine's own; 2 if nothing was started, 130 after Ctrl-C.

    \b
    Example:
      tunebook train llamafactory/demo/full_sft_recommend learning_rate=5e-4
    """
    plan = plan_training(recipe, overlays, overrides)
    for note in plan.notes:
        _say(note)
    if plan.holding.state == "finished":
        _say(f"{plan.output_dir} already holds this run, finished; overwrite_output_dir=true runs it again")
        _say_results(plan)
        return
    if dry_run:
        _print_plan(plan)
        return
    ctx.exit(_start(plan))


def _start(plan: TrainPlan) -> int:
    """Write the run folder, run the engine, and return the exit status."""
    lock = run_folder.lock(plan.output_dir) if plan.output_dir.exists() else None
    if plan.replace_old:
        _say(f"moved the old folder to {run_folder.move_aside(plan.output_dir)}")
        run_folder.release(lock)
        lock = None
    if lock is None:
        lock = run_folder.lock(plan.output_dir)
    record = provenance.run_record(
        recipe=plan.recipe,
        sha256=plan.sha256,
        entries=plan.entries,
        command=plan.command,
        environment=plan.environment,
        packages=plan.packages,
        gpus=plan.gpus,
        resumed_from=plan.resumed_from,
    )
    folder = plan.output_dir / run_folder.FOLDER
    run_folder.keep_earlier_start(plan.output_dir)
    files.write_atomic(folder / "recipe.yaml", _recipe_text(plan))
    files.write_json(folder / "run.json", redact(record))

    ended = processes.run(plan.command, keep_open=() if lock is None else (lock,))
    if ended.code == 0:
        files.write_json(folder / "finished.json", {"finished": _now(), "exit_status": 0})
        _say(f"finished: {plan.output_dir}")
        _say_results(plan)
    elif ended.stopped_by:
        how = "Ctrl-C" if ended.stopped_by is signal.SIGINT else ended.stopped_by.name
        _say(f"stopped by {how}; {_how_to_go_on(plan)}")
    else:
        _say(f"the engine failed with exit status {ended.code}; its own message stands above")
        _say(_how_to_go_on(plan))
    return ended.code


def _recipe_text(plan: TrainPlan) -> str:
    header = [f"# {key}: {value}" for key, value in plan.recipe.header.items()]
    made = [f"# made from {plan.recipe.name}", *(f"# with {change}" for change in plan.recipe.overlays)]
    # The blank line ends the header: a comment line within it would go on with the fact above.
    return "\n".join([*header, "", *made, "", engine_yaml.dump(plan.recipe.values)])


def _how_to_go_on(plan: TrainPlan) -> str:
    last = last_whole_checkpoint(plan.output_dir).path
    if last is None:
        return "no whole checkpoint was written: the same command starts anew"
    return f"the same command goes on from {last}"


def _say_results(plan: TrainPlan) -> None:
    """Name the best checkpoint, where the engine chose one, and the command that comes next."""
    state = {}
    # LLaMA-Factory writes the state beside the weights; Axolotl leaves it in the checkpoints alone.
    for folder in (plan.output_dir, *reversed(checkpoint_folders(plan.output_dir))):
        with suppress(OSError, ValueError):
            state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
            break
    best, value = state.get("best_model_checkpoint"), state.get("best_metric")
    if best:
        by = plan.recipe.values.get("metric_for_best_model", "loss")
        _say(f"best checkpoint: {best} ({by} {value:.4f})")
    _say(f"next: tunebook report {plan.output_dir} -o reports/{plan.output_dir.name}")


def _print_plan(plan: TrainPlan) -> None:
    folder = plan.output_dir / run_folder.FOLDER
    if plan.replace_old:
        click.echo(f"# would move {plan.output_dir} aside")
    click.echo(f"# environment: {plan.environment}")
    click.echo(f"# would write: {folder / 'recipe.yaml'} (below), {folder / 'run.json'}")
    added = [f"{key}={value}" for key, value in plan.command.env.items()]
    click.echo(f"# would run: {' '.join([*added, *plan.command.argv])}\n")
    click.echo(_recipe_text(plan), nl=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _say(line: str) -> None:
    click.echo(f"tunebook: {line}", err=True)
