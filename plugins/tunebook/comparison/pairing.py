"""Finds the datasets that two sides share, and matches their rows; refuses rows that are not the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tunebook import metrics
from tunebook.comparison.disagreements import read_texts
from tunebook.comparison.rows import Columns, find_predictions, read_answered_rows
from tunebook.comparison.tables import match, read_tables
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from tunebook.comparison.rows import PredictionSource
    from tunebook.comparison.tables import Matched, Table
    from tunebook.types import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRequest:
    """What to compare, as the command line asks for it."""

    first: str
    second: str
    metric: str | None = None
    """None: those that the records of both hold."""
    datasets: tuple[str, ...] = ()
    """Empty for all that both have."""
    first_columns: Columns = field(default_factory=Columns)
    second_columns: Columns = field(default_factory=Columns)
    prompts_may_differ: bool = False
    require: tuple[str, ...] = ()
    """What the second has to reach, as `gate` reads it."""


class DatasetFiles(NamedTuple):
    """The two files of one dataset."""

    dataset: str | None
    """None for files whose rows name their own datasets, or have none."""
    first: Path
    second: Path


class Method(NamedTuple):
    """How the rows of a dataset are judged."""

    metrics: list[Metric]
    recorded: bool
    """By the verdicts that both runs wrote down; else now, from the texts."""


class Paired(NamedTuple):
    """One dataset's rows, matched."""

    dataset: str
    part: DatasetFiles
    first_name: str | None
    """What the first file calls the dataset; None where it holds no other."""
    second_name: str | None
    matched: Matched
    tables: tuple[Table, Table]
    method: Method


def input_bytes(request: ComparisonRequest) -> int:
    """Bytes of the files that `compare` will read.

    Raises:
        TunebookError: A side is not there.
    """
    parts = _parts(find_predictions(request.first), find_predictions(request.second), request.datasets)
    return sum(path.stat().st_size for part in parts for path in (part.first, part.second))


def _parts(first: PredictionSource, second: PredictionSource, datasets: Sequence[str]) -> list[DatasetFiles]:
    one, other = first.files, second.files
    if None in one and None in other:
        return [DatasetFiles(None, one[None], other[None])]
    if None in one or None in other:
        named = {name: path for name, path in (other if None in one else one).items() if name is not None}
        wanted = [name for name in named if not datasets or name in datasets]
        if len(wanted) != 1:
            raise TunebookError(
                f"a file can be compared with one dataset of a run; the run has {', '.join(named)}",
                fix="choose it with --dataset",
            )
        name = wanted[0]
        return [DatasetFiles(name, one.get(None) or named[name], other.get(None) or named[name])]
    shared = [name for name in one if name in other and (not datasets or name in datasets)]
    if not shared:
        raise TunebookError(
            f"{first.given} has records of {_list(one)}; {second.given} of {_list(other)}"
            + (f"; --dataset asks for {', '.join(datasets)}" if datasets else ""),
            fix="name two that were evaluated on the same dataset",
        )
    return [DatasetFiles(name, one[name], other[name]) for name in shared]


def _list(names: Iterable[str | None]) -> str:
    return ", ".join(str(name) for name in names)


def _method(request: ComparisonRequest, part: DatasetFiles) -> Method:
    """The metrics to compare by, and whether both sides wrote their verdicts down."""
    recorded = [
        list(next(read_answered_rows(path, columns)).scores)
        for path, columns in ((part.first, request.first_columns), (part.second, request.second_columns))
    ]
    in_both = [name for name in recorded[0] if name in recorded[1]]
    if request.metric is not None:
        wanted = metrics.load(request.metric)
        if wanted.fit is None:
            return Method([wanted], request.metric in in_both)
        # Records name the metric with the labels that it found.
        for name in in_both:
            if name.partition("{")[0] == wanted.short_name:
                return Method([metrics.load(name)], True)
        references = [
            row.reference
            for path, columns in ((part.first, request.first_columns), (part.second, request.second_columns))
            for row in read_answered_rows(path, columns)
        ]
        return Method([metrics.fit(wanted, references, str(part.first))], False)
    if in_both:
        return Method([metrics.load(name) for name in in_both], True)
    on_one_side = recorded[0] or recorded[1]
    if not on_one_side:
        raise TunebookError(
            f"{part.first} and {part.second} do not say by which metric they are judged",
            fix=f"name one with --metric: {', '.join(sorted(metrics.names()))}, or package.module:function",
        )
    return Method([metrics.load(name) for name in on_one_side], False)


