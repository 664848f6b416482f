"""Makes the tensors of a merged model, a piece at a time: `python -m tunebook.hooks.merge job.json`.

The job says for each tensor where its summands are, and what each file begins with (`tunebook.merging`
plans both). Sums are computed in fp32 and rounded once. Files are read by position and not mapped: pages of a
mapped file count as memory of the process, and a slice of a mapped tensor keeps all of it.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import torch

from tunebook.progress import byte_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


Job = dict[str, Any]

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
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
    """Where the user looks: our parent keeps stderr in a file, and leaves another descriptor open."""
    return os.fdopen(os.dup(int(os.environ.get("TUNEBOOK_PROGRESS_FD", "2"))), "w")


def _write(path: Path, shard: dict[str, Any], chunk_bytes: int, advance: Callable[[int], None]) -> None:
    with path.open("wb") as stream:
        stream.write(shard["header"].encode("latin-1"))
        for tensor in shard["tensors"]:
            if tensor["copy"]:
                _copy(tensor["terms"][0]["source"], stream, advance)
                continue
            for piece in pieces(tensor, chunk_bytes):
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
    size: int = math.prod(tensor["shape"]) * DTYPES[tensor["dtype"]].itemsize
    return size


def pieces(tensor: Job, chunk_bytes: int) -> Iterator[torch.Tensor]:
    """Yield a tensor of the output in order, some of its rows at a time.

    Args:
        tensor: One of the job's: `terms`, or `parts` along an `axis`; `tunebook.merging.tensors` writes them.
        chunk_bytes: Of fp32 to compute at a time; one row is the least.
    """
    wanted = DTYPES[tensor["dtype"]]
    if "parts" in tensor:
        yield _stack(tensor).to(wanted)
        return
    shape = tensor["shape"]
    terms = [_Term(term) for term in tensor["terms"]]
    width = math.prod(shape[1:]) * 4
    rows, step = (shape[0] if shape else 1), max(1, chunk_bytes // max(width, 1))
    for term in terms:
        term.measure(rows, step)
    # In double, three thirds of an fp32 weight are that weight again. In fp32 they are for the 16-bit types.
    several = len(terms) > 1 and wanted == torch.float32
    precision = torch.float64 if several or wanted == torch.float64 else torch.float32
    for start in range(0, rows, step):
        end = min(start + step, rows)
        total: torch.Tensor | None = None
        for term in terms:
            piece = term.rows(start, end).to(precision)
            if term.weight != 1:
                piece.mul_(term.weight)
            total = piece if total is None else total.add_(piece)
            del piece
        assert total is not None
        rounded = total.to(wanted)
        # What still has a name while the next piece is made is memory that nobody uses.
        del total
        yield rounded
        del rounded


def read(source: Job, start: int = 0, end: int | None = None) -> torch.Tensor:
    """Read rows `start` to `end` of a tensor, all of it where `end` is None, in its own type."""
    shape = source["shape"] or [1]
    end = shape[0] if end is None else end
    dtype = DTYPES[source["dtype"]]
    found = torch.empty((end - start, *shape[1:]), dtype=dtype)
    row = math.prod(shape[1:]) * dtype.itemsize
    if not found.numel():
        return found
    with Path(source["file"]).open("rb", buffering=0) as stream:
        stream.seek(source["start"] + start * row)
        view = memoryview(found.view(torch.uint8).flatten().numpy())
        while view:
            count = stream.readinto(view)
            if not count:
                raise SystemExit(f"{source['file']}: became shorter while it was read")
            view = view[count:]
    return found


class _Term:
    """One summand, of which any rows can be computed."""

    def __init__(self, term: Job) -> None:
        self.weight: float = term["weight"]
        self._source = term["source"]
        self._low = _LowRank(term["low_rank"]) if term["low_rank"] else None
        self._rows = term["rows"] and (term["rows"]["indices"], read(term["rows"]["values"]).float())
        self._added = term["added"]

    def measure(self, rows: int, step: int) -> None:
        """Find what the term needs of the whole weight: DoRA's norms, where they run along the rows."""
        if self._low is None or not self._low.needs_columns:
            return
        squares = None
        for start in range(0, rows, step):
            end = min(start + step, rows)
            changed = read(self._source, start, end).float() + self._low.rows(start, end)
            found = changed.square().sum(0, dtype=torch.float64)
            squares = found if squares is None else squares + found
        assert squares is not None
        self._low.columns = squares.sqrt().float()

    def rows(self, start: int, end: int) -> torch.Tensor:
        """Rows of the changed weight, before its share."""
        found = read(self._source, start, end)
        if found.dtype != torch.float64:
            found = found.float()
        if self._low is not None:
            found = self._low.apply(found, start, end)
        if self._added is not None:
            found = found + read(self._added["source"], start, end).float() * self._added["factor"]
        if self._rows:
            for index, values in zip(*self._rows, strict=True):
                if start <= index < end:
                    found[index - start] = values
        return found


class _LowRank:
    """A LoRA or DoRA change: PEFT's `get_delta_weight` and `merge_safe`, some rows at a time."""

    def __init__(self, low: Job) -> None:
        a, b = read(low["a"]).float(), read(low["b"]).float()
        # The weight's rows are the rows of `left`.
        self._left, self._right = (a.T, b.T) if low["transposed"] else (b, a)
        self._scale: float = low["scale"]
        self._magnitude = read(low["magnitude"]).float().flatten() if low["magnitude"] else None
        self.needs_columns = self._magnitude is not None and low["transposed"]
        """Whether the outputs, whose lengths DoRA sets, are the weight's columns."""
        self.columns: torch.Tensor | None = None
        """Length of each column of the changed weight."""

    def rows(self, start: int, end: int) -> torch.Tensor:
        return (self._left[start:end] @ self._right).mul_(self._scale)

    def apply(self, weight: torch.Tensor, start: int, end: int) -> torch.Tensor:
        changed = weight.add_(self.rows(start, end))
        if self._magnitude is None:
            return changed
        if self.needs_columns:
            assert self.columns is not None
            return changed.mul_((self._magnitude / self.columns).view(1, -1))
        norms = torch.linalg.vector_norm(changed, dim=1)
        return changed.mul_((self._magnitude[start:end] / norms).view(-1, 1))


def _stack(tensor: Job) -> torch.Tensor:
    parts = [read(part["source"]).float() * part["factor"] for part in tensor["parts"]]
    return torch.cat(parts, dim=tensor["axis"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
