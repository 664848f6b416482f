"""`tunebook train`: checks a recipe, starts its engine, and says how it ended."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from tunebook import files
from tunebook.cli.parts import overlay_option, say
from tunebook.models.checkpoints import checkpoint_folders, last_whole_checkpoint
from tunebook.recipes import engine_yaml
from tunebook.redact import redact
from tunebook.runs import folder as run_folder
from tunebook.runs import processes, provenance, stop, token_cache
from tunebook.text import utc_now
from tunebook.training.plan import plan_training

if TYPE_CHECKING:
    from pathlib import Path

    from tunebook.runs.processes import Ended
    from tunebook.runs.stop import StopRequest
    from tunebook.training.plan import TrainPlan
    from tunebook.types import Command

LOG = "train.log"
"""Below `output_dir`: what a run in the background prints."""


@click.command("train")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@overlay_option
@click.option("--background", is_flag=True, help="Return at once; the run outlives the terminal.")
@click.option(
    "--cache",
    is_flag=False,
    flag_value=token_cache.DEFAULT_FOLDER,
    metavar="[DIR]",
    help=f"Keep the tokenised rows for other runs, below DIR or {token_cache.DEFAULT_FOLDER}.",
)
@click.option("--changed-data", is_flag=True, help="Go on with a run although its data files have changed.")
@click.option("--dry-run", is_flag=True, help="Print what would be run and written, and do neither.")
@click.pass_context
def train(
    ctx: click.Context,
    recipe: str,
    overrides: tuple[str, ...],
    overlay_names: tuple[str, ...],
    background: bool,
    cache: str | None,
    changed_data: bool,
    dry_run: bool,
) -> None:
    """Train a recipe with its engine.

    RECIPE is a name from `tunebook ls` or the path of a YAML file. A run that was stopped goes on from its
    last whole checkpoint. The exit status is the engine's own; 2 if nothing was started, 130 after Ctrl-C,
    138 after SIGUSR1, which writes a checkpoint first.

    \b
    Example:
      tunebook train llamafactory/demo/full_sft_recommend learning_rate=5e-4
    """
    if cache is not None and "=" in cache:
        raise click.UsageError(f"--cache took {cache!r} for its folder: write --cache last, or --cache=DIR")
    plan = plan_training(recipe, overlay_names, overrides, cache=cache, changed_data=changed_data)
    for note in plan.notes:
        say(note)
    if plan.holding.state == "finished":
        say(f"{plan.output_dir} already holds this run, finished; overwrite_output_dir=true runs it again")
        _say_results(plan)
        return
    if dry_run:
        _print_plan(plan)
        return
    rank = processes.node_rank(os.environ)
    if rank:
        ctx.exit(_follow(plan, rank))
    lock = _prepare(plan)
    if background:
        _start_in_background(plan, lock)
    else:
        ctx.exit(_run(plan, lock, log=None))


def _follow(plan: TrainPlan, rank: int) -> int:
    """Run the engine as a further node of a joint job, whose run folder is the first node's to keep."""
    folder = plan.output_dir / run_folder.FOLDER
    own = folder / f"recipe-node_{rank}.yaml"
    files.write_atomic(own, _recipe_text(plan))
    argv = tuple(str(own) if part == str(folder / "recipe.yaml") else part for part in plan.command.argv)
    request = stop.of_run(folder.absolute())
    ended = _run_engine(replace(plan.command, argv=argv), request)
    return 128 + signal.SIGUSR1 if ended.code == 0 and request.checkpoint() is not None else ended.code


def _prepare(plan: TrainPlan) -> int | None:
    """Prepare the run folder for this start, and return the lock on it."""
    lock = run_folder.lock(plan.output_dir) if plan.output_dir.exists() else None
    if plan.replace_old:
        say(f"moved the old folder to {run_folder.move_aside(plan.output_dir)}")
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
    return lock


def _start_in_background(plan: TrainPlan, lock: int | None) -> None:
    log = plan.output_dir / LOG
    pid = processes.detach(lambda: _run(plan, lock, log=log), log)
    say(f"started as process {pid}; its output goes to {log}")
    say(f"watch it: tunebook status {plan.output_dir} --watch")
    say(f"end it: tunebook stop {plan.output_dir}")


