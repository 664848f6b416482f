"""What a merge writes about itself: `tunebook_merge.json` and the model card."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tunebook import __version__
from tunebook.redact import redact

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tunebook.merging.inputs import Input
    from tunebook.merging.plan import MergePlan
    from tunebook.merging.tensors import Weights

FILE = "tunebook_merge.json"
FORMAT = 2
"""It rises when a key changes its meaning or goes."""

_SUMMARY = (
    *(
        "stage",
        "finetuning_type",
        "adapter",
        "dataset",
        "datasets",
        "template",
        "chat_template",
        "enable_thinking",
    ),
    *("cutoff_len", "sequence_len", "lora_rank", "lora_alpha", "lora_r", "lora_target", "lora_target_linear"),
    *("learning_rate", "num_train_epochs", "num_epochs", "max_steps", "per_device_train_batch_size"),
    *("micro_batch_size", "gradient_accumulation_steps", "quantization_bit", "load_in_4bit", "seed"),
)


def record(
    plan: MergePlan,
    notes: list[str],
    parity: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what `tunebook_merge.json` holds, secrets taken out.

    Args:
        plan: What was done.
        notes: What the reader should know.
        parity: The result of the check; None where it was left out.
    """
    found = {
        "format": FORMAT,
        "tunebook": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "way": plan.way,
        "what": plan.what,
        "inputs": [_input(given, weight) for given, weight in zip(plan.inputs, plan.weights, strict=True)],
        "base": plan.base
        and {"name": plan.base.name, "folder": str(plan.base.folder), "files": _files(plan.base.weights)},
        "output_bytes": plan.bytes,
        "notes": notes,
        "parity": parity and dict(parity),
    }
    return dict(redact(found))


def card(found: Mapping[str, Any], *, adapter: bool) -> str:
    """Return the model card, `README.md`, of what `record` returned."""
    base = found["base"]
    head = ["---", f"library_name: {'peft' if adapter else 'transformers'}"]
    if base:
        head.append(f"base_model: {json.dumps(base['name'])}")
    head += ["tags:", "- tunebook", "- merge", "---"]
    lines = [
        *head,
        "",
        "# Merged with tunebook",
        "",
        f"{found['what'][0].upper()}{found['what'][1:]} (tunebook {found['tunebook']}, {found['made']}).",
        "",
        "| input | weight | step | which | size | SHA-256 of the headers |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{given['name']}` ({given['kind']}) | {given['weight']:.6g} | {given['step'] or '-'} | "
        f"{given['chosen']} | {_size(given['files'])} | {_hashes(given['files'])} |"
        for given in found["inputs"]
    ]
    if base:
        lines.append(
            f"| `{base['name']}` (base) | - | - | - | {_size(base['files'])} | {_hashes(base['files'])} |"
        )
    lines += [
        "",
        "A header names all tensors with their types, shapes and places; values are not hashed.",
        "",
    ]
    for given in found["inputs"]:
        if given["recipe"]:
            settings = ", ".join(f"{key} {value}" for key, value in given["recipe"].items())
            lines += [f"- `{given['name']}` was trained with {given['engine']}: {settings}"]
    lines += [f"- {note}" for note in found["notes"]]
    lines += ["", "## Check", "", *_parity(found["parity"]), ""]
    return "\n".join(lines)


def _parity(parity: Mapping[str, Any] | None) -> list[str]:
    if parity is None:
        return ["Not checked (`--no-check`)."]
    return [str(line) for line in parity["lines"]]


def _input(given: Input, weight: float) -> dict[str, Any]:
    recipe = {key: given.origin.recipe[key] for key in _SUMMARY if given.origin.recipe.get(key) is not None}
    return {
        "name": given.argument,
        "folder": str(given.folder),
        "kind": given.kind,
        "weight": weight,
        "step": given.step,
        "chosen": given.chosen,
        "engine": given.origin.engine,
        "recipe": recipe,
        "files": _files(given.weights),
    }


def _files(weights: Weights) -> list[dict[str, Any]]:
    return [
        {"name": file.path.name, "bytes": file.bytes, "header_sha256": file.header_sha256}
        for file in weights.files
    ]


def _size(found: list[dict[str, Any]]) -> str:
    total: int = sum(file["bytes"] for file in found)
    return f"{total / 1e9:.2f} GB" if total >= 1e8 else f"{total / 1e6:.2f} MB"


def _hashes(found: list[dict[str, Any]]) -> str:
    shown = [f"{file['header_sha256'][:16]}" for file in found[:3]]
    return ", ".join(shown) + (f", {len(found) - 3} more" if len(found) > 3 else "")


def write(folder: Path, found: Mapping[str, Any], *, adapter: bool) -> None:
    """Write both files into the folder of the result."""
    from tunebook import files

    files.write_json(folder / FILE, dict(found))
    files.write_atomic(folder / "README.md", card(found, adapter=adapter))
