"""Where things are: the recipes and registry, and the environment that holds each engine."""

from __future__ import annotations

import os
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tunebook.types import EngineName

HOOK_FILE = "tunebook_hook.pth"
"""The start-up file that our wheel puts beside the package; see `tunebook.hooks.startup`."""

_ENVIRONMENT_FOLDERS: dict[EngineName, str] = {"llamafactory": ".venv", "axolotl": ".venv-axolotl"}
"""What `make setup` calls each engine's environment. An engine's distribution has the engine's name."""


def home() -> Path:
    """Return the folder that holds `recipes/` and `datasets_info/`.

    The current folder where it holds both, so that the checkout one is in wins; else the checkout this
    package runs from (an editable install); else the copies that travel inside the wheel.
    """
    package = Path(__file__).resolve().parent
    for folder in (Path.cwd(), package.parents[1]):
        if (folder / "recipes").is_dir() and (folder / "datasets_info").is_dir():
            return folder
    return package / "_shipped"


def cache() -> Path:
    """Return the folder for what can be made again: `TUNEBOOK_CACHE`, or `tunebook` in the user's cache."""
    named = os.environ.get("TUNEBOOK_CACHE")
    return Path(named or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "tunebook").expanduser()


def hub_home() -> Path:
    """Return the folder of the Hugging Face libraries: `HF_HOME`, or `huggingface` in the user's cache."""
    named = os.environ.get("HF_HOME")
    return Path(named or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface").expanduser()


def engine_environment(engine: EngineName) -> Path:
    """Return the virtual environment (the folder that holds `bin/`) in which `engine` is installed.

    In this order: the one named by `TUNEBOOK_LLAMAFACTORY_ENV` or `TUNEBOOK_AXOLOTL_ENV`, which must have
    the engine; the running one; `.venv` or `.venv-axolotl` beside the running one, then in the current
    folder. Nothing is imported: an installed distribution is a folder of metadata.

    Raises:
        TunebookError: No environment has the engine, or the named one lacks it.
    """
    variable = f"TUNEBOOK_{engine.upper()}_ENV"
    named = os.environ.get(variable)
    if named:
        environment = Path(named).expanduser().absolute()
        if installed_versions(environment, [engine]):
            return environment
        raise TunebookError(
            f"{variable}={named}: {engine} is not installed there",
            fix=f"set {variable} to the virtual environment that has {engine} (the folder that holds bin/)",
        )
    running, folder = Path(sys.prefix), _ENVIRONMENT_FOLDERS[engine]
    candidates = list(dict.fromkeys([running, running.parent / folder, Path.cwd() / folder]))
    for environment in candidates:
        if installed_versions(environment, [engine]):
            return environment
    raise TunebookError(
        f"{engine} is not installed in any of: {', '.join(map(str, candidates))}",
        fix=f"run `make setup` in a checkout, or `pip install 'tunebook[{engine}]'`, "
        f"or set {variable} to the virtual environment that has it",
    )


def installed_versions(environment: Path, distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those `distributions` that are installed in `environment`, by name.

    Read from the metadata on disk; the environment's own Python is not started.
    """
    packages = _site_packages(environment)
    if packages is None:
        return {}
    found = {}
    for name in distributions:
        for distribution in metadata.distributions(name=name, path=[str(packages)]):
            found[name] = distribution.version
            break
    return found


def has_startup_hook(environment: Path) -> bool:
    """Whether every Python start in `environment` reads our start-up file."""
    packages = _site_packages(environment)
    return packages is not None and (packages / HOOK_FILE).is_file()


def python_version(environment: Path) -> str | None:
    """Return the Python version of `environment`, e.g. `3.11`; None where it has no `site-packages`."""
    if environment == Path(sys.prefix):
        return f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    packages = _site_packages(environment)
    return None if packages is None else packages.parent.name.removeprefix("python")


def _site_packages(environment: Path) -> Path | None:
    if environment == Path(sys.prefix):
        # Not by pattern: Debian and conda name this folder in their own ways.
        return Path(sysconfig.get_path("purelib", vars={"base": sys.prefix}))
    return next(iter(sorted(environment.glob("lib/python3*/site-packages"))), None)
