"""Answers a file of conversations in the engine's own environment: `python -m tunebook.hooks.infer JOB.json`.

The job is written by `tunebook infer`. Answers are appended to the job's file in the order of its rows, as
soon as all rows before them are answered.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tunebook.errors import TunebookError
from tunebook.hooks.encoder import Encoder
from tunebook.hooks.infer_job import InferJob, read_job
from tunebook.inference.conversations import conversation_of


def main() -> None:
    """Do a job; exit 0 done, 2 where the user must fix something."""
    job = read_job(Path(sys.argv[1]))
    with engine_prints_to(Path(sys.argv[2])) as (out, err):
        try:
            _do(job, out, err)
        except TunebookError as error:
            print(f"error: {error}", file=err, flush=True)
            sys.exit(2)


@contextlib.contextmanager
def engine_prints_to(log: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    """Send what engines print, on both streams, into a file; yield our own streams."""
    out, err = (os.fdopen(os.dup(number), "w", encoding="utf-8") for number in (1, 2))
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    try:
        yield out, err
    finally:
        out.flush()
        err.flush()


def _do(job: InferJob, out: IO[str], err: IO[str]) -> None:
    # Not before: what these libraries print while they are imported belongs into the log.
    from tunebook.hooks.answering import Answerer, answer_file, stream_answer
    from tunebook.hooks.loading import load_encoder, load_model

    with tempfile.TemporaryDirectory(prefix="tunebook-infer-") as scratch:
        print("tunebook: loading the model", file=err, flush=True)
        encoder = load_encoder(job.weights, thinking=job.thinking, scratch=Path(scratch))
        _warn(job, encoder, err)
        models: list[tuple[str, Answerer]] = []
        for suffix, weights in (("", job.weights), ("_base", job.beside)):
            if weights is None:
                continue
            if suffix and job.weights.adapter is not None:
                # The adapter can be switched off: one model does for both.
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


def _warn(job: InferJob, encoder: Encoder, err: IO[str]) -> None:
    if encoder.thinks and not job.sampling:
        print(
            "tunebook: warning: the model is asked to think and decoded greedily, which may repeat itself "
            "without end; Qwen advises --sample --temperature 0.6 --top-p 0.95 --top-k 20, or --no-thinking",
            file=err,
            flush=True,
        )


if __name__ == "__main__":
    main()
