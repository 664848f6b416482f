"""Greedy generation from the evaluation rows' own prompt ids, inside the trainer's process.

The prompt is everything before the last supervised span, as ids: decoding and tokenising it again would
lose special tokens. Greedy decoding draws no random number, so the training that goes on is unchanged.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig

from tunebook.hooks.batches import Batch, Batches, deal
from tunebook.hooks.decoding import Detokenizer
from tunebook.hooks.forward import innermost
from tunebook.hooks.memory import Limits, check_generation, halving, prefill_at_a_time
from tunebook.hooks.preparation import Prepared
from tunebook.hooks.ranks import FILLER, Rank, gather, in_step

_NO_LIMITS = Limits()


class GeneratedIds(NamedTuple):
    """One row's greedy continuation."""

    row: int
    ids: list[int]
    """Up to the first stop token, which is left out."""
    cut: bool
    """No stop token came within `max_new_tokens`."""


def generate(trainer: Any, prepared: Prepared, rank: Rank) -> dict[int, GeneratedIds]:
    """Generate for the scored rows of a set; every rank gets all results.

    Returns:
        By row index. Each row is generated once, on one rank.
    """
    rows = [prepared.rows[index] for index in prepared.scored]
    # Every rank makes the same number of calls: under ZeRO-3 and FSDP each of them is collective.
    dealt = deal([row.answer.start for row in rows], trainer.args.eval_batch_size, rank)
    batches = [[FILLER if place == FILLER else rows[place].index for place in batch] for batch in dealt]
    found: list[GeneratedIds] = []
    generate_batches(trainer, prepared, batches, found.extend)
    return {result.row: result for result in gather(found, rank)}


def generate_batches(
    trainer: Any,
    prepared: Prepared,
    batches: list[list[int]],
    on_batch: Callable[[list[GeneratedIds]], None],
    limits: Limits = _NO_LIMITS,
) -> None:
    """Generate for this rank's batches, and hand over each as soon as it is done.

    Args:
        trainer: The engine's, with the model to ask.
        prepared: The set.
        batches: Row indices, and `FILLER` where another rank has a row more.
        on_batch: Called once a batch, with its results in order, fillers left out.
        limits: How generation is kept within memory.

    Raises:
        TunebookError: A row does not fit.
    """
    detokenizer = prepared.detokenizer
    loader = Batches(
        prepared.dataset,
        prepared.rows,
        batches,
        pad_id=detokenizer.pad_id,
        prompts_only=True,
        collator=prepared.collator,
    )
    settings = generation_settings(detokenizer, prepared.max_new_tokens)
    if limits.cache_on_host and next(trainer.model.parameters()).device.type != "cuda":
        limits = replace(limits, cache_on_host=False)  # there is no other memory
    if limits.cache_on_host:
        settings.cache_implementation = "offloaded"
    collective = in_step(trainer.model)
    prompts = [[prepared.rows[max(row, 0)].answer.start for row in batch] for batch in batches]
    check_generation(trainer.model, prompts, prepared.max_new_tokens, limits)

    def run(batch: Batch) -> list[GeneratedIds]:
        wanted = {name: one for name, one in batch.inputs.items() if name != "position_ids"}
        inputs = trainer._prepare_inputs(wanted | _token_types(trainer.model, batch))
        rows, width = inputs["input_ids"].shape
        # How often a rank reads depends on its own rows; where passes are collective it reads once.
        whole = collective or batch.part is not None
        settings.prefill_chunk_size = None if whole else prefill_at_a_time(trainer.model, rows, width)
        output = trainer.model.generate(**inputs, synced_gpus=collective)
        answers = zip(batch.indices, output[:, width:].tolist(), strict=True)
        return [
            GeneratedIds(index, detokenizer.until_stop(ids), cut=not detokenizer.stops(ids))
            for index, ids in answers
        ]

    with generating(trainer.model, settings), torch.no_grad():
        for number in _progress(len(loader), trainer):
            found = halving(run, loader[number], collective=collective)
            on_batch([one for one in found if one.row != FILLER])


def _token_types(model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """Which tokens are of pictures (1) and of videos (2), for a model that finds its positions by them.

    Without it Qwen's vision models count a picture's tokens as text, and say nothing.
    """
    inner = innermost(model)
    name = "mm_token_type_ids"
    wanted = batch.part is not None and name in inspect.signature(inner.forward).parameters
    if not wanted or name in batch.inputs:
        return {}
    ids = batch.inputs["input_ids"]
    types = torch.zeros_like(ids)
    for kind, key in enumerate(("image_token_id", "video_token_id"), start=1):
        token = getattr(inner.config, key, None)
        if token is not None:
            types[ids == token] = kind
    return {name: types}


def generation_settings(detokenizer: Detokenizer, max_new_tokens: int, **sampling: Any) -> GenerationConfig:
    """Settings of a generation: greedy, unless `sampling` says `do_sample=True` and how."""
    return GenerationConfig(
        **{"do_sample": False, **sampling},
        max_new_tokens=max_new_tokens,
        use_cache=True,
        pad_token_id=detokenizer.pad_id,
        eos_token_id=sorted(detokenizer.stop_ids),
    )


@contextlib.contextmanager
def generating(model: torch.nn.Module, settings: GenerationConfig) -> Iterator[None]:
    """Put the model into the state in which it generates what it would answer, and undo that.

    In train mode with gradient checkpointing `generate` silently returns garbage. The generation settings
    are swapped whole rather than passed, since transformers fills unset fields from the model's own, where
    engines leave sampling on.
    """
    was_training = model.training
    holders = [model, innermost(model)]
    before = [getattr(holder, "generation_config", None) for holder in holders]
    model.eval()
    for holder in holders:
        holder.generation_config = settings  # type: ignore[assignment]
    try:
        with _whole_parameters(model):
            yield
    finally:
        for holder, config in zip(holders, before, strict=True):
            holder.generation_config = config  # type: ignore[assignment]
        model.train(was_training)


@contextlib.contextmanager
def _whole_parameters(model: torch.nn.Module) -> Iterator[None]:
    """Under FSDP version 1, gather the parameters for the time of the generation, as transformers does."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    if isinstance(model, FullyShardedDataParallel):
        with FullyShardedDataParallel.summon_full_params(model, writeback=False):
            yield
    else:
        yield


def _progress(batches: int, trainer: Any) -> Any:
    from tqdm import tqdm

    off = trainer.args.disable_tqdm or not trainer.is_world_process_zero()
    return tqdm(range(batches), desc="generating answers", leave=False, disable=off)
