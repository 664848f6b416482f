"""A split proved again from its files: the hashes of its parts, and every row of the source once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import xxhash

from tunebook import files
from tunebook.data.registry import REGISTRY_FILE
from tunebook.errors import TunebookError
from tunebook.splits.checks import Checks
from tunebook.splits.index import keep_freed_memory
from tunebook.splits.manifest import MANIFEST_FORMAT
from tunebook.splits.parquet import batches
from tunebook.splits.rows import read_rows
from tunebook.splits.sources import OnBytes, SourceFile, hash_file, open_source
from tunebook.splits.staging import MANIFEST

_SUM_BITS = 128


class Rows(NamedTuple):
    """Rows as a set that may hold one several times: equal whatever their order."""

    number: int
    total: int
    """Sum of the rows' xxh3-128, modulo 2**128."""

    def plus(self, other: Rows) -> Rows:
        """The rows of both."""
        return Rows(self.number + other.number, (self.total + other.total) % (1 << _SUM_BITS))


def load_manifest(out: Path) -> dict[str, Any]:
    """Read the manifest of a split.

    Raises:
        TunebookError: There is none, or it is of a later format.
    """
    path = out / MANIFEST
    try:
        manifest: dict[str, Any] = files.read_json(path)
    except OSError as err:
        raise TunebookError(
            f"{path}: {err.strerror}", fix="name the folder that `tunebook data split` made"
        ) from err
    except ValueError as err:
        raise TunebookError(f"{path}: is no JSON: {err}", fix="split again") from err
    if manifest.get("format") != MANIFEST_FORMAT:
        raise TunebookError(
            f"{path}: has format {manifest.get('format')!r}, and this version reads {MANIFEST_FORMAT}",
            fix="verify it with the version of tunebook that made it",
        )
    return manifest


def bytes_to_read(manifest: Mapping[str, Any], *, source_too: bool) -> int:
    """Return how much `find_faults` reads, for a progress bar."""
    sizes = [part["bytes"] for part in _parts(manifest)] * (2 if source_too else 1)
    if source_too:
        sizes += [source["bytes"] * 2 for source in manifest["sources"]]
    return sum(sizes)


def find_faults(
    out: Path, manifest: Mapping[str, Any], *, source_too: bool, on_bytes: OnBytes = lambda _: None
) -> list[str]:
    """Return what is not as the manifest says, each as a sentence; empty where the split is proved.

    Args:
        out: The split.
        manifest: Of `load_manifest`.
        source_too: Also prove that the parts hold the rows of the source, each once.
        on_bytes: For a progress bar.
    """
    keep_freed_memory()
    faults = [
        fault for part in _parts(manifest) for fault in _file_faults(out / part["file"], part, on_bytes)
    ]
    faults += _registry_faults(out, manifest)
    if source_too:
        for source in manifest["sources"]:
            faults += _file_faults(Path(source["path"]), source, on_bytes)
        if not faults:
            faults += _row_faults(out, manifest, on_bytes)
    return faults


def _parts(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Every file that has a hash; the hold-out's once for each node."""
    parts = list(manifest["nodes"])
    if manifest["eval"]:
        inside = Path(manifest["eval"]["file"]).relative_to("node_0")
        parts += [
            {**manifest["eval"], "file": f"node_{node}/{inside.as_posix()}"}
            for node in range(len(manifest["nodes"]))
        ]
    return [*parts, *([manifest["joint"]] if manifest["joint"] else [])]


def _file_faults(path: Path, wanted: Mapping[str, Any], on_bytes: OnBytes) -> Iterator[str]:
    if not path.is_file():
        yield f"{path} is missing"
    elif path.stat().st_size != wanted["bytes"]:
        yield f"{path} has {path.stat().st_size} bytes, not {wanted['bytes']}"
    elif hash_file(path, on_bytes) != wanted["xxh3_128"]:
        yield f"{path} has another content than it had"


def _registry_faults(out: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    for node, part in enumerate(manifest["nodes"]):
        path = out / f"node_{node}" / REGISTRY_FILE
        try:
            entries = files.read_json(path)
        except (OSError, ValueError) as err:
            yield f"{path}: cannot be read: {err}"
            continue
        named = entries.get(manifest["name"], {}).get("file_name")
        if named is None or path.parent / named != out / part["file"]:
            yield f"{path}: {manifest['name']!r} names {named!r}, not the node's own part"
        if manifest["eval_name"] and manifest["eval_name"] not in entries:
            yield f"{path}: has no entry {manifest['eval_name']!r}"
        # The hold-out may be measured otherwise, and is never cut; what its rows mean is the same.
        free = {
            manifest["name"]: {"file_name"},
            manifest["eval_name"]: {"file_name", "num_samples", "metric"},
        }
        for name, may_differ in free.items():
            held, made = entries.get(name) or {}, manifest["request"]["entry"]
            changed = sorted(key for key in {*held, *made} - may_differ if held.get(key) != made.get(key))
            if held and changed:
                yield f"{path}: {', '.join(changed)} of {name!r} is not what the split wrote"


def _row_faults(out: Path, manifest: Mapping[str, Any], on_bytes: OnBytes) -> Iterator[str]:
    """Compare the rows of the source with those of the parts, whatever their order."""
    options = manifest["request"]["options"]
    parse = options["parse_json"] is not False
    found = Rows(0, 0)
    parts = [*manifest["nodes"], *([manifest["eval"]] if manifest["eval"] else [])]
    for part in parts:
        rows = _rows_of(open_source(out / part["file"]), parse, on_bytes)
        if rows.number != part["rows"]:
            yield f"{out / part['file']} has {rows.number} rows, not {part['rows']}"
        found = found.plus(rows)
    wanted = Rows(0, 0)
    for source in manifest["sources"]:
        wanted = wanted.plus(_rows_of(open_source(Path(source["path"])), parse, on_bytes))
    if wanted.number != manifest["rows"]:
        yield f"the source has {wanted.number} rows, not {manifest['rows']}"
    if found != wanted:
        yield f"the parts hold {found.number} rows, which are not the {wanted.number} of the source"


def _rows_of(source: SourceFile, parse: bool, on_bytes: OnBytes) -> Rows:
    count = total = 0
    digest: Callable[[Any], int] = xxhash.xxh3_128_intdigest
    for row in _raw_rows(source, parse, on_bytes):
        total += digest(row)
        count += 1
    return Rows(count, total % (1 << _SUM_BITS))


def _raw_rows(source: SourceFile, parse: bool, on_bytes: OnBytes) -> Iterator[bytes]:
    """Rows without their line endings."""
    if source.format == "parquet":
        for batch in batches(source.path):
            for row in batch.to_pylist():
                yield orjson.dumps(row, default=repr)
        on_bytes(source.size)
        return
    # Bad rows were left out of the parts, or there are none.
    for block in read_rows(source, Checks(parse_json=parse, skip_bad=True)):
        for view in block.rows():
            yield bytes(view).rstrip(b"\r\n")
        on_bytes(len(block.data))
