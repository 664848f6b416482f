"""The files to split: what each is, and where its rows begin."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import xxhash

from tunebook.data.rows import refuse_twice
from tunebook.errors import TunebookError

Format = Literal["csv", "jsonl", "json", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)

OnBytes = Callable[[int], None]
"""Called with the number of bytes done since the last call, for a progress bar."""

MAX_RECORD_BYTES = 1 << 30

_HEAD_BYTES = 1 << 16
_BLANKS = b" \t\r\n"
_FOREIGN = {
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    b"\x1f\x8b": "compressed by gzip",
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file as it was when it was opened."""

    path: Path
    format: Format
    """By content for `.json`: objects that follow each other without an array are `jsonl`."""
    size: int
    """Bytes."""
    mtime_ns: int
    prefix: bytes
    """Byte order mark and CSV header: what each part begins with too."""
    start: int
    """Offset at which the first row may begin, after the prefix or a JSON array's opening bracket."""
    columns: tuple[str, ...]
    """Of a CSV or Parquet file; empty elsewhere, where each row says its own."""


def open_source(path: Path) -> SourceFile:
    """Look at the beginning of a file.

    Raises:
        TunebookError: It cannot be read, is empty, or is of a format that cannot be split.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise TunebookError(
            f"{path}: cannot split a file whose name ends in {path.suffix!r}",
            fix="split a .csv, .json, .jsonl or .parquet file",
        )
    try:
        status = path.stat()
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as err:
        raise TunebookError(
            f"{path}: cannot be read: {err.strerror}", fix="check the path and its rights"
        ) from err
    if not head:
        raise TunebookError(f"{path}: is empty", fix="name a file with rows")
    for mark, name in _FOREIGN.items():
        if kind != "parquet" and head.startswith(mark):
            raise TunebookError(f"{path}: is {name}, not UTF-8 text", fix="save it as plain UTF-8 text")
    bom = codecs.BOM_UTF8 if head.startswith(codecs.BOM_UTF8) else b""
    prefix, start = bom, len(bom)
    columns: tuple[str, ...] = ()
    found = kind
    if kind == "csv":
        header = _csv_header(path, len(bom))
        prefix, columns = bom + header, _names(header)
        refuse_twice(path, columns)
        start = len(prefix)
    elif kind == "json":
        blanks = len(head) - len(head[len(bom) :].lstrip(_BLANKS))
        if head[blanks : blanks + 1] == b"[":
            start = blanks + 1
        else:
            found = "jsonl"
    elif kind == "parquet":
        prefix, start = b"", 0
    return SourceFile(
        path=path,
        format=found,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        prefix=prefix,
        start=start,
        columns=columns,
    )


def check_unchanged(source: SourceFile) -> None:
    """Raise unless the file has the size and time that it had when it was opened.

    Raises:
        TunebookError: It has not.
    """
    try:
        status = source.path.stat()
    except OSError as err:
        raise TunebookError(f"{source.path}: {err.strerror}", fix="put it back and split again") from err
    if (status.st_size, status.st_mtime_ns) != (source.size, source.mtime_ns):
        raise TunebookError(
            f"{source.path}: was changed while it was being split",
            fix="wait until whatever writes it is done, and split again",
        )


def line_at(path: Path, offset: int) -> int:
    """Return the line, from 1, that the byte at `offset` is in."""
    line = 1
    with path.open("rb") as stream:
        while offset > 0 and (block := stream.read(min(offset, 1 << 20))):
            line += block.count(b"\n")
            offset -= len(block)
    return line


def hash_file(path: Path, on_bytes: OnBytes = lambda _: None) -> str:
    """Return the xxh3-128 of a file in hexadecimal."""
    hasher = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while data := stream.read(1 << 20):
            hasher.update(data)
            on_bytes(len(data))
    return hasher.hexdigest()


def _csv_header(path: Path, start: int) -> bytes:
    """The first record, line ending included; it may hold quoted newlines."""
    header = b""
    with path.open("rb") as stream:
        stream.seek(start)
        for line in stream:
            header += line
            if header.count(b'"') % 2 == 0 and header.strip(_BLANKS):
                break
            if len(header) > MAX_RECORD_BYTES:
                break
    if not header.strip(_BLANKS):
        raise TunebookError(f"{path}: has no header", fix="give the first line the columns' names")
    if header.count(b'"') % 2:
        raise TunebookError(f"{path}, line 1: a quote is never closed", fix="close the quote")
    if b"\r" in header.rstrip(b"\r\n"):
        raise TunebookError(
            f"{path}, line 1: lines end in a lone carriage return", fix="save the file with \\n or \\r\\n"
        )
    return header


def _names(header: bytes) -> tuple[str, ...]:
    text = header.decode("utf-8", "replace")
    return tuple(next(row for row in csv.reader(io.StringIO(text, newline="")) if row))
