"""Parquet files scanned and split by pyarrow, since they have no raw rows to copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from tunebook.errors import TunebookError
from tunebook.splits.assign import EVAL, range_of, row_keys
from tunebook.splits.index import ROW
from tunebook.splits.plan import SplitOptions
from tunebook.splits.scan import IndexBuilder, Scanned, Where
from tunebook.splits.sources import OnBytes, SourceFile, check_unchanged, hash_file
from tunebook.splits.write import WriteJob, Written, WrittenParts, allow_open_files, by_target

_BUFFERED_BYTES = 32 << 20
"""Of all parts together, before a part's row group is written."""
_KEY = "__tunebook_key"
BATCH_ROWS = 1024


def scan_parquet(
    sources: Sequence[SourceFile], options: SplitOptions, builder: IndexBuilder, on_bytes: OnBytes
) -> Scanned:
    """Add rows to the row index as `scan.scan_text` does; a row's length is that of its values.

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
    for source in sources:
        where = Where(source.path, builder.rows)
        for batch in batches(source.path):
            kinds = np.full(batch.num_rows, ROW, np.uint8)
            builder.add(row_bytes(batch), kinds, batch.to_pylist, where)
        hashes[str(source.path)] = hash_file(source.path, on_bytes)
        check_unchanged(source)
    return Scanned(rows=builder.rows, hashes=hashes, bad=(), n_bad=0, notes=())


def write_parquet(job: WriteJob) -> WrittenParts:
    """Write the parts, and the file for joint jobs where one is wanted.

    Memory: 64 MB of rows and a row group decoded; shuffled, a bucket of a quarter of `memory` besides.
    """
    schema, compression = _schema(job.sources), _compression(job.sources[0])
    for path in (*job.paths, *([job.joint] if job.joint else [])):
        path.parent.mkdir(parents=True, exist_ok=True)
    job.progress.stage("distributing" if job.options.shuffle else "writing", job.bytes)
    with ExitStack() as stack:

        def writer(path: Path) -> _Writer:
            return stack.enter_context(_Writer(path, schema, compression))

        joint = writer(job.joint) if job.joint else None
        if job.options.shuffle:
            _write_shuffled(job, schema, compression, joint)
        else:
            allow_open_files(len(job.paths))
            writers = [writer(path) for path in job.paths]
            for batch, parts, _ in _read_planned(job, joint):
                for part, places in by_target(parts):
                    writers[part].add(batch.take(places), _BUFFERED_BYTES // len(writers))
                job.progress.on_bytes(batch.nbytes)
    return WrittenParts([_written(path) for path in job.paths], _written(job.joint) if job.joint else None)


def _write_shuffled(job: WriteJob, schema: Any, compression: str, joint: _Writer | None) -> None:
    pa = arrow()
    counts = np.array([max(1, -(-plan.bytes // (job.memory // 4))) for plan in job.plans])
    first = np.cumsum(counts) - counts
    buckets = [job.index.folder / f"bucket_{number}.arrow" for number in range(int(counts.sum()))]
    allow_open_files(len(buckets))
    with ExitStack() as stack:
        keyed = schema.append(pa.field(_KEY, pa.uint64()))
        writers = [stack.enter_context(pa.ipc.new_stream(str(bucket), keyed)) for bucket in buckets]
        for batch, parts, row in _read_planned(job, joint):
            keys = row_keys(job.options.seed, row, row + batch.num_rows)
            with_keys = pa.record_batch([*batch.columns, pa.array(keys)], schema=keyed)
            for bucket, places in by_target(first[parts] + range_of(keys, counts[parts])):
                writers[bucket].write_batch(with_keys.take(places))
            job.progress.on_bytes(batch.nbytes)
    for path, start, count in zip(job.paths, first.tolist(), counts.tolist(), strict=True):
        with _Writer(path, schema, compression) as writer:
            for bucket_file in buckets[start : start + count]:
                with pa.memory_map(str(bucket_file)) as stream:
                    table = pa.ipc.open_stream(stream).read_all()
                    order = np.argsort(table[_KEY].to_numpy(), kind="stable")
                    rows = table.drop_columns([_KEY])
                    for at in range(0, len(order), BATCH_ROWS):
                        for batch in rows.take(order[at : at + BATCH_ROWS]).combine_chunks().to_batches():
                            writer.add(batch, _BUFFERED_BYTES // 8)
                    del table, rows
                bucket_file.unlink()


def _read_planned(job: WriteJob, joint: _Writer | None) -> Iterator[tuple[Any, npt.NDArray[np.int64], int]]:
    """Batches with the part of each row and the number of the first; on the way the joint file is written."""
    destinations = np.memmap(job.index.destinations.path, np.uint16, "r")
    row = 0
    for source in job.sources:
        for batch in batches(source.path):
            here = np.asarray(destinations[row : row + batch.num_rows])
            if joint is not None:
                joint.add(batch.take(np.flatnonzero(here != EVAL)), _BUFFERED_BYTES // 8)
            yield batch, np.where(here == EVAL, len(job.paths) - 1, here).astype(np.int64), row
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
            schemas.append(_without_views(file.schema_arrow))
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


def _written(path: Path) -> Written:
    return Written(path.stat().st_size, hash_file(path))


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
            schema = _without_views(file.schema_arrow)
            for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
                yield batch if batch.schema.equals(schema) else batch.cast(schema)
        except (OSError, pa.ArrowInvalid) as err:
            raise TunebookError(f"{path}: cannot be read: {err}", fix="make the file again") from err


def _without_views(schema: Any) -> Any:
    """The schema with plain texts for `string_view`, of which pyarrow cannot take rows; bytes are equal."""
    pa = arrow()
    plain = {"string_view": pa.large_string(), "binary_view": pa.large_binary()}
    return pa.schema(
        [field.with_type(plain.get(str(field.type), field.type)) for field in schema],
        metadata=schema.metadata,
    )


def row_bytes(batch: Any) -> npt.NDArray[np.uint32]:
    """Return the bytes of each row: texts as UTF-8, other values as JSON."""
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
