"""The stages of a split for Parquet files, which have no raw rows to copy; not resumable within a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import xxhash

from tunebook.errors import TunebookError
from tunebook.splits.assign import EVAL, range_of, row_keys
from tunebook.splits.copy import by_target
from tunebook.splits.parts import State
from tunebook.splits.plan import PartPlan, SplitOptions
from tunebook.splits.scan import CountTokens, OnBytes, Scanned, TapeScan, Where
from tunebook.splits.shuffle import allow_open_files
from tunebook.splits.sources import SourceFile, check_unchanged
from tunebook.splits.spans import ROW, Tapes

_BUFFERED_BYTES = 32 << 20
"""Of all parts together, before a part's row group is written."""
_KEY = "__tunebook_key"


def scan_parquet(
    sources: Sequence[SourceFile],
    options: SplitOptions,
    tapes: Tapes,
    *,
    columns: tuple[str, ...] = (),
    count_tokens: CountTokens | None = None,
    on_bytes: OnBytes = lambda _: None,
) -> Scanned:
    """Write the tapes as `scan.scan_sources` does; a row's length is that of its values.

    Raises:
        TunebookError: A file is broken, or has another schema than the first.
    """
    schema = _schema(sources)
    if options.group_by and options.group_by not in schema.names:
        raise TunebookError(
            f"{sources[0].path}: there is no column {options.group_by!r} among {', '.join(schema.names)}",
            fix="name a column with --group-by",
        )
    hashes: dict[str, str] = {}
    with TapeScan(tapes, options, columns=columns, count_tokens=count_tokens) as scan:
        for source in sources:
            where = Where(source.path, scan.rows)
            for batch in batches(source.path):
                kinds = np.full(batch.num_rows, ROW, np.uint8)
                scan.add(row_bytes(batch), kinds, batch.to_pylist, where)
            hashes[str(source.path)] = hash_file(source.path, on_bytes)
            check_unchanged(source)
    return Scanned(rows=scan.rows, hashes=hashes, bad=(), n_bad=0, notes=())


