"""The registry `dataset_info.json`: LLaMA-Factory's own entries, each with what is to be measured on it.

The key `"metric"` is ours and LLaMA-Factory ignores it. It holds a metric's name, an object
`{"name", "mode", "max_new_tokens", "max_samples"}` of which only the name is needed, or a list of either.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from tunebook import files
from tunebook.errors import TunebookError, join_errors
from tunebook.files import write_json
from tunebook.types import METRIC_OPTIONS, DatasetEntry, MetricMode, MetricSpec, with_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

REGISTRY_FILE = "dataset_info.json"

REMOTE_KEYS = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
"""With one of these in an entry LLaMA-Factory does not look for a local file."""
LOCATION_KEYS = ("file_name", *REMOTE_KEYS, "subset", "split", "folder")
"""Keys of an entry that say where its data is."""
MEDIA_COLUMNS = ("images", "videos", "audios")
"""LLaMA-Factory's names for columns of files beside the text."""

_OPTIONS = ("name", "mode", "max_new_tokens", "max_samples")
_COUNTS = ("max_new_tokens", "max_samples")


_LONGEST_NAME = 200  # bytes, with room for what is added to it


def name_fault(name: str) -> str | None:
    """Return why no file may be named after `name`; None where one may.

    >>> name_fault("../x"), name_fault("gsm8k_test")
    ('holds a separator of folders', None)
    """
    if "/" in name or "\\" in name:
        return "holds a separator of folders"
    if name in ("", ".", ".."):
        return "is no name"
    if not name.isprintable():
        return "holds a control character"
    return "is longer than 200 bytes" if len(name.encode("utf-8", "surrogatepass")) > _LONGEST_NAME else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """One `dataset_info.json`. An entry is checked when it is asked for: a run is not stopped by others'."""

    path: Path
    values: Mapping[str, Any]

    def entry(self, name: str) -> DatasetEntry:
        """Return the entry of that name.

        Raises:
            TunebookError: There is none, or its `"metric"` is not of the form above.
        """
        if name not in self.values:
            close = difflib.get_close_matches(name, self.values, n=3, cutoff=0.6)
            raise TunebookError(
                f"no dataset {name!r} in {self.path}",
                fix=f"did you mean {' or '.join(close)}?"
                if close
                else f"add an entry {name!r} to {self.path}",
            )
        fault = name_fault(name)
        if fault:
            raise TunebookError(
                f"{self.path}: the name {name[:80]!r} {fault}, and files are named after it",
                fix="rename the entry: letters, digits, `-`, `_` and `.`",
            )
        values = self.values[name]
        where = f"{self.path}: {name}"
        if not isinstance(values, dict):
            raise TunebookError(
                f"{where}: is a {type(values).__name__}, not an object", fix='write {"file_name": ..., ...}'
            )
        return DatasetEntry(
            name=name, registry=self.path, values=values, metrics=parse_metrics(values.get("metric"), where)
        )

    def metrics_of(self, names: Iterable[str]) -> dict[str, tuple[MetricSpec, ...]]:
        """Return what is to be measured on each of `names` that asks for anything.

        Raises:
            TunebookError: As `entry`.
        """
        entries = [self.entry(name) for name in names]
        return {entry.name: entry.metrics for entry in entries if entry.metrics}


def load_registry(path: Path) -> Registry:
    """Read a registry.

    Args:
        path: The file, or the folder that holds `dataset_info.json` (the engine's `dataset_dir`).

    Raises:
        TunebookError: It is missing, or is no JSON object.
    """
    if path.is_dir():
        path = path / REGISTRY_FILE
    try:
        values = files.read_json(path)
    except FileNotFoundError as err:
        raise TunebookError(
            f"there is no {path}", fix=f"set dataset_dir to the folder that holds {REGISTRY_FILE}"
        ) from err
    except OSError as err:
        raise TunebookError(
            f"{path}: cannot be read: {err.strerror}", fix="check the path and its rights"
        ) from err
    except json.JSONDecodeError as err:
        raise TunebookError(
            f"{path}, line {err.lineno}: is no JSON: {err.msg}", fix="correct the line"
        ) from err
    if not isinstance(values, dict):
        raise TunebookError(
            f"{path}: holds a {type(values).__name__}, not an object", fix='write {"name": {...}}'
        )
    return Registry(path=path, values=values)


