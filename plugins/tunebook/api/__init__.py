"""tunebook from Python: what the commands find, as records and tables.

Everything here is what a command does, without printing: `from tunebook.api import read_run, compare`. A
`TunebookError` says what is wrong and what ends it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import metrics, paths
from tunebook.errors import TunebookError
from tunebook.runlog.folder import read_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from tunebook.checks.findings import CheckResult
    from tunebook.comparison.records import Comparison
    from tunebook.runlog.records import RunLog
    from tunebook.scoring.score import Summary

__all__ = ["check", "compare", "frame", "read_run", "report", "runs", "score"]


def runs(folder: Path | str = "output") -> list[RunLog]:
    """Read every run below a folder; those that cannot be read are left out.

    Raises:
        TunebookError: There is no such folder.
    """
    from tunebook.runs.live import find_runs

    root = Path(folder)
    if not root.is_dir():
        raise TunebookError(f"there is no folder {root}", fix="name the folder that your runs are below")
    found = []
    for place in find_runs(root):
        try:
            found.append(read_run(place))
        except TunebookError:
            continue
    return found


def frame(run: RunLog) -> pd.DataFrame:
    """Return everything a run has logged: a row an optimizer step, a column a quantity, NaN where none was.

    Raises:
        TunebookError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise TunebookError(
            "a table needs pandas, which is not installed", fix="pip install pandas"
        ) from error
    columns = {name: pd.Series(one.values, index=one.steps) for name, one in run.series.items()}
    table = pd.DataFrame(columns)
    table.index.name = "step"
    return table


def score(
    metric: str, predictions: Path | str | Sequence[str], references: Sequence[str] | None = None
) -> Summary:
    """Score predictions with one metric; see `tunebook score`.

    Args:
        metric: Its name, with options of its own as JSON after it.
        predictions: A file, or the texts themselves.
        references: As many texts; None for a file, which holds them.

    Raises:
        TunebookError: The metric, the file or a reference cannot be used.
    """
    from tunebook.scoring.prediction_files import PredictionRow, read_predictions
    from tunebook.scoring.score import Collector, score_rows

    rows: list[PredictionRow]
    if references is not None:
        if isinstance(predictions, str | Path) or len(predictions) != len(references):
            raise TunebookError(
                "predictions and references are not as many texts", fix="give two lists of the same length"
            )
        pairs = zip(predictions, references, strict=True)
        rows = [PredictionRow(number, said, wanted) for number, (said, wanted) in enumerate(pairs)]
    elif isinstance(predictions, str | Path):
        rows = list(read_predictions(Path(predictions)))
    else:
        raise TunebookError("there are no references", fix="give them as the third argument")
    loaded = metrics.fit(metrics.load(metric), [row.reference for row in rows], "the references")
    collector = Collector(loaded)
    for scored in score_rows(loaded.name, rows):
        collector.add(scored.score)
    return collector.summary()


def compare(
    first: Path | str, second: Path | str, *, metric: str | None = None, require: Sequence[str] = ()
) -> Comparison:
    """Compare two runs, results or files of predictions on shared rows; see `tunebook compare`.

    Raises:
        TunebookError: A side cannot be read, they share no rows, or a requirement is none.
    """
    from tunebook.comparison.compare import compare as compared
    from tunebook.comparison.pairing import ComparisonRequest

    return compared(
        ComparisonRequest(first=str(first), second=str(second), metric=metric, require=tuple(require))
    )


def check(recipe: Path | str, *, overlays: Sequence[str] = (), overrides: Sequence[str] = ()) -> CheckResult:
    """Find the faults of a recipe without starting an engine; see `tunebook check`.

    Raises:
        TunebookError: There is no such recipe or overlay.
    """
    from tunebook.checks.run import check_recipe

    return check_recipe(str(recipe), paths.home(), overlays, overrides).result


def report(folders: Iterable[Path | str] | Path | str, output: Path | str) -> Path:
    """Write the report of one or several runs into a folder; return its page.

    Raises:
        TunebookError: A run cannot be read, or the folder cannot be written.
    """
    from tunebook.report.data import gather
    from tunebook.report.render import render, write_report

    given: list[Any] = [folders] if isinstance(folders, str | Path) else list(folders)
    write_report(render(gather([Path(one) for one in given])), Path(output))
    return Path(output) / "report.html"
