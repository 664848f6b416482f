"""`tunebook launch --via ssh` over real sshds: failing, dead and unreachable nodes, quoting, and Ctrl-C."""

# ruff: noqa: F401, F811 - fixtures are imported by name
import signal
import subprocess
import time

import pytest
from emulated_cluster import cluster, place

pytestmark = pytest.mark.infra

NODES = ("node0", "node1", "node2", "node3")


def wait_until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(cluster, node: str, mark: str) -> bool:
    """Whether a process with this word in its command line runs on a node."""
    return cluster.run("pgrep", "-f", mark, node=node, check=False).strip() != ""


def test_every_node_runs_its_own_part_on_its_own_host(cluster, place):
    out = cluster.run(
        *place.launch("--via", "ssh", "--split", place.folder / "split", "--hosts", place.hosts(*NODES)),
        timeout=120,
    )
    assert "all 4 nodes are done" in out
    assert [place.where(rank) for rank in range(4)] == list(NODES)
    for rank in range(4):
        recipe = (place.output / f"node_{rank}" / "tunebook" / "recipe.yaml").read_text()
        assert f"split/node_{rank}" in recipe
        assert "finished:" in place.log(rank)


def test_a_failing_and_a_dead_node_are_told_while_the_others_go_on(cluster, place):
    place.engine_does("[[ $(hostname) != node1 ]] || exit 9\nsleep 1")
    process = cluster.start(
        *place.launch("--via", "ssh", "--split", place.folder / "split"),
        "--hosts", place.hosts("node0", "node1", "unknown", "node3"),
    )  # fmt: skip
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1, out
    assert "node 0 (node0): done" in out
    assert "node 1 (node1): failed, exit status 9" in out
    assert "node 2 (unknown): unreachable, exit status 255" in out
    assert "node 3 (node3): done" in out
    assert "Could not resolve" in (place.output / "launch" / "ssh_node_2.out").read_text()


def test_fail_fast_ends_the_others(cluster, place):
    place.engine_does("[[ $(hostname) != node1 ]] || exit 9\nexec sleep 300")
    process = cluster.start(
        *place.launch("--via", "ssh", "--split", place.folder / "split", "--fail-fast"),
        "--hosts", place.hosts(*NODES),
    )  # fmt: skip
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1, out
    assert "node 1 (node1): failed, exit status 9" in out
    assert "node 0 (node0): stopped" in out
    assert not any(running(cluster, node, "sleep 300") for node in NODES)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_run_outlives_its_launcher(cluster, place, number):
    # In a session of its own, as torchrun's workers are.
    place.engine_does("setsid sleep 301 & wait")
    process = cluster.start(
        *place.launch("--via", "ssh", "--split", place.folder / "split"), "--hosts", place.hosts(*NODES)
    )
    wait_until(lambda: all(running(cluster, node, "sleep 301") for node in NODES))
    (launcher,) = cluster.run("pgrep", "-f", f"bin/tunebook launch.*{place.folder.name}").split()[:1]
    cluster.run("kill", f"-{int(number)}", launcher)
    out, _ = process.communicate(timeout=60)
    wait_until(lambda: not any(running(cluster, node, "sleep 301") for node in NODES), 40)
    if number is not signal.SIGKILL:
        assert process.returncode == 130, out
        assert "node 0 (node0): stopped" in out


def test_a_host_whose_key_is_not_known_is_refused(cluster, place):
    known = cluster.folder / "ssh" / "known_hosts"
    kept = known.read_text()
    known.write_text("\n".join(line for line in kept.splitlines() if not line.startswith("node3")) + "\n")
    try:
        out = cluster.run(
            *place.launch("--via", "ssh", "--split", place.folder / "split"),
            "--hosts", place.hosts(*NODES), check=False,
        )  # fmt: skip
    finally:
        known.write_text(kept)
    assert "node 3 (node3): unreachable" in out
    assert "Host key verification failed" in (place.output / "launch" / "ssh_node_3.out").read_text()


def test_the_script_for_those_who_want_no_command_of_ours_does_the_same(cluster, place):
    launched = place.launch("--via", "ssh", "--split", place.folder / "split", "--hosts", place.hosts(*NODES))
    shown = subprocess.run([*launched, "--dry-run"], capture_output=True, text=True)
    assert "launch_all_nodes.sh" in shown.stdout
    place.engine_does("exit 7")
    cluster.run(*launched, check=False)
    place.engine_does("[[ $(hostname) != node2 ]] || exit 5")
    out = cluster.run("bash", place.output / "launch" / "launch_all_nodes.sh", check=False)
    assert "node 0 (node0): exit status 0" in out
    assert "node 2 (node2): exit status 5" in out
