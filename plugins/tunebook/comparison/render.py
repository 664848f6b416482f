"""Lays a comparison out: `compare.json`, `compare.md` and one `compare.html` that needs no network."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING, Any

import orjson

from tunebook.errors import TunebookError
from tunebook.files import write_atomic
from tunebook.redact import redact
from tunebook.text import markdown, number, p_value, script_hashes, signed, templates, without_controls

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tunebook.comparison.records import Comparison


def as_data(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain mappings, without what looks like a secret."""
    data = without_controls(redact(asdict(comparison)))
    assert isinstance(data, dict)
    return data


def render(data: Mapping[str, Any], *, show: int) -> dict[str, bytes]:
    """All files of the comparison by name.

    Args:
        data: As `as_data` gives it.
        show: Disagreements of each set in `compare.md`; the other two files hold all that were kept.
    """
    filters = {"num": _num, "signed": signed, "p": p_value, "md": markdown}
    environment = templates("tunebook.comparison", filters)
    ours = resources.files("tunebook.comparison") / "templates"
    program = (ours / "compare.js").read_text("utf-8")
    page = environment.get_template("compare.html.j2").render(
        data=data,
        scripts_allowed=script_hashes(program),
        style=(resources.files("tunebook.report") / "templates" / "report.css").read_text("utf-8")
        + (ours / "compare.css").read_text("utf-8"),
        program=program,
    )
    return {
        "compare.html": page.encode(),
        "compare.md": environment.get_template("compare.md.j2").render(data=data, show=show).encode(),
        "compare.json": orjson.dumps(data, option=orjson.OPT_INDENT_2) + b"\n",
    }


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write each file whole into `folder`, which is made where there is none; other files in it stay.

    Raises:
        TunebookError: The folder cannot be written.
    """
    made = not folder.exists()
    try:
        for name, content in files.items():
            write_atomic(folder / name, content)
    except OSError as err:
        if made:
            with suppress(OSError):
                folder.rmdir()
        raise TunebookError(
            f"cannot write the comparison to {folder}: {err.strerror}",
            fix="name a folder with -o that you may write to, on a disk with room",
        ) from err


def _num(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else number(value)