def write_entry(folder: Path, name: str, values: Mapping[str, Any]) -> None:
    """Add an entry to the registry in a folder, which is made where there is none; other entries stay.

    Raises:
        TunebookError: The registry that is there cannot be read.
    """
    path = folder / REGISTRY_FILE
    others = load_registry(path).values if path.is_file() else {}
    write_json(path, {**others, name: dict(values)})


def parse_metrics(value: Any, where: str) -> tuple[MetricSpec, ...]:
    """Read the value of a `"metric"` key.

    Args:
        value: A name, an object, a list of either, or None.
        where: What messages call the entry.

    Raises:
        TunebookError: It has another form, an unknown option or a bad value; all faults together. Whether
            there is a metric of that name is not asked here.
    """
    if value is None:
        return ()
    errors: list[TunebookError] = []
    specs = [_parse_metric(item, where, errors) for item in (value if isinstance(value, list) else [value])]
    # With other options it is the same metric: its figures would have the same names.
    names = [spec.name.partition("{")[0] for spec in specs]
    errors += [
        TunebookError(f'{where}: "metric" names {name!r} twice', fix="delete one of them")
        for name in sorted({name for name in names if name and names.count(name) > 1})
    ]
    if errors:
        raise join_errors(errors)
    return tuple(specs)


def data_files(entry: DatasetEntry) -> list[Path]:
    """Return the local files of `entry`, sorted; none where it is loaded from a hub, a script or a cloud.

    Raises:
        TunebookError: The entry names a file or folder that is not there, or an empty folder.
    """
    name = entry.values.get("file_name")
    if any(key in entry.values for key in REMOTE_KEYS):
        return []
    where = f"{entry.registry}: {entry.name}"
    if not isinstance(name, str) or not name:
        raise TunebookError(
            f"{where}: names no data", fix=f"give it a file_name, or one of {', '.join(REMOTE_KEYS)}"
        )
    path = entry.registry.parent / name
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    if files and files[0].exists():
        return files
    readme = entry.registry.parent / "README.md"
    how = f"make or download it as {readme} says" if readme.is_file() else "put it there"
    raise TunebookError(
        f"{where}: the data {path} is {'empty' if path.is_dir() else 'missing'}",
        fix=f"{how}, or set dataset_dir to the folder that holds it and a {REGISTRY_FILE}",
    )


def _parse_metric(item: Any, where: str, errors: list[TunebookError]) -> MetricSpec:
    options = {"name": item} if isinstance(item, str) else item
    if not isinstance(options, dict):
        errors.append(
            TunebookError(
                f'{where}: "metric" holds {item!r}',
                fix='write a name, {"name": ..., "mode": ...}, or a list of these',
            )
        )
        return MetricSpec(name="")
    known = (*_OPTIONS, *METRIC_OPTIONS.get(str(options.get("name")), ()))
    for key in options:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            fix = f"did you mean {close[0]!r}?" if close else f"the options are {', '.join(known)}"
            errors.append(TunebookError(f'{where}: "metric" has an unknown option {key!r}', fix=fix))
    name, mode = options.get("name"), options.get("mode")
    if not isinstance(name, str) or not name:
        errors.append(TunebookError(f'{where}: "metric" has no name', fix='write e.g. "metric": "yes_no"'))
        name = ""
    if mode is not None and mode not in get_args(MetricMode):
        errors.append(
            TunebookError(
                f'{where}: "metric" has mode {mode!r}', fix=f"use {' or '.join(get_args(MetricMode))}"
            )
        )
        mode = None
    counts: dict[str, int | None] = {}
    for key in _COUNTS:
        count = options.get(key)
        # bool is an int to isinstance, and `true` tokens are none.
        if count is not None and (type(count) is not int or count < 1):
            errors.append(
                TunebookError(f'{where}: "metric" has {key} {count!r}', fix="use a whole number above 0")
            )
            count = None
        counts[key] = count
    own = {key: options[key] for key in known[len(_OPTIONS) :] if key in options}
    return MetricSpec(name=with_options(name, own), mode=mode, **counts)
