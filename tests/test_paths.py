import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tunebook import paths
from tunebook.errors import TunebookError


def make_environment(folder: Path, *distributions: str) -> Path:
    packages = folder / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    for distribution in distributions:
        name, version = distribution.split("==")
        info = packages / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


@pytest.fixture
def no_engine_here(monkeypatch, tmp_path):
    """A running environment without engines, in a current folder of its own."""
    monkeypatch.delenv("TUNEBOOK_LLAMAFACTORY_ENV", raising=False)
    monkeypatch.setattr(sys, "prefix", str(make_environment(tmp_path / "running" / "env")))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


def test_home_is_the_folder_one_stands_in_when_it_holds_recipes_and_a_registry(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "datasets_info").mkdir()
    monkeypatch.chdir(tmp_path)
    assert paths.home() == tmp_path


def test_home_is_the_checkout_of_an_editable_install(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()  # a folder of that name alone makes no home
    monkeypatch.chdir(tmp_path)
    assert paths.home() == Path(__file__).resolve().parents[1]


def test_home_is_what_the_wheel_brought_along_when_there_is_no_checkout(tmp_path):
    installed = tmp_path / "site-packages" / "tunebook"
    installed.mkdir(parents=True)
    for name in ("__init__.py", "paths.py", "errors.py"):
        shutil.copy(Path(paths.__file__).with_name(name), installed)
    script = "from tunebook import paths; print(paths.home())"
    env = os.environ | {"PYTHONPATH": str(installed.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(installed / "_shipped")


def test_the_variable_names_the_environment(no_engine_here, monkeypatch):
    named = make_environment(no_engine_here / "named", "llamafactory==0.9.5")
    make_environment(no_engine_here / "cwd" / ".venv", "llamafactory==0.9.4")
    monkeypatch.setenv("TUNEBOOK_LLAMAFACTORY_ENV", str(named))
    assert paths.engine_environment("llamafactory") == named


def test_a_variable_that_names_an_environment_without_the_engine_is_an_error(no_engine_here, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_LLAMAFACTORY_ENV", str(make_environment(no_engine_here / "named")))
    with pytest.raises(TunebookError, match=r"TUNEBOOK_LLAMAFACTORY_ENV=.*not installed there"):
        paths.engine_environment("llamafactory")


def test_the_environment_beside_the_running_one_is_found_before_the_one_in_the_current_folder(no_engine_here):
    beside = make_environment(no_engine_here / "running" / ".venv", "llamafactory==0.9.5")
    make_environment(no_engine_here / "cwd" / ".venv", "llamafactory==0.9.5")
    assert paths.engine_environment("llamafactory") == beside


def test_each_engine_has_an_environment_of_its_own(no_engine_here, monkeypatch):
    monkeypatch.delenv("TUNEBOOK_AXOLOTL_ENV", raising=False)
    environment = make_environment(no_engine_here / "cwd" / ".venv-axolotl", "axolotl==0.19.0")
    assert paths.engine_environment("axolotl") == environment
    with pytest.raises(TunebookError, match="llamafactory is not installed") as error:
        paths.engine_environment("llamafactory")
    assert "make setup" in error.value.fix


def test_versions_and_the_hook_are_read_from_the_files_of_an_environment(tmp_path):
    environment = make_environment(tmp_path, "torch==2.13.0", "peft==0.18.1")
    assert paths.installed_versions(environment, ["torch", "peft", "trl"]) == {
        "torch": "2.13.0",
        "peft": "0.18.1",
    }
    assert paths.python_version(environment) == "3.11"
    assert not paths.has_startup_hook(environment)
    (environment / "lib/python3.11/site-packages" / paths.HOOK_FILE).touch()
    assert paths.has_startup_hook(environment)


def test_a_folder_that_is_no_environment_has_nothing(tmp_path):
    assert paths.installed_versions(tmp_path, ["torch"]) == {}
    assert not paths.has_startup_hook(tmp_path)
    assert paths.python_version(tmp_path) is None
