"""What is split, by name, and the `dataset_info.json` of each node: the same names over other files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import orjson

from tunebook.data.registry import MEDIA_COLUMNS, REMOTE_KEYS, data_files, load_registry
from tunebook.errors import TunebookError
from tunebook.splits.checks import Checks
from tunebook.splits.parquet import column_names
from tunebook.splits.rows import read_rows
from tunebook.splits.sources import SourceFile, open_source

# The columns of per-node CSV files as people write them, LLaMA-Factory's own, then other usual names.
_KNOWN_COLUMNS: tuple[tuple[frozenset[str], Mapping[str, Any]], ...] = (
    (
        frozenset({"prompt", "question", "response"}),
        {"columns": {"system": "prompt", "prompt": "question", "response": "response"}},
    ),
    (frozenset({"instruction", "output"}), {}),
    (
        frozenset({"messages"}),
        {
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        },
    ),
    (frozenset({"conversations"}), {"formatting": "sharegpt"}),
    (frozenset({"prompt", "response"}), {"columns": {"prompt": "prompt", "response": "response"}}),
    (frozenset({"question", "answer"}), {"columns": {"prompt": "question", "response": "answer"}}),
    (frozenset({"prompt", "completion"}), {"columns": {"prompt": "prompt", "response": "completion"}}),
)


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


def guess_values(columns: Sequence[str]) -> Mapping[str, Any] | None:
    """Return the part of an entry that describes such columns; None where none is known."""
    present = set(columns)
    return next((values for wanted, values in _KNOWN_COLUMNS if wanted <= present), None)


def _file_dataset(path: Path) -> SplitDataset:
    source = open_source(path)
    columns = _columns(source)
    values = guess_values(columns)
    notes: tuple[str, ...] = ()
    if values is None:
        note = (
            f"{path} has the columns {', '.join(columns)}: say in each dataset_info.json which of them are "
            "prompt and response"
        )
        notes = (note,)
    named = (values or {}).get("columns", {})
    return SplitDataset(
        name=path.stem,
        values={"file_name": path.name, **(values or {})},
        others={},
        sources=(source,),
        file_name=path.name,
        columns=tuple(named.values()),
        notes=notes,
    )


def _columns(source: SourceFile) -> Sequence[str]:
    if source.format == "parquet":
        return column_names(source.path)
    if source.columns:
        return source.columns
    return _first_row_columns(source)


def _first_row_columns(source: SourceFile) -> Sequence[str]:
    """Columns of the first row; none where it is bad, which the scan reports with its line."""
    for block in read_rows(source, Checks(parse_json=False, skip_bad=True)):
        for row in block.rows():
            try:
                values = orjson.loads(row)
            except orjson.JSONDecodeError:
                return ()
            return list(values) if isinstance(values, dict) else ()
    return ()


def _with_absolute_file(values: Any, folder: Path) -> Any:
    name = values.get("file_name") if isinstance(values, dict) else None
    if isinstance(name, str) and not any(key in values for key in REMOTE_KEYS):
        return {**values, "file_name": str((folder / name).resolve())}
    return values