def _run(plan: TrainPlan, lock: int | None, *, log: Path | None) -> int:
    """Run the engine, and return the exit status."""
    folder = plan.output_dir / run_folder.FOLDER
    request = stop.of_run(folder.absolute())
    request.clear()
    # Set by whoever has sent our output to a file, as launch_node.sh does.
    printed = str(log.absolute()) if log else os.environ.get("TUNEBOOK_LOG")
    about = {"started": utc_now(), "engine": plan.recipe.engine, "log": printed}
    processes.record_self(folder, about)
    ended = _run_engine(plan.command, request, keep_open=() if lock is None else (lock,))
    code, saved = ended.code, request.checkpoint()
    if saved is not None:
        code = 128 + signal.SIGUSR1
        say(f"stopped as asked; {_how_to_go_on(plan)}")
    elif code == 0:
        files.write_json(folder / "finished.json", {"finished": utc_now(), "exit_status": 0})
        say(f"finished: {plan.output_dir}")
        _say_results(plan)
    elif ended.stopped_by:
        how = "Ctrl-C" if ended.stopped_by is signal.SIGINT else ended.stopped_by.name
        say(f"stopped by {how}; {_how_to_go_on(plan)}")
    else:
        say(f"the engine {ended.how}; its own message is above")
        say(_how_to_go_on(plan))
    stopped_by = "request" if saved is not None else ended.stopped_by and ended.stopped_by.name
    end = {"ended": utc_now(), "exit_status": code, "stopped_by": stopped_by}
    processes.record_end(folder, about | end)
    request.clear()
    return code


def _run_engine(command: Command, request: StopRequest, *, keep_open: tuple[int, ...] = ()) -> Ended:
    """Run an engine that ends after a checkpoint when it is asked to, as by SIGUSR1 to us."""
    command = replace(command, env={**command.env, stop.VARIABLE: str(request.asked)})
    return processes.run(command, keep_open=keep_open, ask_to_save=request.make)


def _recipe_text(plan: TrainPlan) -> str:
    header = [f"# {key}: {value}" for key, value in plan.recipe.header.items()]
    made = [f"# made from {plan.recipe.name}", *(f"# with {change}" for change in plan.recipe.overlays)]
    # The blank line ends the header: a comment line within it would be part of the fact above.
    return "\n".join([*header, "", *made, "", engine_yaml.dump(plan.recipe.values)])


def _how_to_go_on(plan: TrainPlan) -> str:
    last = last_whole_checkpoint(plan.output_dir).path
    if last is None:
        return "no whole checkpoint was written: the same command starts from the beginning"
    return f"the same command goes on from {last}"


def _say_results(plan: TrainPlan) -> None:
    """Name the best checkpoint, where the engine chose one, and the command that comes next."""
    state = {}
    # LLaMA-Factory writes the state beside the weights; Axolotl only into the checkpoints.
    for folder in (plan.output_dir, *reversed(checkpoint_folders(plan.output_dir))):
        with suppress(OSError, ValueError):
            state = files.read_json(folder / "trainer_state.json")
            break
    best, value = state.get("best_model_checkpoint"), state.get("best_metric")
    if best:
        by = plan.recipe.values.get("metric_for_best_model", "loss")
        say(f"best checkpoint: {best} ({by} {value:.4f})")
    say(f"next: tunebook report {plan.output_dir} -o reports/{plan.output_dir.name}")


def _print_plan(plan: TrainPlan) -> None:
    folder = plan.output_dir / run_folder.FOLDER
    if plan.replace_old:
        click.echo(f"# would move {plan.output_dir} aside")
    click.echo(f"# environment: {plan.environment}")
    click.echo(f"# would write: {folder / 'recipe.yaml'} (below), {folder / 'run.json'}")
    added = [f"{key}={value}" for key, value in plan.command.env.items()]
    click.echo(f"# would run: {' '.join([*added, *plan.command.argv])}\n")
    click.echo(_recipe_text(plan), nl=False)
