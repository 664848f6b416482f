import csv
import json
import math
import re
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from scipy import stats
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar

from tunebook.cli.compare import compare
from tunebook.cli.score import score
from tunebook.comparison.disagreements import KEPT
from tunebook.comparison.figures import row_figures
from tunebook.comparison.rows import Columns, find_predictions, read_answered_rows
from tunebook.errors import TunebookError
from tunebook.metrics import load

WANTED = ["yes", "no", "yes", "no", "yes", "no", "yes", "no", "yes", "no"] * 6


def said(flipped):
    """Right answers, but for these rows."""
    other = {"yes": "No", "no": "Yes"}
    return [other[w] if i in flipped else w.capitalize() for i, w in enumerate(WANTED)]


A = said({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 30})
B = said({3, 40, 41})


def record(index, prediction, reference=None, *, step=0, dataset="movies", metric="yes_no", **more):
    reference = reference or WANTED[index]
    score = load(metric).score(prediction, reference)
    scores = {
        metric: {
            "values": dict(score.values),
            "parsed": score.parsed,
            "reference": score.reference,
            "rule": score.rule,
            "reason": score.reason,
        }
    }
    return {
        "dataset": dataset,
        "index": index,
        "step": step,
        "prompt": f"<|im_start|>user\nWill user {index} like it?<|im_end|>\n<|im_start|>assistant\n",
        "prediction": prediction,
        "reference": reference,
        "mode": "generate",
        "scores": scores,
    } | more


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def records(path, predictions, **more):
    return write(path, [record(i, text, **more) for i, text in enumerate(predictions)])


def make_run(folder, steps, best=None, **more):
    for step, predictions in steps.items():
        records(folder / f"tunebook/eval_records-movies-{step}.jsonl", predictions, step=step, **more)
    lines = [
        {"dataset": "movies", "step": step, "values": {"macro_f1": 0.9 if step == best else 0.1}}
        | {"select_by": "macro_f1", "larger_is_better": True}
        for step in steps
    ]
    write(folder / "tunebook/eval_metrics.jsonl", lines)
    return folder


def run(*arguments):
    return CliRunner().invoke(compare, [str(a) for a in arguments], catch_exceptions=False)


