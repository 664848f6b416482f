"""What each change of a set-up saves, and in which order to make them when memory runs out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunebook.memory.families import read_shape
from tunebook.memory.options import read_setup
from tunebook.memory.total import GIB, estimate_setup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tunebook.memory.options import Setup
    from tunebook.memory.shapes import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever:
    """One change of a set-up and the total it leads to."""

    name: str
    total: float
    """Bytes per GPU with this one change."""
    saved: float
    """Bytes per GPU less than before; negative where it costs."""
    price: str
    """What is paid for it."""


_FULL = frozenset({"optimizer", "parameters"})
# In the order to make them: first what costs nothing, last what changes the model that comes out.
_LADDER: tuple[tuple[str, str, Callable[[Setup], Setup]], ...] = (
    ("flash attention", "nothing", lambda s: replace(s, attention="flash") if s.attention == "eager" else s),
    ("fused cross-entropy", "nothing", lambda s: replace(s, fused_ce=s.fused_ce or "liger")),
    ("micro-batch 1", "more accumulation steps for the same batch", lambda s: replace(s, micro_batch=1)),
    ("gradient checkpointing", "about a third more time", lambda s: replace(s, checkpointing=True)),
    ("8-bit optimizer", "little; the states are rounded", lambda s: _eight_bit(s)),
    ("ZeRO-1", "little traffic", lambda s: _zero(s, 1)),
    ("ZeRO-2", "little traffic", lambda s: _zero(s, 2)),
    ("ZeRO-3", "traffic of all weights, each step", lambda s: _zero(s, 3)),
    ("offload of the optimizer", "host memory, slower steps", lambda s: _offload(s, {"optimizer"})),
    ("offload of parameters too", "host memory, much slower steps", lambda s: _offload(s, set(_FULL))),
    ("offload of checkpoints", "host memory, some time", lambda s: _offload(s, {"activations"})),
    ("4-bit weights", "a rounded base model", lambda s: s if s.full or s.bits else replace(s, bits="nf4")),
    ("half the length", "rows are cut or dropped", lambda s: replace(s, seq_len=max(1, s.seq_len // 2))),
    ("LoRA instead of full", "another method", lambda s: _lora(s)),
)


def _eight_bit(setup: Setup) -> Setup:
    return replace(setup, optimizer="adam8") if setup.optimizer == "adam" else setup


def _zero(setup: Setup, stage: int) -> Setup:
    # DeepSpeed's stage 3 cannot divide bitsandbytes weights.
    if setup.gpus == 1 or setup.zero_stage >= stage or (stage == 3 and setup.bits):
        return setup
    small = 2 if setup.dtype in {"bf16", "fp16"} and not setup.full else setup.adapter_bytes
    return replace(setup, zero_stage=stage, adapter_bytes=small)


def _offload(setup: Setup, places: set[str]) -> Setup:
    if "activations" in places:
        return replace(setup, offload=setup.offload | places) if setup.checkpointing else setup
    if setup.bits and "parameters" in places:
        return setup
    stage = 3 if "parameters" in places else max(2, setup.zero_stage)
    return replace(setup, zero_stage=stage, offload=setup.offload | places)


def _lora(setup: Setup) -> Setup:
    if not setup.full:
        return setup
    small = setup.dtype if setup.dtype in {"bf16", "fp16"} else "bf16"
    return replace(
        setup, full=False, dtype=small, optimizer="adam", adapter_bytes=2 if setup.zero_stage else 4
    )


def levers(config: Mapping[str, Any], **arguments: Any) -> list[Lever]:
    """Price each change that is not made yet by itself, for the arguments of `tunebook.memory.estimate`.

    With `mean_tokens`, the mean length of a row, packing is priced too: rows padded to their mean instead of
    the longest one, at the same number of rows.
    """
    mean = arguments.pop("mean_tokens", None)
    shape, setup = read_shape(config), read_setup(**arguments)
    before = estimate_setup(shape, setup).total
    found = []
    for name, cost, change in _LADDER:
        changed = change(setup)
        if changed != setup:
            total = estimate_setup(shape, changed).total
            found.append(Lever(name=name, total=total, saved=before - total, price=cost))
    if mean and setup.micro_batch > 1:
        packed = replace(setup, seq_len=max(1, round(setup.micro_batch * mean)), micro_batch=1)
        total = estimate_setup(shape, packed).total
        cost = "no padding; needs flash attention"
        found.append(Lever(name="packing", total=total, saved=before - total, price=cost))
    return found


def oom_ladder(shape: Shape, setup: Setup) -> list[Lever]:
    """Make the changes one after the other; those that save less than 2 % are skipped."""
    found: list[Lever] = []
    total = estimate_setup(shape, setup).total
    for name, cost, change in _LADDER:
        changed = change(setup)
        after = estimate_setup(shape, changed).total
        if after < total * 0.98:
            found.append(Lever(name=name, total=after, saved=total - after, price=cost))
            setup, total = changed, after
    return found


def largest_batch(shape: Shape, setup: Setup, gpu_gb: float) -> int:
    """Return the largest micro-batch whose total fits a card of `gpu_gb` GiB; 0 if not even one row does."""
    return _largest(lambda rows: replace(setup, micro_batch=rows), shape, gpu_gb, 65536)


def longest_context(shape: Shape, setup: Setup, gpu_gb: float) -> int:
    """Return the longest row, in tokens, whose total fits a card of `gpu_gb` GiB at this micro-batch."""
    return _largest(lambda tokens: replace(setup, seq_len=tokens), shape, gpu_gb, 2**24)


def _largest(at: Callable[[int], Setup], shape: Shape, gpu_gb: float, limit: int) -> int:
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if estimate_setup(shape, at(middle)).total <= gpu_gb * GIB:
            low = middle
        else:
            high = middle - 1
    return low
