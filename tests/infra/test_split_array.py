"""A split by a job array on a real SLURM is the split of one process."""

# ruff: noqa: F401, F811 - fixtures are imported by name
import json
import subprocess
from pathlib import Path

import pytest
from emulated_cluster import TUNEBOOK, cluster

pytestmark = pytest.mark.infra

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "cluster" / "split.slurm"


def test_tasks_of_an_array_split_a_file_as_one_process_does(cluster, tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text(
        "".join(
            json.dumps({"instruction": f"{n} ünï\n", "output": "x" * (n % 50)}) + "\n" for n in range(3000)
        )
    )
    together = tmp_path / "array"
    common = ["--parsable", "--output", tmp_path / "said-%a.out"]
    env = {"TUNEBOOK": str(TUNEBOOK)}
    array = cluster.run("sbatch", *common, "--array=0-3", SCRIPT, source, 5, together, **env).strip()
    merge = cluster.run(
        "sbatch", *common, f"--dependency=afterok:{array}", SCRIPT, source, 5, together, 4, **env
    ).strip()
    said = lambda: [path.read_text() for path in tmp_path.glob("said-*")]  # noqa: E731
    assert set(cluster.wait_for_job(array).values()) == {"COMPLETED"}, said()
    assert cluster.wait_for_job(merge) == {"all": "COMPLETED"}, said()
    alone = tmp_path / "alone"
    split = [TUNEBOOK, "data", "split", source, "--nodes", "5", "--no-shuffle", "-o", alone]
    subprocess.run(split, check=True, capture_output=True)
    for rank in range(5):
        parts = [(folder / f"node_{rank}" / "rows.jsonl").read_bytes() for folder in (together, alone)]
        assert parts[0] == parts[1]
    assert subprocess.run([TUNEBOOK, "data", "verify", together], capture_output=True).returncode == 0
