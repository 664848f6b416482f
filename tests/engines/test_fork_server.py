"""A start that is forked from an engine imported before is the start that a user makes."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from axolotl_cases import axolotl_train
from engine_cases import OWN_START

PROBE = Path(__file__).parent / "start_probe.py"


def answered() -> list[str]:
    """What the server has written of each request, a line each."""
    return (Path(os.environ["TUNEBOOK_FORK_SERVER"]).parent / "forks.log").read_text().splitlines()


def both(*words: object, **options) -> list[subprocess.CompletedProcess]:
    """Run the probe by a start of its own, then by a forked one."""
    command = [sys.executable, PROBE, *map(str, words)]
    options = {"capture_output": True, "text": True, "input": "some input", "timeout": 100, **options}
    own = subprocess.run(command, **options, env={**os.environ, **OWN_START})
    forked = subprocess.run(command, **options)
    assert answered()[-1].startswith("forked ")
    return [own, forked]


def _catches(process: int, number: int) -> bool:
    """Whether a process has a handler for the signal."""
    status = Path(f"/proc/{process}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.fixture(autouse=True)
def _served():
    if "TUNEBOOK_FORK_SERVER" not in os.environ:
        pytest.skip("where there is a GPU, nothing is forked")


@pytest.mark.engine
@pytest.mark.axolotl
def test_a_forked_start_finds_what_a_start_of_its_own_finds(tmp_path):
    own, forked = (json.loads(done.stdout) for done in both("status", 0, cwd=tmp_path, umask=0o27))
    # What the engine adds as it is imported is there already.
    assert own.pop("environment").items() - OWN_START.items() <= forked.pop("environment").items()
    path = own.pop("path")
    assert forked.pop("path")[: len(path)] == path
    assert forked == own


@pytest.mark.engine
@pytest.mark.axolotl
@pytest.mark.parametrize(
    ("verb", "value", "code"),
    [
        ("status", 0, 0),
        ("status", 7, 7),
        ("fail", "as it was told", 1),
        ("signal", int(signal.SIGKILL), -signal.SIGKILL),
        ("signal", int(signal.SIGTERM), -signal.SIGTERM),
    ],
)
def test_a_forked_start_ends_as_a_start_of_its_own(verb, value, code):
    own, forked = both(verb, value)
    assert forked.returncode == own.returncode == code
    assert forked.stderr.startswith("an aside\n")
    # The last lines of a traceback are the program's.
    assert forked.stderr.splitlines()[-1] == own.stderr.splitlines()[-1]


@pytest.mark.engine
@pytest.mark.axolotl
def test_the_files_of_a_process_are_handed_over():
    for environment in (OWN_START, {}):
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as pipe:
            command = [sys.executable, PROBE, "pipe", str(writing)]
            subprocess.run(
                command,
                env={**os.environ, **environment},
                pass_fds=[writing],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                check=True,
            )
            os.close(writing)
            assert pipe.read() == b"through the pipe"


@pytest.mark.engine
@pytest.mark.axolotl
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGUSR1, 5),
        # Where Axolotl has been imported, Python itself ends so after Ctrl-C.
        (signal.SIGINT, 1 if find_spec("axolotl") else -signal.SIGINT),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_a_signal_reaches_a_forked_start_and_a_kill_ends_it(tmp_path, number, code):
    waits = tmp_path / "waits"
    process = subprocess.Popen(
        [sys.executable, PROBE, "wait", waits], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    until(lambda: waits.exists() and waits.read_text())
    child = int(waits.read_text())
    assert child != process.pid
    # The last of those that it hands on: the child may run before all of them are.
    until(lambda: _catches(process.pid, signal.SIGUSR2))
    process.send_signal(number)
    assert process.wait(20) == code
    until(lambda: not Path(f"/proc/{child}").exists())


@pytest.mark.engine
@pytest.mark.axolotl
@pytest.mark.parametrize("other", [{"TUNEBOOK_HOOK": "0"}, {"OMP_NUM_THREADS": "2"}, {"HF_HUB_OFFLINE": "0"}])
def test_a_variable_that_is_read_during_the_import_gets_a_start_of_its_own(other):
    command = [sys.executable, PROBE, "status", "0"]
    done = subprocess.run(command, env={**os.environ, **other}, stdin=subprocess.DEVNULL, capture_output=True)
    assert other.items() <= json.loads(done.stdout)["environment"].items()
    assert answered()[-1].startswith(f"not taken {list(other)}")


def results(folder: Path) -> tuple[list[dict], dict[str, bytes]]:
    """What a training has logged, without times; its weights and its records by name."""
    timed = ("runtime", "per_second", "flos", "seconds", "GiB)", "per_second_per_gpu", "per_sec_per_gpu")
    newest = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    logged = [
        {key: value for key, value in entry.items() if not key.endswith(timed)}
        for entry in json.loads((newest / "trainer_state.json").read_text())["log_history"]
    ]
    kept = [
        *folder.rglob("*.safetensors"),
        *folder.rglob("eval_records-*"),
        folder / "tunebook_contract.json",
    ]
    return logged, {str(path.relative_to(folder)): path.read_bytes() for path in kept}


@pytest.mark.engine
def test_a_forked_llamafactory_trains_what_its_own_command_trains(learning, learned, train):
    forked = train(learning)
    assert any("llamafactory-cli" in line for line in answered() if line.startswith("forked"))
    assert results(forked.output) == results(learned.output)


@pytest.mark.axolotl
def test_a_forked_axolotl_trains_what_its_own_command_trains(axolotl_learning, axolotl_learned):
    forked = axolotl_train(axolotl_learning())
    assert any("bin/axolotl" in line for line in answered() if line.startswith("forked"))
    assert results(forked.output) == results(axolotl_learned.output)


def until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
