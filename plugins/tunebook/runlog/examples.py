"""Reads `eval_records-<dataset>-<step>.jsonl`: every evaluated example with its verdicts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.runlog.records import Example, Note
from tunebook.runlog.tolerant_json import as_float, as_int, read_lines

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NAME = re.compile(r"eval_records-(?P<dataset>.+)-(?P<step>\d+)\.jsonl")


class Examples(NamedTuple):
    """The examples of one evaluation and what was lost of their file."""

    examples: list[Example]
    notes: list[Note]


def record_files(folder: Path) -> dict[tuple[str, int], Path]:
    """(dataset, step) -> file, of all record files in a folder."""
    found = {}
    for path in sorted(folder.glob("eval_records-*.jsonl")):
        if match := _NAME.fullmatch(path.name):
            found[match["dataset"], int(match["step"])] = path
    return found


def read_examples(path: Path, source: str) -> Examples:
    """Read one file of records; of an index that stands twice, the later line counts.

    Raises:
        OSError: The file cannot be read.
    """
    lines = read_lines(path)
    by_index: dict[int, Example] = {}
    bad = lines.bad
    for line in lines.objects:
        example = _from_line(line, source)
        if example is None:
            bad += 1
        else:
            by_index[example.index] = example
    notes = (
        [Note(kind="lost", file=source, message=f"{bad} records are damaged and were left out")]
        if bad
        else []
    )
    return Examples([by_index[index] for index in sorted(by_index)], notes)


def _from_line(line: Mapping[str, Any], source: str) -> Example | None:
    index, step, scores = as_int(line.get("index")), as_int(line.get("step")), line.get("scores")
    texts = [line.get(key) for key in ("dataset", "prompt", "prediction", "reference")]
    if index is None or step is None or not isinstance(scores, dict):
        return None
    if not all(isinstance(text, str) for text in texts):
        return None
    dataset, prompt, prediction, reference = map(str, texts)
    return Example(
        dataset=dataset,
        step=step,
        index=index,
        prompt=prompt,
        prediction=prediction,
        reference=reference,
        mode=str(line.get("mode", "")),
        scores={str(name): score for name, score in scores.items() if isinstance(score, dict)},
        margin=as_float(line.get("margin")),
        answer_cut=line.get("answer_cut") is True,
        source=source,
        reference_tokens=as_int(line.get("reference_tokens")),
    )
