"""Answers a file of conversations in the engine's own environment: `python -m tunebook.hooks.infer JOB.json`.

The job is written by `tunebook infer`. Answers are appended to the job's file in the order of its rows, as
soon as all rows before them are answered.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from tunebook.data.rows import iter_rows
from tunebook.errors import TunebookError
from tunebook.hooks.loading import Encoder, Weights, load_encoder, load_model
from tunebook.inference.conversations import Conversation, conversation_of

WINDOW_BATCHES = 8
"""Rows are sorted by length within so many batches: less padding, and answers still come out in order."""


class Job(NamedTuple):
    """What is to be done; every path is absolute."""

    weights: Weights
    beside: Weights | None
    """A second model that answers the same rows: the base."""
    input: str | None
    prompt: str | None
    """A single prompt in the place of `input`; its answer is streamed to stdout."""
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
    """Arguments of transformers' GenerationConfig, `seed` apart; empty for greedy answers."""
    seed: int


def read_job(path: Path) -> Job:
    """Read what `tunebook infer` has written."""
    values = json.loads(path.read_text(encoding="utf-8"))
    beside = values.pop("beside")
    weights = Weights(**values.pop("weights"))
    return Job(weights=weights, beside=None if beside is None else Weights(**beside), **values)


def main() -> None:
    """Do a job; exit 0 done, 2 where the user must mend something."""
    job = read_job(Path(sys.argv[1]))
    with engine_talks_to(Path(sys.argv[2])) as (out, err):
        try:
            _do(job, out, err)
        except TunebookError as error:
            print(f"error: {error}", file=err, flush=True)
            sys.exit(2)


@contextlib.contextmanager
def engine_talks_to(log: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    """Send what engines print, on both streams, into a file; yield the streams of our own."""
    out, err = (os.fdopen(os.dup(number), "w", encoding="utf-8") for number in (1, 2))
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    try:
        yield out, err
    finally:
        out.flush()
        err.flush()


def _do(job: Job, out: IO[str], err: IO[str]) -> None:
    from tunebook.hooks.answering import Answerer, answer_file, stream_answer

    with tempfile.TemporaryDirectory(prefix="tunebook-infer-") as scratch:
        print("tunebook: loading the model", file=err, flush=True)
        encoder = load_encoder(job.weights, thinking=job.thinking, scratch=Path(scratch))
        _warn(job, encoder, err)
        models: list[tuple[str, Answerer]] = []
        for suffix, weights in (("", job.weights), ("_base", job.beside)):
            if weights is None:
                continue
            if suffix and job.weights.adapter is not None:
                # The adapter can be taken off: one model serves for both.
                models.append((suffix, models[0][1].without_adapter()))
            else:
                folder = Path(scratch) / f"model{suffix}"
                folder.mkdir()
                models.append((suffix, Answerer(load_model(weights, encoder, scratch=folder), encoder, job)))
        if job.prompt is not None:
            conversation = conversation_of({"prompt": job.prompt}, "--prompt", system=job.system)
            for suffix, answerer in models:
                if len(models) > 1:
                    print(f"--- {'base' if suffix else 'trained'}", file=out, flush=True)
                stream_answer(answerer, conversation, out)
            return
        answer_file(job, models, err)


def _warn(job: Job, encoder: Encoder, err: IO[str]) -> None:
    if encoder.thinks and not job.sampling:
        print(
            "tunebook: warning: the model is asked to think and decoded greedily, which may repeat itself "
            "without end; Qwen advises --sample --temperature 0.6 --top-p 0.95 --top-k 20, or --no-thinking",
            file=err,
            flush=True,
        )


def rows_of(job: Job) -> Iterator[tuple[Mapping[str, Any], Conversation]]:
    """Yield the input's rows with what they ask."""
    assert job.input is not None
    path = Path(job.input)
    for number, row in enumerate(iter_rows(path), 1):
        yield row, conversation_of(row, f"{path}, row {number}", system=job.system)


def windows(
    rows: Iterator[tuple[Mapping[str, Any], Conversation]], size: int, done: int
) -> Iterator[tuple[int, Sequence[tuple[Mapping[str, Any], Conversation]]]]:
    """Yield rows in windows that begin at multiples of `size`, with the number of their first row.

    Windows that are answered already are passed over; one that is answered in part comes again whole, so
    that the rows in a batch, and with them every last bit of an answer, are those of an unbroken run.
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


if __name__ == "__main__":
    main()