def write_parquet(
    sources: Sequence[SourceFile],
    tapes: Tapes,
    options: SplitOptions,
    plans: Sequence[PartPlan],
    *,
    paths: Sequence[Path],
    joint: Path | None,
    memory: int,
    stage: Callable[[str, int], None],
    on_bytes: OnBytes,
) -> tuple[list[State], State | None]:
    """Write the parts, and the file for joint jobs where one is wanted.

    Memory: 64 MB of rows and a row group decoded; shuffled, a bucket of a quarter of `memory` besides.
    """
    schema = _schema(sources)
    for path in (*paths, *([joint] if joint else [])):
        path.parent.mkdir(parents=True, exist_ok=True)
    compression = _compression(sources[0])
    stage("dealing" if options.shuffle else "writing", sum(plan.bytes for plan in plans))
    with ExitStack() as stack:
        whole = stack.enter_context(_Writer(joint, schema, compression)) if joint else None
        if options.shuffle:
            _shuffle(sources, tapes, options, plans, paths, whole, memory, compression, on_bytes)
        else:
            allow_open_files(len(paths))
            writers = [stack.enter_context(_Writer(path, schema, compression)) for path in paths]
            for batch, targets, _ in _dealt(sources, tapes, len(paths), whole):
                for target, places in by_target(targets):
                    writers[target].add(batch.take(places), _BUFFERED_BYTES // len(paths))
                on_bytes(batch.nbytes)
    states = [_state(path, plan.rows) for path, plan in zip(paths, plans, strict=True)]
    return states, _state(joint, sum(plan.rows for plan in plans[: options.nodes])) if joint else None


def hash_file(path: Path, on_bytes: OnBytes = lambda _: None) -> str:
    """Return the xxh3-128 of a file in hexadecimal."""
    hasher = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while data := stream.read(1 << 20):
            hasher.update(data)
            on_bytes(len(data))
    return hasher.hexdigest()


def _shuffle(
    sources: Sequence[SourceFile],
    tapes: Tapes,
    options: SplitOptions,
    plans: Sequence[PartPlan],
    paths: Sequence[Path],
    whole: _Writer | None,
    memory: int,
    compression: str,
    on_bytes: OnBytes,
) -> None:
    pa = arrow()
    counts = np.array([max(1, -(-plan.bytes // (memory // 4))) for plan in plans])
    first = np.cumsum(counts) - counts
    files = [tapes.folder / f"bucket_{number}.arrow" for number in range(int(counts.sum()))]
    schema = _schema(sources)
    allow_open_files(len(files))
    with ExitStack() as stack:
        keyed = schema.append(pa.field(_KEY, pa.uint64()))
        writers = [stack.enter_context(pa.ipc.new_stream(str(file), keyed)) for file in files]
        for batch, targets, row in _dealt(sources, tapes, len(paths), whole):
            keys = row_keys(options.seed, row, row + batch.num_rows)
            with_keys = pa.record_batch([*batch.columns, pa.array(keys)], schema=keyed)
            for target, places in by_target(first[targets] + range_of(keys, counts[targets])):
                writers[target].write_batch(with_keys.take(places))
            on_bytes(batch.nbytes)
    for part, path in enumerate(paths):
        with _Writer(path, schema, compression) as writer:
            for number in range(int(first[part]), int(first[part] + counts[part])):
                with pa.memory_map(str(files[number])) as stream:
                    table = pa.ipc.open_stream(stream).read_all()
                    order = np.argsort(table[_KEY].to_numpy(), kind="stable")
                    rows = table.drop_columns([_KEY])
                    for at in range(0, len(order), 1024):
                        for batch in rows.take(order[at : at + 1024]).combine_chunks().to_batches():
                            writer.add(batch, _BUFFERED_BYTES // 8)
                    del table, rows
                files[number].unlink()


def _dealt(
    sources: Sequence[SourceFile], tapes: Tapes, parts: int, whole: _Writer | None
) -> Iterator[tuple[Any, np.ndarray[Any, Any], int]]:
    """Batches with the part of each row and the number of the first."""
    destinations = np.memmap(tapes.destinations.path, np.uint16, "r")
    row = 0
    for source in sources:
        for batch in batches(source.path):
            here = np.asarray(destinations[row : row + batch.num_rows])
            if whole is not None:
                whole.add(batch.take(np.flatnonzero(here != EVAL)), _BUFFERED_BYTES // 8)
            yield batch, np.where(here == EVAL, parts - 1, here).astype(np.int64), row
            row += batch.num_rows
        check_unchanged(source)


class _Writer:
    """A Parquet file whose row groups are as large as the memory for them allows."""

    def __init__(self, path: Path, schema: Any, compression: str) -> None:
        self._file = arrow().parquet.ParquetWriter(path, schema, compression=compression)
        self._schema = schema
        self._batches: list[Any] = []
        self._bytes = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._flush()
        self._file.close()

    def add(self, batch: Any, limit: int) -> None:
        """Append rows; above `limit` bytes they are written."""
        if batch.num_rows:
            self._batches.append(batch)
            self._bytes += batch.nbytes
        if self._bytes > limit:
            self._flush()

    def _flush(self) -> None:
        if self._batches:
            self._file.write_table(arrow().Table.from_batches(self._batches, self._schema))
        self._batches, self._bytes = [], 0


def _schema(sources: Sequence[SourceFile]) -> Any:
    schemas = []
    for source in sources:
        with open_file(source.path) as file:
            schemas.append(file.schema_arrow)
    for source, schema in zip(sources, schemas, strict=True):
        if not schema.equals(schemas[0]):
            raise TunebookError(
                f"{source.path} has another schema than {sources[0].path}", fix="give all files one schema"
            )
    return schemas[0]


def _compression(source: SourceFile) -> str:
    with open_file(source.path) as file:
        metadata = file.metadata
        if not metadata.num_row_groups or not metadata.num_columns:
            return "snappy"
        name = str(metadata.row_group(0).column(0).compression).lower()
    return "none" if name == "uncompressed" else name


def _state(path: Path, rows: int) -> State:
    return State(path.stat().st_size, rows, False, hash_file(path))


# Parquet files: batches of rows, and how large each row is.

BATCH_ROWS = 1024


def arrow() -> Any:
    """Return pyarrow.

    Raises:
        TunebookError: It is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as err:
        raise TunebookError(
            "splitting Parquet needs pyarrow, which is not installed", fix="`pip install pyarrow`"
        ) from err
    return pa


def column_names(path: Path) -> Sequence[str]:
    """Return the names of the columns."""
    with open_file(path) as file:
        return list(file.schema_arrow.names)


def open_file(path: Path) -> Any:
    """Open a Parquet file.

    Raises:
        TunebookError: It is none.
    """
    pa = arrow()
    try:
        return pa.parquet.ParquetFile(path, pre_buffer=False)
    except (OSError, pa.ArrowInvalid) as err:
        raise TunebookError(f"{path}: is no Parquet file: {err}", fix="name a whole Parquet file") from err


def batches(path: Path) -> Iterator[Any]:
    """Yield the rows as record batches of at most `BATCH_ROWS`.

    Raises:
        TunebookError: The file is no Parquet, or broken inside.
    """
    pa = arrow()
    with open_file(path) as file:
        try:
            yield from file.iter_batches(batch_size=BATCH_ROWS, use_threads=False)
        except (OSError, pa.ArrowInvalid) as err:
            raise TunebookError(f"{path}: cannot be read: {err}", fix="make the file again") from err


def row_bytes(batch: Any) -> npt.NDArray[np.uint32]:
    """Return the bytes of each row: of texts their UTF-8, of other values as JSON."""
    pa = arrow()
    import pyarrow.compute as pc

    sizes = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            sizes += pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
        elif pa.types.is_primitive(column.type):
            sizes += column.type.bit_width // 8 or 1
        else:
            sizes += [len(orjson.dumps(value, default=str)) for value in column.to_pylist()]
    return np.maximum(sizes, 1).astype(np.uint32)
