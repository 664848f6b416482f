"""What holds for every test: hypothesis without a clock, and how tests that start an engine start it."""

import gc
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# On a busy machine a single draw may take seconds. Where the variable CI is set, hypothesis itself draws the same
# examples each time, so that what fails there fails again here; its default then is this profile's parent.
settings.register_profile(
    "without_a_clock", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("without_a_clock")

FORKING = Path(__file__).parent / "forking"
ENVIRONMENT = {
    "AXOLOTL_DO_NOT_TRACK": "1",
    "AXOLOTL_TEE_STDOUT": "0",
    "HF_HUB_OFFLINE": "1",
    # More would only get in each other's way on a model this small.
    "OMP_NUM_THREADS": "1",
}
SESSION = pytest.StashKey[dict[str, str]]()


def pytest_collection_finish():
    """Let the collector leave alone what thousands of tests have been made of, and what they import."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Set the environment of a test that starts an engine, and of fixtures that it is the first to ask for."""
    marks = {mark.name for mark in item.iter_markers()}
    # The nodes of an emulated cluster are starts of their own: a fork would leave the node.
    if not marks & {"engine", "axolotl"} or "infra" in marks:
        return (yield)
    stash = item.config.stash
    if SESSION not in stash:
        stash[SESSION] = environment_of_engines(item.config)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stash[SESSION].items():
            patch.setenv(name, value)
        return (yield)


def environment_of_engines(config) -> dict[str, str]:
    """Start the process that imports the engine and forks (forking/fork_server.py); what its clients need.

    DeepSpeed's extensions are built in a folder of the session: in the user's own, a build that was killed
    leaves a lock, and every later run waits for it until its time is up.
    """
    folder = Path(tempfile.mkdtemp(prefix="tunebook-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(folder))
    environment = {**ENVIRONMENT, "TORCH_EXTENSIONS_DIR": str(folder / "torch_extensions")}
    if Path("/dev/nvidiactl").exists():
        return environment  # what an import does to a GPU cannot be forked
    engine = "axolotl" if importlib.util.find_spec("axolotl") else "llamafactory"
    given = os.environ.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([str(FORKING), *([given] if given else [])])
    with socket.socket(socket.AF_UNIX) as listener, (folder / "forks.log").open("wb") as log:
        listener.bind(str(folder / "forks"))
        listener.listen(64)
        server = subprocess.Popen(
            [sys.executable, "-c", "from fork_server import main; main()", str(listener.fileno()), engine],
            env={**os.environ, **environment},
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the commands, which hand it on
        )
    config.add_cleanup(server.communicate)
    return {**environment, "TUNEBOOK_FORK_SERVER": str(folder / "forks")}
