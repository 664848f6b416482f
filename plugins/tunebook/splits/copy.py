"""Rows copied to their parts as raw bytes: nothing is parsed, quoted or inferred."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tunebook.splits.chunks import Chunk, read_chunks
from tunebook.splits.deal import EVAL
from tunebook.splits.parts import Part
from tunebook.splits.sources import SourceFile
from tunebook.splits.tapes import Tapes

_JOURNAL_BYTES = 256 << 20

OnBytes = Callable[[int], None]
Save = Callable[[int], None]
"""Told the spans that are done, when all parts hold exactly these."""


def copy_rows(
    sources: Sequence[SourceFile],
    tapes: Tapes,
    parts: Sequence[Part],
    *,
    joint: Part | None,
    spans_done: int,
    save: Save,
    on_bytes: OnBytes,
) -> None:
    """Append each row to the part it is dealt to, in the order of the source.

    Args:
        sources: As scanned.
        tapes: With `destinations`.
        parts: By node, and last the hold-out where there is one.
        joint: Gets every row that is not held out.
        spans_done: Where to begin.
        save: Called every 256 MB.
        on_bytes: For a progress bar.

    Raises:
        TunebookError: A source was changed since the scan.
    """
    unsaved = 0
    for chunk in read_chunks(sources, tapes, spans_done):
        targets = np.where(chunk.destinations == EVAL, len(parts) - 1, chunk.destinations)
        for target, chosen in by_target(targets):
            parts[target].write(slices(chunk, chosen))
        write_joint(chunk, joint)
        on_bytes(len(chunk.data))
        unsaved += len(chunk.data)
        if unsaved >= _JOURNAL_BYTES:
            save(chunk.spans_done)
            unsaved = 0


def write_joint(chunk: Chunk, joint: Part | None) -> None:
    """Copy all rows of a chunk but the hold-out's, where one job of all nodes needs them together."""
    if joint is not None:
        kept = np.flatnonzero(chunk.destinations != EVAL)
        if len(kept):
            joint.write(slices(chunk, kept))


def by_target(targets: npt.NDArray[np.integer]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield each target that occurs with the places where it does, in order."""
    order = np.argsort(targets, kind="stable")
    cuts = np.flatnonzero(np.diff(targets[order])) + 1
    for places in np.split(order, cuts):
        if len(places):
            yield int(targets[places[0]]), places


def slices(chunk: Chunk, chosen: npt.NDArray[np.int64]) -> list[bytes]:
    """Return the bytes of those rows."""
    data = chunk.data
    begins, ends = chunk.begins[chosen].tolist(), chunk.ends[chosen].tolist()
    return [data[begin:end] for begin, end in zip(begins, ends, strict=True)]
