"""What an evaluation leaves behind: a line on the terminal, a line of figures, a file of examples."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunebook.files import append_jsonl, write_atomic
from tunebook.types import EvalRecord

FOLDER = "tunebook"
"""Folder below the engine's output_dir that holds what tunebook leaves."""


def say(line: str) -> None:
    """Print one line, on the first rank only, without tearing the engine's progress bar."""
    from tqdm import tqdm

    # By torchrun's variable: some lines are said before the engine has its process group.
    if os.environ.get("RANK", "0") == "0":
        tqdm.write(f"[tunebook] {line}")


def append_figures(output_dir: Path, figures: Mapping[str, Any]) -> None:
    """Append one evaluation to `eval_metrics.jsonl`."""
    append_jsonl(output_dir / FOLDER / "eval_metrics.jsonl", figures)


def write_records(output_dir: Path, dataset: str, step: int, records: Iterable[EvalRecord]) -> None:
    """Write `eval_records-<dataset>-<step>.jsonl`, whole or not at all."""
    lines = "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)
    write_atomic(output_dir / FOLDER / f"eval_records-{dataset}-{step}.jsonl", lines)


def headline(
    figures: Mapping[str, float], stderr: Mapping[str, float], lead: Iterable[str], n: int, seconds: float
) -> str:
    """The line a person reads while training: the figures to lead with, then what qualifies them."""
    parts = []
    for name in dict.fromkeys(lead):
        if name in figures:
            error = f" ± {stderr[name]:.3f}" if stderr.get(name) else ""
            parts.append(f"{name} {figures[name]:.4f}{error}")
    if "majority_accuracy" in figures:
        parts.append(f"majority {figures['majority_accuracy']:.3f}")
    if figures.get("unparsed_rate"):
        parts.append(f"unparsed {figures['unparsed_rate']:.1%}")
    return ", ".join([*parts, f"n {n}", f"{seconds:.1f} s"])