def pair_rows(
    request: ComparisonRequest,
    first: PredictionSource,
    second: PredictionSource,
    on_bytes: Callable[[int], None] | None,
) -> list[Paired]:
    """Read both sides and match the rows of each dataset that they share.

    Raises:
        TunebookError: A file cannot be read, the two share no dataset or no row, or matched rows have other
            references or prompts.
    """
    found, done = [], 0
    for part in _parts(first, second, request.datasets):
        method = _method(request, part)
        sides = []
        for path, columns in ((part.first, request.first_columns), (part.second, request.second_columns)):
            report = _after(done, on_bytes) if on_bytes else None
            sides.append(
                read_tables(path, columns, method.metrics, recorded=method.recorded, on_bytes=report)
            )
            done += path.stat().st_size
        for dataset, (one, other) in _shared(part, sides[0], sides[1], request.datasets).items():
            matched = match(sides[0][one], sides[1][other])
            paired = Paired(
                dataset,
                part,
                one if len(sides[0]) > 1 else None,
                other if len(sides[1]) > 1 else None,
                matched,
                (sides[0][one], sides[1][other]),
                method,
            )
            _refuse_other_rows(request, paired)
            found.append(paired)
    return found


def _after(before: int, on_bytes: Callable[[int], None]) -> Callable[[int], None]:
    return lambda read: on_bytes(before + read)


def _shared(
    part: DatasetFiles, first: dict[str, Table], second: dict[str, Table], datasets: Sequence[str]
) -> dict[str, tuple[str, str]]:
    """Dataset -> what either side calls it. A side that names no dataset goes with any single one."""
    shared = {name: (name, name) for name in first if name in second}
    if not shared and len(first) == len(second) == 1:
        (one,), (other,) = first, second
        if not (one and other):
            shared = {one or other: (one, other)}
    asked = {name: both for name, both in shared.items() if not datasets or not name or name in datasets}
    if not asked:
        names = [", ".join(name or "none" for name in side) for side in (first, second)]
        raise TunebookError(
            f"{part.first} holds rows of the dataset {names[0]}; {part.second} of {names[1]}",
            fix="name two that were evaluated on the same dataset",
        )
    return asked


def _refuse_other_rows(request: ComparisonRequest, one: Paired) -> None:
    matched, where = one.matched, f" of {one.dataset}" if one.dataset else ""
    if not len(matched.index):
        raise TunebookError(
            f"{one.part.first} and {one.part.second} have no row{where} in common",
            fix="compare models that answered the same rows; rows go by `index`, else by their place",
        )
    for what, other in (("reference", matched.other_references), ("prompt", matched.other_prompts)):
        if not len(other) or (what == "prompt" and request.prompts_may_differ):
            continue
        index = int(other[0])
        texts = [
            getattr(read_texts(path, columns, name, {index}, cut_prompts=False)[index], what)
            for path, columns, name in (
                (one.part.first, request.first_columns, one.first_name),
                (one.part.second, request.second_columns, one.second_name),
            )
        ]
        raise TunebookError(
            f"row {index}{where} has another {what} in {one.part.second} than in {one.part.first}: "
            f"{_where_they_part(*texts)}"
            + (f"; so have {len(other) - 1:,} more of {len(matched.index):,} rows" if len(other) > 1 else ""),
            fix="compare models that answered the same rows"
            + (", or allow other prompts with --prompts-may-differ" if what == "prompt" else ""),
        )


def _where_they_part(first: str, second: str) -> str:
    same = next((at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    start = max(0, (min(len(first), len(second)) if same is None else same) - 20)
    return f"{second[start : start + 60]!r} for {first[start : start + 60]!r}"
