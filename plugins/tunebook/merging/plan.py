"""Plans a merge from its inputs, their base, their tensors and the files to write."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunebook import files
from tunebook.checks.outputs import LEAST_BYTES
from tunebook.errors import TunebookError
from tunebook.merging.adapters import read_adapter, stack_adapters
from tunebook.merging.differences import refuse_differences
from tunebook.merging.inputs import find_base, find_input
from tunebook.merging.into_base import merge_into_base
from tunebook.merging.output import (
    LIBRARIES_BYTES,
    merged_config,
    refuse_existing,
    shards,
    working_bytes,
)
from tunebook.merging.tensors import FLOATS, Tensor, Term, average

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.merging.adapters import Adapter
    from tunebook.merging.inputs import Base, Input
    from tunebook.merging.output import OutputShard


Way = Literal["into the base", "several into the base", "stacked adapters", "averaged models", "copied"]
DEFAULT_SHARD_BYTES = 5_000_000_000
"""What the hub's tools take where a model has one file that is larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePlan:
    """Everything that a merge will do."""

    way: Way
    inputs: tuple[Input, ...]
    weights: tuple[float, ...]
    base: Base | None
    output: Path
    shards: tuple[OutputShard, ...]
    config: dict[str, Any] | None
    """`config.json` of the result; None where it is an adapter."""
    adapter_config: dict[str, Any] | None
    """`adapter_config.json` of the result; None where it is a model."""
    notes: tuple[str, ...]

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors of the output."""
        return [tensor for shard in self.shards for tensor in shard.tensors]

    @property
    def bytes(self) -> int:
        """Size of the weight files to be written."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def peak_bytes(self) -> int:
        """Memory that making the tensors takes at most, Python and torch included."""
        return LIBRARIES_BYTES + working_bytes(self.tensors)

    @property
    def what(self) -> str:
        """What is done, in words."""
        count = len(self.inputs)
        return {
            "into the base": "one adapter is merged into its base",
            "several into the base": f"the weighted sum of {count} adapters is merged into their base",
            "stacked adapters": f"{count} adapters become one that computes exactly their weighted sum, "
            "with the sum of their ranks",
            "averaged models": f"{count} models are averaged tensor by tensor",
            "copied": "the model is written as it is, without the state of its training",
        }[self.way]


def plan_merge(
    arguments: Sequence[str],
    output: Path,
    *,
    checkpoint: str | None = None,
    weights: Sequence[float] | None = None,
    base: str | None = None,
    as_kind: Literal["adapter", "model"] | None = None,
    max_shard_bytes: int | None = None,
) -> MergePlan:
    """Decide what a merge does, from headers and configurations only.

    Args:
        arguments: Runs, checkpoints, models or adapters.
        output: The folder to make.
        checkpoint: `best`, `last` or a step, of every run; None for what is in the folders themselves.
        weights: One for each argument, summing to one; None for equal ones.
        base: The adapters' base; None for the one that they name.
        as_kind: What several adapters become; None for an adapter, where that is exact.
        max_shard_bytes: Of a file of the output; None for the largest file of the model it is made from.

    Raises:
        TunebookError: The inputs are no models or adapters, do not fit together, or there is no room.
    """
    refuse_existing(output)
    inputs = [find_input(argument, checkpoint) for argument in arguments]
    shares = _shares(weights, len(inputs))
    adapters = (
        [read_adapter(i.folder, i.config, i.weights) for i in inputs] if _all_adapters(inputs) else None
    )
    notes = refuse_differences(inputs, adapters) if len(inputs) > 1 else []
    if adapters is None:
        if as_kind == "adapter" or base is not None:
            option = "--as adapter" if as_kind == "adapter" else "--base"
            raise TunebookError(f"{option} is for adapters, and these are models", fix=f"omit {option}")
        plan = _models(inputs, shares, output, notes, max_shard_bytes)
    elif as_kind == "adapter" or (as_kind is None and len(inputs) > 1):
        plan = _stack(inputs, adapters, shares, output, notes, base)
    else:
        plan = _into_base(inputs, adapters, shares, output, notes, base, max_shard_bytes)
    _check_room(plan)
    return plan


