"""Parquet files: batches of rows, and how large each row is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from tunebook.errors import TunebookError

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
