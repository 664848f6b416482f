"""The file of answers while it grows: what is kept after a kill, and when it must not be gone on with.

Answers go into `<file>.part`, in the order of the input, and `<file>.settings.json` says what gave them.
The file itself appears when the last answer is written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tunebook import files
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Begun(NamedTuple):
    """Where the work stands."""

    state: Literal["new", "unfinished", "finished"]
    rows: int
    """Answers that are there already."""


def part_of(path: Path) -> Path:
    """Return the file into which answers are written until the last one is there."""
    return path.with_name(f"{path.name}.part")


def settings_of(path: Path) -> Path:
    """Return the file that says what gave the answers."""
    return path.with_name(f"{path.name}.settings.json")


def begin(path: Path, settings: Mapping[str, Any], *, overwrite: bool) -> Begun:
    """Find out what is there already, drop a torn last line, and write down the settings.

    Args:
        path: The file of answers.
        settings: Everything that the answers depend on; the same settings give the same answers.
        overwrite: Begin anew, whatever is there.

    Raises:
        TunebookError: What is there was made with other settings, or nothing tells with which.
    """
    part, record = part_of(path), settings_of(path)
    if path.is_dir():
        raise TunebookError(f"{path}: is a folder", fix="name a file with -o")
    if overwrite:
        part.unlink(missing_ok=True)
        files.write_json(record, settings)
        return Begun("new", 0)
    there = next((file for file in (path, part) if file.exists()), None)
    if there is None:
        files.write_json(record, settings)
        return Begun("new", 0)
    _refuse_changes(there, record, settings)
    if there == path:
        return Begun("finished", _whole_lines(path))
    return Begun("unfinished", _whole_lines(part, mend=True))


def finish(path: Path) -> None:
    """Give the file its name."""
    part_of(path).replace(path)


def _refuse_changes(there: Path, record: Path, settings: Mapping[str, Any]) -> None:
    fix = "choose another file with -o, or begin anew with --overwrite"
    try:
        old = json.loads(record.read_text(encoding="utf-8"))
        assert isinstance(old, dict)
    except (OSError, ValueError, AssertionError):
        raise TunebookError(f"{there} exists, and nothing tells what made it", fix=fix) from None
    # As JSON reads them back.
    new = json.loads(json.dumps(settings))
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if changed:
        listing = ", ".join(f"{key} {_short(old.get(key))} -> {_short(new.get(key))}" for key in changed)
        raise TunebookError(f"{there} was begun otherwise: {listing}", fix=fix)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _whole_lines(path: Path, *, mend: bool = False) -> int:
    """Count the lines that hold an object each; with `mend`, cut off what comes behind them."""
    rows = end = 0
    with path.open("rb") as stream:
        for line in stream:
            try:
                whole = line.endswith(b"\n") and isinstance(json.loads(line), dict)
            except ValueError:
                whole = False
            if not whole:
                break
            rows, end = rows + 1, end + len(line)
    if mend and end != path.stat().st_size:
        with path.open("rb+") as stream:
            stream.truncate(end)
    return rows
