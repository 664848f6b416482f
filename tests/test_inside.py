"""docs/inside.md is a map of the house as it is."""

import ast
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


def imported(name, files):
    """The modules of ours that one imports, wherever the import is written."""
    found = set()
    for node in ast.walk(ast.parse(files[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in files else node.module)
    return {one for one in found if one in files and one != name}


def test_no_module_imports_itself_by_way_of_others():
    files = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    below = {name: imported(name, files) for name in files}
    # Leaves are taken off until nothing is left: what stays hangs together in a circle.
    while leaves := [name for name, names in below.items() if not names]:
        for name in leaves:
            del below[name]
        for names in below.values():
            names.difference_update(leaves)
    assert below == {}
