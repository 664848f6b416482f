"""`tunebook compare --require`: what decides, the exit status, and what is refused."""

import json

import pytest
from click.testing import CliRunner
from scipy import stats

from tunebook.cli.compare import compare
from tunebook.comparison.gate import exit_status, parse_requirements
from tunebook.errors import TunebookError
from tunebook.metrics.statistics import paired_shares_interval

N = 200


def write(folder, name, right, *, dataset="movies"):
    """A file of records with this many right answers, of which the first rows are."""
    path = folder / f"{name}.jsonl"
    rows = []
    for index in range(N):
        wanted = "yes" if index % 2 else "no"
        said = wanted if index in right else {"yes": "no", "no": "yes"}[wanted]
        rows.append({"dataset": dataset, "index": index, "prediction": said, "reference": wanted})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def gate(first, second, *requirements, metric="yes_no"):
    asked = [part for one in requirements for part in ("--require", one)]
    arguments = [str(first), str(second), "--metric", metric, "--json", *asked]
    done = CliRunner().invoke(compare, arguments, catch_exceptions=False)
    return done.exit_code, json.loads(done.stdout)["requirements"]


@pytest.fixture
def models(tmp_path):
    """`near` is 2 rows of 200 below `base`, `good` 40 above, `bad` 40 below."""
    base = set(range(120))
    return {
        name: write(tmp_path, name, right)
        for name, right in (
            ("base", base),
            ("near", base - {0, 1, 2} | {150}),
            ("good", set(range(160))),
            ("bad", set(range(80))),
        )
    }


CASES = [
    ("good", "accuracy better", 0),
    ("bad", "accuracy better", 1),
    ("near", "accuracy better", 3),
    ("good", "macro_f1 better", 0),
    ("bad", "macro_f1 better", 1),
    ("near", "macro_f1 better", 3),
    ("good", "accuracy >= base", 0),
    ("good", "accuracy > base + 0.1", 0),
    ("good", "accuracy >= base + 0.2", 3),
    ("good", "accuracy >= base + 0.5", 1),
    ("near", "accuracy >= base - 0.05", 0),
    ("near", "accuracy >= base - 0.01", 3),
    ("bad", "accuracy >= base - 0.01", 1),
    ("bad", "accuracy>=base-.3", 0),
    ("near", "macro_f1 >= base - 5e-2", 0),
    ("good", "accuracy >= 0.7", 0),
    ("good", "accuracy >= 0.8", 3),
    ("good", "accuracy > 0.9", 1),
    ("good", "macro_f1 >= 0.7", 0),
    ("good", "unparsed_rate <= 0.05", 0),
    ("good", "unparsed_rate <= base + 0.02", 0),
    ("good", "movies/accuracy better", 0),
    ("good", "yes_no/accuracy better", 0),
    ("good", "movies/yes_no/macro_f1 better", 0),
]


@pytest.mark.parametrize(("model", "requirement", "status"), CASES)
def test_intervals_and_tests_decide(models, model, requirement, status):
    code, (outcome,) = gate(models["base"], models[model], requirement)
    assert (code, outcome["verdict"]) == (status, {0: "met", 1: "not met", 3: "not distinguishable"}[status])
    assert outcome["requirement"] == requirement


def test_the_numbers_are_those_of_the_tests(models):
    _, (margin, level, better) = gate(
        models["base"], models["good"], "accuracy >= base", "accuracy >= 0.7", "accuracy better"
    )
    assert (margin["low"], margin["high"]) == pytest.approx(paired_shares_interval(0, 40, N))
    wilson = stats.binomtest(160, N).proportion_ci(method="wilson")
    assert (level["low"], level["high"]) == pytest.approx((wilson.low, wilson.high))
    assert (margin["interval_of"], level["interval_of"]) == ("difference", "second")
    assert better["p_value"] == pytest.approx(stats.binomtest(0, 40).pvalue)
    assert margin["p_value"] is None


def test_several_requirements_are_each_decided_and_the_worst_counts(models):
    code, outcomes = gate(models["base"], models["near"], "accuracy >= base - 0.05", "accuracy better")
    assert [one["verdict"] for one in outcomes] == ["met", "not distinguishable"]
    assert code == 3
    assert exit_status(["met", "not distinguishable", "not met"]) == 1
    assert exit_status([]) == 0


def test_each_requirement_is_a_test_of_its_own(models):
    """Holm's correction among all figures of the table would make a gate depend on what else is measured."""
    _, (outcome,) = gate(models["base"], models["good"], "macro_f1 better")
    done = CliRunner().invoke(
        compare, [str(models["base"]), str(models["good"]), "--metric", "yes_no", "--json"]
    )
    figures = json.loads(done.stdout)["sets"][0]["figures"]
    assert outcome["p_value"] == next(one["p_value"] for one in figures if one["name"] == "macro_f1")


