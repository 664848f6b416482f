"""What the check after a merge compares, and how its figures are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tunebook.merging.plan import MergePlan

TIMES_ROUNDING = 4.0
"""How many times the effect of rounding the logits may be off."""
LEAST_SHARE = 2.0**-14
"""Of the largest logit: what the order of fp32 sums may cost, where weights are not rounded at all."""


def job(plan: MergePlan, made: Path, answer: Path) -> dict[str, Any]:
    """What `tunebook.hooks.merge_parity` is told."""
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
        told = f"The adapter itself moves the logits by up to {effect:.3g}."
        if effect <= tolerance:
            told += " That is within the tolerance: this check cannot tell whether it was merged."
        lines.append(told)
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
        "The result loads and its logits are finite. An average has no logits to be compared with.",
    ]
    return _result(figures, ok, lines)


def _result(figures: Mapping[str, Any], ok: bool, lines: list[str]) -> dict[str, Any]:
    return {"ok": ok, "lines": lines, "figures": dict(figures)}
