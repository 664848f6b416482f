"""Runs side by side: which are distinguishable, on which rows, and whether loss says the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tunebook.report.data import gather
from tunebook.report.render import render
from tunebook.report.significance import letters, spearman

RUNS = Path(__file__).parent / "fixtures" / "runs"
RECORDS = "eval_records-movies_test-300.jsonl"


@pytest.fixture
def runs(tmp_path):
    """Make copies of a real run whose first `wrong` answers at the best step are turned over."""

    def made(**wrong):
        folders = []
        for name, count in wrong.items():
            folder = Path(shutil.copytree(RUNS / "movies", tmp_path / name))
            path = folder / "tunebook" / RECORDS
            records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            right = [one for one in records if one["scores"]["yes_no"]["values"]["accuracy"] == 1.0]
            for record in right[:count]:
                turned = "no" if record["reference"] == "Yes" else "yes"
                record["prediction"] = turned.title()
                record["scores"]["yes_no"]["parsed"] = turned
                record["scores"]["yes_no"]["values"]["accuracy"] = 0.0
            write(path, records)
            measure(folder, accuracy=(49 - count) / 60)
            folders.append(folder)
        return folders

    return made


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def measure(folder, *, loss=None, **values):
    """Write accuracy and loss of the best step, which is then chosen by accuracy."""
    path = folder / "tunebook" / "eval_metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for line in lines:
        line["select_by"] = "accuracy"
        if line["step"] == 300:
            line["values"] |= values | ({} if loss is None else {"loss": loss})
        else:
            line["values"]["accuracy"] = 0.1
    write(path, lines)
    recipe = folder / "tunebook" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("for_best_model: macro_f1", "for_best_model: accuracy"))


def test_runs_are_ranked_with_letters_of_those_that_are_not_told_apart(runs):
    found = gather(runs(worst=35, best=0, near=3)).comparison
    assert [(row["name"], row["group"]) for row in found.rows] == [
        ("best", "a"),
        ("near", "a"),
        ("worst", "b"),
    ]
    # Exact McNemar of 3 rows against none is 0.25, and Holm leaves it: the largest of three.
    assert found.rows[1]["standing"] == "not distinguishable: -0.050, p 0.250"
    assert found.rows[2]["standing"] == "worse: -0.583, p < 0.001"
    assert "best is not distinguishable from near; 1 other lies below it" in found.remarks[0]
    assert "Holm over 3 tests" in found.remarks[0]


def test_p_values_are_those_of_all_pairs_together(runs):
    rows = gather(runs(best=0, near=5, mid=7)).comparison.rows
    # Exact McNemar: 2 / 2**5, 2 / 2**7 and 2 / 2**2 by themselves; the smallest of three is tripled by Holm.
    assert [row["p_value"] for row in rows[1:]] == [pytest.approx(2 / 16), pytest.approx(3 / 64)]
    assert [row["group"] for row in rows] == ["a", "ab", "b"]


def test_the_headline_says_whether_the_best_run_is_shown_to_be_the_best(runs):
    assert "not distinguishable from near" in gather(runs(best=0, near=3)).headline
    assert "shown to be better than every other" in gather(runs(first=0, far=35)).headline


def test_rows_on_which_the_runs_disagree_are_shown_with_both_answers(runs):
    gathered = gather(runs(best=0, near=3))
    (pair,) = gathered.comparison.disagreements
    assert (pair.first, pair.second, pair.only_first, pair.only_second, pair.n) == ("best", "near", 3, 0, 60)
    for example in pair.examples:
        assert example.first.prediction == example.reference
        assert example.second.prediction != example.reference
    files = render(gathered)
    for name in ("report.md", "report.html"):
        assert "3 rows better by best, 0 by near, of 60" in files[name].decode()


def test_runs_on_other_rows_are_not_tested_and_it_is_said_why(runs):
    first, second = runs(best=0, other=3)
    path = second / "tunebook" / RECORDS
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    write(path, [record | {"reference": f"{record['reference']}!"} for record in records])
    found = gather([first, second]).comparison
    assert found.rows[1]["p_value"] is None
    assert found.rows[1]["group"] is None
    assert "not evaluated on the same rows: 60 of 60 have another reference" in found.rows[1]["standing"]
    assert "Not tested against best by accuracy on movies_test: other" in found.remarks[0]


def test_runs_without_records_are_not_tested(runs):
    first, second = runs(best=0, bare=3)
    (second / "tunebook" / RECORDS).unlink()
    found = gather([first, second])
    assert "bare left no records of single answers" in found.comparison.rows[1]["standing"]
    assert "1 could not be tested against it" in found.headline


def test_damaged_records_are_no_ground_for_a_test(runs):
    first, second = runs(best=0, torn=3)
    path = second / "tunebook" / RECORDS
    path.write_text(path.read_text("utf-8")[:-200], encoding="utf-8")
    assert "cannot be used" in gather([first, second]).comparison.rows[1]["standing"]


def test_above_ten_runs_each_is_tested_against_the_best_alone(runs):
    found = gather(runs(**{f"run{count:02}": count for count in range(11)})).comparison
    assert all(row["group"] is None for row in found.rows)
    assert "Holm over 10 tests" in found.remarks[0]
    assert found.rows[-1]["standing"].startswith("worse")


def test_the_run_of_the_lowest_loss_that_is_shown_to_be_worse_is_a_finding(runs):
    good, low = runs(good=0, low=35)
    measure(good, accuracy=49 / 60, loss=0.4)
    measure(low, accuracy=14 / 60, loss=0.1)
    (finding,) = gather([good, low]).comparison.findings
    assert finding.title == "the run of the lowest loss is not the best by accuracy"
    assert (
        "low has the lowest evaluation loss, 0.100, and accuracy 0.233; good has loss 0.400"
        in finding.evidence
    )
    assert "exact McNemar over 60 shared rows: p < 0.001" in finding.evidence


@pytest.mark.parametrize(("losses", "wrong"), [((0.1, 0.4), 35), ((0.4, 0.1), 3)])
def test_loss_that_agrees_or_differs_within_the_noise_is_no_finding(runs, losses, wrong):
    good, other = runs(good=0, other=wrong)
    measure(good, accuracy=49 / 60, loss=losses[0])
    measure(other, accuracy=(49 - wrong) / 60, loss=losses[1])
    assert gather([good, other]).comparison.findings == ()


@pytest.mark.parametrize("rising", [True, False])
def test_loss_against_metric_over_many_runs_is_told_by_rank_with_its_chance(tmp_path, rising):
    for place in range(6):
        folder = tmp_path / str(place) / "tunebook"
        folder.mkdir(parents=True)
        value = 0.1 * (place + 1)
        line = {
            "dataset": "d", "step": 1, "select_by": "f1", "metric": ["m"], "n": 9,
            "values": {"f1": value, "loss": value if rising else 1 - value},
        }  # fmt: skip
        write(folder / "eval_metrics.jsonl", [line])
    found = gather([tmp_path / str(place) for place in range(6)]).comparison
    assert f"over 6 runs: {'-' if rising else '+'}1.00 (p 0.003)" in found.remarks[-1]
    assert [finding.title for finding in found.findings] == (
        ["evaluation loss and F1 (yes) disagree on which run is better"] if rising else []
    )


def test_three_runs_in_reverse_order_of_loss_prove_nothing(tmp_path):
    for place, (loss, f1) in enumerate([(0.1, 0.2), (0.2, 0.5), (0.3, 0.9)]):
        folder = tmp_path / str(place) / "tunebook"
        folder.mkdir(parents=True)
        line = {
            "dataset": "d", "step": 1, "select_by": "f1", "metric": ["m"], "n": 9,
            "values": {"f1": f1, "loss": loss},
        }  # fmt: skip
        write(folder / "eval_metrics.jsonl", [line])
    found = gather([tmp_path / str(place) for place in range(3)]).comparison
    assert "over 3 runs: -1.00 (p 0.333); too few or too mixed to tell" in found.remarks[-1]
    assert found.findings == ()


def test_environments_are_told_only_where_they_differ(runs):
    first, second = runs(first=0, second=0)
    assert gather([first, second]).comparison.environment == ()
    path = second / "tunebook" / "run.json"
    run = json.loads(path.read_text("utf-8"))
    run["versions"]["torch"] = "2.14.0"
    run["datasets"]["movies_test"]["sha256"] = "f" * 64
    path.write_text(json.dumps(run), encoding="utf-8")
    found = gather([first, second]).comparison.environment
    assert [difference.key for difference in found] == ["version of torch", "data movies_test"]
    assert found[0].values == {"r1": "2.13.0", "r2": "2.14.0"}


def test_what_all_runs_have_in_common_is_told_once(runs):
    common = gather(runs(first=0, second=3)).comparison.common
    assert common == {
        "model": "qwen3", "method": "full SFT", "trained_on": "movies_train", "dataset": "movies_test",
        "figure": "accuracy",
    }  # fmt: skip


def test_by_loss_one_would_keep_a_worse_checkpoint_is_found_only_where_it_is_shown(tmp_path):
    folder = Path(shutil.copytree(RUNS / "movies", tmp_path / "run"))
    path = folder / "tunebook" / "eval_metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    write(path, [line | {"values": line["values"] | {"loss": 0.01 * (line["step"] / 100)}} for line in lines])
    titles = {finding.title: finding for finding in gather([folder]).runs[0].findings}
    finding = titles["the lowest loss is not the best macro-F1 on movies_test"]
    assert "by loss one would keep step 100" in finding.evidence
    assert "in place of step 300" in finding.evidence
    assert "paired bootstrap over 60 rows: macro-F1 -0.458" in finding.evidence
    # Without the answers of both checkpoints nothing is shown.
    (folder / "tunebook" / "eval_records-movies_test-100.jsonl").unlink()
    titles = {finding.title for finding in gather([folder]).runs[0].findings}
    assert "the lowest loss is not the best macro-F1 on movies_test" not in titles


def test_a_checkpoint_of_lower_loss_that_is_not_shown_to_be_worse_is_no_finding(tmp_path):
    folder = Path(shutil.copytree(RUNS / "movies", tmp_path / "run"))
    measure(folder, accuracy=49 / 60, loss=0.4)
    ours = folder / "tunebook"
    lines = [json.loads(line) for line in (ours / "eval_metrics.jsonl").read_text("utf-8").splitlines()]
    first = next(line for line in lines if line["step"] == 100)
    first["values"] |= {"loss": 0.01, "accuracy": 48 / 60}
    write(ours / "eval_metrics.jsonl", lines)
    records = [json.loads(line) for line in (ours / RECORDS).read_text("utf-8").splitlines()]
    right = [one for one in records if one["scores"]["yes_no"]["values"]["accuracy"] == 1.0]
    right[0]["scores"]["yes_no"] |= {"parsed": None, "values": {"accuracy": 0.0}}
    write(ours / "eval_records-movies_test-100.jsonl", [record | {"step": 100} for record in records])
    titles = {finding.title for finding in gather([folder]).runs[0].findings}
    assert "the lowest loss is not the best accuracy on movies_test" not in titles


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=12))
def test_rank_correlation_is_scipys(pairs):
    first, second = zip(*pairs, strict=True)
    found = spearman(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert found is None
    else:
        assert found.rho == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-9)
        assert 0 < found.p_value <= 1
        assert found.low is None or found.low <= found.rho <= found.high


def test_the_probability_of_an_order_is_the_share_of_orders_as_far_off():
    # Of the 120 orders of five things, 1 is the same and 1 the reverse.
    assert spearman([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]).p_value == pytest.approx(2 / 120)
    found = spearman(list(range(20)), [*range(1, 20), 0])
    assert found.p_value == pytest.approx(stats.spearmanr(range(20), [*range(1, 20), 0]).pvalue, abs=0.01)


@given(st.integers(2, 7), st.data())
def test_runs_share_a_letter_exactly_where_they_are_not_told_apart(count, data):
    pairs = [(first, second) for first in range(count) for second in range(first + 1, count)]
    apart = data.draw(st.sets(st.sampled_from(pairs)))
    found = letters(list(range(count)), apart)
    for first, second in pairs:
        assert bool(set(found[first]) & set(found[second])) == ((first, second) not in apart)
