"""Whether a batch fits: its need is printed before it starts, and one that runs out of memory is halved."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from tunebook.errors import TunebookError
from tunebook.hooks.batches import Batch, halves
from tunebook.hooks.forward import attention_of, innermost, text_config
from tunebook.hooks.ranks import say
from tunebook.memory import read_shape
from tunebook.memory.inference import answer_piece, cache_bytes, generation_memory, piece, reads_in_pieces
from tunebook.memory.shapes import Shape

_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("bytes", 1))
_WORTH_SAYING = 2**30
"""Bytes of a cache that are worth a line on the terminal."""
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How an evaluation is kept within memory."""

    strict: bool = False
    """A batch that will not fit is an error before anything starts. False: a warning, since an estimate is
    no reason to end a training."""
    cache_on_host: bool = False
    """Keep keys and values in host memory, and one layer's on the GPU at a time."""
    show: Callable[[str], None] = say
    """Gets what generating will need, before it starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSizes:
    """What memory depends on, of a loaded model."""

    shape: Shape
    config: dict[str, Any]
    attention: str
    element: int
    """Bytes of an activation."""


def sizes_of(model: torch.nn.Module) -> ModelSizes | None:
    """Read a loaded model; None of an architecture that `tunebook.memory` does not know."""
    config = text_config(model)
    try:
        shape = read_shape(config)
        cache_bytes(config, rows=1, tokens=1)
    except (TunebookError, KeyError):
        return None
    inner = innermost(model)
    # LLaMA-Factory trains what is not frozen in fp32 and computes in bf16 under autocast.
    floating = [one.dtype for one in inner.parameters() if one.is_floating_point()]
    element = 4 if floating and all(one == torch.float32 for one in floating) else 2
    return ModelSizes(shape=shape, config=config, attention=attention_of(model), element=element)


def read_at_a_time(model: torch.nn.Module, batch: Batch) -> int | None:
    """Tokens of each row that the answer pass reads at a time; None: all of them."""
    rows, tokens = batch.inputs["input_ids"].shape
    if piece(rows, tokens) is None:
        return None
    sizes = sizes_of(model)
    if sizes is None:
        return None
    padded = not bool(batch.inputs["attention_mask"].all())
    return answer_piece(
        sizes.shape, sizes.config, rows=rows, tokens=tokens, attention=sizes.attention, padded=padded
    )


def prefill_at_a_time(model: torch.nn.Module, rows: int, tokens: int) -> int | None:
    """Tokens of each prompt that generation reads at a time; None: all of them."""
    config = text_config(model)
    if not config or not reads_in_pieces(config):
        return None
    return piece(rows, tokens)


def check_generation(
    model: torch.nn.Module, batches: Sequence[Sequence[int]], new_tokens: int, limits: Limits
) -> None:
    """Say what generating will need, before it starts.

    Args:
        model: The model to ask.
        batches: Prompt tokens of the rows of each of this rank's batches.
        new_tokens: `max_new_tokens`.
        limits: Those of the evaluation.

    Raises:
        TunebookError: `limits.strict`, and a batch needs more memory than is free.
    """
    sizes = sizes_of(model)
    if sizes is None or not batches:
        return
    needs = [(need(sizes, batch, new_tokens, limits), batch) for batch in batches]
    most, worst = max(needs, key=lambda one: one[0].total)
    device = next(model.parameters()).device
    free = free_bytes(model)
    if limits.strict or most.cache >= _WORTH_SAYING or most.total > free:
        step = prefill_at_a_time(model, len(worst), max(worst))
        where = "in host memory" if limits.cache_on_host else f"on {device}"
        reading = f"prompts read {step:,} tokens at a time" if step and step < max(worst) else "read whole"
        cache = cache_bytes(
            sizes.config, rows=len(worst), tokens=max(worst) + new_tokens, element=sizes.element
        )
        limits.show(
            f"generation: at most {len(worst)} x {max(worst) + new_tokens:,} tokens, keys and values "
            f"{_size(cache)} {where}, {reading}; {_size(most.total)} of {_size(free)} free"
        )
    heavy = [batch for one, batch in needs if one.total > free]
    if not heavy:
        return
    problem = (
        f"{sum(map(len, heavy))} of {sum(map(len, batches))} rows will not fit: a batch of {len(worst)} x "
        f"{max(worst) + new_tokens:,} tokens needs {_size(most.total)}, {_size(free)} are free"
    )
    remedy = what_fits(sizes, max(worst), new_tokens, limits, free)
    if limits.strict:
        raise TunebookError(problem, fix=remedy)
    say(f"warning: {problem}; {remedy}")


def need(sizes: ModelSizes, prompts: Sequence[int], new_tokens: int, limits: Limits) -> Any:
    """Memory of one batch of generation, as `PassMemory`."""
    found = generation_memory(
        sizes.shape,
        sizes.config,
        rows=len(prompts),
        prompt=max(prompts),
        new_tokens=new_tokens,
        attention=sizes.attention,
        padded=len(set(prompts)) > 1,
        element=sizes.element,
    )
    return found.on_host() if limits.cache_on_host else found


def what_fits(sizes: ModelSizes, prompt: int, new_tokens: int, limits: Limits, free: float) -> str:
    """What to change so that the longest prompt fits, as one sentence."""

    def fits(tokens: int, limits: Limits) -> bool:
        return bool(need(sizes, [tokens], new_tokens, limits).total <= free)

    if fits(prompt, limits):
        # The total of a batch grows a little less than in proportion, so this is never too many.
        rows = max(1, int(free // need(sizes, [prompt], new_tokens, limits).total))
        return f"take batches of at most {rows * (prompt + new_tokens)} tokens: --batch-tokens"
    low, high = 0, prompt
    while high - low > max(1, prompt // 1000):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle, limits) else (low, middle)
    ways = [f"limit the length to {low + new_tokens:,} tokens" if low else "free some memory"]
    if not limits.cache_on_host and fits(prompt, Limits(cache_on_host=True)):
        ways.append("keep the cache in host memory (--kv-cache host)")
    ways.append("spread the model over several GPUs (--device-map auto)")
    return ", or ".join(ways)


def free_bytes(model: torch.nn.Module) -> float:
    """Bytes that this process can still take where the model is: on its GPUs, or of this machine's memory."""
    devices = {parameter.device for parameter in model.parameters()}
    cards = [device for device in devices if device.type == "cuda"]
    if cards:
        return float(
            sum(
                torch.cuda.mem_get_info(card)[0]
                + torch.cuda.memory_reserved(card)
                - torch.cuda.memory_allocated(card)
                for card in cards
            )
        )
    return _free_on_host()