def _all_adapters(inputs: Sequence[Input]) -> bool:
    return all(given.kind == "adapter" for given in inputs)


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1 / count] * count
    if len(weights) != count:
        raise TunebookError(
            f"--weights names {len(weights)} numbers for {count} models",
            fix="give one number for each, in order",
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise TunebookError(
            f"--weights {list(weights)}: each must be a number from 0 to 1", fix="fix the list"
        )
    total = math.fsum(weights)
    if abs(total - 1) > 1e-6:
        fix = "give numbers that sum to 1"
        if total > 0:
            fix += ": " + ",".join(f"{weight / total:.6g}" for weight in weights)
        raise TunebookError(f"--weights {list(weights)}: sum to {total:g}", fix=fix)
    return [weight / total for weight in weights]


def _models(
    inputs: Sequence[Input], shares: list[float], output: Path, notes: list[str], limit: int | None
) -> MergePlan:
    first = inputs[0]
    quantised = [given for given in inputs if given.config.get("quantization_config")]
    if quantised and len(inputs) > 1:
        raise TunebookError(
            f"{quantised[0].argument}: is quantised, and cannot be averaged", fix="average unquantised models"
        )
    tensors = []
    for name, source in first.weights.tensors.items():
        if len(inputs) == 1:
            tensors.append(
                Tensor(
                    name=name,
                    dtype=source.dtype,
                    shape=source.shape,
                    made_of=(Term(weight=1, source=source),),
                )
            )
        elif source.dtype in FLOATS:
            tensors.append(average(name, [given.weights.tensors[name] for given in inputs], shares))
        else:
            raise TunebookError(
                f"{first.argument}: {name} is stored as {source.dtype} and cannot be averaged",
                fix="use models in bf16, fp16 or fp32",
            )
    return MergePlan(
        way="copied" if len(inputs) == 1 else "averaged models",
        inputs=tuple(inputs),
        weights=tuple(shares),
        base=None,
        output=output,
        shards=tuple(
            shards(tensors, limit or _limit(first.weights.files[0].bytes, len(first.weights.files)))
        ),
        config=merged_config(first.folder, {}),
        adapter_config=None,
        notes=tuple(notes),
    )


def _into_base(
    inputs: Sequence[Input],
    adapters: Sequence[Adapter],
    shares: list[float],
    output: Path,
    notes: list[str],
    override: str | None,
    limit: int | None,
) -> MergePlan:
    base = find_base(inputs, override)
    merged = merge_into_base(base.weights, base.config, adapters, shares)
    largest = max(file.bytes for file in base.weights.files)
    return MergePlan(
        way="into the base" if len(inputs) == 1 else "several into the base",
        inputs=tuple(inputs),
        weights=tuple(shares),
        base=base,
        output=output,
        shards=tuple(shards(merged.tensors, limit or _limit(largest, len(base.weights.files)))),
        config=merged_config(base.folder, merged.config),
        adapter_config=None,
        notes=(*notes, *base.notes, *merged.notes),
    )


def _stack(
    inputs: Sequence[Input],
    adapters: Sequence[Adapter],
    shares: list[float],
    output: Path,
    notes: list[str],
    override: str | None,
) -> MergePlan:
    base = find_base(inputs, override)
    # Whether the adapters fit the base shows now and not when the result is loaded.
    merge_into_base(base.weights, base.config, adapters, shares)
    tensors, settings = stack_adapters(adapters, shares, inputs[0].config)
    return MergePlan(
        way="stacked adapters",
        inputs=tuple(inputs),
        weights=tuple(shares),
        base=base,
        output=output,
        shards=tuple(shards(tensors, None, stem="adapter_model")),
        config=None,
        adapter_config=settings,
        notes=(*notes, *base.notes),
    )


def _limit(largest: int, count: int) -> int:
    """The inputs' own limit: their largest file, where there are several."""
    return largest if count > 1 else max(DEFAULT_SHARD_BYTES, largest)


def _check_room(plan: MergePlan) -> None:
    needed = plan.bytes + min(LEAST_BYTES, plan.bytes)
    free = files.free_bytes(plan.output)
    if free < needed:
        raise TunebookError(
            f"no room on disk: {plan.output.parent} has {free / 2**30:.1f} GiB free, and the merge needs "
            f"{needed / 2**30:.1f} GiB",
            fix="free some space, or choose a folder on a larger disk with -o",
        )
