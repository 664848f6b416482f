"""Checks of a run's datasets: they are there, their metrics exist, and their references can be read."""

from __future__ import annotations

import difflib
import time
from itertools import islice
from typing import TYPE_CHECKING

from tunebook import metrics
from tunebook.data import rows
from tunebook.data.registry import data_files as files_of
from tunebook.data.sources import column, reference_of
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from tunebook.data.registry import Registry
    from tunebook.types import DatasetEntry, Metric

MAX_ROWS = 100_000
"""Rows of each evaluation set whose references are read."""
MAX_SECONDS = 10.0
"""Time spent on the references of each evaluation set."""


def check_datasets(
    registry: Registry, names: Iterable[str], evaluated: Collection[str], *, max_rows: int | None = None
) -> list[TunebookError]:
    """Find faults in the datasets of a run; at most one fault of each dataset's rows is reported.

    Args:
        registry: The registry that holds them.
        names: All datasets of the run.
        evaluated: Those it evaluates on. Metrics and references are checked for these only.
        max_rows: Rows that the engine takes of each (`max_samples`); None for all.
    """
    errors: list[TunebookError] = []
    for name in names:
        try:
            entry = registry.entry(name)
            _refuse_misspelt_metric(entry)
            files = files_of(entry)
            if name in evaluated:
                asked = [metric for metric, _ in metrics.load_asked(entry.metrics)]
                check_references(entry, files, asked, max_rows=min(MAX_ROWS, max_rows or MAX_ROWS))
        except TunebookError as error:
            where = f"{registry.path}: {name}"
            known = (
                error.problem.startswith((where, str(registry.path.parent))) or repr(name) in error.problem
            )
            errors.append(error if known else TunebookError(f"{where}: {error.problem}", fix=error.fix))
    return errors


def check_references(
    entry: DatasetEntry, files: Iterable[Path], asked: Collection[Metric], *, max_rows: int
) -> None:
    """Read references until one cannot be used, `max_rows` are read, or `MAX_SECONDS` are over.

    Files of a kind that `tunebook.data.rows` does not read are left to the engine.

    Raises:
        TunebookError: A row has no reference, or a metric cannot use it; names file and row.
    """
    if not asked:
        return
    mark = column(entry, "kto_tag")
    deadline = time.monotonic() + MAX_SECONDS
    references: list[str] = []
    for path in files:
        if path.suffix not in rows.READABLE:
            continue
        for number, row in enumerate(islice(rows.iter_rows(path), max_rows), 1):
            if time.monotonic() > deadline:
                return
            if mark is not None and not row.get(mark):
                continue  # a bad answer: it is compared with nothing
            try:
                references.append(reference_of(row, entry))
                for metric in asked:
                    _use(metric, references[-1])
            except TunebookError as error:
                raise TunebookError(f"{path}, row {number}: {error.problem}", fix=error.fix) from error
    if len(references) < MAX_ROWS:  # else there are more, and perhaps other classes among them
        for metric in asked:
            metrics.fit(metric, references, entry.name)


def _use(metric: Metric, reference: str) -> None:
    try:
        metric.score("", reference)
    except ValueError as err:
        raise TunebookError(
            f"{metric.name} cannot use the reference {reference[:80]!r}: {err}",
            fix=f'fix the row, or take "{metric.name}" from the dataset\'s "metric"',
        ) from err


def _refuse_misspelt_metric(entry: DatasetEntry) -> None:
    """An engine ignores keys it does not know, so a `"metrics"` would measure nothing and say nothing."""
    close = difflib.get_close_matches("metric", [key for key in entry.values if key != "metric"], cutoff=0.8)
    if close and "metric" not in entry.values:
        raise TunebookError(
            f"{entry.registry}: {entry.name}: nothing reads the key {close[0]!r}", fix='write "metric"'
        )
