"""A watched report follows its runs, never leaves a reader without a page, and ends without the live mark."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunebook.cli.main import cli
from tunebook.errors import TunebookError
from tunebook.report import charts, watch
from tunebook.report.watch import Watch

RUNS = Path(__file__).parent / "fixtures" / "runs"
LOG = (RUNS / "plain" / "trainer_log.jsonl").read_text("utf-8").splitlines(keepends=True)


def log(run, lines):
    """The run has logged so many lines."""
    run.mkdir(exist_ok=True)
    (run / "trainer_log.jsonl").write_text("".join(LOG[:lines]), encoding="utf-8")


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch):
    """Pictures take most of the time here, and other tests look at them."""
    monkeypatch.setattr(charts, "png", lambda chart, keys: b"\x89PNG " + chart.about.encode())


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "live"
    log(folder, 4)
    return folder


@pytest.fixture
def watched(run, tmp_path):
    """A watch over a run that goes on for as long as `going` holds it."""
    going = {run}
    made = Watch([run], tmp_path / "report", every=5, templates=[], is_going=going.__contains__)
    made.going = going
    return made


def read(folder):
    return json.loads((folder / "report.json").read_text("utf-8"))


def test_the_report_follows_the_run_and_says_that_it_is_live(run, watched):
    assert watched.look() == (run,)
    first = read(watched.output)
    assert first["live"]["going"] == ["live"]
    assert first["live"]["every"] == 5
    page = (watched.output / "report.html").read_text("utf-8")
    assert "<title>(live) live</title>" in page
    assert "Going on: live" in page
    log(run, 12)
    watched.look()
    steps = [read["charts"][0]["last_step"] for read in (first, read(watched.output))]
    assert steps[0] < steps[1]


def test_runs_that_wrote_nothing_are_not_read_again_but_the_page_tells_the_time(run, watched, monkeypatch):
    watched.look()
    before = {path.name: path.stat().st_mtime_ns for path in watched.output.iterdir()}
    reads = []
    monkeypatch.setattr(watch, "gather", lambda runs: reads.append(runs))
    monkeypatch.setattr(watch, "datetime", Noon)
    watched.look()
    after = {path.name: path.stat().st_mtime_ns for path in watched.output.iterdir()}
    assert reads == []
    assert {name for name in before if before[name] != after[name]} == {"report.html"}
    assert "last looked for at 12:00:00 UTC" in (watched.output / "report.html").read_text("utf-8")


class Noon(watch.datetime):
    @classmethod
    def now(cls, tz):
        return cls(2026, 11, 28, 12, tzinfo=tz)


def test_a_reader_finds_a_whole_page_at_any_moment(run, watched):
    watched.look()
    faults, done = [], threading.Event()

    def reader():
        while not done.is_set():
            try:
                page = (watched.output / "report.html").read_bytes()
                json.loads((watched.output / "report.json").read_bytes())
            except (OSError, ValueError) as err:
                faults.append(err)
            else:
                if not page.rstrip().endswith(b"</html>"):
                    faults.append(page[-20:])

    thread = threading.Thread(target=reader)
    thread.start()
    for lines in (6, 8, 10):
        log(run, lines)
        watched.look()
    done.set()
    thread.join()
    assert faults == []


def test_the_last_report_has_no_live_mark_and_holds_the_last_numbers(run, watched):
    watched.look()
    log(run, len(LOG))
    watched.going.clear()
    assert watched.look() == ()
    watched.finish()
    assert read(watched.output)["live"] is None
    assert read(watched.output)["charts"][0]["last_step"] == 264
    page = (watched.output / "report.html").read_text("utf-8")
    assert 'class="live"' not in page
    assert 'http-equiv="refresh"' not in page


def test_giving_up_keeps_the_report_without_the_live_mark(run, watched):
    assert watched.give_up() is None
    watched.look()
    watched.give_up()
    assert read(watched.output)["live"] is None
    assert 'class="live"' not in (watched.output / "report.html").read_text("utf-8")


def test_a_run_without_a_number_yet_is_waited_for(run, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    made = Watch([new, run], tmp_path / "report", every=5, templates=["study"], is_going=lambda run: True)
    made.look()
    assert read(made.output)["live"]["unread"] == ["new"]
    assert [run["name"] for run in read(made.output)["runs"]] == ["live"]
    log(new, 8)
    made.look()
    assert read(made.output)["live"]["unread"] == []
    assert [run["name"] for run in read(made.output)["runs"]] == ["new", "live"]
    assert "2 runs compared" in (made.output / "study.md").read_text("utf-8")


def test_pictures_of_curves_that_are_gone_are_taken_away(run, watched):
    watched.look()
    (watched.output / "metric_old.png").write_bytes(b"")
    log(run, 12)
    watched.look()
    assert not (watched.output / "metric_old.png").exists()
    assert (watched.output / "loss.png").exists()


def test_a_report_inside_the_run_does_not_count_as_news(run, monkeypatch):
    made = Watch([run], run / "report", every=5, templates=[], is_going=lambda run: True)
    made.look()
    reads = []
    monkeypatch.setattr(watch, "gather", lambda runs: reads.append(runs))
    made.look()
    assert reads == []


def test_other_things_in_the_folder_are_left_alone(run, watched):
    watched.output.mkdir()
    (watched.output / "thesis.tex").write_text("years of work")
    with pytest.raises(TunebookError, match="holds other things"):
        watched.look()
    assert [path.name for path in watched.output.iterdir()] == ["thesis.tex"]


def test_a_run_that_has_ended_is_reported_once(tmp_path):
    result = CliRunner().invoke(cli, ["report", str(RUNS / "plain"), "-o", str(tmp_path / "r"), "--watch"])
    assert result.exit_code == 0, result.output
    assert read(tmp_path / "r")["live"] is None


def test_a_folder_that_is_not_there_is_not_waited_for(tmp_path):
    result = CliRunner().invoke(cli, ["report", str(tmp_path / "typo"), "-o", str(tmp_path / "r"), "--watch"])
    assert isinstance(result.exception, (SystemExit, TunebookError))
    assert "there is no file or folder" in str(result.exception) + result.output


@pytest.mark.parametrize("lines", [0, 4])
def test_control_c_ends_it_with_the_last_report_in_place(tmp_path, lines):
    run = tmp_path / "run"
    log(run, lines)
    command = [
        Path(sys.executable).parent / "tunebook",
        "report",
        run,
        "-o",
        tmp_path / "r",
        "--watch",
        "--every",
        "1",
    ]
    process = subprocess.Popen(
        [str(part) for part in command],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # A shell starts background jobs with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    first = process.stderr.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert "1 run going on" in first
    assert "Traceback" not in err
    if lines:
        assert process.returncode == 0, err
        assert "holds the last report" in err
        assert read(tmp_path / "r")["live"] is None
        assert "wrote" in out
    else:
        assert process.returncode == 2, err
        assert "no report was made" in err
        assert not (tmp_path / "r").exists()
