"""All runs below a folder: a row for each, kept until its run changes, and a page for each."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook import __version__
from tunebook.errors import TunebookError
from tunebook.files import write_atomic
from tunebook.redact import redact, redact_text
from tunebook.report import figures
from tunebook.report.compare import same_of
from tunebook.report.data import gather, report_of
from tunebook.report.eval_results import FOLDER as RESULTS
from tunebook.report.eval_results import with_results
from tunebook.report.facts import fact
from tunebook.report.lines import thinned
from tunebook.report.records import STEPS, Chart, ConfidenceInterval, Line, Live, MeasuredFigure
from tunebook.report.render import render_index, render_one_of_all
from tunebook.report.watch import fingerprint, update_report
from tunebook.runlog import read_run
from tunebook.runlog.runs_below import runs_below
from tunebook.runs import live
from tunebook.text import without_controls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tunebook.report.records import Report, RunReport
    from tunebook.runlog import RunLog
    from tunebook.runlog.runs_below import FoundRun

FORMAT = 1
MARK = "index.json"
"""The file by which a folder is known as one of ours; rows are kept in it."""
PAGE = "index.html"
COMPARED = 10
"""Runs of a comparison, the best: so many are tested in pairs."""
_POINTS = 120
"""Of each curve of the page of all runs."""
_SPARK_POINTS = 60
_WRITING = 600
"""Seconds since a file was written, within which a run that shows no state is taken to go on."""
_BACK = f"../../{PAGE}"
_ENDED = frozenset({"finished", "failed", "stopped", "killed", "broke off", "cannot be read"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run among all; None is not known."""

    id: str
    """Its folder among the pages, the same each time."""
    name: str
    """Its path below the folder."""
    path: str
    seen: str
    """A hash of times and sizes of its files: while it stays, the run is not read again."""
    written: str
    """When the last of its files was written. ISO 8601, UTC."""
    state: str
    """As `tunebook status` says it; else `broke off`, `finished`, `writing`, `cannot be read`."""
    detail: str
    """Of the state, in words."""
    page: str | None = None
    """Its report, below the folder of the index."""
    started: str | None = None
    engine: str | None = None
    model: str | None = None
    method: str | None = None
    trained_on: str | None = None
    steps: str | None = None
    figure: MeasuredFigure | None = None
    """The headline."""
    baseline: float | None = None
    """Accuracy of always giving the commonest answer, beside an accuracy."""
    ranked_with: str | None = None
    """Equal for runs whose figures may be ranked; None of a run without a figure that may."""
    verdicts: tuple[str, ...] = ()
    """Of the recipe's claims."""
    seconds: float | None = None
    problems: int = 0
    """Findings that are problems."""
    spark: tuple[tuple[int, float], ...] = ()
    """Step and value of the headline's figure, else of the loss."""
    spark_of: str = ""
    charts: tuple[Chart, ...] = field(default=())
    """Thinned; of the loss and of the metrics."""


class Compared(NamedTuple):
    """A page that compares the runs of one figure on one set."""

    title: str
    page: str | None
    """None where it could not be made."""
    runs: tuple[str, ...]
    """Names, the best first."""
    of: int
    """Runs with that figure on that set: more than are compared where there are many."""
    seen: str
    reason: str | None = None
    """Why there is no page."""


class Read(NamedTuple):
    """What one look at the runs found."""

    rows: tuple[RunRow, ...]
    """The newest first."""
    compared: tuple[Compared, ...]
    read: int
    """Runs that were read; the others were known."""


