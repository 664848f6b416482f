"""Carries out a plan: makes the files in a hidden folder, checks them, and then gives them their name."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import files, paths
from tunebook.errors import TunebookError
from tunebook.merging import record
from tunebook.merging.output import copy_files, refuse_existing, shard_index, tensors_job, write_contract
from tunebook.runs import processes
from tunebook.types import Command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tunebook.merging.plan import MergePlan
    from tunebook.types import EngineName


_LOCK = ".lock"
TIMES_ROUNDING = 4.0
"""How many times the effect of rounding the logits may be off."""
LEAST_SHARE = 2.0**-14
"""Of the largest logit: what the order of fp32 sums may cost, where weights are not rounded at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeResult:
    """What a merge has made."""

    folder: Path
    """The output, or `<output>.failed` where the check failed."""
    record: dict[str, Any]
    """As in `tunebook_merge.json`."""
    ok: bool


def merge(plan: MergePlan, *, environment: Path, check: bool) -> MergeResult:
    """Make the output of a plan.

    Until it is complete and checked it is in a hidden folder beside the output. The next merge into the same
    output removes what a killed one has left there.

    Args:
        plan: From `plan_merge`.
        environment: The virtual environment whose torch, transformers and peft are used.
        check: Whether logits of the result are compared with those of its inputs.

    Raises:
        TunebookError: The tensors could not be made; nothing is left.
        KeyboardInterrupt: It was interrupted; nothing is left.
    """
    with _hidden_folder(plan.output) as (scratch, made):
        _run("tunebook.hooks.merge", tensors_job(plan.shards, str(made)), scratch, environment)
        notes = [*plan.notes, *_beside_the_weights(plan, made)]
        found = None
        if check:
            found = _checked(plan, made, scratch, environment)
        recorded = record.record(plan, notes, found)
        record.write(made, recorded, adapter=plan.adapter_config is not None)
        ok = found is None or found["ok"]
        target = plan.output if ok else _unused(plan.output.with_name(f"{plan.output.name}.failed"))
        refuse_existing(target)
        made.rename(target)
        return MergeResult(folder=target, record=recorded, ok=ok)


def find_environment(plan: MergePlan, engine: EngineName | None) -> Path:
    """Return the environment to work in: the one asked for, that of the inputs' engine, or any there is.

    Raises:
        TunebookError: There is none.
    """
    trained = next((given.origin.engine for given in plan.inputs if given.origin.engine), None)
    if engine or trained:
        return paths.engine_environment(engine or trained or "llamafactory")
    try:
        return paths.engine_environment("llamafactory")
    except TunebookError:
        return paths.engine_environment("axolotl")


def _beside_the_weights(plan: MergePlan, made: Path) -> list[str]:
    index = shard_index(plan.shards)
    if index is not None:
        files.write_json(made / "model.safetensors.index.json", index)
    if plan.adapter_config is not None:
        files.write_json(made / "adapter_config.json", plan.adapter_config)
    first = plan.inputs[0]
    if first.origin.contract is not None:
        write_contract(made, first.origin.contract, plan.adapter_config)
    return copy_files(
        made, trained=first.folder, base=plan.base.folder if plan.base else None, config=plan.config
    )


def _checked(plan: MergePlan, made: Path, scratch: Path, environment: Path) -> dict[str, Any]:
    answer = scratch / "parity.json"
    try:
        _run("tunebook.hooks.merge_parity", check_job(plan, made, answer), scratch, environment)
        return verdict(json.loads(answer.read_text(encoding="utf-8")))
    except TunebookError as error:
        return {"ok": False, "lines": [f"The check could not be made: {error.problem}"], "figures": None}


def _run(module: str, job: dict[str, Any], scratch: Path, environment: Path) -> None:
    file, log = scratch / "job.json", scratch / "log"
    files.write_json(file, job)
    # Only the progress bar is for the user's eyes: what libraries print is kept for the case of failure.
    shell = ("sh", "-c", 'log=$1; shift; exec "$@" 3>&2 >"$log" 2>&1', "sh", str(log))
    ended = processes.run(
        Command(
            argv=(*shell, str(environment / "bin" / "python"), "-P", "-m", module, str(file)),
            env={
                "TUNEBOOK_PROGRESS_FD": "3",
                "TUNEBOOK_HOOK": "0",
                "HF_HUB_OFFLINE": "1",
                "TOKENIZERS_PARALLELISM": "false",
            },
        )
    )
    if ended.stopped_by:
        raise KeyboardInterrupt
    if ended.code:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-6:])
        raise TunebookError(
            f"{module} {ended.how} in {environment}; it said last:\n{tail}",
            fix="if memory or disk ran out, free some; else report this with the lines above",
        )