def test_equal_models_meet_a_margin_only_where_there_is_an_interval(models):
    code, (accuracy, macro) = gate(
        models["base"], models["base"], "accuracy >= base - 0.02", "macro_f1 >= base - 0.02"
    )
    assert (accuracy["verdict"], macro["verdict"], code) == ("met", "not distinguishable", 3)
    assert "no interval" in macro["measured"]


def test_each_requirement_has_its_line_on_the_terminal_and_in_the_files(models, tmp_path):
    arguments = [str(models["base"]), str(models["good"]), "--metric", "yes_no", "-o", str(tmp_path / "out")]
    asked = ["--require", "accuracy >= base - 0.01", "--require", "macro_f1 >= 0.9"]
    done = CliRunner().invoke(compare, [*arguments, *asked], catch_exceptions=False)
    assert done.exit_code == 1
    lines = [line for line in done.stdout.splitlines() if line.startswith(("met", "not "))]
    assert lines[0].startswith(
        "met: accuracy >= base - 0.01: 0.800 on 200 rows, base 0.600, difference +0.200, 95 % interval +0.1"
    )
    assert lines[1].startswith("not met: macro_f1 >= 0.9: 0.800 on 200 rows, 95 % interval 0.7")
    for name in ("compare.md", "compare.html"):
        assert "not met" in (tmp_path / "out" / name).read_text()
    assert len(json.loads((tmp_path / "out/compare.json").read_text())["requirements"]) == 2


@pytest.mark.parametrize(
    "text",
    [
        *("", "accuracy", "better", "accuracy >=", "accuracy >= base * 0.9", "accuracy >= base - 1%"),
        *("accuracy = 1", "accuracy >= A", "accuracy => 0.5", "accuracy >= base - -0.1"),
        *("accuracy >= 0,5", ">= 0.5", "a better b"),
    ],
)
def test_what_is_no_requirement_is_refused_before_anything_is_read(text):
    with pytest.raises(TunebookError, match="is no requirement") as caught:
        parse_requirements([text])
    assert "FIGURE >= base - 0.01" in caught.value.fix


def refused(first, second, *requirements):
    with pytest.raises(TunebookError) as caught:
        gate(first, second, *requirements)
    return str(caught.value)


def test_an_unknown_figure_is_named_with_those_there_are(models):
    said = refused(models["base"], models["good"], "movies/acuracy better", "books/f1 better")
    assert "movies/acuracy is no figure of this comparison; did you mean movies/accuracy?" in said
    assert "books/f1 is no figure" in said
    assert "name one of movies/accuracy, movies/unparsed_rate, movies/f1, movies/macro_f1" in said


@pytest.mark.parametrize(
    ("requirement", "fix"), [("unparsed_rate >= base - 0.01", "<="), ("accuracy <= 0.9", ">=")]
)
def test_a_figure_that_would_have_to_get_worse_is_refused(models, requirement, fix):
    said = refused(models["base"], models["good"], requirement)
    assert f"write {fix}, or name another figure" in said


def test_a_figure_of_several_sets_has_to_be_named_with_its_set(tmp_path):
    sides = []
    for name, right in (("a", range(100)), ("b", range(180))):
        both = tmp_path / f"{name}.jsonl"
        parts = [write(tmp_path, f"{name}{set_}", right, dataset=set_) for set_ in ("movies", "books")]
        both.write_text("".join(part.read_text() for part in parts))
        sides.append(both)
    said = refused(*sides, "accuracy better")
    assert "accuracy is a figure of 2 sets" in said
    assert "name one: movies/accuracy, books/accuracy" in said
    assert gate(*sides, "books/accuracy better", "movies/accuracy better")[0] == 0


def test_a_mean_that_is_no_share_can_be_required(tmp_path):
    rows = [{"prediction": "a b c", "reference": "a b c d"} for _ in range(40)]
    for name in ("a", "b"):
        text = "".join(
            json.dumps(row | ({"prediction": "a b c d"} if name == "b" and at % 3 else {})) + "\n"
            for at, row in enumerate(rows)
        )
        (tmp_path / f"{name}.jsonl").write_text(text)
    code, (outcome,) = gate(
        tmp_path / "a.jsonl", tmp_path / "b.jsonl", "rouge/rougeL >= base - 0.01", metric="rouge"
    )
    assert (code, outcome["metric"], outcome["dataset"]) == (0, "rouge", "")
