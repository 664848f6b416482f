"""docs/inside.md is a map of the house as it is."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "plugins" / "tunebook"
PAGE = (ROOT / "docs" / "inside.md").read_text(encoding="utf-8")


def test_the_map_has_every_room_on_its_floor():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    floors = [layer.split(" | ") for layer in layers][:-2]
    drawn = re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert {(int(floor), room) for floor, room in drawn} == {
        (number, room) for number, rooms in enumerate(floors, 1) for room in rooms
    }
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders == {room for _, room in drawn}


def test_at_most_ten_modules_lie_at_the_root_and_the_map_names_them():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert len(modules) <= 10
    ground = PAGE[PAGE.index("Below them") : PAGE.index("## Three paths")]
    assert modules == set(re.findall(r"`(\w+)`", ground))


def test_every_file_that_the_map_names_is_there():
    named = re.findall(r"[\s(`]((?:[a-z_]+/)+[\w.]+\.(?:py|md|jsonl|json))", PAGE)
    assert len(named) > 40
    for name in named:
        assert (ROOT / name).is_file() or (PACKAGE / name).is_file(), name