class Index:
    """The page of all runs below a folder.

    Args:
        root: The folder.
        output: Where the page and the runs' own pages are written.
        advance: Called with how many of how many runs have been looked at.

    Raises:
        TunebookError: `output` holds a page of that name that is not ours.
    """

    def __init__(
        self, root: Path, output: Path, *, advance: Callable[[int, int], None] | None = None
    ) -> None:
        self.root = root.resolve()
        self.title = f"All runs below {root}"
        self.output = output
        self.advance = advance or (lambda *_: None)
        self._refuse_foreign()
        self.kept, self.compared = self._load()

    def look(self, *, every: float | None = None, now: datetime | None = None) -> Read:
        """Read the runs that have changed, write their pages, then the index.

        Args:
            every: Seconds between two looks, for the page to know; None where this is the only one.
            now: The time; None for the clock's.

        Raises:
            TunebookError: The pages cannot be written, or no run is there and none is waited for.
        """
        now = now or datetime.now(UTC)
        found = runs_below(self.root, without=self.output)
        rows: list[RunRow] = []
        read = 0
        for done, run in enumerate(found):
            self.advance(done, len(found))
            row, was_read = self._row(run, now)
            read += was_read
            rows += [row] if row else []
        self.advance(len(found), len(found))
        if not rows and every is None:
            raise TunebookError(
                f"no run lies below {self.root}",
                fix="name a folder below which output_dirs of runs lie",
            )
        rows.sort(key=lambda row: row.started or row.written, reverse=True)
        compared = [self._compare(group) for group in _groups(rows)]
        self.kept = {row.id: row for row in rows}
        self.compared = {one.page: one for one in compared if one.page}
        self._write(rows, compared, every, now)
        return Read(tuple(rows), tuple(compared), read)

    def _refuse_foreign(self) -> None:
        if (self.output / PAGE).exists() and not (self.output / MARK).is_file():
            raise TunebookError(
                f"{self.output / PAGE} is not ours, and would be lost",
                fix="name another folder with -o",
            )

    def _load(self) -> tuple[dict[str, RunRow], dict[str, Compared]]:
        """What was known the last time; nothing of another version or a damaged file."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            values = json.loads((self.output / MARK).read_bytes())
            if (values["format"], values["made_by"]) == (FORMAT, _made_by()):
                rows = {row["id"]: _row_of(row) for row in values["runs"]}
                return rows, {
                    one["page"]: Compared(**one | {"runs": tuple(one["runs"])})
                    for one in values["compared"]
                    if one["page"]
                }
        return {}, {}

    def _row(self, run: FoundRun, now: datetime) -> tuple[RunRow | None, bool]:
        """The row of a run, and whether it was read anew; no row of logs that hold no run."""
        written_at = fingerprint([run.path, run.path.parent / RESULTS], without=self.output)
        seen = hashlib.sha256(repr(sorted(written_at.items())).encode()).hexdigest()[:24]
        own = [time for name, (time, _) in written_at.items() if Path(name).is_relative_to(run.path)]
        written = datetime.fromtimestamp(max(own, default=0) / 1e9, UTC)
        path = str(run.path)
        name = str(run.path.relative_to(self.root))
        name = without_controls(redact_text(self.root.name if name == "." else name))
        run_id = _slug(name, path)
        kept = self.kept.get(run_id)
        if kept and kept.seen == seen and (kept.page is None or (self.output / kept.page).is_file()):
            kept = replace(kept, path=path)  # What was written has no secrets, not even in paths.
            return (kept if kept.state in _ENDED else _with_state(kept, None, written, now)), False
        bare = RunRow(
            id=run_id,
            name=name,
            path=path,
            seen=seen,
            written=written.isoformat(timespec="seconds"),
            state="cannot be read",
            detail="",
        )
        try:
            log = with_results(read_run(run.path), [])
            report = report_of([log], now)
            files = render_one_of_all(report, back=_BACK)
        except TunebookError as error:
            if not run.sure:
                return None, True
            state = _state(run.path)
            why = error.problem.removeprefix(f"{path} ")
            bare = replace(bare, detail=without_controls(redact_text(why)))
            return (replace(bare, state=state.life) if state and state.life != "unknown" else bare), True
        except Exception as error:  # noqa: BLE001 - one run that we cannot read must not cost all the others
            return replace(bare, detail=_fault(error)), True
        page = f"runs/{run_id}/report.html"
        update_report(files, (self.output / page).parent, whole=True)
        return _with_state(_told(replace(bare, page=page), log, report), log, written, now), True

    def _compare(self, group: Sequence[RunRow]) -> Compared:
        """The comparison of the best runs of a group, made again where one of them has changed."""
        first = group[0].figure
        assert first is not None
        best = sorted(group, key=lambda row: _worth(row.figure), reverse=True)[:COMPARED]
        _, dataset, model, _ = json.loads(str(group[0].ranked_with))
        title = f"{first.label} on {dataset}" + (f", {model}" if model else "")
        page = f"compare/{_slug(title, str(group[0].ranked_with))}/report.html"
        seen = hashlib.sha256("".join(row.path + row.seen for row in best).encode()).hexdigest()[:24]
        made = Compared(title, page, tuple(row.name for row in best), len(group), seen)
        kept = self.compared.get(page)
        if kept is None or kept.seen != seen or not (self.output / page).is_file():
            try:
                files = render_one_of_all(gather([Path(row.path) for row in best]), back=_BACK)
            except Exception as error:  # noqa: BLE001 - as of one run; it may also have gone since it was read
                return made._replace(page=None, reason=_fault(error))
            update_report(files, (self.output / page).parent, whole=True)
        return made

    def _write(
        self, rows: Sequence[RunRow], compared: Sequence[Compared], every: float | None, now: datetime
    ) -> None:
        made_at = now.astimezone(UTC).isoformat(timespec="seconds")
        going = tuple(row.name for row in rows if row.state in ("running", "writing"))
        data = {
            "format": FORMAT,
            "made_by": _made_by(),
            "made_at": made_at,
            "title": without_controls(redact_text(self.title)),
            "headline": _headline(rows),
            "runs": [asdict(row) | {"path": without_controls(redact_text(row.path))} for row in rows],
            "compared": [one._asdict() for one in compared],
        }
        shown = Live(every=every, checked_at=made_at, going=going, unread=()) if every else None
        page = render_index(data, overlaid(rows), shown)
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            write_atomic(self.output / MARK, json.dumps(data, ensure_ascii=False, indent=1).encode())
            write_atomic(self.output / PAGE, page)
        except OSError as err:
            raise TunebookError(
                f"cannot write {self.output / PAGE}: {err.strerror}",
                fix="name a folder with -o that you may write to, on a disk with room",
            ) from err


def _fault(error: Exception) -> str:
    """In words, what could not be read or compared."""
    if isinstance(error, TunebookError):
        said = error.problem
    else:
        said = f"a fault of tunebook, please report it: {type(error).__name__}: {error}"
    return str(without_controls(redact_text(said)))[:400]


def _made_by() -> str:
    return f"tunebook {__version__}"


def _slug(name: str, path: str) -> str:
    """A folder's name that tells the run, and is of it alone."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-60:]
    return f"{plain}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def _headline(rows: Sequence[RunRow]) -> str:
    if not rows:
        return "No run lies there yet."
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.state] = counts.get(row.state, 0) + 1
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items(), key=lambda one: -one[1]))
    return f"{len(rows)} run{'' if len(rows) == 1 else 's'}: {states}."


