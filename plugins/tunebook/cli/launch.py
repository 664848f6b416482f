"""`tunebook launch`: one recipe on several nodes, here, over SSH or on SLURM."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunebook import files
from tunebook.cli.parts import overlay_option, say
from tunebook.errors import TunebookError
from tunebook.launch import plan_job, read_cluster, render, slurm
from tunebook.launch.cluster import read_hosts
from tunebook.launch.commands import SSH_OPTIONS, local_nodes, ssh_nodes
from tunebook.launch.job import unfinished
from tunebook.launch.nodes import Interrupted, Node, run_nodes

if TYPE_CHECKING:
    from tunebook.launch import Job

RECORD = "job.json"


@click.command("launch")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--via", type=click.Choice(["local", "ssh", "slurm"]), required=True)
@overlay_option
@click.option(
    "--split",
    type=click.Path(path_type=Path, file_okay=False),
    help="A finished `tunebook data split`: each node trains on its own part.",
)
@click.option("--nodes", type=click.IntRange(min=1), help="By default the split's parts, or the hosts.")
@click.option("--joint", is_flag=True, help="Train one model on all nodes, rather than one on each.")
@click.option("--hosts", type=click.Path(path_type=Path), help="For ssh: a file with a host a line.")
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
    if (via == "ssh") != (options["hosts"] is not None):
        raise TunebookError(
            f"--via {via} {'needs' if via == 'ssh' else 'takes no'} --hosts",
            fix="give --hosts FILE, a host a line" if via == "ssh" else "leave --hosts out",
        )
    if options["after"] and via != "slurm":
        raise TunebookError(f"--via {via} takes no --after", fix="leave it out: only SLURM has a queue")
    job = plan_job(
        recipe,
        options["overlay_names"],
        overrides,
        split=options["split"],
        nodes=options["nodes"],
        joint=options["joint"],
        hosts=read_hosts(options["hosts"]) if options["hosts"] else (),
        cluster=read_cluster(options["cluster"]),
    )
    for note in job.notes:
        say(note)
    rendered = render(job)
    if options["dry_run"]:
        _print_plan(job, rendered, via, options["after"])
        return
    for name, text in rendered.items():
        files.write_atomic(job.folder / name, text)
    say(f"wrote {', '.join(rendered)} to {job.folder}")
    for note in unfinished(job):
        say(note)
    if via == "slurm":
        _submit(job, options["after"])
        return
    nodes = local_nodes(job) if via == "local" else ssh_nodes(job)
    default = job.nodes if via == "ssh" or job.joint else 1
    limit = job.nodes if job.joint else options["parallel"] or job.cluster.max_parallel or default
    ctx.exit(_run(job, via, nodes, limit, fail_fast=options["fail_fast"] or job.joint))


def _submit(job: Job, after: str | None) -> None:
    (job.folder / "no_requeue").unlink(missing_ok=True)
    job_id = slurm.submit(job.folder / "submit.slurm", after=after)
    _record(job, "slurm", started=_now(), job_id=job_id)
    say(f"submitted as job {job_id}")
    say(f"watch it: tunebook status {job.output} --watch, or squeue --jobs {job_id}")
    say(f"end it: tunebook stop {job.output}")


def _run(job: Job, via: str, nodes: list[Node], limit: int, *, fail_fast: bool) -> int:
    started = _now()
    _record(job, via, started=started, nodes=[{"rank": node.rank, "where": node.where} for node in nodes])
    say(f"watch them: tunebook status {job.output} --watch")
    code = 0
    try:
        run_nodes(nodes, limit=limit, fail_fast=fail_fast, changed=_say_node)
    except Interrupted:
        code = 130
    ends = [
        {"rank": node.rank, "where": node.where, "state": node.state, "exit_status": node.status}
        for node in nodes
    ]
    _record(job, via, started=started, nodes=ends, ended=_now())
    bad = [node for node in nodes if node.state != "done"]
    for node in bad:
        say(
            f"node {node.rank} ({node.where}): {_how(node)}; "
            f"see {job.output}/logs/node_{node.rank}.log and {node.output}"
        )
    if not bad:
        say(f"all {len(nodes)} nodes are done")
        runs = str(job.output) if job.joint else f"{job.output}/node_*"
        say(f"next: tunebook report {runs} -o reports/{job.name}")
    return code or (1 if bad else 0)


def _say_node(node: Node) -> None:
    say(f"node {node.rank} ({node.where}): {_how(node)}")


def _how(node: Node) -> str:
    return node.state if not node.status else f"{node.state}, exit status {node.status}"


def _record(job: Job, via: str, **more: Any) -> None:
    """Keep what `status` and `stop` need to find the nodes."""
    record = {
        "via": via,
        "name": job.name,
        "joint": job.joint,
        "outputs": [str(job.node_output(rank)) for rank in range(1 if job.joint else job.nodes)],
        **more,
    }
    files.write_json(job.folder / RECORD, record)


def _print_plan(job: Job, rendered: dict[str, str], via: str, after: str | None) -> None:
    for name, text in rendered.items():
        click.echo(f"# would write {job.folder / name}")
        click.echo(text)
    if via == "slurm":
        dependency = f" --dependency=afterok:{after} --kill-on-invalid-dep=yes" if after else ""
        click.echo(f"# would run: sbatch --parsable{dependency} {job.folder / 'submit.slurm'}")
    for rank in range(job.nodes if via != "slurm" else 0):
        start = f"bash {job.folder / 'launch_node.sh'} --attended {rank}"
        where = (
            f"ssh {' '.join([*SSH_OPTIONS, *job.cluster.ssh])} -- {job.hosts[rank].target} "
            if via == "ssh"
            else ""
        )
        click.echo(f"# would run: {where}{json.dumps(start) if where else start}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
