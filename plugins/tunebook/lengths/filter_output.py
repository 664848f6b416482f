"""Writes what a filter kept: data, list of what went, manifest and registry entry, or none of them."""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from typing import IO, TYPE_CHECKING, Any

from tunebook.data.registry import REGISTRY_FILE, load_registry
from tunebook.errors import TunebookError
from tunebook.files import sha256_of, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tunebook.lengths.filtering import Condition, Dropped, Sorted
    from tunebook.lengths.sets import RowSet

_LISTED = 100

# Where and how much of the data; the new entry has a file of its own.
_OF_THE_SOURCE = (
    *("file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"),
    *("subset", "split", "folder", "num_samples"),
)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of a set's rows."""

    name: str
    """Of the new entry."""
    source: str
    """Of the set."""
    rows: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Rows that went, by reason."""
    first: list[int] = field(default_factory=list)
    """The first rows that went, from 1."""
    file: Path | None = None
    """The data, once it is written."""

    @property
    def dropped(self) -> int:
        """Rows that went."""
        return self.rows - self.kept

    def count(self, part: Sorted) -> None:
        """Count some rows."""
        self.rows += len(part.stays)
        self.kept += sum(part.stays)
        self.reasons.update(one.reason for one in part.dropped)
        self.first += [one.row for one in part.dropped[: _LISTED - len(self.first)]]


def new_name(source: str, condition: Condition) -> str:
    """Return what the entry is called, by what its rows fulfil.

    >>> from tunebook.lengths.filtering import Condition
    >>> new_name("legal", Condition(most=8192, least=16, most_answer=512))
    'legal_min16_max8192_answer512'
    """
    on = "" if condition.on == "total" else condition.on
    parts = [("min", condition.least), ("max", condition.most), ("answer", condition.most_answer)]
    tags = [f"{on if tag != 'answer' else ''}{tag}{bound}" for tag, bound in parts if bound is not None]
    return "_".join([source, *tags])


def refuse_existing(folder: Path, name: str) -> None:
    """Stop where the output would replace something.

    Raises:
        TunebookError: The folder has such an entry or such files, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise TunebookError(f"{folder} is a file", fix="give -o a folder")
    registry = folder / REGISTRY_FILE
    there = [path.name for path in folder.glob(f"{name}.*")] if folder.is_dir() else []
    if there or (registry.is_file() and name in load_registry(registry).values):
        raise TunebookError(
            f"{folder} already has {there[0] if there else f'an entry {name!r}'}",
            fix="choose another --name or another folder, or delete it",
        )


def count(parts: Iterable[Sorted], outcome: Outcome, report: IO[str] | None) -> None:
    """Go through all rows and write nothing but the report of those that went."""
    for part in parts:
        outcome.count(part)
        if report is not None:
            report.writelines(map(_line, part.dropped))


def write(
    parts: Iterable[Sorted], rows: RowSet, outcome: Outcome, folder: Path, facts: dict[str, Any]
) -> None:
    """Write the rows that stay, and what there is to know of the others; the registry entry comes last.

    Args:
        parts: All rows of the set.
        rows: The set.
        outcome: Is filled in.
        folder: Is made where there is none; a registry in it keeps its other entries.
        facts: What the manifest says of how lengths were counted.

    Raises:
        TunebookError: No row stays, or there is no room or no right to write.
    """
    made = not folder.exists()
    suffix = rows.files[0].suffix.lower()
    data, listed = folder / f"{outcome.name}{suffix}", folder / f"{outcome.name}.dropped.jsonl"
    manifest = folder / f"{outcome.name}.manifest.json"
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in (data, listed)}
    placed: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _copy(parts, outcome, temporary[data], temporary[listed])
        if outcome.kept == 0:
            raise TunebookError(f"{rows.name}: no row fulfils the condition", fix="look with --dry-run first")
        refuse_existing(folder, outcome.name)
        for path, written in temporary.items():
            written.replace(path)
            placed.append(path)
        placed.append(manifest)
        write_json(manifest, _manifest(rows, outcome, data, listed, facts))
        _register(rows, outcome, folder, data)
        placed = []
    except OSError as err:
        raise TunebookError(
            f"{folder}: cannot write: {err.strerror}", fix="make room, or give -o a folder you may write to"
        ) from err
    finally:
        for path in (*temporary.values(), *placed):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        if made:
            with suppress(OSError):
                folder.rmdir()  # only if it is empty: nothing came of it
    outcome.file = data


def _copy(parts: Iterable[Sorted], outcome: Outcome, data: Path, listed: Path) -> None:
    with ExitStack() as stack:
        report = stack.enter_context(listed.open("w", encoding="utf-8"))
        sink = None
        for part in parts:
            sink = sink or stack.enter_context(part.file.sink(data))
            sink.write(part.rows, part.stays)
            outcome.count(part)
            report.writelines(map(_line, part.dropped))


def _line(one: Dropped) -> str:
    size = one.size._asdict() if one.size is not None else {}
    return json.dumps({"row": one.row, "reason": one.reason, **size}, ensure_ascii=False) + "\n"


def _manifest(
    rows: RowSet, outcome: Outcome, data: Path, listed: Path, facts: dict[str, Any]
) -> dict[str, Any]:
    return {
        "source": [{"file": str(file), "sha256": sha256_of(file)} for file in rows.files],
        "dataset": rows.name,
        **facts,
        "rows": outcome.rows,
        "kept": outcome.kept,
        "dropped": dict(outcome.reasons),
        "dropped_rows": listed.name,
        "file": data.name,
        "sha256": sha256_of(data),
    }


def _register(rows: RowSet, outcome: Outcome, folder: Path, data: Path) -> None:
    registry = folder / REGISTRY_FILE
    others = dict(load_registry(registry).values) if registry.is_file() else {}
    values = {key: value for key, value in rows.entry.values.items() if key not in _OF_THE_SOURCE}
    samples = rows.entry.values.get("num_samples")
    if isinstance(samples, int) and samples <= outcome.kept:
        values["num_samples"] = samples  # of fewer rows the engine would repeat some
    write_json(registry, {**others, outcome.name: {"file_name": data.name, **values}})


def facts_of(condition: Condition, counted: dict[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of a filter: the condition, and how lengths were counted."""
    return {"condition": asdict(condition), **counted}
