"""Lays a report out: `report.json`, `report.md` with its pictures, and one `report.html`."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tunebook.errors import TunebookError
from tunebook.redact import redact, redact_text
from tunebook.report import charts
from tunebook.report import charts as theme
from tunebook.report.records import STEPS
from tunebook.text import markdown, number, script_hashes, templates, without_controls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import jinja2

    from tunebook.report.records import Chart, Live, Report

MARK = "report.json"
"""The file by which a folder is known as a report, which may be replaced."""
_TICKED = 5
"""Runs whose curves the page of all runs shows when it is opened: the newest."""
OUTLINES = {"study": "study.md", "slides": "slides.md"}
"""What `--template` takes, and the file that it makes."""


def write_report(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files that `render` made into `folder`, all or none; an older report there is replaced.

    Raises:
        TunebookError: The folder holds something else, or cannot be written.
    """
    _refuse_foreign(folder)
    # A link to a folder stays one; a link to itself is an error below.
    folder = folder.resolve() if folder.is_dir() else folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    except OSError as err:
        raise _cannot_write(folder, err) from err
    try:
        for name, content in files.items():
            (draft / name).write_bytes(content)
        draft.chmod(0o755)
        _put_in_place(draft, folder)
    except OSError as err:
        raise _cannot_write(folder, err) from err
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def render(report: Report) -> dict[str, bytes]:
    """All files of the report by name."""
    data = without_controls(redact(asdict(report)))
    all_keys = charts.keys(report.charts)
    files = _page_and_data(report, data, None)
    files["report.md"] = environment().get_template("report.md.j2").render(report=data).encode()
    for chart in report.charts:
        if chart.secondary:
            continue
        files[f"{chart.id}.png"] = charts.png(chart, all_keys)
    return files


def render_outlines(report: Report, wanted: Sequence[str]) -> dict[str, bytes]:
    """The wanted outlines by file name; they show the pictures beside `report.md`.

    Args:
        report: What was gathered of the runs.
        wanted: Keys of `OUTLINES`.
    """
    data = without_controls(redact(asdict(report)))
    return {OUTLINES[name]: outline(data, name) for name in dict.fromkeys(wanted)}


def outline(data: Mapping[str, Any], name: str) -> bytes:
    """One outline of what `report.json` holds."""
    text = environment().get_template(f"{OUTLINES[name]}.j2").render(report=data)
    return re.sub(r"\n{3,}", "\n\n", text).encode()


def render_page(report: Report) -> bytes:
    """Only `report.html`."""
    return _html(report, without_controls(redact(asdict(report))), None).encode()


def render_one_of_all(report: Report, back: str) -> dict[str, bytes]:
    """`report.html` and `report.json` of one of the pages that the page at `back` lists."""
    return _page_and_data(report, without_controls(redact(asdict(report))), back)


def render_index(data: Mapping[str, Any], drawn: Sequence[Chart], live: Live | None) -> bytes:
    """`index.html`, the page of all runs.

    Args:
        data: What `index.json` holds.
        drawn: The curves of all runs.
        live: Whether somebody makes the page again.
    """
    names = without_controls(redact([run["name"] for run in data["runs"]]))
    colours = {name: theme.colour(place) for place, name in enumerate(names)}
    ticked = [name for name in names if any(line.key == name for chart in drawn for line in chart.lines)]
    shown = {**data, "charts": drawn, "live": live and asdict(live)}
    return (
        environment()
        .get_template("index.html.j2")
        .render(
            report=shown,
            colours=colours,
            drawable=set(ticked),
            ticked=set(ticked[:_TICKED]),
            titles=[chart.title for chart in drawn],
            **_dress(drawn, names, fit=True),
        )
        .encode()
    )


def _page_and_data(report: Report, data: dict[str, Any], back: str | None) -> dict[str, bytes]:
    return {
        MARK: orjson.dumps(data, option=orjson.OPT_INDENT_2) + b"\n",
        "report.html": _html(report, data, back).encode(),
    }


def _html(report: Report, data: dict[str, Any], back: str | None) -> str:
    all_keys = charts.keys(report.charts)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=data,
            back=back,
            legend=[(redact_text(key), theme.colour(place)) for place, key in enumerate(all_keys)],
            **_dress(report.charts, all_keys, fit=False),
        )
    )


