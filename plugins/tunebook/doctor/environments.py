"""Asks each engine's environment about itself, by its own Python in a child process."""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import engines, paths
from tunebook.doctor.facts import Environment, Flash
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tunebook.types import EngineName

TIMEOUT_SECONDS = 90.0
"""Importing torch takes 2 s from a warm disk, and a minute from a cold network file system."""

_PROBE = Path(__file__).with_name("probe.py")
_MARK = "tunebook-probe: "
"""As in `probe`, which is not imported here: it is another environment's program."""


def find(names: Iterable[EngineName]) -> list[Environment]:
    """Return those of these engines' environments that exist, read only from their metadata."""
    found = []
    for name in names:
        try:
            path = paths.engine_environment(name)
        except TunebookError:
            if os.environ.get(f"TUNEBOOK_{name.upper()}_ENV"):
                raise
            continue
        packages = (*engines.load(name).packages, "torchvision", "torchaudio", "kernels")
        off = os.environ.get("TUNEBOOK_HOOK") == "0"
        found.append(
            Environment(
                name=path.name,
                path=str(path),
                engine=name,
                python=paths.python_version(path),
                versions=paths.installed_versions(path, packages),
                tested=_tested(name),
                hook=paths.has_startup_hook(path) and not off,
                hook_off=off,
            )
        )
    return found


def ask_all(
    found: Iterable[Environment], done: Callable[[str], None], timeout: float = TIMEOUT_SECONDS
) -> tuple[Environment, ...]:
    """Ask all of them at once; `done` is called with each one's name as it answers."""

    def ask_one(environment: Environment) -> Environment:
        answered = ask(environment, timeout)
        done(environment.name)
        return answered

    with ThreadPoolExecutor(max_workers=4) as pool:
        return tuple(pool.map(ask_one, found))


def ask(environment: Environment, timeout: float = TIMEOUT_SECONDS) -> Environment:
    """Return `environment` with what its own Python says; with `error` where it says nothing."""
    # -P: the probe's folder is not searched for modules. Our hook has no business there.
    argv = [str(Path(environment.path) / "bin" / "python"), "-P", str(_PROBE), environment.engine]
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"TUNEBOOK_HOOK": "0"},
        )
    except subprocess.TimeoutExpired:
        return replace(environment, error=f"its Python had not imported torch after {timeout:g} s")
    except OSError as error:
        return replace(environment, error=f"its Python does not start: {error}")
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if not lines:
        said = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        return replace(environment, error=f"its Python ended with {done.returncode}: {said[:300]}")
    return merged(environment, json.loads(lines[-1].removeprefix(_MARK)))


def merged(environment: Environment, answer: Mapping[str, Any]) -> Environment:
    """Return `environment` with the probe's answer in it."""
    rest = {key: value for key, value in answer.items() if key not in {"flash", "unmet", "architectures"}}
    return replace(
        environment,
        flash=Flash(**answer["flash"]),
        unmet=tuple(answer["unmet"]),
        architectures=tuple(answer.get("architectures", ())),
        **rest,
    )


def _tested(engine: EngineName) -> dict[str, str]:
    path = paths.home() / "constraints" / f"{engine}.txt"
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))
