"""The job of `tunebook infer`'s process, and the rows that it answers. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tunebook.data.rows import iter_rows
from tunebook.hooks.encoder import WeightsToLoad
from tunebook.inference.conversations import Conversation, conversation_of

WINDOW_BATCHES = 8
"""Rows are sorted by length within this many batches: less padding, and answers still come out in order."""


class InferJob(NamedTuple):
    """What is to be done; every path is absolute."""

    weights: WeightsToLoad
    beside: WeightsToLoad | None
    """A second model that answers the same rows: the base."""
    input: str | None
    prompt: str | None
    """A single prompt instead of `input`; its answer is streamed to stdout."""
    output: str | None
    """Answers are appended to it."""
    done: int
    """Rows whose answers are in `output` already."""
    rows: int
    system: str | None
    thinking: bool | None
    max_new_tokens: int
    batch_size: int
    sampling: dict[str, Any]
    """Arguments of transformers' GenerationConfig, without `seed`; empty for greedy answers."""
    seed: int


def read_job(path: Path) -> InferJob:
    """Read what `tunebook infer` has written."""
    values = json.loads(path.read_text(encoding="utf-8"))
    beside = values.pop("beside")
    weights = WeightsToLoad(**values.pop("weights"))
    return InferJob(weights=weights, beside=None if beside is None else WeightsToLoad(**beside), **values)


def rows_of(job: InferJob) -> Iterator[tuple[Mapping[str, Any], Conversation]]:
    """Yield the input's rows with what they ask."""
    assert job.input is not None
    path = Path(job.input)
    for number, row in enumerate(iter_rows(path), 1):
        yield row, conversation_of(row, f"{path}, row {number}", system=job.system)


def windows(
    rows: Iterator[tuple[Mapping[str, Any], Conversation]], size: int, done: int
) -> Iterator[tuple[int, Sequence[tuple[Mapping[str, Any], Conversation]]]]:
    """Yield rows in windows that begin at multiples of `size`, with the number of their first row.

    Windows that are answered already are left out. One that is answered in part comes again whole, so that
    the rows in a batch, and with them every last bit of an answer, are those of an uninterrupted run.
    """
    window: list[tuple[Mapping[str, Any], Conversation]] = []
    start = 0
    for row in rows:
        window.append(row)
        if len(window) == size:
            if start + size > done:
                yield start, window
            start, window = start + size, []
    if window and start + len(window) > done:
        yield start, window