def compared(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def only_set(*arguments):
    (one,) = compared(*arguments)["sets"]
    return one


@pytest.fixture
def two(tmp_path):
    return records(tmp_path / "a.jsonl", A), records(tmp_path / "b.jsonl", B)


# --------------------------------------------------------------------------------------------- the numbers


def test_accuracy_is_tested_by_the_exact_mcnemar_test_of_statsmodels(two):
    one = only_set(*two)
    accuracy = one["figures"][0]
    assert (accuracy["name"], accuracy["primary"], accuracy["test"]) == ("accuracy", True, "exact McNemar")
    right = [[said.lower() == wanted for said, wanted in zip(side, WANTED, strict=True)] for side in (A, B)]
    cells = [[0, 0], [0, 0]]
    for first, second in zip(*right, strict=True):
        cells[first][second] += 1
    assert accuracy["p_value"] == pytest.approx(mcnemar(cells, exact=True).pvalue, rel=1e-9)
    assert accuracy["difference"] == pytest.approx((57 - 47) / 60)
    assert accuracy["low"] < accuracy["difference"] < accuracy["high"]
    assert (one["better"], one["worse"], one["both_right"], one["both_wrong"]) == (12, 2, 45, 1)
    assert accuracy["verdict"] == "better"


def test_figures_of_counts_are_scikit_learns_on_either_side(two):
    figures = {one["name"]: one for one in only_set(*two)["figures"]}
    for side, said in (("first", A), ("second", B)):
        answers = [text.lower() for text in said]
        assert figures["f1"][side] == pytest.approx(sk.f1_score(WANTED, answers, pos_label="yes"))
        assert figures["macro_f1"][side] == pytest.approx(sk.f1_score(WANTED, answers, average="macro"))
        assert figures["mcc"][side] == pytest.approx(sk.matthews_corrcoef(WANTED, answers))
    assert figures["f1"]["test"] == "paired bootstrap"
    assert figures["f1"]["low"] < figures["f1"]["difference"] < figures["f1"]["high"]


def test_the_bootstrap_of_counts_is_that_of_rows(tmp_path, two):
    """The interval of F1 agrees with drawing rows, as scipy does."""
    figure = next(one for one in only_set(*two)["figures"] if one["name"] == "f1")

    def difference(first, second, wanted):
        sides = [
            2 * ((side == 1) & (wanted == 1)).sum() / ((side == 1).sum() + (wanted == 1).sum())
            for side in (first, second)
        ]
        return sides[1] - sides[0]

    columns = [[int(text.lower() == "yes") for text in side] for side in (A, B, WANTED)]
    interval = stats.bootstrap(
        columns, difference, paired=True, vectorized=False, n_resamples=1000, method="percentile", rng=1
    ).confidence_interval
    assert (figure["low"], figure["high"]) == pytest.approx((interval.low, interval.high), abs=0.03)


def test_an_unreadable_answer_counts_as_wrong_and_is_a_figure_of_its_own(tmp_path):
    first = records(tmp_path / "a.jsonl", ["It depends." if i < 20 else text for i, text in enumerate(B)])
    second = records(tmp_path / "b.jsonl", B)
    one = only_set(first, second)
    unparsed = next(figure for figure in one["figures"] if figure["name"] == "unparsed_rate")
    assert (unparsed["first"], unparsed["second"]) == (pytest.approx(20 / 60), 0.0)
    assert unparsed["verdict"] == "better"
    assert one["disagreements"][0]["first"]["parsed"] is None


def test_rouge_is_tested_by_the_paired_bootstrap(tmp_path):
    reference = "the cat sat on the mat and looked at the dog"
    words = reference.split()
    sides = []
    for name, dropped in (("a", 5), ("b", 3)):
        texts = [" ".join(words[(i % 3) : len(words) - dropped + (i % 2)]) for i in range(40)]
        rows = [{"index": i, "predict": text, "label": reference} for i, text in enumerate(texts)]
        sides.append(write(tmp_path / f"{name}.jsonl", rows))
    one = only_set(*sides, "--metric", "rouge")
    assert one["figure"] == "rougeL"
    assert one["figures"][0]["test"] == "paired bootstrap"
    assert one["counts_right"] is False
    assert one["both_right"] is None
    assert one["better"] == 40
    assert {"rouge1", "rouge2", "rougeL", "rougeLsum"} < {figure["name"] for figure in one["figures"]}
    assert compared(*sides, "--metric", "rouge")["sets"] == compared(*sides, "--metric", "rouge")["sets"]


def test_holm_is_over_the_primary_figures_of_all_sets_and_over_the_others_apart(tmp_path):
    for folder, predictions in (("a", A), ("b", B)):
        for dataset in ("movies", "books"):
            path = tmp_path / folder / f"tunebook/eval_records-{dataset}-5.jsonl"
            records(path, predictions, dataset=dataset, step=5)
    found = compared(tmp_path / "a", tmp_path / "b")
    primaries = [one["figures"][0] for one in found["sets"]]
    assert [one["dataset"] for one in found["sets"]] == ["books", "movies"]
    assert all(one["p_adjusted"] == pytest.approx(2 * one["p_value"]) for one in primaries)
    assert any("Holm" in note for note in found["notes"])
    assert [
        one["dataset"] for one in compared(tmp_path / "a", tmp_path / "b", "--dataset", "books")["sets"]
    ] == ["books"]


def test_two_that_cannot_be_told_apart_are_said_to_be_so_with_the_rows_needed(tmp_path):
    first, second = (
        records(tmp_path / "a.jsonl", said({1, 2, 3})),
        records(tmp_path / "b.jsonl", said({4, 5})),
    )
    one = only_set(first, second)
    assert one["sentence"].startswith(
        "a and b are not distinguishable by accuracy on 60 rows of movies: +0.017"
    )
    needed = one["figures"][0]["rows_needed"]
    spread = 5 / 60 - (1 / 60) ** 2
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert needed == math.ceil(spread * (z / (1 / 60)) ** 2)
    assert re.search(rf"would need about {round(needed, -2):,} rows\.", one["sentence"])


def test_equal_answers_are_said_to_be_equal(two):
    one = only_set(two[0], two[0])
    assert "have the same accuracy on each of the 60 rows of movies." in one["sentence"]
    assert one["disagreements"] == []
    assert one["figures"][0]["p_value"] == 1.0
    assert one["figures"][0]["rows_needed"] is None


def test_a_figure_that_no_resample_moves_has_no_interval(tmp_path):
    """With no false yes on either side the precision is 1 in every resample, which proves nothing."""
    sides = [records(tmp_path / "a.jsonl", said({0, 2, 4})), records(tmp_path / "b.jsonl", said({6}))]
    precision = next(one for one in only_set(*sides)["figures"] if one["name"] == "precision")
    assert (precision["first"], precision["second"], precision["p_value"]) == (1.0, 1.0, 1.0)
    assert (precision["low"], precision["high"]) == (None, None)
    assert (
        "no interval"
        in run(*sides, "-o", tmp_path / "out").output + (tmp_path / "out/compare.md").read_text()
    )


def test_groups_add_up_to_the_whole(tmp_path):
    rows = [[record(i, side[i], prompt="word " * (i + 1)) for i in range(60)] for side in (A, B)]
    one = only_set(*(write(tmp_path / f"{name}.jsonl", side) for name, side in zip("ab", rows, strict=True)))
    assert [way["by"] for way in one["groups"]] == ["prompt characters", "class"]
    for way in one["groups"]:
        assert sum(group["n"] for group in way["groups"]) == 60
        assert len(way["groups"]) == (4 if way["by"] == "prompt characters" else 2)
        assert sum(group["better"] for group in way["groups"]) == one["better"]
        assert sum(group["worse"] for group in way["groups"]) == one["worse"]
    assert [group["label"] for group in one["groups"][1]["groups"]] == ["no", "yes"]


def test_bleu_is_paired_by_its_sentence_scores():
    columns = dict.fromkeys(("sentence_bleu", "bleu_matches_1", "unparsed_rate"))
    assert row_figures(load("bleu"), SimpleNamespace(first=columns)) == ["sentence_bleu"]


# -------------------------------------------------------------------------------------------- matching rows


def test_rows_are_matched_by_index_and_not_by_place(tmp_path):
    first = write(tmp_path / "a.jsonl", [record(i, B[i]) for i in reversed(range(60))])
    second = write(tmp_path / "b.jsonl", [record(i, B[i]) for i in range(5, 60)])
    found = compared(first, second)
    assert found["sets"][0]["n"] == 55
    assert (found["sets"][0]["only_in_first"], found["sets"][0]["only_in_second"]) == (5, 0)
    assert found["sets"][0]["equal"] == 55
    assert "5 rows of movies are only in the first" in found["notes"][0]


def test_of_an_index_that_stands_twice_the_later_row_counts(tmp_path):
    rows = [record(i, text) for i, text in enumerate(B)]
    first = write(tmp_path / "a.jsonl", [*rows, record(0, "No"), record(1, "no")])
    second = write(tmp_path / "b.jsonl", rows)
    one = only_set(first, second)
    assert (one["n"], one["better"]) == (60, 1)
    assert one["disagreements"][0]["first"]["prediction"] == "No"


def test_other_references_are_refused(tmp_path, two):
    rows = [record(i, text) for i, text in enumerate(B)]
    rows[7] = record(7, "No", "yes")
    rows[9] = record(9, "No", "yes")
    with pytest.raises(
        TunebookError, match=r"row 7 of movies has another reference .*'yes' for 'no'; so have 1 more"
    ):
        run(two[0], write(tmp_path / "other.jsonl", rows))


def test_other_prompts_are_refused_unless_they_are_allowed(tmp_path, two):
    rows = [record(i, text) for i, text in enumerate(B)]
    rows[3]["prompt"] = "Example: Yes. " + rows[3]["prompt"]
    other = write(tmp_path / "other.jsonl", rows)
    with pytest.raises(TunebookError, match="row 3 of movies has another prompt") as caught:
        run(two[0], other)
    assert "--prompts-may-differ" in caught.value.fix
    found = compared(two[0], other, "--prompts-may-differ")
    assert found["prompts_differ"] == 1
    assert any("different prompts" in note for note in found["notes"])


def test_no_row_in_common_is_refused(tmp_path):
    first = write(tmp_path / "a.jsonl", [record(i, B[i]) for i in range(10)])
    second = write(tmp_path / "b.jsonl", [record(i, B[i]) for i in range(10, 20)])
    with pytest.raises(TunebookError, match="no row of movies in common"):
        run(first, second)


def test_a_single_row_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", [record(0, "Yes")])
    with pytest.raises(TunebookError, match="needs two"):
        run(path, path)


# --------------------------------------------------------------------------------------------- what to name


def test_a_run_stands_for_its_best_step(tmp_path):
    folder = make_run(tmp_path / "lora", {0: A, 10: B, 20: A}, best=10)
    source = find_predictions(str(folder))
    assert source.label == "lora@10"
    assert source.chosen == {"movies": "step 10, the best by macro_f1"}
    for name, step in (("@20", 20), ("@last", 20), ("@base", 0), ("@best", 10), ("/checkpoint-20", 20)):
        path = find_predictions(f"{folder}{name}").files["movies"]
        assert path.name == f"eval_records-movies-{step}.jsonl"


def test_base_against_tuned_in_one_run(tmp_path):
    folder = make_run(tmp_path / "lora", {0: A, 10: B}, best=10)
    found = compared(f"{folder}@base", folder)
    assert found["first"]["label"] == "lora@0"
    assert found["sets"][0]["sentence"].startswith("lora@10 is better than lora@0 by accuracy")


def test_a_step_without_records_names_those_that_have_some(tmp_path):
    folder = make_run(tmp_path / "lora", {0: A, 10: B})
    with pytest.raises(TunebookError, match="no records of step 7; it has movies: 0, 10"):
        find_predictions(f"{folder}@7")


def test_two_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    first, second = make_run(tmp_path / "x/lora", {10: A}), make_run(tmp_path / "y/lora", {10: B})
    found = compared(first, second)
    assert (found["first"]["label"], found["second"]["label"]) == (str(first), str(second))


@pytest.mark.parametrize("name", ["nothing", "nothing@5", "nothing.jsonl"])
def test_what_is_not_there_is_said(tmp_path, name):
    with pytest.raises(TunebookError, match="no such run or file"):
        find_predictions(str(tmp_path / name))


def test_a_folder_without_records_and_other_files_are_refused(tmp_path):
    with pytest.raises(TunebookError, match="holds no records"):
        find_predictions(str(tmp_path))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(TunebookError, match=r"ends in '\.txt'"):
        find_predictions(str(tmp_path / "a.txt"))


# ------------------------------------------------------------------------------------------- files of rows


def instruction_rows(predictions):
    return [
        {"instruction": "Will they like it?", "input": f"film {i}", "output": WANTED[i], "predict": text}
        for i, text in enumerate(predictions)
    ]


def movie_rows(predictions):
    return [
        {"user_id": i, "history_titles": ["Heat", "Alien"], "candidate_title": f"film {i}"}
        | {"label": WANTED[i], "generated_text": text}
        for i, text in enumerate(predictions)
    ]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("shape", [instruction_rows, movie_rows])
def test_both_shapes_of_yes_no_files_are_read(tmp_path, shape, suffix):
    sides = [write(tmp_path / f"{name}{suffix}", shape(said)) for name, said in (("a", A), ("b", B))]
    one = only_set(*sides, "--metric", "yes_no")
    assert (one["better"], one["worse"], one["recorded"]) == (12, 2, False)
    assert "film 30" in "".join(row["prompt"] for row in one["disagreements"])


def test_csv_is_read_too(tmp_path):
    sides = []
    for name, predictions in (("a", A), ("b", B)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as stream:
            table = csv.DictWriter(stream, ["prediction", "label"])
            table.writeheader()
            table.writerows({"prediction": text, "label": WANTED[i]} for i, text in enumerate(predictions))
        sides.append(tmp_path / f"{name}.csv")
    assert only_set(*sides, "--metric", "yes_no")["better"] == 12


def test_two_columns_of_one_file_are_compared(tmp_path):
    rows = [{"label": WANTED[i], "base": A[i], "tuned": B[i]} for i in range(60)]
    path = write(tmp_path / "both.json", rows)
    columns = ("--prediction-column", "base", "--prediction-column", "tuned")
    found = compared(path, path, "--metric", "yes_no", *columns)
    assert found["sets"][0]["better"] == 12
    assert (found["first"]["label"], found["second"]["label"]) == ("first", "second")


def test_output_is_the_prediction_where_a_label_stands_beside_it(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"output": "Yes", "label": "no"}])
    (row,) = read_answered_rows(path, Columns())
    assert (row.prediction, row.reference) == ("Yes", "no")


