"""Runs a script of scripts/ in this process: a tenth of the time that a new one takes."""

import importlib
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from click.testing import CliRunner

SCRIPTS = Path(__file__).parents[1] / "scripts"


def load_script(name: str):
    """The module of a script, which imports its neighbours by their bare names, as when it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        return importlib.import_module(name)


def run_script(name: str, *arguments: object) -> CompletedProcess:
    """What the script's command line does with the arguments; an unexpected exception rises."""
    command = [str(argument) for argument in arguments]
    done = CliRunner().invoke(load_script(name).main, command, catch_exceptions=False)
    return CompletedProcess([name, *command], done.exit_code, done.stdout, done.stderr)
