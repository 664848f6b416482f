"""A cluster of four nodes with a real SLURM and real sshds, and an engine that costs nothing to start."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from test_paths import make_environment
from tunebook import paths

SCRIPT = Path(__file__).parent / "cluster.sh"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "sshd", "ssh", "ip", "unshare", "nsenter", "setpriv")
TUNEBOOK = Path(sys.executable).parent / "tunebook"


@dataclass
class Cluster:
    folder: Path

    def start(
        self, *command: object, node: str = "login", cwd: Path | None = None, **env: str
    ) -> subprocess.Popen:
        return subprocess.Popen(
            [SCRIPT, "in", self.folder, node, *map(str, command)],
            cwd=cwd,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell's background jobs ignore SIGINT, and whoever runs the tests in one hands that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *command: object, timeout: float = 120, check: bool = True, **more) -> str:
        process = self.start(*command, **more)
        out, _ = process.communicate(timeout=timeout)
        if check:
            assert process.returncode == 0, out
        return out

    def wait_for_job(self, job: str, timeout: float = 300) -> dict[str, str]:
        """The end states of a job's tasks, by array index, or by `all`."""
        deadline = time.monotonic() + timeout
        while True:
            text = self.run("scontrol", "--oneliner", "show", "job", job)
            found = {}
            for line in text.splitlines():
                facts = dict(part.split("=", 1) for part in line.split() if "=" in part)
                found[facts.get("ArrayTaskId", "all")] = facts["JobState"]
            over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
            if set(found.values()) <= over:
                return found
            assert time.monotonic() < deadline, text
            time.sleep(0.5)


@pytest.fixture(scope="session")
def cluster():
    missing = [
        program
        for program in PROGRAMS
        if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    ]
    if missing or os.geteuid() != 0:
        why = f"needs root, and {', '.join(missing) or 'nothing else'}: apt-get install slurmctld slurmd slurm-client munge openssh-server iproute2"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    # Short: munged's socket must fit into 108 characters. Not below tmp_path, which others may read less of.
    folder = Path(tempfile.mkdtemp(prefix="tb", dir="/tmp"))
    holder = subprocess.Popen([SCRIPT, "hold", folder, "4"])
    try:
        deadline = time.monotonic() + 60
        while not (folder / "ready").exists():
            said = (folder / "log" / "login.log").read_text() if (folder / "log").is_dir() else ""
            assert holder.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        yield Cluster(folder)
    finally:
        holder.kill()
        holder.wait()
        shutil.rmtree(folder, ignore_errors=True)


# Stands for the engine where only the way to it is tested: says where it runs, then does what $STAND_IN says.
ENGINE = """#!/bin/bash
output=$(dirname "$(dirname "$2")")
echo "{{\\"host\\": \\"$(hostname)\\", \\"recipe\\": \\"$2\\"}}" >"$output/where.json"
{does}
"""


@dataclass
class Place:
    """A folder with a recipe, a split of its data, and a stand-in for the engine."""

    folder: Path
    output: Path
    environment: Path

    def engine_does(self, does: str) -> None:
        path = self.environment / "bin" / "llamafactory-cli"
        path.write_text(ENGINE.format(does=does))
        path.chmod(0o755)

    @property
    def settings(self) -> Path:
        path = self.folder / "cluster.yaml"
        setup = f"export TUNEBOOK_LLAMAFACTORY_ENV={shlex.quote(str(self.environment))}\nexport OMP_NUM_THREADS=1\n"
        path.write_text(yaml.safe_dump({"setup": setup, "time": "10", "signal_seconds": 60, "mem": None}))
        return path

    def hosts(self, *names: str) -> Path:
        path = self.folder / "hosts.txt"
        path.write_text("".join(f"{name}\n" for name in names))
        return path

    def launch(self, *arguments: object) -> list[object]:
        return [TUNEBOOK, "launch", self.folder / "recipe.yaml", *arguments, "--cluster", self.settings]

    def where(self, rank: int) -> str | None:
        path = self.output / f"node_{rank}" / "where.json"
        return json.loads(path.read_text())["host"] if path.exists() else None

    def log(self, rank: int) -> str:
        path = self.output / "logs" / f"node_{rank}.log"
        return path.read_text(errors="replace") if path.exists() else ""


@pytest.fixture
def place(tmp_path) -> Place:
    # With a space and a quote in it: every path on the way has to be quoted.
    folder = tmp_path / "a user's runs"
    folder.mkdir()
    environment = make_environment(folder / "env", "llamafactory==0.9.5", "torch==2.13.0")
    (environment / "lib/python3.11/site-packages" / paths.HOOK_FILE).touch()
    (environment / "bin").mkdir()
    (folder / "data").mkdir()
    rows = [{"instruction": f"{number}?", "input": "", "output": "Yes"} for number in range(8)]
    (folder / "data" / "train.json").write_text(json.dumps(rows))
    (folder / "data" / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "train.json"}}))
    place = Place(folder, folder / "out", environment)
    recipe = {
        "model_name_or_path": "some/model",
        "template": "qwen3",
        "stage": "sft",
        "finetuning_type": "full",
        "do_train": True,
        "dataset_dir": str(folder / "data"),
        "dataset": "rows",
        "output_dir": str(place.output),
        "max_steps": 2,
        "save_steps": 2,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    subprocess.run(
        [
            TUNEBOOK,
            "data",
            "split",
            "rows",
            "--nodes",
            "4",
            "-o",
            folder / "split",
            "--dataset-dir",
            folder / "data",
        ],
        check=True,
        capture_output=True,
    )
    place.engine_does("true")
    return place
