"""`tunebook launch`: one recipe on several nodes, here, over SSH or on SLURM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunebook import files
from tunebook.cli.parts import overlay_option, say
from tunebook.errors import TunebookError
from tunebook.launch import LAUNCHERS, StartOptions, all_files, load
from tunebook.launch.cluster import read_cluster, read_hosts
from tunebook.launch.plan import plan_launch, unfinished


@click.command("launch")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--via", type=click.Choice(list(LAUNCHERS)), required=True, help="How the nodes are started.")
@overlay_option
@click.option(
    "--split",
    type=click.Path(path_type=Path, file_okay=False),
    help="A finished `tunebook data split`: each node trains on its own part.",
)
@click.option("--nodes", type=click.IntRange(min=1), help="By default the split's parts, or the hosts.")
@click.option("--joint", is_flag=True, help="Train one model on all nodes, instead of one on each.")
@click.option("--hosts", type=click.Path(path_type=Path), help="For ssh: a file with one host per line.")
@click.option("--cluster", type=click.Path(path_type=Path), help="The site's settings, see docs/launch.md.")
@click.option("--parallel", type=click.IntRange(min=1), help="How many nodes at once, local and ssh.")
@click.option("--fail-fast", is_flag=True, help="The first node that fails ends the others, local and ssh.")
@click.option("--after", metavar="JOBID", help="For slurm: wait until these jobs have ended well.")
@click.option("--dry-run", is_flag=True, help="Print every file and command; write and start nothing.")
@click.pass_context
def launch(ctx: click.Context, /, recipe: str, overrides: tuple[str, ...], **options: Any) -> None:
    """Train one recipe on several nodes: here, over SSH or on SLURM.

    Everything is written to `<output_dir>/launch/` first, as files one can read and run by hand. Every node
    needs this folder, the recipe's data and tunebook at the same paths, as on a shared file system. The same
    command again goes on with what has not ended well. Exit status 1 if a node failed.

    \b
    Example:
      tunebook launch llamafactory/qwen3-0.6b/lora_sft_gsm8k --via slurm --split data/gsm8k_4 --dry-run
    """
    via = options["via"]
    launcher = load(via)
    if launcher.needs_hosts != (options["hosts"] is not None):
        raise TunebookError(
            f"--via {via} {'needs' if launcher.needs_hosts else 'takes no'} --hosts",
            fix="give --hosts FILE, one host per line" if launcher.needs_hosts else "leave --hosts out",
        )
    if options["after"] and not launcher.has_queue:
        raise TunebookError(f"--via {via} takes no --after", fix="leave it out: only SLURM has a queue")
    plan = plan_launch(
        recipe,
        options["overlay_names"],
        overrides,
        split=options["split"],
        nodes=options["nodes"],
        joint=options["joint"],
        hosts=read_hosts(options["hosts"]) if options["hosts"] else (),
        cluster=read_cluster(options["cluster"]),
    )
    for note in plan.notes:
        say(note)
    start = StartOptions(after=options["after"], parallel=options["parallel"], fail_fast=options["fail_fast"])
    made = all_files(plan)
    if options["dry_run"]:
        for name, text in made.items():
            click.echo(f"# would write {plan.folder / name}")
            click.echo(text)
        for command in launcher.commands(plan, start):
            click.echo(f"# would run: {command}")
        return
    for name, text in made.items():
        files.write_atomic(plan.folder / name, text)
    say(f"wrote {', '.join(made)} to {plan.folder}")
    for note in unfinished(plan):
        say(note)
    ctx.exit(launcher.start(plan, start, say))
