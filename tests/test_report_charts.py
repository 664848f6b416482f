"""What charts show besides a run's own curves: restarts, cards by the clock, figures by length."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tunebook.report import curves
from tunebook.report.charts import keys, png, printed, script, spec
from tunebook.report.data import gather
from tunebook.report.lines import Curves
from tunebook.runlog import read_run
from tunebook.runlog.records import Restart, TimeSeries, WatchedGpu

RUNS = Path(__file__).parent / "fixtures" / "runs"


@pytest.fixture
def run():
    return read_run(RUNS / "plain")


def charts_of(run):
    return {chart.id: chart for chart in curves.charts([Curves("r1", run.name, run, {}, ())])}


def test_a_restart_is_marked_in_every_chart_over_steps(run):
    restart = Restart(
        resumed_at_step=100, steps_repeated=20, source="train.log", message="resumed at step 100"
    )
    found = charts_of(replace(run, restarts=(restart,)))
    assert {(rule.step, rule.label) for chart in found.values() for rule in chart.rules} == {(100, "resumed")}
    drawn = json.dumps(spec(found["loss"], keys(list(found.values()))))
    assert '"values": [{"x": 100, "t": "resumed"}]' in drawn
    assert all(chart.rules == () for chart in charts_of(run).values())
    unknown = replace(restart, resumed_at_step=None)
    assert charts_of(replace(run, restarts=(unknown,)))["loss"].rules == ()


def test_what_was_seen_of_the_cards_is_drawn_by_the_clock(run):
    seen = TimeSeries(
        seconds=np.array([0.0, 10.0, 20.0]), values=np.array([1024.0, 2048.0, 3072.0]), source="gpu.csv"
    )
    gpu = WatchedGpu(
        host="n1", index="0", name="H200", memory_total_mib=None, memory_mib=seen, utilization_percent=None,
        power_w=None, peak_memory_mib=None,
    )  # fmt: skip
    found = charts_of(replace(run, gpus=(gpu,)))
    (line,) = found["gpu_memory"].lines
    assert (line.label, line.steps, line.values) == ("GPU n1 0", [0, 10, 20], [1.0, 2.0, 3.0])
    assert found["gpu_memory"].last_step == 20
    assert found["loss"].last_step == 264
    assert "3 at second 20" in found["gpu_memory"].about
    assert "gpu_utilization" not in found
    assert png(found["gpu_memory"], keys(list(found.values()))).startswith(b"\x89PNG")


def test_zeros_that_axolotl_logs_on_a_cpu_are_no_chart_of_memory():
    assert "memory" not in charts_of(read_run(RUNS / "axolotl"))


def test_a_figure_by_length_is_one_chart_with_a_curve_for_each_range(tmp_path):
    folder = tmp_path / "tunebook"
    folder.mkdir()
    lines = [
        {
            "dataset": "d", "step": step, "metric": ["rouge"], "n": 9, "select_by": "rougeL",
            "values": {
                "rougeL": 0.3, "rougeL_ref_0_127": 0.01 * step, "rougeL_ref_8192_up": 0.2, "n_ref_0_127": 6,
                "n_ref_8192_up": 3,
            },
        }
        for step in (10, 20)
    ]  # fmt: skip
    (folder / "eval_metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    from tunebook.report.data import gather

    found = {chart.id: chart for chart in gather([tmp_path]).charts}
    assert [(line.label, line.values) for line in found["by_length_rougeL"].lines] == [
        ("0 to 127 words", [0.1, 0.2]),
        ("8,192 and more words", [0.2, 0.2]),
    ]
    assert not [name for name in found if "_ref_" in name]


def records_of_lengths(folder, lengths, right):
    """Rewrite the records of a real evaluation: prompts of so many characters, answered so."""
    path = folder / "tunebook" / "eval_records-movies_test-300.jsonl"
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for record, length, is_right in zip(records, lengths, right, strict=True):
        record["prompt"] = "x" * length
        record["scores"]["yes_no"]["values"]["accuracy"] = float(is_right)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def test_the_figure_by_length_shows_where_long_rows_fail(tmp_path):
    from tunebook.report.data import gather

    folder = Path(shutil.copytree(RUNS / "movies", tmp_path / "movies"))
    records_of_lengths(
        folder, [100 * (place + 1) for place in range(60)], [place < 45 for place in range(60)]
    )
    (found,) = gather([folder]).runs[0].by_length
    assert (found.by, found.figure) == ("characters of the prompt", "accuracy")
    assert [(one.n, one.value) for one in found.ranges] == [(15, 1.0), (15, 1.0), (15, 1.0), (15, 0.0)]
    assert [(one.low, one.high) for one in found.ranges][-1] == (4501, 6000)
    assert found.ranges[0].interval.low == pytest.approx(0.796, abs=0.001)
    # Rows that are all about as long are not cut.
    assert gather([RUNS / "movies"]).runs[0].by_length == ()


def test_what_has_to_be_published_with_a_figure_stands_in_the_report(tmp_path):
    from tunebook.metrics import load
    from tunebook.report.data import gather
    from tunebook.report.render import render

    signature = load("bleu").signature()
    folder = tmp_path / "tunebook"
    folder.mkdir()
    line = {
        "dataset": "d", "step": 10, "metric": ["bleu"], "n": 9, "select_by": "bleu", "values": {"bleu": 31.5},
        "signatures": {"bleu": signature},
    }  # fmt: skip
    (folder / "eval_metrics.jsonl").write_text(json.dumps(line) + "\n", "utf-8")
    gathered = gather([tmp_path])
    assert gathered.runs[0].signatures == {"bleu": signature}
    assert "version:" in signature
    files = render(gathered)
    assert (
        f"bleu is to be published as `{signature.replace('|', chr(92) + '|')}`" in files["report.md"].decode()
    )
    assert f"<code>{signature}</code>" in files["report.html"].decode()


def test_three_runs_are_drawn_in_panels_too_and_two_are_not(run):
    drawn = [Curves(f"r{place}", f"run {place}", run, {}, ()) for place in range(3)]
    found = {chart.id: chart for chart in curves.charts(drawn)}
    panels = found["each_loss"]
    all_keys = keys(list(found.values()))
    description = spec(panels, all_keys)
    assert description["facet"]["sort"] == ["run 0", "run 1", "run 2"]
    assert max(len(line.steps) for line in panels.lines) <= 60
    assert png(panels, all_keys).startswith(b"\x89PNG")
    assert not [name for name in (chart.id for chart in curves.charts(drawn[:2])) if name.startswith("each_")]


def test_a_picture_of_several_runs_has_a_legend_also_where_intervals_are_drawn():
    report = gather([RUNS / "movies", RUNS / "plain"])
    chart = next(chart for chart in report.charts if chart.id == "metric_token_accuracy")
    with_band = replace(
        chart, lines=tuple(replace(line, low=line.values, high=line.values) for line in chart.lines)
    )
    drawn = printed(with_band, keys(report.charts))
    coloured = [layer["encoding"]["color"] for layer in drawn["layer"] if "color" in layer["encoding"]]
    # One layer without a legend takes it away from all of them.
    assert len(coloured) >= 3
    assert all(colour["legend"]["values"] == ["movies", "plain"] for colour in coloured)
    assert all(colour["legend"]["symbolOpacity"] == 1 for colour in coloured)


def test_a_picture_cuts_no_curve_at_its_edge_and_a_page_does_when_one_zooms(run):
    chart = charts_of(run)["loss"]
    whole = replace(chart, lines=tuple(replace(line, not_finite=[10]) for line in chart.lines))
    for panels in (whole, replace(whole, panels=True)):
        drawn, zoomed = printed(panels, ["training"]), spec(panels, ["training"])
        marks = {"page": [], "picture": []}
        for name, one in (("page", zoomed), ("picture", drawn)):
            layers = one["spec"]["layer"] if panels.panels else one["layer"]
            marks[name] = [layer["mark"] for layer in layers]
        assert all(mark["clip"] for mark in marks["page"])
        assert {mark["type"] for mark in marks["picture"] if "clip" in mark} <= {"tick"}


def test_the_program_that_draws_is_bundled_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = script.__wrapped__()
    assert "vegaEmbed" in made
    (kept,) = tmp_path.rglob("*.js")
    kept.write_text("kept", encoding="utf-8")
    assert script.__wrapped__() == "kept"
    # A cache that cannot be written is no reason to give up.
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))
    assert script.__wrapped__() == made