def _told(row: RunRow, log: RunLog, report: Report) -> RunRow:
    """The row with what the run's report says."""
    run = report.runs[0]
    best = run.best[0] if run.best else None
    figure = best.figure if best else None
    started = (run.provenance or {}).get("started")
    wall, training = fact(run.facts, "Wall time"), fact(run.facts, "Training time")
    seconds = wall.value if wall.value is not None else training.value
    spark, spark_of = _spark(run, report.charts, figure)
    told = replace(
        row,
        started=_utc(started) if isinstance(started, str) else None,
        engine=run.engine,
        model=run.model,
        method=run.method,
        trained_on=run.trained_on,
        steps=str(value) if (value := fact(run.facts, "Optimizer steps").value) is not None else None,
        figure=figure,
        baseline=next((one.value for one in best.beside if one.name == figures.BASELINE), None)
        if best and best.figure.name == "accuracy"
        else None,
        ranked_with=_ranked_with(log, run),
        verdicts=tuple(dict.fromkeys(one.verdict for one in run.expected)),
        seconds=float(seconds) if isinstance(seconds, (int, float)) else None,
        problems=sum(finding.level == "problem" for finding in run.findings),
        spark=spark,
        spark_of=spark_of,
        charts=tuple(_kept_chart(chart) for chart in report.charts if _is_overlaid(chart)),
    )
    return replace(_row_of(without_controls(redact(asdict(told)))), path=row.path)


def _utc(text: str) -> str | None:
    with suppress(ValueError):
        return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="seconds")
    return None


def _ranked_with(log: RunLog, run: RunReport) -> str | None:
    if not run.best:
        return None
    best = run.best[0]
    at = (best.figure.dataset, best.figure.step)
    ours = any(row.metrics for row in run.evaluations if (row.dataset, row.step) == at)
    same = same_of(run, best, log, ours=ours)
    return json.dumps(same) if same.why_apart(same) is None else None


def _spark(
    run: RunReport, charts: Sequence[Chart], figure: MeasuredFigure | None
) -> tuple[tuple[tuple[int, float], ...], str]:
    """The headline's figure over the evaluations; without two of them the loss in training."""
    points = [
        (row.step, row.values[figure.name])
        for row in run.evaluations
        if figure and row.dataset == figure.dataset and not row.after_training and figure.name in row.values
    ]
    said = figure.label if figure else ""
    if len(points) < 2:
        line = next((line for chart in charts if chart.id == "loss" for line in chart.lines), None)
        line = thinned(line, _SPARK_POINTS) if line else None
        points = (
            [(s, v) for s, v in zip(line.steps, line.values, strict=True) if v is not None] if line else []
        )
        said = f"loss, {line.dataset}" if line else ""
    finite = [(step, value) for step, value in points if abs(value) < float("inf")]
    return (tuple(finite), said) if len(finite) > 1 else ((), "")