@contextmanager
def _hidden_folder(output: Path) -> Iterator[tuple[Path, Path]]:
    """A hidden folder beside the output: one for scratch, and in it the folder to be renamed."""
    output.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{output.name}.merging-"
    for left in output.parent.glob(f"{prefix}*"):
        _remove_if_left(left)
    scratch = output.parent / f"{prefix}{os.getpid()}"
    made = scratch / "made"
    made.mkdir(parents=True)
    with (scratch / _LOCK).open("w") as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield scratch, made
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    """Remove what a killed merge left; one that is still at work holds the lock."""
    with suppress(OSError), (folder / _LOCK).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def _unused(path: Path) -> Path:
    number, target = 1, path
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}-{number}")
    return target


def check_job(plan: MergePlan, made: Path, answer: Path) -> dict[str, Any]:
    """The job of `tunebook.hooks.merge_parity`: what the check after a merge compares."""
    return {
        "answer": str(answer),
        "made": str(made),
        "made_is_adapter": plan.adapter_config is not None,
        "base": str(plan.base.folder) if plan.base else None,
        "inputs": [
            {"folder": str(given.folder.absolute()), "weight": weight}
            for given, weight in zip(plan.inputs, plan.weights, strict=True)
        ],
        "reference": _reference(plan),
        "changed": {tensor.name: tensor.dtype for tensor in plan.tensors if not tensor.is_copy},
    }


def _reference(plan: MergePlan) -> str:
    """`logits`, where the inputs can be computed with as they are; else `tensors`, or `none`."""
    if plan.way == "averaged models":
        return "tensors"
    if len(plan.inputs) == 1:
        return "logits"
    # PEFT adds the changes of several LoRA adapters; of DoRA's, and of replaced tensors, it takes one.
    simple = all(
        "lora_" in name and "magnitude" not in name and "base_layer" not in name
        for given in plan.inputs
        for name in given.weights.tensors
    )
    return "logits" if simple else "none"


def verdict(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Judge the figures of `tunebook.hooks.merge_parity`.

    Returns:
        `ok`, `lines` for the reader, and the `figures` themselves.
    """
    if not figures["finite"]:
        return _result(figures, False, ["The merged model gives infinite or NaN logits."])
    if "tensors" in figures:
        return _tensors(figures)
    if "difference" not in figures:
        return _result(
            figures,
            True,
            [
                "The merged model loads and its logits are finite.",
                "They are not compared: PEFT cannot compute with several of these adapters at once.",
            ],
        )
    rounding, least = TIMES_ROUNDING * figures["rounding"], LEAST_SHARE * figures["largest_logit"]
    tolerance = max(rounding, least)
    why = (
        f"{TIMES_ROUNDING:g} x the effect of rounding the merged weights to {'/'.join(figures['dtypes'])}"
        if rounding >= least
        else "2^-14 of the largest logit, for the order of fp32 sums"
    )
    ok = figures["difference"] <= tolerance
    where = f"{figures['prompts']} prompts ({figures['positions']} positions)"
    judged = f"{'within' if ok else 'ABOVE'} the tolerance of {tolerance:.3g}, {why}"
    mean, most = figures["kl_mean"], figures["kl_max"]
    lines = [
        f"Logits before and after the merge, both computed in fp32, on {where}:",
        f"largest difference {figures['difference']:.3g}, {judged};",
        f"KL divergence {mean:.3g} on average and {most:.3g} at most;",
        f"the likeliest token is the same at {figures['top1']:.2%} of the positions.",
    ]
    effect = figures.get("effect")
    if effect is not None:
        line = f"The adapter itself moves the logits by up to {effect:.3g}."
        if effect <= tolerance:
            line += " That is within the tolerance: this check cannot tell whether it was merged."
        lines.append(line)
    return {**_result(figures, ok, lines), "tolerance": tolerance}


def _tensors(figures: Mapping[str, Any]) -> dict[str, Any]:
    found = figures["tensors"]
    ok = not found["off"]
    lines = [
        f"{found['rows']} rows of {found['count']} tensors were averaged again in double precision: "
        + (
            "all are equal after rounding."
            if ok
            else f"{len(found['off'])} tensors are NOT equal: {', '.join(found['off'][:3])}."
        ),
        "The result loads and its logits are finite. An average has no logits to compare with.",
    ]
    return _result(figures, ok, lines)


def _result(figures: Mapping[str, Any], ok: bool, lines: list[str]) -> dict[str, Any]:
    return {"ok": ok, "lines": lines, "figures": dict(figures)}
