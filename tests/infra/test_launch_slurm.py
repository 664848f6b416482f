"""`tunebook launch --via slurm` on a real SLURM: arrays, stopping, requeueing, cancelling, dependencies."""

# ruff: noqa: F401, F811 - fixtures are imported by name
import json
import re
import time

import pytest
from emulated_cluster import cluster, place

pytestmark = pytest.mark.infra


def job_of(out: str) -> str:
    return re.search(r"submitted as job (\d+)", out)[1]


def wait_until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# Saves when it is asked to, once; goes on to its end in its second turn.
SAVES = """
mkdir -p "$output"; echo turn >>"$output/turns"
if [[ $(wc -l <"$output/turns") == 1 ]]; then
  while [[ ! -e $TUNEBOOK_STOP_FILE ]]; do sleep 0.1; done
  echo checkpoint-1 >"$(dirname "$TUNEBOOK_STOP_FILE")/stopped"
fi
"""


def test_an_array_runs_every_node_on_its_part(cluster, place):
    out = cluster.run(*place.launch("--via", "slurm", "--split", place.folder / "split"))
    assert cluster.wait_for_job(job_of(out)) == dict.fromkeys("0123", "COMPLETED")
    assert sorted(place.where(rank) for rank in range(4)) == ["node0", "node1", "node2", "node3"]
    assert json.loads((place.output / "launch" / "job.json").read_text())["job_id"] == job_of(out)


def test_a_failed_node_fails_its_task_alone(cluster, place):
    place.engine_does("[[ $output != *node_2 ]] || exit 9")
    out = cluster.run(*place.launch("--via", "slurm", "--split", place.folder / "split"))
    states = cluster.wait_for_job(job_of(out))
    assert states == {"0": "COMPLETED", "1": "COMPLETED", "2": "FAILED", "3": "COMPLETED"}
    assert "the engine ended with status 9" in place.log(2)


def test_the_signal_before_the_limit_saves_and_puts_the_job_back(cluster, place):
    place.engine_does(SAVES)
    out = cluster.run(*place.launch("--via", "slurm", "--split", place.folder / "split"))
    turns = [place.output / f"node_{rank}" / "turns" for rank in range(4)]
    wait_until(lambda: all(path.exists() for path in turns))
    # What SLURM itself sends `signal_seconds` before the limit, which it looks at every half minute only.
    cluster.run("scancel", "--batch", "--signal=USR1", job_of(out))
    assert cluster.wait_for_job(job_of(out)) == dict.fromkeys("0123", "COMPLETED")
    assert [path.read_text() for path in turns] == ["turn\nturn\n"] * 4
    said = "".join(path.read_text() for path in (place.output / "launch").glob("slurm_*.out"))
    assert said.count("back into the queue") == 4
    assert said.count("restart 1") == 4


def test_stop_saves_and_does_not_put_the_job_back(cluster, place):
    place.engine_does(SAVES)
    out = cluster.run(*place.launch("--via", "slurm", "--split", place.folder / "split"))
    turns = [place.output / f"node_{rank}" / "turns" for rank in range(4)]
    wait_until(lambda: all(path.exists() for path in turns))
    shown = cluster.run(place.launch()[0], "status", place.output)
    assert shown.count("node_") == 4
    stopped = cluster.run(place.launch()[0], "stop", place.output)
    assert f"asked job {job_of(out)} for a checkpoint" in stopped
    assert set(cluster.wait_for_job(job_of(out)).values()) == {"FAILED"}  # exit status 138
    assert [path.read_text() for path in turns] == ["turn\n"] * 4
    again = cluster.run(*place.launch("--via", "slurm", "--split", place.folder / "split"))
    assert set(cluster.wait_for_job(job_of(again)).values()) == {"COMPLETED"}


def test_a_cancelled_job_leaves_no_process(cluster, place):
    place.engine_does("setsid sleep 302 & wait")
    out = cluster.run(*place.launch("--via", "slurm", "--split", place.folder / "split"))
    wait_until(lambda: len(cluster.run("pgrep", "-f", "sleep 302", check=False).split()) == 4)
    cluster.run("scancel", job_of(out))
    assert set(cluster.wait_for_job(job_of(out)).values()) == {"CANCELLED"}
    wait_until(lambda: not cluster.run("pgrep", "-f", "sleep 302", check=False).strip())


def test_a_job_may_wait_for_another_and_does_not_run_when_that_failed(cluster, place):
    place.engine_does("sleep 2; exit 3")
    first = job_of(cluster.run(*place.launch("--via", "slurm", "--split", place.folder / "split")))
    then = place.launch("--via", "slurm", "--split", place.folder / "split", f"output_dir={place.output}2")
    second = job_of(cluster.run(*then, "--after", first))
    assert set(cluster.wait_for_job(first).values()) == {"FAILED"}
    assert set(cluster.wait_for_job(second).values()) == {"CANCELLED"}
    assert not list(place.folder.glob("out2/node_*"))


def test_what_sbatch_refuses_is_said_in_its_own_words(cluster, place):
    settings = place.folder / "other.yaml"
    settings.write_text("partition: nowhere\n")
    launched = place.launch("--via", "slurm", "--split", place.folder / "split")[:-1]
    out = cluster.run(*launched, settings, check=False)
    assert "invalid partition specified: nowhere" in out
    assert "correct cluster.yaml" in out


def test_a_joint_job_starts_every_node_with_the_same_meeting_place(cluster, place):
    # As an engine does, either waits for the other.
    place.engine_does(
        'env | grep -E "^(NNODES|NODE_RANK|MASTER_|FORCE_TORCHRUN)" | sort >"$output/env.$NODE_RANK"\n'
        "while [[ ! -e $output/env.$((1 - NODE_RANK)) ]]; do sleep 0.1; done"
    )
    # LLaMA-Factory hands torchrun its arguments as one string: no space may be in this path.
    output = place.folder.parent / "joint"
    out = cluster.run(*place.launch("--via", "slurm", "--joint", "--nodes", "2", f"output_dir={output}"))
    assert cluster.wait_for_job(job_of(out)) == {"all": "COMPLETED"}
    first, second = ((output / f"env.{rank}").read_text().splitlines() for rank in range(2))
    meeting = (output / "launch" / f"master_{job_of(out)}").read_text().strip()
    assert re.fullmatch(r"node\d:\d+", meeting)
    address, port = meeting.split(":")
    assert f"MASTER_ADDR={address}" in first
    assert f"MASTER_PORT={port}" in first
    assert [line for line in first if "RANK" not in line] == [line for line in second if "RANK" not in line]
    assert "NODE_RANK=1" in second
