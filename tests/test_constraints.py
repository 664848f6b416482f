import re
import tomllib
from pathlib import Path

import pytest

from tunebook.engines.supported import NAMES, PYTHON, SUPPORTED, within

ROOT = Path(__file__).parents[1]
PIN = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)==([0-9][0-9a-z.]*)")


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    found = [PIN.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(found), "each line is name==version, without a place to get it from"
    assert len({match[1] for match in found}) == len(found)
    return {match[1]: match[2] for match in found}


def required(extras: tuple[str, ...]) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [
        line for extra in extras for line in project["optional-dependencies"][extra]
    ]
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in wanted}


@pytest.mark.parametrize("engine", ["llamafactory", "axolotl"])
def test_a_package_is_pinned_once_in_the_files_of_an_environment(engine):
    assert not pins(engine).keys() & pins("dev").keys()


@pytest.mark.parametrize(
    ("engine", "extras"), [("llamafactory", ("llamafactory", "dev")), ("axolotl", ("axolotl",))]
)
def test_everything_that_pyproject_asks_for_is_pinned(engine, extras):
    assert required(extras) <= pins(engine).keys() | pins("dev").keys()


def test_both_environments_run_the_same_core():
    for name in required(()) - {"numpy"}:
        assert pins("llamafactory")[name] == pins("axolotl")[name]


@pytest.mark.parametrize("engine", ["llamafactory", "axolotl"])
def test_pyproject_and_the_documents_say_the_ranges_of_the_table(engine):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == PYTHON
    wanted = dict(
        re.match(r"([a-z-]+)(.*)", line).groups() for line in project["optional-dependencies"][engine]
    )
    document = (ROOT / "docs" / "versions.md").read_text()
    for name, versions in SUPPORTED[engine].ranges.items():
        assert wanted[name] == versions
        assert f"| {NAMES.get(name, name)} | `{versions}` |" in document
        assert within(SUPPORTED[engine].pinned[name], versions)
        assert pins(engine)[name] == SUPPORTED[engine].pinned[name]
