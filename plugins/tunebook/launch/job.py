"""What a launch is going to do: the nodes, and the recipe that each of them runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import engines, paths
from tunebook.data import registry
from tunebook.errors import TunebookError
from tunebook.models.checkpoints import last_whole_checkpoint
from tunebook.recipes import overlays
from tunebook.recipes.catalog import find_recipe
from tunebook.splits import joint_dataset_dir

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.launch.cluster import Cluster, Host
    from tunebook.types import Recipe

FOLDER = "launch"
"""Below `output_dir`: what is rendered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One recipe on several nodes."""

    name: str
    recipe: Recipe
    output: Path
    """Absolute; holds `launch/`, `logs/` and, for independent nodes, `node_<i>/`."""
    project: Path
    """Absolute; where relative paths of the recipe are looked up, on every node."""
    tunebook: Path
    """The command, at the same place on every node."""
    node_recipes: tuple[Mapping[str, Any], ...]
    """The flat recipe of each node; all the same for a joint job."""
    joint: bool
    """One job over all nodes, rather than one run each."""
    hosts: tuple[Host, ...]
    """For ssh, one for each node; empty otherwise."""
    cluster: Cluster

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


def plan_job(
    name_or_path: str,
    overlay_names: Sequence[str],
    overrides: Sequence[str],
    *,
    split: Path | None,
    nodes: int | None,
    joint: bool,
    hosts: Sequence[Host],
    cluster: Cluster,
) -> Job:
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
        TunebookError: Something the user must mend first.
    """
    home = paths.home()
    recipe = overlays.resolve(
        find_recipe(name_or_path, home / "recipes"), home / "recipes", overlay_names, overrides
    ).recipe
    values = dict(recipe.values)
    output_dir = values.get("output_dir")
    if not isinstance(output_dir, str) or not output_dir:
        raise TunebookError(f"{recipe.path}: names no output_dir", fix="add output_dir=output/<name>")
    for path in (str(Path.cwd()), output_dir, str(split or "")):
        if any(not character.isprintable() for character in path):
            raise TunebookError(f"{path!r} holds characters that cannot be printed", fix="rename the folder")
    parts = _parts(split) if split else []
    count = nodes or len(parts) or len(hosts)
    if not count:
        raise TunebookError("it is not said on how many nodes to run", fix="give --split, --hosts or --nodes")
    if parts and not joint and count != len(parts):
        raise TunebookError(
            f"{split} has {len(parts)} parts, not {count}", fix=f"give --nodes {len(parts)}, or split again"
        )
    if hosts and count > len(hosts):
        raise TunebookError(
            f"{count} nodes, but {len(hosts)} hosts", fix="name a host for each node, a line each"
        )
    if not parts and not joint and count > 1:
        raise TunebookError(
            f"{count} nodes would each train the same thing on the same data",
            fix="give each its part with --split, or train one model on all nodes with --joint",
        )
    output = Path(output_dir).absolute()
    engine = engines.load(recipe.engine)
    made = []
    for rank in range(count):
        one = dict(values)
        if split:
            shard = joint_dataset_dir(split) if joint else parts[rank]
            one = engine.on_shard(one, shard.absolute())
        one["output_dir"] = str(output if joint else output / f"node_{rank}")
        made.append(one)
    return Job(
        name=output.name,
        recipe=recipe,
        output=output,
        project=Path.cwd(),
        tunebook=Path(sys.executable).parent / "tunebook",
        node_recipes=tuple(made),
        joint=joint,
        hosts=tuple(hosts[:count]),
        cluster=cluster,
    )


def unfinished(job: Job) -> list[str]:
    """Say, for each node that has run before, where it will go on; a line each."""
    notes = []
    for rank in range(1 if job.joint else job.nodes):
        found = last_whole_checkpoint(job.node_output(rank)).path
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
    return found