def _is_overlaid(chart: Chart) -> bool:
    return (
        not (chart.secondary or chart.panels)
        and chart.x_label == STEPS
        and chart.id.startswith(("loss", "metric_"))
    )


def _kept_chart(chart: Chart) -> Chart:
    """A chart without what is drawn whether its run is ticked or not."""
    lines = tuple(thinned(line, _POINTS) for line in chart.lines)
    return replace(chart, lines=lines, references=(), marks=(), rules=(), about="")


def overlaid(rows: Iterable[RunRow]) -> tuple[Chart, ...]:
    """The curves of all runs by chart; what is not called the same is not drawn into one chart."""
    found: dict[tuple[str, str, str], list[Chart]] = {}
    lines: dict[tuple[str, str, str], list[Line]] = {}
    for row in rows:
        for chart in row.charts:
            key = (chart.id, chart.title, chart.y_label)
            found.setdefault(key, []).append(chart)
            lines.setdefault(key, []).extend(
                replace(line, run=row.path, key=row.name, label=f"{row.name}, {line.label}")
                for line in chart.lines
            )
    return tuple(
        replace(
            charts[0],
            id=f"all_{place}",
            about=f"{charts[0].title} of the ticked runs over optimizer steps.",
            last_step=max(chart.last_step for chart in charts),
            log_scale=all(chart.log_scale for chart in charts),
            lines=tuple(lines[key]),
        )
        for place, (key, charts) in enumerate(sorted(found.items(), key=lambda one: -len(one[1])))
    )


def _state(path: Path) -> live.RunState | None:
    with suppress(TunebookError, OSError):
        return live.read_state(path)
    return None


def _with_state(row: RunRow, log: RunLog | None, written: datetime, now: datetime) -> RunRow:
    """The row with what its run does now: by its process, else by the end of its logs, else by its files."""
    state = _state(Path(row.path))
    ending = log.ending if log and log.ending and not log.ending.after_training else None
    if state and state.life != "unknown":
        detail = state.phase or "" if state.life == "running" else state.detail
        if ending and state.life != "finished":
            detail = ending.title
        return replace(row, state=state.life, detail=without_controls(redact_text(detail)))
    if log is None and row.state == "unknown":
        return row
    if ending:
        return replace(row, state="broke off", detail=without_controls(redact_text(ending.title)))
    if log is not None and _is_complete(log):
        return replace(row, state="finished", detail="")
    if (now - written).total_seconds() < _WRITING:
        return replace(row, state="writing", detail="a file was written in the last ten minutes")
    return replace(row, state="unknown", detail="no file says how it ended")


def _is_complete(log: RunLog) -> bool:
    trainer = log.trainer
    reached = trainer and trainer.max_steps and (trainer.global_step or 0) >= trainer.max_steps
    return bool("train_runtime" in log.results or reached or (log.evaluations and not log.trained))


def _groups(rows: Sequence[RunRow]) -> list[list[RunRow]]:
    """Runs whose figures may be ranked, where there are several."""
    found: dict[str, list[RunRow]] = {}
    for row in rows:
        if row.ranked_with is not None:
            found.setdefault(row.ranked_with, []).append(row)
    return sorted((group for group in found.values() if len(group) > 1), key=len, reverse=True)


def _worth(figure: MeasuredFigure | None) -> float:
    assert figure is not None
    return figure.value if figure.larger_is_better else -figure.value


def _row_of(values: Mapping[str, Any]) -> RunRow:
    """A row from what `asdict` made of one."""
    charts = tuple(
        Chart(**chart | {"lines": tuple(Line(**line) for line in chart["lines"])})
        for chart in values["charts"]
    )
    return RunRow(
        **{
            **values,
            "figure": _figure_of(values["figure"]),
            "verdicts": tuple(values["verdicts"]),
            "spark": tuple((step, value) for step, value in values["spark"]),
            "charts": charts,
        }
    )


def _figure_of(values: Mapping[str, Any] | None) -> MeasuredFigure | None:
    if values is None:
        return None
    interval = values["interval"]
    return MeasuredFigure(**{**values, "interval": ConfidenceInterval(**interval) if interval else None})
