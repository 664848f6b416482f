"""One page lists all runs below a folder: found, kept until they change, and never lost to a broken one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunebook.cli.main import cli
from tunebook.errors import TunebookError
from tunebook.report import index
from tunebook.report.index import Index
from tunebook.runlog.runs_below import runs_below

RUNS = Path(__file__).parent / "fixtures" / "runs"
LOGS = Path(__file__).parent / "fixtures" / "logs"
TOKEN = "hf_" + "QwErTyUiOpAsDfGhJkLz"


@pytest.fixture
def output(tmp_path):
    """Three runs: of LLaMA-Factory with metrics, without, and of Axolotl."""
    for name in ("movies", "plain"):
        shutil.copytree(RUNS / name, tmp_path / "output" / "lf" / name)
    shutil.copytree(RUNS / "axolotl", tmp_path / "output" / "axolotl")
    return tmp_path / "output"


@pytest.fixture
def reads(monkeypatch):
    """Which runs are read, by name."""
    found = []

    def read(path):
        found.append(path.name)
        return read_run(path)

    read_run = index.read_run
    monkeypatch.setattr(index, "read_run", read)
    return found


def rows(found):
    return {row.name: row for row in found.rows}


def page(folder):
    return (folder / "index.html").read_text("utf-8")


def test_a_row_says_what_the_run_was_and_how_it_came_out(output, tmp_path):
    found = rows(Index(output, tmp_path / "reports").look())
    assert set(found) == {"axolotl", "lf/movies", "lf/plain"}
    movies = found["lf/movies"]
    assert (movies.engine, movies.trained_on, movies.steps) == ("llamafactory", "movies_train", "400 of 400")
    assert (movies.state, movies.verdicts, round(movies.seconds)) == ("finished", ("within error",), 73)
    assert (movies.figure.name, movies.figure.dataset, movies.figure.step) == ("macro_f1", "movies_test", 300)
    assert movies.figure.interval.low < movies.figure.value < movies.figure.interval.high
    assert [step for step, _ in movies.spark] == [100, 200, 300, 400]
    # The set of the engine's own loss has no name, so nothing is ranked by it.
    assert found["lf/plain"].ranked_with is None
    assert '<td class="n" data-label="value" data-value="0.81' in page(tmp_path / "reports")
    for row in found.values():
        report = json.loads((tmp_path / "reports" / row.page).with_name("report.json").read_text("utf-8"))
        assert report["runs"][0]["path"] == row.path
        assert '<a href="../../index.html">All runs</a>' in (tmp_path / "reports" / row.page).read_text(
            "utf-8"
        )


def test_runs_that_did_not_change_are_not_read_again(output, tmp_path, reads):
    first = Index(output, tmp_path / "reports").look()
    assert (sorted(reads), first.read) == (["axolotl", "movies", "plain"], 3)
    reads.clear()
    assert Index(output, tmp_path / "reports").look().rows == first.rows
    assert reads == []
    log = output / "lf" / "plain" / "trainer_log.jsonl"
    log.write_text(log.read_text("utf-8") + "\n", "utf-8")
    shutil.rmtree((tmp_path / "reports" / rows(first)["axolotl"].page).parent)
    Index(output, tmp_path / "reports").look()
    assert sorted(reads) == ["axolotl", "plain"]
    reads.clear()
    (tmp_path / "reports" / "index.json").write_text('{"format": 1', "utf-8")
    assert Index(output, tmp_path / "reports").look().read == 3


def test_results_of_an_evaluation_beside_runs_are_a_change(output, tmp_path, reads):
    Index(output, tmp_path / "reports").look()
    reads.clear()
    (output / "eval_results").mkdir()
    (output / "eval_results" / "one.json").write_text("{}")
    Index(output, tmp_path / "reports").look()
    assert reads == ["axolotl"]


def test_a_run_that_is_gone_leaves_the_table(output, tmp_path):
    made = Index(output, tmp_path / "reports")
    made.look()
    shutil.rmtree(output / "axolotl")
    assert set(rows(made.look())) == {"lf/movies", "lf/plain"}


def test_a_broken_run_is_a_row_with_its_reason(output, tmp_path, monkeypatch):
    (output / "broken").mkdir()
    (output / "broken" / "trainer_state.json").write_text("{{{")

    def read(path):
        if path.name == "plain":
            raise ZeroDivisionError("no such luck")
        return read_run(path)

    read_run = index.read_run
    monkeypatch.setattr(index, "read_run", read)
    found = rows(Index(output, tmp_path / "reports").look())
    assert [name for name, row in found.items() if row.state == "finished"] == ["axolotl", "lf/movies"]
    assert found["broken"].state == found["lf/plain"].state == "cannot be read"
    assert found["broken"].detail.startswith("is not a run: nothing in it was written by a Trainer")
    assert "please report it: ZeroDivisionError: no such luck" in found["lf/plain"].detail
    assert "no such luck" in page(tmp_path / "reports")
    assert found["broken"].page is None
    assert found["broken"].figure is None


def test_texts_of_runs_are_escaped_and_secrets_taken_out(tmp_path):
    run = tmp_path / "output" / f"<img src=x onerror=alert(1)> {TOKEN}"
    shutil.copytree(RUNS / "movies", run)
    recipe = run / "tunebook" / "recipe.yaml"
    lines = recipe.read_text("utf-8").splitlines()
    model = next(line for line in lines if line.startswith("model_name_or_path"))
    text = "\n".join(lines).replace(model, f"model_name_or_path: org/<b>{TOKEN}")
    recipe.write_text(text, "utf-8")
    found = Index(tmp_path / "output", tmp_path / "reports").look()
    assert found.rows[0].model == "org/<b>[redacted]"
    assert Index(tmp_path / "output", tmp_path / "reports").look().read == 0
    for file in [*(tmp_path / "reports").glob("index.*"), *(tmp_path / "reports").rglob("report.*")]:
        assert TOKEN not in file.read_text("utf-8"), file
    assert TOKEN not in str([path.name for path in (tmp_path / "reports").rglob("*")])
    assert "<img src=x" not in page(tmp_path / "reports")
    assert "<b>[" not in page(tmp_path / "reports")


def test_runs_of_one_figure_and_set_are_compared_the_best_of_many(output, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "COMPARED", 2)
    for name in ("a", "b"):
        shutil.copytree(RUNS / "movies", output / name)
    metrics = output / "b" / "tunebook" / "eval_metrics.jsonl"
    metrics.write_text(metrics.read_text("utf-8").replace('"macro_f1": 0.8', '"macro_f1": 0.9'), "utf-8")
    made = Index(output, tmp_path / "reports")
    (one,) = made.look().compared
    assert (one.title, one.of, len(one.runs), one.runs[0]) == ("macro-F1 on movies_test", 3, 2, "b")
    assert f'<a href="{one.page}">macro-F1 on movies_test</a>: the best 2 of 3 runs' in page(
        tmp_path / "reports"
    )
    compared = tmp_path / "reports" / one.page
    assert "2 runs compared" in compared.read_text("utf-8")
    made_again = []
    monkeypatch.setattr(index, "gather", lambda paths: made_again.append([path.name for path in paths]))
    made.look()
    assert made_again == []
    monkeypatch.setattr(index, "gather", broken)
    shutil.rmtree(compared.parent)
    (one,) = made.look().compared
    assert one.page is None
    assert "which cannot be compared (a fault of tunebook, please report it: ZeroDivisionError: oh)" in page(
        tmp_path / "reports"
    )


def broken(paths):
    raise ZeroDivisionError("oh")


def test_the_state_is_looked_at_again_without_a_change_of_files(output, tmp_path, monkeypatch):
    states = ["running", "killed"]
    for name in ("trainer_log.jsonl", "trainer_state.json"):
        (output / "going").mkdir(exist_ok=True)
        shutil.copy(RUNS / "plain" / name, output / "going")
    read_state = index.live.read_state
    state = read_state(output / "going")

    class Told:
        phase, detail = "training", "signal 9"

        def __init__(self, life):
            self.life = life

    monkeypatch.setattr(
        index.live, "read_state", lambda path: Told(states[0]) if path.name == "going" else read_state(path)
    )
    made = Index(output, tmp_path / "reports")
    assert state.life == "unknown"
    assert rows(made.look(every=5))["going"].state == "running"
    assert "Going on: going" in page(tmp_path / "reports")
    states.pop(0)
    found = made.look()
    assert (rows(found)["going"].state, rows(found)["going"].detail, found.read) == ("killed", "signal 9", 0)
    assert '<div class="live"' not in page(tmp_path / "reports")


def touch(path, text="{}"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["a/trainer_state.json", "a/checkpoint-5/trainer_state.json"], ["a"]),
        (["a/checkpoint-5/trainer_state.json"], ["a"]),
        (["a/tunebook/run.json", "a/train.log"], ["a"]),
        (["a/tunebook/recipe.yaml"], []),
        (["a/b/trainer_log.jsonl", "a/c/all_results.json", "a/notes.txt"], ["a/b", "a/c"]),
        (["a/trainer_state.json", "a/second/trainer_state.json"], ["a", "a/second"]),
        (["a/runs/Nov28_21-58-42_vm/events.out.tfevents.1"], ["a?"]),
        (
            ["runs/lora/events.out.tfevents.1", "runs/full/events.out.tfevents.1"],
            ["runs/full?", "runs/lora?"],
        ),
        (["a/trainer_state.json", "a/runs/x/events.out.tfevents.1"], ["a"]),
        (["wandb/run-1/run-x.wandb", "wandb/run-2/run-y.wandb", "wandb/run-1/logs/debug.log"], None),
        (["wandb/run-1/run-x.wandb", "out/a/trainer_state.json"], ["out/a", "wandb/run-1/run-x.wandb?"]),
        (["a/train.log"], ["a?"]),
        (["a/logs/train.log"], ["a?"]),
        (["s/slurm-1.out", "s/slurm-1.err"], ["s?"]),
        (["s/slurm-1.out", "s/slurm-2.out"], ["s/slurm-1.out?", "s/slurm-2.out?"]),
        (["s/slurm-1.out", "s/slurm-2.out", "s/adapter_config.json"], ["s?"]),
        (["logs/a.log", "output/a/trainer_state.json"], ["output/a"]),
        ([".git/trainer_state.json", "node_modules/a/trainer_state.json"], []),
    ],
)
def test_runs_are_found_by_what_a_trainer_leaves(tmp_path, files, found):
    for name in files:
        touch(tmp_path / name, "{'loss': 1.0}\n")
    named = [f"{run.path.relative_to(tmp_path)}{'' if run.sure else '?'}" for run in runs_below(tmp_path)]
    assert named == (["wandb/run-1/run-x.wandb?", "wandb/run-2/run-y.wandb?"] if found is None else found)


def test_texts_without_a_training_and_the_reports_themselves_are_no_runs(tmp_path):
    touch(tmp_path / "a" / "readme.txt", "losses were lower")
    touch(tmp_path / "reports" / "a" / "trainer_state.json")
    (tmp_path / "link").symlink_to(RUNS / "plain")
    assert runs_below(tmp_path, without=tmp_path / "reports") == []


def test_logs_that_hold_no_run_make_no_row(tmp_path):
    touch(tmp_path / "a" / "server.log", "Traceback (most recent call last)\n")
    shutil.copy(LOGS / "llamafactory.log", tmp_path)
    shutil.copytree(RUNS / "plain", tmp_path / "b" / "plain")
    assert set(rows(Index(tmp_path, tmp_path / "reports").look())) == {"b/plain"}


def invoke(*arguments):
    return CliRunner().invoke(cli, ["report", "--all", *map(str, arguments)])


def test_the_command_says_what_it_read_and_what_it_could_not(output, tmp_path):
    touch(output / "broken" / "trainer_state.json", "{{{")
    done = invoke(output, "-o", tmp_path / "reports")
    assert done.exit_code == 0
    assert "warning: broken cannot be read: is not a run" in done.stderr
    assert "4 runs" in done.stdout
    told = json.loads(invoke(output, "-o", tmp_path / "reports", "--json").stdout)
    assert (told["runs"], told["read"], [one["name"] for one in told["broken"]]) == (4, 0, ["broken"])


def test_a_watched_page_takes_in_new_runs_until_control_c(output, tmp_path, monkeypatch):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        assert '<div class="live" data-every="5.0"' in page(tmp_path / "reports")
        if len(slept) == 2:
            raise KeyboardInterrupt
        shutil.copytree(RUNS / "resumed", output / "resumed")

    monkeypatch.setattr("time.sleep", sleep)
    done = invoke(output, "-o", tmp_path / "reports", "--watch", "--every", "5")
    assert (done.exit_code, slept) == (0, [5.0, 5.0])
    assert "3 runs, 3 read;" in done.stderr
    assert "4 runs, 1 read;" in done.stderr
    assert '<div class="live"' not in page(tmp_path / "reports")


def test_it_refuses_what_it_cannot_do_and_writes_nothing(output, tmp_path):
    reports = tmp_path / "reports"
    (tmp_path / "empty").mkdir()
    for arguments, said in [
        ([tmp_path / "empty"], "no run lies below"),
        ([tmp_path / "nowhere"], "there is no folder"),
        ([output, output], "--all takes one folder"),
        ([output, "--template", "study"], "--all takes one folder"),
    ]:
        done = invoke(*arguments, "-o", reports)
        assert isinstance(done.exception, TunebookError)
        assert said in str(done.exception)
        assert not reports.exists()
    touch(reports / "index.html", "mine")
    with pytest.raises(TunebookError, match="is not ours"):
        Index(output, reports)
    assert page(reports) == "mine"
    done = CliRunner().invoke(cli, ["report", "-o", str(reports)])
    assert (done.exit_code, "name a run, or give --all" in done.stderr) == (2, True)
