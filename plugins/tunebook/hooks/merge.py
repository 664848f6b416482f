"""Makes the tensors of a merged model, a piece at a time: `python -m tunebook.hooks.merge job.json`.

The job says for each tensor where its summands stand, and what each file begins with (`tunebook.merging`
plans both). Files are read by position and not mapped: pages of a mapped file count as memory of the process,
and a slice of a mapped tensor keeps all of it.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import torch

from tunebook.hooks import merge_arithmetic
from tunebook.progress import byte_progress

if TYPE_CHECKING:
    from collections.abc import Callable

_COPY_BYTES = 16 << 20


def main(path: str) -> int:
    """Make every file of the job; 1 where a weight came out infinite or NaN."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    torch.set_grad_enabled(False)
    total = sum(_bytes(tensor) for shard in job["shards"] for tensor in shard["tensors"])
    done = 0
    with _terminal() as terminal, byte_progress("merging", total, to=terminal) as on_bytes:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            on_bytes(done)

        for shard in job["shards"]:
            _write(Path(job["folder"]) / shard["name"], shard, job["chunk_bytes"], advance)
    return 0


def _terminal() -> TextIO:
    """Where the user looks: our starter keeps stderr in a file, and leaves another descriptor open."""
    return os.fdopen(os.dup(int(os.environ.get("TUNEBOOK_PROGRESS_FD", "2"))), "w")


def _write(path: Path, shard: dict[str, Any], chunk_bytes: int, advance: Callable[[int], None]) -> None:
    with path.open("wb") as stream:
        stream.write(shard["header"].encode("latin-1"))
        for tensor in shard["tensors"]:
            if tensor["copy"]:
                _copy(tensor["terms"][0]["source"], stream, advance)
                continue
            for piece in merge_arithmetic.pieces(tensor, chunk_bytes):
                if not torch.isfinite(piece).all():
                    raise SystemExit(f"{tensor['name']}: the merged weight has infinite or NaN values")
                stream.write(piece.contiguous().view(torch.uint8).numpy().data)
                advance(piece.numel() * piece.element_size())
                del piece
        stream.flush()
        os.fsync(stream.fileno())


def _copy(source: dict[str, Any], stream: BinaryIO, advance: Callable[[int], None]) -> None:
    left = _bytes(source)
    with Path(source["file"]).open("rb") as reader:
        reader.seek(source["start"])
        while left:
            block = reader.read(min(left, _COPY_BYTES))
            if not block:
                raise SystemExit(f"{source['file']}: became shorter while it was read")
            stream.write(block)
            left -= len(block)
            advance(len(block))


def _bytes(tensor: dict[str, Any]) -> int:
    size: int = math.prod(tensor["shape"]) * merge_arithmetic.DTYPES[tensor["dtype"]].itemsize
    return size


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
