"""What a launch is going to do: its nodes, the recipe that each of them runs, and the files for both."""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data import registry
from tunebook.errors import TunebookError
from tunebook.files import write_json
from tunebook.models.checkpoints import last_whole_checkpoint
from tunebook.recipes import engine_yaml
from tunebook.splits import joint_dataset_dir, refuse_whole_sets
from tunebook.text import templates
from tunebook.training.resolve import resolve_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.launch.cluster import Cluster, Host
    from tunebook.types import Recipe

FOLDER = "launch"
"""Below `output_dir`: what is rendered."""
RECORD = "job.json"
"""In that folder: how the nodes were started."""
FREE_PORT = 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
"""A program for a node's own Python: a port that is free here may be taken there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """One recipe on several nodes."""

    name: str
    recipe: Recipe
    output: Path
    """Absolute; holds `launch/`, `logs/` and, for independent nodes, `node_<i>/`."""
    project: Path
    """Absolute; where relative paths of the recipe are looked up, on every node."""
    tunebook: Path
    """The command, at the same place on every node, where `cluster.yaml` names no `command`."""
    node_recipes: tuple[Mapping[str, Any], ...]
    """The flat recipe of each node; all the same for a joint job."""
    joint: bool
    """One job over all nodes, rather than one run each."""
    hosts: tuple[Host, ...]
    """For ssh, one for each node; empty otherwise."""
    cluster: Cluster
    notes: tuple[str, ...] = ()
    """What the user should know before it starts, a line each."""

    @property
    def nodes(self) -> int:
        """How many."""
        return len(self.node_recipes)

    @property
    def folder(self) -> Path:
        """Where the rendered files go."""
        return self.output / FOLDER

    def node_output(self, rank: int) -> Path:
        """The `output_dir` of one node."""
        return self.output if self.joint else self.output / f"node_{rank}"


def plan_launch(
    name_or_path: str,
    overlay_names: Sequence[str],
    overrides: Sequence[str],
    *,
    split: Path | None,
    nodes: int | None,
    joint: bool,
    hosts: Sequence[Host],
    cluster: Cluster,
) -> LaunchPlan:
    """Find and merge the recipe, and make each node's own from it.

    Args:
        name_or_path: As for `tunebook train`.
        overlay_names: As there.
        overrides: As there.
        split: The folder of a finished `tunebook data split`, or None: all nodes read the recipe's data.
        nodes: How many; None for as many as the split has parts, or there are hosts.
        joint: One job over all nodes.
        hosts: Where to run, for ssh.
        cluster: The site's settings.

    Raises:
        TunebookError: Something the user must fix first; all faults together.
    """
    found = resolve_recipe(name_or_path, overlay_names, overrides)
    recipe, engine, faults = found.recipe, found.engine, found.faults
    parts: list[Path] = []
    if split:
        with faults.gather():
            parts = _parts(split)
            shard = (joint_dataset_dir(split) if joint else parts[0]).absolute()
            if not joint:
                refuse_whole_sets(split, engine.training_sets(found.values))
            changed = engine.on_shard(recipe.values, shard)
            # Each node reads its part, so what is wrong with the whole data does not count.
            found = resolve_recipe(name_or_path, overlay_names, [*overrides, *_as_overrides(changed, recipe)])
            faults = found.faults
    count = 0
    if parts or not split:
        with faults.gather():
            count = _count(nodes, parts, hosts, split=split, joint=joint)
    for path in (str(Path.cwd()), str(found.output_dir), str(split or "")):
        if any(not character.isprintable() for character in path):
            faults.add(
                TunebookError(f"{path!r} holds characters that cannot be printed", fix="rename the folder")
            )
    faults.refuse()
    output = found.output_dir.absolute()
    made = []
    for rank in range(count):
        one = dict(recipe.values)
        if split:
            one = engine.on_shard(one, shard if joint else parts[rank].absolute())
        one["output_dir"] = str(output if joint else output / f"node_{rank}")
        made.append(one)
    return LaunchPlan(
        name=output.name,
        recipe=recipe,
        output=output,
        project=Path.cwd(),
        tunebook=Path(sys.executable).parent / "tunebook",
        node_recipes=tuple(made),
        joint=joint,
        hosts=tuple(hosts[:count]),
        cluster=cluster,
        notes=found.notes,
    )


def _as_overrides(changed: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """What differs from the recipe, as `key=value`: JSON is YAML."""
    return [
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in changed.items()
        if value != recipe.values.get(key)
    ]


def _count(
    nodes: int | None, parts: Sequence[Path], hosts: Sequence[Host], *, split: Path | None, joint: bool
) -> int:
    """How many nodes there are to be."""
    count = nodes or len(parts) or len(hosts)
    if not count:
        raise TunebookError("the number of nodes is not given", fix="give --split, --hosts or --nodes")
    if parts and not joint and count != len(parts):
        raise TunebookError(
            f"{split} has {len(parts)} parts, not {count}", fix=f"give --nodes {len(parts)}, or split again"
        )
    if hosts and count > len(hosts):
        raise TunebookError(
            f"{count} nodes, but {len(hosts)} hosts", fix="name a host for each node, one per line"
        )
    if not parts and not joint and count > 1:
        raise TunebookError(
            f"{count} nodes would each train the same thing on the same data",
            fix="give each its part with --split, or train one model on all nodes with --joint",
        )
    return count


def unfinished(plan: LaunchPlan) -> list[str]:
    """Say, for each node that has run before, where it will go on; a line each."""
    notes = []
    for rank in range(1 if plan.joint else plan.nodes):
        found = last_whole_checkpoint(plan.node_output(rank)).path
        if found is not None:
            notes.append(f"node {rank} goes on from {found}")
    return notes


def _parts(split: Path) -> list[Path]:
    """The folders `node_0`, `node_1`, ... of a finished split."""
    if not (split / "manifest.json").is_file():
        raise TunebookError(f"{split} holds no finished split", fix="make one with `tunebook data split`")
    found: list[Path] = []
    while (folder := split / f"node_{len(found)}").is_dir():
        if not (folder / registry.REGISTRY_FILE).is_file():
            raise TunebookError(f"{folder} holds no {registry.REGISTRY_FILE}", fix="split again")
        found.append(folder)
    if not found:
        raise TunebookError(f"{split} holds no node_0", fix="split again")
    return found


def write_record(plan: LaunchPlan, via: str, **more: Any) -> None:
    """Keep what `tunebook status` and `tunebook stop` need to find the nodes."""
    record = {
        "via": via,
        "name": plan.name,
        "joint": plan.joint,
        "outputs": [str(plan.node_output(rank)) for rank in range(1 if plan.joint else plan.nodes)],
        **more,
    }
    write_json(plan.folder / RECORD, record)


def node_files(plan: LaunchPlan) -> dict[str, str]:
    """Return `launch_node.sh`, which every launcher starts, and the recipes, by name below `plan.folder`."""
    files = {"launch_node.sh": render("launch_node.sh", plan)}
    for rank, values in enumerate(plan.node_recipes[:1] if plan.joint else plan.node_recipes):
        whose = "all nodes" if plan.joint else f"node {rank}"
        header = [f"# {key}: {value}" for key, value in plan.recipe.header.items()]
        made = f"# made from {plan.recipe.name} by tunebook launch, for {whose}"
        name = "recipe.yaml" if plan.joint else f"node_{rank}.yaml"
        files[name] = "\n".join([*header, "", made, "", engine_yaml.dump(values)])
    return files


def render(name: str, plan: LaunchPlan) -> str:
    """Return a file made from `templates/<name>.j2`, so that what is started can be read and kept."""
    # Not escaped, since it is shell and not HTML: every value goes through `quote`.
    filters = {"quote": lambda value: shlex.quote(str(value)), "word": _word}
    environment = templates("tunebook.launch", filters)
    return environment.get_template(f"{name}.j2").render(plan=plan, cluster=plan.cluster, free_port=FREE_PORT)


def _word(name: str) -> str:
    """A name that may be written on an `#SBATCH` line, where nothing can be quoted."""
    return re.sub(r"[^\w.\-]+", "-", name).strip("-") or "tunebook"
