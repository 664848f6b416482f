"""Batched generation outside a training, with answers that come out in the order of the rows."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import torch
from tqdm import tqdm
from transformers import TextStreamer, set_seed

from tunebook.errors import TunebookError
from tunebook.hooks.batches import collate
from tunebook.hooks.decoding import Detokenizer, stop_ids
from tunebook.hooks.generation import generating, generation_settings
from tunebook.hooks.infer_job import WINDOW_BATCHES, InferJob, rows_of, windows
from tunebook.inference.conversations import Conversation
from tunebook.types import IGNORED

if TYPE_CHECKING:
    from tunebook.hooks.encoder import Encoder


class ModelAnswer(NamedTuple):
    """One answer."""

    text: str
    finish_reason: str
    """`stop`, or `length` where no stop token came in time."""
    prompt_tokens: int
    completion_tokens: int
    """Without the stop token."""

    def columns(self, suffix: str) -> dict[str, Any]:
        """Return what is put beside a row's own columns."""
        return {
            f"prediction{suffix}": self.text,
            f"finish_reason{suffix}": self.finish_reason,
            f"prompt_tokens{suffix}": self.prompt_tokens,
            f"completion_tokens{suffix}": self.completion_tokens,
        }


class Answerer:
    """A loaded model that answers prompts.

    Args:
        model: In evaluation mode, adapters on it.
        encoder: Its tokenizer and template.
        job: Says how answers are decoded.
    """

    def __init__(self, model: Any, encoder: Encoder, job: InferJob) -> None:
        self.model = model
        self.encoder = encoder
        self.detokenizer = Detokenizer(
            encoder.tokenizer, stop_ids(encoder.tokenizer, model) | frozenset(encoder.stop_ids)
        )
        self.settings = generation_settings(self.detokenizer, job.max_new_tokens, **job.sampling)
        self._bare = False

    def without_adapter(self) -> Answerer:
        """Return one that answers with the same weights and no adapter on them."""
        other = copy(self)
        other._bare = True
        return other

    def answer(self, prompts: Sequence[Sequence[int]]) -> list[ModelAnswer]:
        """Answer some prompts in one batch."""
        ids = self.generate(prompts)
        return [
            ModelAnswer(
                text=self.detokenizer.answer(found),
                finish_reason="stop" if self.detokenizer.stops(found) else "length",
                prompt_tokens=len(prompt),
                completion_tokens=len(self.detokenizer.until_stop(found)),
            )
            for prompt, found in zip(prompts, ids, strict=True)
        ]

    def generate(self, prompts: Sequence[Sequence[int]], **options: Any) -> list[list[int]]:
        """Token ids after each prompt, padding included."""
        rows = [
            {"index": 0, "input_ids": ids, "labels": [IGNORED] * len(ids), "answer_start": len(ids)}
            for ids in prompts
        ]
        batch = collate(rows, pad_id=self.detokenizer.pad_id)
        inputs = {name: batch.inputs[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        off = self.model.disable_adapter() if self._bare else contextlib.nullcontext()
        with off, generating(self.model, self.settings), torch.no_grad():
            output = self.model.generate(**inputs, **options)
        width = inputs["input_ids"].shape[1]
        return list(output[:, width:].tolist())


def stream_answer(answerer: Answerer, conversation: Conversation, out: IO[str]) -> None:
    """Answer one conversation, printing the text as it comes."""

    class _Streamer(TextStreamer):  # type: ignore[misc]
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            out.write(text + ("\n" if stream_end else ""))
            out.flush()

    streamer = _Streamer(answerer.encoder.tokenizer, skip_prompt=True, skip_special_tokens=True)
    answerer.generate([answerer.encoder.prompt(conversation.messages)], streamer=streamer)


def answer_file(job: InferJob, models: Sequence[tuple[str, Answerer]], err: IO[str]) -> None:
    """Answer every row that is not answered yet, and append the rows with their answers to the job's file."""
    assert job.output is not None
    begun = time.monotonic()
    tokens = 0
    bar = tqdm(total=job.rows, initial=job.done, desc="answers", unit="row", file=err, mininterval=1.0)
    with Path(job.output).open("a", encoding="utf-8") as stream, bar:
        for start, window in windows(rows_of(job), job.batch_size * WINDOW_BATCHES, job.done):
            if job.sampling:
                # By window, so that a run that is resumed draws what an uninterrupted one draws.
                set_seed(job.seed + start)
            written = max(job.done - start, 0)
            answers: dict[int, dict[str, Any]] = {}
            for place, columns in _answers(models, [one.messages for _, one in window], job.batch_size):
                answers[place] = columns
                tokens += sum(n for name, n in columns.items() if name.startswith("completion_tokens"))
                while written in answers:
                    row: Mapping[str, Any] = window[written][0]
                    stream.write(json.dumps({**row, **answers[written]}, ensure_ascii=False) + "\n")
                    written += 1
                    bar.update()
                stream.flush()
            bar.set_postfix_str(f"{tokens / (time.monotonic() - begun):,.0f} tokens/s")


def _answers(
    models: Sequence[tuple[str, Answerer]], conversations: Sequence[Any], batch_size: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each conversation's place with its answers' columns, longest first."""
    encoder = models[0][1].encoder
    prompts = [encoder.prompt(messages) for messages in conversations]
    order = sorted(range(len(prompts)), key=lambda place: (-len(prompts[place]), place))
    for begin in range(0, len(order), batch_size):
        places = order[begin : begin + batch_size]
        columns: list[dict[str, Any]] = [{} for _ in places]
        for suffix, answerer in models:
            answers = _within_memory(answerer, [prompts[place] for place in places])
            for found, answer in zip(columns, answers, strict=True):
                found |= answer.columns(suffix)
        yield from zip(places, columns, strict=True)


def _within_memory(answerer: Answerer, prompts: Sequence[list[int]]) -> list[ModelAnswer]:
    """Answer in one batch, or in two halves where it does not fit into the GPU's memory."""
    try:
        return answerer.answer(prompts)
    except torch.OutOfMemoryError as err:
        if len(prompts) == 1:
            raise TunebookError(
                f"a prompt of {len(prompts[0]):,} tokens does not fit into the GPU's memory",
                fix="use a larger GPU or several, or leave that row out",
            ) from err
    torch.cuda.empty_cache()
    half = len(prompts) // 2
    return [*_within_memory(answerer, prompts[:half]), *_within_memory(answerer, prompts[half:])]