def _dress(drawn: Sequence[Chart], all_keys: list[str], *, fit: bool) -> dict[str, str]:
    """What all pages have in common: style, programs, and the charts' data.

    Args:
        drawn: The charts.
        all_keys: What the curves are toggled by, in the order of their colours.
        fit: Axes end where the curves do that are on.
    """
    page = {
        "keys": all_keys,
        "fit": fit,
        "configs": {"light": theme.config(dark=False), "dark": theme.config(dark=True)},
        "charts": [
            {
                "id": chart.id,
                "spec": charts.spec(chart, all_keys),
                "format": chart.y_format,
                "clock": chart.x_label != STEPS,
                "panels": chart.panels,
                "lines": [
                    {
                        "key": line.key,
                        "label": line.label,
                        "dataset": line.dataset,
                        "x": line.steps,
                        "y": line.values,
                        "lo": line.low,
                        "hi": line.high,
                    }
                    for line in chart.lines
                ],
            }
            for chart in drawn
        ],
    }
    programs = {
        "program": _beside("report.js"),
        "picking": _beside("index.js"),
        "reloading": _beside("reload.js"),
        "library": charts.script().replace("</script", "<\\/script") if drawn else "",
    }
    return {
        **programs,
        "scripts_allowed": script_hashes(*programs.values()),
        "style": _beside("report.css"),
        "page": _in_script(without_controls(redact(page))),
    }


def _beside(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text("utf-8")


def _in_script(value: Any) -> str:
    """JSON that cannot end the script element it is in."""
    return (
        orjson.dumps(value)
        .decode()
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


@cache
def environment() -> jinja2.Environment:
    """The templates beside this module, with the filters that they write numbers and texts by."""
    filters: dict[str, Callable[..., Any]] = {
        "num": _num,
        "md": markdown,
        "code": _code,
        "value": _value,
        "duration": duration,
        "measured": _measured,
        "epoch": _epoch,
        "spark": _spark,
        "commands": _commands,
        "shell": shlex.join,
    }
    return templates("tunebook.report", filters)


def _num(value: object) -> str:
    """A number for readers; what is no number stays as it is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else number(value)


def _epoch(moment: str) -> int:
    """ISO 8601 as seconds, to sort by."""
    return round(datetime.fromisoformat(moment).timestamp())


def _spark(points: Sequence[tuple[int, float]]) -> str:
    """Points of a small line in a box of 100 by 24."""
    steps, values = [step for step, _ in points], [value for _, value in points]
    wide, high = (steps[-1] - steps[0]) or 1, (max(values) - min(values)) or 1
    return " ".join(
        f"{(step - steps[0]) / wide * 96 + 2:.1f},{22 - (value - min(values)) / high * 20:.1f}"
        for step, value in points
    )


def _measured(value: float | str | None, unit: str = "") -> str:
    """A number of an outline with its unit, or that there is none."""
    if value is None:
        return "not measured"
    if isinstance(value, float) and not math.isfinite(value):
        return "not finite"
    return duration(float(value)) if unit == "s" else f"{_num(value)} {unit}".rstrip()


def _commands(provenance: Mapping[str, Any] | None) -> list[str]:
    """What started a run: with tunebook, and with the engine from the recipe in the run's folder."""
    if provenance is None:
        return []
    lines, recipe = [], provenance["recipe"]
    if recipe and recipe["name"]:
        # Overlays and `key=value` are in one list, in the order in which they were merged.
        changes = [[one] if "=" in one else ["-o", one] for one in recipe["overlays"]]
        lines.append(shlex.join(["tunebook", "train", recipe["name"], *chain.from_iterable(changes)]))
    if provenance["command"]:
        lines.append(shlex.join(provenance["command"]))
    return [line.replace("\n", " ") for line in lines]


def _value(value: object) -> str:
    """A setting as in a recipe."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(3.24), duration(75), duration(7385)
    ('3.2 s', '1 min 15 s', '2 h 03 min')
    """
    if not math.isfinite(seconds):
        return "not finite"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def _code(text: object) -> str:
    """Text as inline code in a table cell, whatever it holds."""
    shown = str(text).replace("\n", " ").replace("|", "\\|")
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", shown)), default=0) + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}" if shown.strip() else "(empty)"


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise TunebookError(f"{folder} is a file", fix="name a folder for the report with -o")
    if any(folder.iterdir()) and not (folder / MARK).is_file():
        raise TunebookError(
            f"{folder} holds other things than a report, which would be lost",
            fix="name a new or empty folder with -o",
        )


def _put_in_place(draft: Path, folder: Path) -> None:
    old = None
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
        try:
            folder.replace(old)
        except OSError:
            old.rmdir()
            raise
    try:
        draft.replace(folder)
    except OSError:
        if old is not None:
            old.replace(folder)
        raise
    if old is not None:
        with suppress(OSError):
            shutil.rmtree(old)


def _cannot_write(folder: Path, err: OSError) -> TunebookError:
    return TunebookError(
        f"cannot write the report to {folder}: {err.strerror}",
        fix="name a folder with -o that you may write to, on a disk with room",
    )
