"""Write the ready-made launch files of scripts/cluster/: four independent nodes of the Qwen3-32B recipe.

They are what `tunebook launch` renders for that job, to be started by hand with your own paths. A test keeps
them current.

Example:
  python scripts/snapshot_launch.py -o scripts/cluster
"""

from __future__ import annotations

from pathlib import Path

import click

from tunebook import files, paths
from tunebook.launch import all_files
from tunebook.launch.cluster import read_cluster, read_hosts
from tunebook.launch.plan import LaunchPlan
from tunebook.recipes.catalog import find_recipe

RECIPE = "llamafactory/qwen3-32b/full_sft_csv_chat"
SHARED = Path("/shared/tunebook")
CLUSTER = """\
# What your site wants to be told; every key may be left out. See docs/launch.md.
partition: gpu
time: "3-00:00:00"
gres: gpu:4
cpus_per_task: 64
mem: "0"                # all of a node: the optimizer lies in its memory
exclusive: true
signal_seconds: 1800    # a checkpoint of a 32 B model takes a while to write
setup: |
  export HF_HOME=/shared/hf
"""
HOSTS = "node0\nnode1\nnode2\nnode3\n"


@click.command(help=__doc__)
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True)
def main(output: Path) -> None:
    files.write_atomic(output / "cluster.yaml", CLUSTER)
    files.write_atomic(output / "hosts.txt", HOSTS)
    recipe = find_recipe(RECIPE, paths.home() / "recipes")
    runs = SHARED / "output" / "qwen3-32b"
    split = SHARED / "output" / "csv_4"
    plan = LaunchPlan(
        name="qwen3-32b",
        recipe=recipe,
        output=runs,
        project=SHARED,
        tunebook=SHARED / ".venv/bin/tunebook",
        node_recipes=tuple(
            {
                **recipe.values,
                "dataset_dir": str(split / f"node_{rank}"),
                "output_dir": str(runs / f"node_{rank}"),
            }
            for rank in range(4)
        ),
        joint=False,
        hosts=read_hosts(output / "hosts.txt"),
        cluster=read_cluster(output / "cluster.yaml"),
    )
    for name, text in all_files(plan).items():
        if not name.endswith(".yaml"):
            files.write_atomic(output / name, text)
    click.echo(f"wrote {output}")


if __name__ == "__main__":
    main()
