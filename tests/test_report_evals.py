"""What `tunebook eval` measured after training stands in the report of the run that it belongs to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunebook.cli.report import report as command
from tunebook.errors import TunebookError
from tunebook.report.data import gather

RUNS = Path(__file__).parent / "fixtures" / "runs"
BASE = "/home/user/tunebook/output/tiny/qwen3"


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(RUNS / "movies", tmp_path / "runs" / "movies"))


def result(folder, run, *, step, value, kind="full", name=None, dataset="movies_test", **changes):
    """Write a result as `tunebook eval` does, with the records of a real evaluation turned over in part."""
    folder.mkdir(parents=True, exist_ok=True)
    name = name or f"recipe--{dataset}--{kind}-{step}"
    model = {
        "label": f"movies@{step}", "kind": kind, "path": str(run), "base": BASE, "run": str(run), "step": step,
    }  # fmt: skip
    if kind == "base":
        model |= {"run": None, "path": BASE}
    values = {
        "format": 1, "model": model, "dataset": dataset, "mode": "answer", "metric": ["yes_no"],
        "select_by": "macro_f1", "larger_is_better": True, "n": 60, "n_unparsed": 0, "unparsed_reasons": {},
        "answers_cut": 0, "values": {"macro_f1": value, "accuracy": value, "loss": 0.5}, "stderr": {},
        "settings": {"method": None, "max_samples": None, "shots": None}, "records": f"{name}.jsonl",
    } | changes  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    records = (RUNS / "movies" / "tunebook" / "eval_records-movies_test-100.jsonl").read_text("utf-8")
    lines = [json.loads(line) | {"step": step} for line in records.splitlines()]
    (folder / f"{name}.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )


def test_the_base_evaluated_after_training_stands_beside_the_best_with_a_test(run, tmp_path):
    result(tmp_path / "runs" / "eval_results", run, step=0, value=0.355, kind="base")
    (best,) = gather([run]).runs[0].best
    assert best.base.figure.value == 0.355
    assert best.base.figure.source == "eval_results/recipe--movies_test--base-0.json"
    assert "paired bootstrap over 60 rows: +0.458" in best.base.test


def test_checkpoints_evaluated_after_training_are_points_of_the_curves(run, tmp_path):
    folder = tmp_path / "elsewhere"
    for step in (50, 150):
        result(folder, run, step=step, value=step / 1000)
    found = gather([run], evals=[folder])
    (chart,) = [chart for chart in found.charts if chart.id == "metric_macro_f1"]
    (line,) = chart.lines
    assert line.steps == [50, 100, 150, 200, 300, 400]
    assert line.values[:3] == [0.05, 0.354839, 0.15]
    assert "2 evaluations of `tunebook eval`" in [note["message"] for note in found.runs[0].notes][-1]


def test_what_the_run_measured_itself_stays(run, tmp_path):
    result(tmp_path / "e", run, step=300, value=0.95)
    (best,) = gather([run], evals=[tmp_path / "e"]).runs[0].best
    assert best.figure.value == 0.8124467178175618


def test_results_of_other_runs_and_other_bases_are_not_taken(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    result(tmp_path / "e", other, step=50, value=0.9)
    result(
        tmp_path / "e", run, step=0, value=0.9, kind="base", model={"kind": "base", "base": "x/y", "step": 0}
    )
    found = gather([run], evals=[tmp_path / "e"]).runs[0]
    assert {row.step for row in found.evaluations} == {100, 200, 300, 400}
    assert found.best[0].base.figure is None


def test_a_run_that_was_moved_is_known_by_its_name_only_where_the_old_place_is_gone(run, tmp_path):
    result(tmp_path / "e", tmp_path / "gone" / "movies", step=50, value=0.9)
    assert 50 in {row.step for row in gather([run], evals=[tmp_path / "e"]).runs[0].evaluations}
    (tmp_path / "gone" / "movies").mkdir(parents=True)
    assert 50 not in {row.step for row in gather([run], evals=[tmp_path / "e"]).runs[0].evaluations}


def test_a_set_asked_in_another_way_is_told_apart(run, tmp_path):
    settings = {"method": None, "max_samples": 200, "shots": {"n": 4}}
    result(tmp_path / "e", run, step=300, value=0.7, settings=settings)
    datasets = {row.dataset for row in gather([run], evals=[tmp_path / "e"]).runs[0].evaluations}
    assert datasets == {"movies_test", "movies_test (4 shot, 200 rows)"}


def test_folders_without_results_damaged_and_newer_files_are_named_together(run, tmp_path):
    (tmp_path / "empty").mkdir()
    folder = tmp_path / "bad"
    result(folder, run, step=50, value=0.9, name="new", format=2)
    (folder / "torn.json").write_text('{"format": 1, "mod', encoding="utf-8")
    with pytest.raises(TunebookError) as error:
        gather([run], evals=[tmp_path / "empty", tmp_path / "none", folder])
    for part in ("empty holds no results", "no folder", "new.json has format 2", "torn.json is damaged"):
        assert part in error.value.problem


def test_damaged_results_beside_a_run_are_told_and_lose_nothing_else(run, tmp_path):
    folder = tmp_path / "runs" / "eval_results"
    result(folder, run, step=50, value=0.9)
    (folder / "torn.json").write_text('{"format": 1, "mod', encoding="utf-8")
    found = gather([run]).runs[0]
    assert 50 in {row.step for row in found.evaluations}
    assert [note["message"] for note in found.notes if note["kind"] == "lost"] == [
        f"{folder / 'torn.json'} is damaged"
    ]


def test_the_command_takes_a_folder_of_results(run, tmp_path):
    result(tmp_path / "e", run, step=50, value=0.05)
    arguments = [str(run), "-o", str(tmp_path / "r"), "--evals", str(tmp_path / "e")]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    assert "e/recipe--movies_test--full-50.json" in (tmp_path / "r" / "report.json").read_text("utf-8")
