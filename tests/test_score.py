import importlib
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tunebook.cli.score import score
from tunebook.errors import TunebookError
from tunebook.metrics import yes_no
from tunebook.scoring.prediction_files import PredictionRow, read_predictions
from tunebook.scoring.score import Collector, score_rows

ROWS = [("Yes", "yes"), ("No", "yes"), ("no.", "no"), ("It depends.", "no")]


def write_jsonl(path, rows=ROWS, columns=("predict", "label")):
    lines = [json.dumps({"prompt": "?", columns[0]: said, columns[1]: wanted}) for said, wanted in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(*arguments):
    return CliRunner().invoke(score, [str(argument) for argument in arguments], catch_exceptions=False)


def figures(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("columns", [("predict", "label"), ("prediction", "reference"), ("output", "target")])
def test_the_usual_columns_are_found(tmp_path, columns):
    report = figures(run("yes_no", write_jsonl(tmp_path / "p.jsonl", columns=columns), "--json"))
    assert report["n"] == 4
    assert report["figures"]["accuracy"]["value"] == 0.5
    assert report["n_unparsed"] == 1
    assert report["unparsed_reasons"] == {"hedge": 1}


def test_named_columns_are_taken(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", columns=("said", "wanted"))
    report = figures(
        run("yes_no", path, "--prediction-column", "said", "--reference-column", "wanted", "--json")
    )
    assert report["figures"]["accuracy"]["value"] == 0.5


def test_every_format_gives_the_same_report(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    jsonl = write_jsonl(tmp_path / "p.jsonl")
    (tmp_path / "p.json").write_text(
        json.dumps([{"predict": s, "label": w} for s, w in ROWS]), encoding="utf-8"
    )
    (tmp_path / "p.csv").write_text(
        "predict,label\n" + "".join(f'"{s}",{w}\n' for s, w in ROWS), encoding="utf-8"
    )
    parquet.write_table(
        pa.table({"predict": [s for s, _ in ROWS], "label": [w for _, w in ROWS]}), tmp_path / "p.parquet"
    )
    wanted = figures(run("yes_no", jsonl, "--json"))
    for suffix in ("json", "csv", "parquet"):
        assert figures(run("yes_no", tmp_path / f"p.{suffix}", "--json")) == wanted


def test_the_table_shows_value_interval_and_reasons(tmp_path):
    result = run("yes_no", write_jsonl(tmp_path / "p.jsonl"))
    assert "n = 4" in result.stdout
    assert "unparsed: 1 of 4 (hedge 1)" in result.stdout
    # Wilson's interval of 2 of 4.
    assert "0.1500 to 0.8500" in result.stdout


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_a_figure_of_sacrebleus_comes_with_its_signature(tmp_path, name):
    pytest.importorskip("sacrebleu")
    path = write_jsonl(tmp_path / "p.jsonl", rows=[("the cat sat on the mat", "the cat lay on the mat")])
    signature = importlib.import_module(f"tunebook.metrics.{name}").signature()
    assert "version:" in signature
    assert figures(run(name, path, "--json"))["signature"] == signature
    assert f"signature: {signature}\n" in run(name, path).stdout


def test_a_metric_of_our_own_has_no_signature(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl")
    assert figures(run("yes_no", path, "--json"))["signature"] is None
    assert "signature" not in run("yes_no", path).stdout


def test_records_hold_every_verdict(tmp_path):
    out = tmp_path / "new" / "records.jsonl"
    run("yes_no", write_jsonl(tmp_path / "p.jsonl"), "--records", out)
    records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [record["scores"]["yes_no"]["parsed"] for record in records] == ["yes", "no", "no", None]
    assert records[3]["scores"]["yes_no"]["reason"] == "hedge"
    # What it wrote, it reads.
    assert figures(run("yes_no", out, "--json"))["n"] == 4


def test_a_run_that_fails_leaves_no_records(tmp_path):
    out = tmp_path / "records.jsonl"
    out.write_text("old\n")
    path = write_jsonl(tmp_path / "p.jsonl", rows=[("Yes", "yes"), ("Yes", "perhaps")])
    with pytest.raises(TunebookError, match="row 2 cannot be scored with yes_no"):
        run("yes_no", path, "--records", out)
    assert out.read_text() == "old\n"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["p.jsonl", "records.jsonl"]


def test_several_workers_give_the_same_report_and_order(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", rows=ROWS * 200)
    alone, together = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    first = figures(run("yes_no", path, "--json", "--records", alone))
    second = figures(run("yes_no", path, "--json", "--records", together, "--workers", "2"))
    assert first == second
    assert alone.read_text() == together.read_text()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"predict": "Yes", "label": "yes"}\n{"predict": \n', "p.jsonl, line 2: is no JSON"),
        ("[1]\n", "line 1: holds a list"),
        ('{"text": "Yes", "label": "yes"}\n', "has no column 'predict' or .*; it has 'text', 'label'"),
        (
            '{"predict": "Yes", "label": "yes"}\n{"predict": null, "label": "no"}\n',
            "row 2: column 'predict' holds null",
        ),
        ('{"predict": "Yes", "label": "yes"}\n{"label": "no"}\n', "row 2: column 'predict' is missing"),
        ("", "holds no rows"),
    ],
)
def test_a_faulty_file_is_named_with_its_line(tmp_path, content, problem):
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises(TunebookError, match=problem):
        run("yes_no", tmp_path / "p.jsonl")


def test_a_file_that_is_not_there_or_of_another_kind_is_refused(tmp_path):
    with pytest.raises(TunebookError, match="cannot be read"):
        run("yes_no", tmp_path / "missing.jsonl")
    with pytest.raises(TunebookError, match=r"\.xlsx"):
        run("yes_no", tmp_path / "p.xlsx")


def test_the_command_line_exits_2_with_problem_and_fix(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tunebook.cli.main", "score", "f2", str(tmp_path / "p.jsonl")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "there is no metric 'f2'" in done.stderr
    assert "fix:" in done.stderr


def test_numbers_and_bools_are_read_as_text(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"predict": 42, "label": 42.0}\n{"predict": true, "label": "True"}\n')
    rows = list(read_predictions(tmp_path / "p.jsonl"))
    assert [row.prediction for row in rows] == ["42", "True"]


def test_rows_are_scored_as_they_are_read():
    taken = []

    def rows():
        for number in range(10):
            taken.append(number)
            yield PredictionRow(number, "yes", "yes")

    next(iter(score_rows("yes_no", rows())))
    assert taken == [0]


def test_summaries_share_equal_scores_and_drop_long_texts():
    collector = Collector(yes_no.METRIC)
    for said, wanted in ROWS * 100:
        collector.add(yes_no.score(said, wanted))
    assert len({id(score) for score in collector._scores}) == 4


def test_memory_does_not_grow_with_the_texts(tmp_path):
    path = tmp_path / "p.jsonl"
    with path.open("w") as stream:
        for _ in range(120):
            stream.write(json.dumps({"predict": "word " * 40_000, "label": "word"}) + "\n")
    # 24 MB of text; a process that kept it would be far above one that read a single row.
    program = (
        "import resource, sys; from click.testing import CliRunner; from tunebook.cli.score import score\n"
        "r = CliRunner().invoke(score, sys.argv[1:], catch_exceptions=False); assert r.exit_code == 0, r.output\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )

    def peak_megabytes(file):
        command = [sys.executable, "-c", program, "exact_match", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout) / 1024

    one = tmp_path / "one.jsonl"
    one.write_text(path.read_text().partition("\n")[0] + "\n")
    assert peak_megabytes(path) - peak_megabytes(one) < 12
