"""Renders a job as files: pure, from values to text, so that what is submitted can be read and kept."""

from __future__ import annotations

import re
import shlex
from importlib import resources
from typing import TYPE_CHECKING

import jinja2

from tunebook.recipes import engine_yaml

if TYPE_CHECKING:
    from tunebook.launch.job import Job


# Asked of a node's own Python: a port that is free here may be taken there.
FREE_PORT = 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'


def render(job: Job) -> dict[str, str]:
    """Return the files of a job, by their name below `<output>/launch`.

    `launch_node.sh` trains one node and is all that the others start; `submit.slurm` and
    `launch_all_nodes.sh` (with `hosts.txt`) start it on SLURM and over SSH.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - shell, not HTML: every value goes through `quote`
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    environment.filters["word"] = _word
    names = ["launch_node.sh", "submit.slurm"]
    if job.hosts:
        names.append("launch_all_nodes.sh")
    files = {
        name: environment.get_template(f"{name}.j2").render(job=job, cluster=job.cluster, free_port=FREE_PORT)
        for name in names
    }
    if job.hosts:
        files["hosts.txt"] = "".join(f"{host.target}\n" for host in job.hosts)
    for rank, values in enumerate(job.node_recipes):
        if job.joint and rank:
            break
        made = f"# made from {job.recipe.name} by tunebook launch, for " + (
            "all nodes" if job.joint else f"node {rank}"
        )
        name = "recipe.yaml" if job.joint else f"node_{rank}.yaml"
        header = [f"# {key}: {value}" for key, value in job.recipe.header.items()]
        files[name] = "\n".join([*header, "", made, "", engine_yaml.dump(values)])
    return files


def _word(name: str) -> str:
    """A name that may stand on an `#SBATCH` line, where nothing can be quoted."""
    return re.sub(r"[^\w.\-]+", "-", name).strip("-") or "tunebook"


def _template(name: str) -> str:
    return (resources.files("tunebook.launch") / "templates" / name).read_text(encoding="utf-8")
