"""What is split, by name, and the `dataset_info.json` of each node: the same names over other files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from tunebook.data.forms import first_rows, form_of, refuse_other_tables
from tunebook.data.registry import MEDIA_COLUMNS, REMOTE_KEYS, data_files, load_registry
from tunebook.data.rows import TABLE_SUFFIXES
from tunebook.errors import TunebookError
from tunebook.splits.sources import SourceFile, open_source


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitDataset:
    """The dataset that is split."""

    name: str
    """Of its registry entry."""
    values: Mapping[str, Any]
    """The entry; for a file that no registry names, one that fits its columns."""
    others: Mapping[str, Any]
    """The other entries of the registry, their files by absolute path."""
    sources: tuple[SourceFile, ...]
    file_name: str
    """Of the data in each node's folder."""
    columns: tuple[str, ...]
    """Columns that the entry trains on; empty where it does not say."""
    notes: tuple[str, ...] = ()
    """What the user should know about the entry."""


class Holdout(NamedTuple):
    """The registry entry of the rows that are held out."""

    name: str
    file_name: str
    metric: str | None
    """None for that of the entry that is split."""


def find_dataset(name: str, dataset_dir: Path) -> SplitDataset:
    """Return what `name` means: a file where there is one, else an entry of the registry.

    Raises:
        TunebookError: It is neither, or its data is not on this machine.
    """
    path = Path(name)
    if path.is_file():
        return _file_dataset(path)
    if path.suffix and (len(path.parts) > 1 or path.suffix in (".csv", ".json", ".jsonl", ".parquet")):
        raise TunebookError(f"there is no file {name}", fix="check the path")
    registry = load_registry(dataset_dir)
    entry = registry.entry(name)
    files = data_files(entry)
    if not files:
        raise TunebookError(
            f"{entry.registry}: {name}: its data is not on this machine",
            fix="download it and give the entry a file_name, or name the file itself",
        )
    sources = tuple(open_source(file) for file in files if not file.name.startswith("."))
    notes = []
    if entry.values.get("num_samples"):
        notes.append(
            f"{name} has num_samples {entry.values['num_samples']}: each node takes as many of its own rows"
        )
    named = entry.values.get("columns")
    columns = tuple(str(column) for column in named.values() if column) if isinstance(named, dict) else ()
    if any(isinstance(named, dict) and named.get(column) for column in MEDIA_COLUMNS):
        notes.append(
            f"{name} names media files: set media_dir={entry.registry.parent.resolve()} on each node, since "
            "LLaMA-Factory looks for them in dataset_dir"
        )
    given = PurePath(str(entry.values["file_name"]))
    file_name = given.name if given.is_absolute() or ".." in given.parts else str(given)
    if (entry.registry.parent / given).is_dir():
        # One file and not a folder: LLaMA-Factory reads a folder in whatever order the system lists it.
        file_name += sources[0].path.suffix
    others = {
        key: _with_absolute_file(value, entry.registry.parent) for key, value in registry.values.items()
    }
    others.pop(name)
    return SplitDataset(
        name=name,
        values=entry.values,
        others=others,
        sources=sources,
        file_name=file_name,
        columns=columns,
        notes=tuple(notes),
    )


def node_registry(dataset: SplitDataset, file_name: str, holdout: Holdout | None) -> dict[str, Any]:
    """Return a `dataset_info.json`: the split entry over `file_name`, the hold-out, and the other entries.

    Raises:
        TunebookError: The registry has an entry of the hold-out's name.
    """
    entries: dict[str, Any] = {dataset.name: {**dataset.values, "file_name": file_name}}
    if holdout is not None:
        if holdout.name in dataset.others or holdout.name == dataset.name:
            raise TunebookError(
                f"the registry has an entry {holdout.name!r} already",
                fix="give the hold-out another name with --eval-name",
            )
        values = {key: value for key, value in dataset.values.items() if key != "num_samples"}
        if holdout.metric is not None:
            values["metric"] = holdout.metric
        entries[holdout.name] = {**values, "file_name": holdout.file_name}
    return {**entries, **dataset.others}


def _file_dataset(path: Path) -> SplitDataset:
    source = open_source(path)
    values: Mapping[str, Any] = {}
    notes: list[str] = []
    try:
        rows = first_rows(path) if path.suffix in TABLE_SUFFIXES else []
    except TunebookError:
        rows = []  # the scan tells of bad rows, each with its line
    if rows:
        refuse_other_tables(rows, path)
        try:
            form = form_of(rows, path)
        except TunebookError as error:
            notes.append(f"{error.problem}: say so in each dataset_info.json")
        else:
            values = form.values
            if form.left_out:
                notes.append(f"{path}: no engine will see its columns {', '.join(form.left_out)}")
    named = values.get("columns", {})
    return SplitDataset(
        name=path.stem,
        values={"file_name": path.name, **values},
        others={},
        sources=(source,),
        file_name=path.name,
        columns=tuple(named.values()),
        notes=tuple(notes),
    )


def _with_absolute_file(values: Any, folder: Path) -> Any:
    name = values.get("file_name") if isinstance(values, dict) else None
    if isinstance(name, str) and not any(key in values for key in REMOTE_KEYS):
        return {**values, "file_name": str((folder / name).resolve())}
    return values