def _free_on_host() -> float:
    if not Path("/proc/meminfo").is_file():  # not Linux: nobody says
        return math.inf
    import resource

    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    free = float(next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024)
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        free = min(free, limit - pages * resource.getpagesize())
    return free


def halving(run: Callable[[Batch], list[Found]], batch: Batch, *, collective: bool) -> list[Found]:
    """Run a batch; where memory runs out, say so and run its halves. Never a result that was not computed.

    Args:
        run: Gives one result for each row.
        batch: Its rows are cut in two, and in two again.
        collective: Other ranks wait for as many passes as planned: no batch can be halved here.

    Raises:
        TunebookError: A single row does not fit.
    """
    try:
        return run(batch)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        message = str(error).strip().splitlines()[0][:200]
    # Outside of `except`: the traceback would hold the tensors that have to go.
    rows, tokens = batch.inputs["input_ids"].shape
    if rows == 1 or collective:
        raise TunebookError(
            f"out of memory in a batch of {rows} x {tokens:,} tokens with row {batch.indices[0]}: {message}",
            fix="take smaller batches (--batch-tokens), a shorter length limit, or several GPUs "
            "(--device-map auto)",
        )
    say(f"warning: out of memory in a batch of {rows} x {tokens:,} tokens; running it again in two halves")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return [found for half in halves(batch) for found in halving(run, half, collective=collective)]


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "allocate memory" in str(error)  # of the CPU's allocator


def _size(number: float) -> str:
    unit, size = next((unit, size) for unit, size in _UNITS if number >= size / 10 or size == 1)
    return f"{number / size:.1f} {unit}"