def test_output_is_the_reference_where_the_model_speaks_in_another_column(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"instruction": "?", "input": "", "output": "no", "response": "Yes"}])
    (row,) = read_answered_rows(path, Columns())
    assert (row.prediction, row.reference) == ("Yes", "no")


def test_datasets_of_one_file_are_kept_apart(tmp_path):
    """Their rows have the same indexes."""
    sides = []
    for name, texts in (("a", A), ("b", B)):
        rows = [record(i, text) for i, text in enumerate(texts)]
        rows += [record(i, WANTED[i], dataset="books", prompt=f"book {i}") for i in range(60)]
        sides.append(write(tmp_path / f"{name}.jsonl", rows))
    movies, books = compared(*sides)["sets"]
    assert (movies["better"], books["better"]) == (12, 0)
    assert all("Will user" in row["prompt"] for row in movies["disagreements"])
    assert [one["dataset"] for one in compared(*sides, "--dataset", "books")["sets"]] == ["books"]


def test_a_missing_column_names_the_option(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": "Yes", "label": "no"}])
    with pytest.raises(TunebookError, match="it has 'text', 'label'") as caught:
        list(read_answered_rows(path, Columns()))
    assert "--prediction-column" in caught.value.fix


def test_files_without_verdicts_need_a_metric(tmp_path):
    path = write(tmp_path / "a.jsonl", movie_rows(A))
    with pytest.raises(TunebookError, match="do not say by which metric"):
        run(path, path)


def test_a_file_beside_a_run_is_judged_by_the_runs_metric(tmp_path):
    folder = make_run(tmp_path / "lora", {10: B})
    rows = [{"predict": text, "label": WANTED[i]} for i, text in enumerate(A)]
    found = compared(write(tmp_path / "base.jsonl", rows), folder)
    assert (found["sets"][0]["dataset"], found["sets"][0]["metric"]) == ("movies", "yes_no")
    assert "Both were judged by yes_no now, from their texts." in found["notes"]


def test_a_reference_that_cannot_be_used_names_its_row(tmp_path):
    rows = [{"predict": "Yes", "label": "yes"}, {"predict": "Yes", "label": "perhaps so"}]
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(TunebookError, match=r"a\.jsonl: row 1 cannot be judged by yes_no"):
        run(path, path, "--metric", "yes_no")


# ------------------------------------------------------------------------------------------------- output


def test_the_text_fits_eighty_columns_and_shows_as_many_as_asked(two):
    result = run(*two, "--show", "3")
    tables = result.output.split("\nrow ")[0].splitlines()
    assert max(len(line.rstrip()) for line in tables if "B - A" in line or "balanced" in line) <= 80
    assert "…" not in result.output
    assert result.output.count("\nrow ") == 3
    assert "11 more rows differ" in result.output
    assert "wrong, now right: 12; right, now wrong: 2" in result.output


def test_prompts_are_cut_at_300_characters_and_lose_their_special_tokens(tmp_path):
    rows = [
        [record(i, side[i], prompt="<|im_start|>user\n" + "word " * 400 + str(i)) for i in range(60)]
        for side in (A, B)
    ]
    one = only_set(write(tmp_path / "a.jsonl", rows[0]), write(tmp_path / "b.jsonl", rows[1]))
    assert all(len(row["prompt"]) <= 300 for row in one["disagreements"])
    assert all(row["prompt"].startswith("word") for row in one["disagreements"])
    assert all(row["prompt"].endswith(str(row["index"])) for row in one["disagreements"])


def test_the_folder_holds_the_same_comparison_three_times(tmp_path, two):
    folder = tmp_path / "new/out"
    result = run(*two, "-o", folder, "--show", "2")
    assert result.exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["compare.html", "compare.json", "compare.md"]
    data = json.loads((folder / "compare.json").read_text())
    assert data["format"] == 1
    assert len(data["sets"][0]["disagreements"]) == 14
    markdown = (folder / "compare.md").read_text()
    assert "### Disagreements, 2 of 14" in markdown
    assert "| accuracy (primary) | 0.783 | 0.950 | +0.167 |" in markdown
    page = (folder / "compare.html").read_text()
    assert page.count('data-kind="') == 14
    assert "http" not in page.replace("http-equiv", "")


def test_texts_of_a_model_cannot_become_part_of_the_page(tmp_path):
    evil = "</td><script>alert(1)</script> | `x` <b>"
    rows = [[record(i, side[i]) for i in range(60)] for side in (A, B)]
    for side in rows:
        side[0]["prompt"] = evil
    rows[0][0]["prediction"] = "Nope " + evil
    paths = [write(tmp_path / f"{name}.jsonl", side) for name, side in zip("ab", rows, strict=True)]
    run(*paths, "-o", tmp_path / "out")
    page = (tmp_path / "out/compare.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in (tmp_path / "out/compare.md").read_text()


def test_secrets_are_taken_out(tmp_path):
    rows = [[record(i, side[i], prompt="key hf_" + "a" * 30) for i in range(60)] for side in (A, B)]
    paths = [write(tmp_path / f"{name}.jsonl", side) for name, side in zip("ab", rows, strict=True)]
    result = run(*paths, "-o", tmp_path / "out")
    texts = [result.output, *(path.read_text() for path in (tmp_path / "out").iterdir())]
    assert all("hf_aaa" not in text and "redacted" in text for text in texts)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path, two):
    (tmp_path / "out").write_text("mine")
    assert run(*two, "-o", tmp_path / "out").exit_code == 2
    assert (tmp_path / "out").read_text() == "mine"


def test_only_so_many_disagreements_are_kept_of_both_directions(tmp_path):
    n = 1500
    rows = {
        name: [{"predict": "Yes" if (i % 3 == 0) == first else "No", "label": "yes"} for i in range(n)]
        for name, first in (("a", True), ("b", False))
    }
    paths = [write(tmp_path / f"{name}.jsonl", side) for name, side in rows.items()]
    found = compared(*paths, "--metric", "yes_no")
    one = found["sets"][0]
    assert (one["better"], one["worse"]) == (1000, 500)
    assert len(one["disagreements"]) == KEPT
    assert [row["kind"] for row in one["disagreements"][:4]] == ["worse", "better"] * 2
    assert sum(row["kind"] == "worse" for row in one["disagreements"]) == 500
    assert "1,000 of 1,500 disagreements are kept, the largest differences." in found["notes"]


def test_a_model_that_always_says_the_same_is_held_against_the_majority(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, said in (("base", "The"), ("tuned", "Yes")):
        rows = [
            {"prompt": f"q{n}", "predict": said, "label": "Yes" if n % 5 < 3 else "No"} for n in range(40)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run("base.jsonl", "tuned.jsonl", "--metric", "yes_no", "--json")
    assert done.exit_code == 0, done.output
    headline = json.loads(done.stdout)["headline"]
    assert "tuned is better than base by accuracy" in headline
    assert "Always 'yes' would reach 0.600: base and tuned do not beat that." in headline
    assert "tuned gives one answer on all 40 rows." in headline


def test_what_the_verdict_leaves_out_is_counted(tmp_path):
    """Texts that differ at equal verdicts, and rows that were only gained because they can be read now."""
    wanted = ["yes", "no"] * 20
    sides = {
        "a": ["The film" if at < 8 else text for at, text in enumerate(wanted)],
        "b": [text if at < 30 else f"{text.capitalize()}.<|im_end|> " for at, text in enumerate(wanted)],
    }
    paths = [
        write(tmp_path / f"{name}.jsonl", [record(at, text, wanted[at]) for at, text in enumerate(side)])
        for name, side in sides.items()
    ]
    found = compared(*paths)
    one = found["sets"][0]
    assert (one["other_texts"], one["other_texts_alike"]) == (18, 10)
    assert (
        "The answers of movies differ as texts on 18 of 40 rows, 10 of them with the same accuracy."
        in (found["notes"])
    )
    assert "8 of the 8 rows gained could not be read in a." in found["headline"]
    same = compared(paths[0], paths[0])
    assert "The answers of movies are the same texts on each of the 40 rows." in same["notes"]


def test_long_answers_are_shown_to_their_end(tmp_path):
    work = "We add up what there is. " * 60
    rows = {
        name: [{"prediction": f"{work}The answer is {at + wrong}.", "label": str(at)} for at in range(10)]
        for name, wrong in (("a", 1), ("b", 0))
    }
    paths = [write(tmp_path / f"{name}.jsonl", side) for name, side in rows.items()]
    shown = run(*paths, "--metric", "gsm8k").stdout
    assert "The answer is 3.  (read as 3)" in shown
    assert "We add up" in shown
    assert all(
        len(row["first"]["prediction"]) <= 400
        for row in only_set(*paths, "--metric", "gsm8k")["disagreements"]
    )


def test_records_of_score_are_a_side(tmp_path):
    sides = []
    for name, said in (("a", A), ("b", B)):
        rows = [{"prediction": text, "label": WANTED[at]} for at, text in enumerate(said)]
        file = write(tmp_path / f"{name}.jsonl", rows)
        sides.append(tmp_path / f"{name}.records.jsonl")
        done = CliRunner().invoke(score, ["yes_no", str(file), "--records", str(sides[-1])])
        assert done.exit_code == 0, done.output
    one = only_set(*sides)
    assert (one["metric"], one["recorded"], one["better"], one["worse"]) == ("yes_no", True, 12, 2)
    labels = [{"prediction": text, "label": WANTED[at]} for at, text in enumerate(B)]
    beside = only_set(sides[0], write(tmp_path / "plain.jsonl", labels))
    assert (beside["recorded"], beside["better"]) == (False, 12)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_results_of_eval_are_named_by_their_model(tmp_path, suffix):
    paths = []
    for name, said in (("base", A), ("tuned", B)):
        file = records(tmp_path / f"r.{name}--movies--auto-1.jsonl", said)
        figures = {"records": file.name, "model": {"label": f"{name} at 127.0.0.1:80"}}
        file.with_suffix(".json").write_text(json.dumps(figures))
        paths.append(file.with_suffix(suffix))
    found = compared(*paths)
    assert [found[side]["label"] for side in ("first", "second")] == [
        "base at 127.0.0.1:80",
        "tuned at 127.0.0.1:80",
    ]
