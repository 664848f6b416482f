"""Headers of safetensors files: names, types and shapes of tensors, without their values.

Source of the layout: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import hashlib
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook import files
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST = 100_000_000  # the format's own limit
_parts = itemgetter("dtype", "shape", "data_offsets")


class Header(NamedTuple):
    """What a file says of itself."""

    tensors: dict[str, dict[str, Any]]
    """By name, as written: `{"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}`."""
    data_start: int
    """The byte of the file from which the offsets count."""
    file_bytes: int
    """How long a whole file is."""
    sha256: str
    """Of the header's text."""


class DamagedHeaderError(ValueError):
    """A header cannot be read, or its file is cut off. The message goes on after the file's name."""


def read(path: Path) -> Header:
    """Read the header of one file; whether all its tensors are there is not looked at.

    Raises:
        DamagedHeaderError: It is no safetensors file, or is cut off in its header.
        OSError: It cannot be read.
    """
    with path.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        raw = stream.read(length) if length <= _LONGEST else b""
    if len(start) < 8 or len(raw) < length:
        raise DamagedHeaderError("is cut off in its header, or is no safetensors file")
    try:
        header = files.parse_json(raw)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        offsets = sorted((begin, end) for _, _, (begin, end) in map(_parts, tensors.values()))
        # As the safetensors library has it: one after another, each from where the one before ends.
        for (_, before), (begin, end) in zip([(0, 0), *offsets], offsets, strict=False):
            if begin != before or end < begin:
                raise DamagedHeaderError("has tensors that overlap, or a gap between two")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as err:
        if isinstance(err, DamagedHeaderError):
            raise
        raise DamagedHeaderError("has no readable header") from err
    return Header(
        tensors=tensors,
        data_start=8 + length,
        file_bytes=8 + length + (offsets[-1][1] if offsets else 0),
        sha256=hashlib.sha256(raw).hexdigest(),
    )


def read_whole(path: Path) -> Header:
    """Read the header of a file that holds all its tensors.

    Raises:
        DamagedHeaderError: As for `read`, or the file is not as long as its header says.
        OSError: It cannot be read.
    """
    header = read(path)
    size = path.stat().st_size
    if size != header.file_bytes:
        raise DamagedHeaderError(f"is cut off: {size:,} of {header.file_bytes:,} bytes")
    return header


def tensors(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the tensors of all safetensors files of a folder, by name.

    Raises:
        TunebookError: A header is damaged.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= read_named(path).tensors
    return found


def read_named(path: Path) -> Header:
    """Read the header of a file that a user has named.

    Raises:
        TunebookError: It is damaged.
    """
    try:
        return read(path)
    except DamagedHeaderError as damage:
        raise TunebookError(f"{path}: {damage}", fix="download, copy or save it again") from damage
