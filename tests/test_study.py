"""A study says what the numbers support and no more, and leaves nothing to be filled in."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path

import jinja2
import pytest
from click.testing import CliRunner
from statsmodels.stats.proportion import confint_proportions_2indep

from tunebook.cli.report import report as command
from tunebook.report.data import gather
from tunebook.report.render import environment
from tunebook.report.study import render_templates, study_of

RUNS = Path(__file__).parent / "fixtures" / "runs"
UNFILLED = re.compile(
    r"\bNone\b|\bnan\b|\binf\b|TODO|TBD|XXX|\?\?|\{\{|\}\}|\{%|\bUndefined\b|<[A-Z_ ]+>|\[\s*\]"
)
N = 60


@pytest.fixture
def make(tmp_path):
    """A function that makes a run out of the movies fixture, with other evaluations and settings."""

    def made(
        name, steps, *, settings=None, provenance=None, n=N, select_by="accuracy", dataset="movies_test"
    ):
        folder = Path(shutil.copytree(RUNS / "movies", tmp_path / name))
        # What the engine logged of the evaluations of the run that this one is made of.
        for other in ["trainer_state.json", "eval_results.json", "all_results.json", "runs/events"]:
            for path in folder.glob(f"{other}/*" if other == "runs/events" else other):
                path.unlink()
        for path in (folder / "tunebook").glob("eval_records-*"):
            path.unlink()
        log = folder / "trainer_log.jsonl"
        kept = [line for line in log.read_text("utf-8").splitlines(keepends=True) if "eval_" not in line]
        log.write_text("".join(kept), encoding="utf-8")
        lines = [
            {
                "dataset": dataset,
                "step": step,
                "mode": "answer",
                "in_training": True,
                "n": n,
                "n_unparsed": 0,
                "answers_cut": 0,
                "metric": ["yes_no"],
                "select_by": select_by,
                "larger_is_better": True,
                "values": {"accuracy": right / n, "loss": loss, "majority_accuracy": 0.5},
                "stderr": {"accuracy": 0.05},
            }
            for step, right, loss in steps
        ]
        path = folder / "tunebook" / "eval_metrics.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        recipe = folder / "tunebook" / "recipe.yaml"
        text = recipe.read_text("utf-8")
        for key, value in (settings or {}).items():
            text = re.sub(rf"(?m)^{key}:.*\n", "", text) + f"{key}: {value}\n"
        recipe.write_text(text, encoding="utf-8")
        run = json.loads((folder / "tunebook" / "run.json").read_text("utf-8"))
        (provenance or (lambda run: None))(run)
        (folder / "tunebook" / "run.json").write_text(json.dumps(run), encoding="utf-8")
        return folder

    return made


def study(*folders):
    return render_templates(gather(folders), ["study"])["study.md"].decode()


def said(*folders):
    """The sentences of the discussion by heading."""
    return {topic.title: " ".join(topic.sentences) for topic in study_of(gather(folders)).discussion}


@pytest.mark.parametrize(
    "names",
    [
        ["movies"],
        ["plain"],
        ["axolotl"],
        ["movies", "plain"],
        ["plain", "axolotl"],
        ["movies", "plain", "axolotl"],
    ],
    ids="+".join,
)
def test_nothing_is_left_to_be_filled_in(names):
    report = gather([RUNS / name for name in names])
    pictures = {f"{chart.id}.png" for chart in report.charts if not chart.secondary}
    for name, content in render_templates(report, ["study", "slides"]).items():
        text = content.decode()
        assert not UNFILLED.findall(text), name
        assert "not measured" in text
        shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
        assert shown
        assert set(shown) <= pictures
        assert "](#" not in text
        assert "\n\n\n" not in text


def test_a_run_that_lost_any_of_its_files_still_has_a_whole_study(tmp_path):
    # Each file taken away, and each with its neighbour: what is missing is said, and nothing is made up.
    whole = sorted(
        path.relative_to(RUNS / "movies") for path in (RUNS / "movies").rglob("*") if path.is_file()
    )
    removable = [path for path in whole if path.name != "trainer_log.jsonl"]
    for number, lost in enumerate([*((path,) for path in removable), *itertools.pairwise(removable)]):
        folder = Path(shutil.copytree(RUNS / "movies", tmp_path / str(number)))
        for path in lost:
            (folder / path).unlink()
        report = gather([folder, RUNS / "axolotl"])
        for content in render_templates(report, ["study", "slides"]).values():
            assert not UNFILLED.findall(content.decode()), lost


def test_every_number_of_the_results_stands_in_the_report():
    report = gather([RUNS / "movies"])
    (row,) = study_of(report).results.rows
    figure = report.runs[0].best[0].figure
    assert row == (
        "movies", "movies_test", "macro-F1", f"{figure.value:.3f}",
        f"{figure.interval.low:.3f} to {figure.interval.high:.3f}", "60", "0", "0.550", "0.153", "1.172", "300",
    )  # fmt: skip


def test_a_template_that_names_what_is_not_there_is_an_error():
    template = environment().from_string("{{ study.no_such_number }}")
    with pytest.raises(jinja2.UndefinedError):
        template.render(study={"title": "x"})


def test_runs_that_cannot_be_told_apart_are_not_called_better(make):
    text = study(make("a", [(100, 48, 0.2)]), make("b", [(100, 45, 0.3)]))
    assert "a is not distinguishable there from b (+0.050, 95 % interval " in text
    assert "better than" not in re.sub(r"better than doing without|better than always", "", text)
    assert "the highest accuracy is that of a" in text


def test_runs_that_can_be_told_apart_are_with_the_interval_of_their_difference(make):
    found = said(make("a", [(100, 57, 0.2)]), make("b", [(100, 33, 0.3)]))
    low, high = confint_proportions_2indep(57, N, 33, N, compare="diff", method="newcomb")
    expected = f"a is better there than b (+0.400, 95 % interval +{low:.3f} to +{high:.3f})"
    assert expected in found["Between the runs"]


@pytest.mark.parametrize("flipped", [0, 3, 30])
def test_runs_that_left_their_answers_are_told_apart_as_in_the_report(tmp_path, flipped):
    other = Path(shutil.copytree(RUNS / "movies", tmp_path / "other"))
    path = other / "tunebook" / "eval_records-movies_test-300.jsonl"
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    right = [
        record["scores"]["yes_no"] for record in records if record["scores"]["yes_no"]["values"]["accuracy"]
    ]
    for score in right[:flipped]:
        score["parsed"] = {"yes": "no", "no": "yes"}[score["parsed"]]
        score["values"] = {"accuracy": 0.0}
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    path = other / "tunebook" / "eval_metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for line in lines:
        line["values"]["macro_f1"] -= flipped / 60 if line["step"] == 300 else 0.5
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    report = gather([RUNS / "movies", other])
    row = next(row for row in report.comparison.rows if row["name"] == "other")
    text = {topic.title: " ".join(topic.sentences) for topic in study_of(report).discussion}[
        "Between the runs"
    ]
    shown = f"{-row['difference']:+.3f} on the rows of both"
    if not flipped:
        assert "both runs have the same macro-F1" in text
    elif row["verdict"] == "not distinguishable":
        assert flipped == 3
        assert f"movies is not distinguishable there from other ({shown}, p {row['p_value']:.3f})" in text
    else:
        assert flipped == 30
        assert f"movies is better there than other ({shown}, p < 0.001)" in text


def test_runs_judged_by_different_figures_are_not_ranked(make):
    found = said(make("a", [(100, 40, 0.2)], select_by="loss"), make("b", [(100, 50, 0.3)]))
    assert "judged by different figures (evaluation loss and accuracy)" in found["Between the runs"]
    assert "better" not in found["Between the runs"]


def test_the_change_since_before_training_is_judged_by_its_interval(make):
    found = said(make("a", [(0, 30, 0.9), (100, 54, 0.2)]), make("b", [(0, 44, 0.9), (100, 46, 0.3)]))
    baselines = found["Against the baselines"]
    assert "accuracy was 0.500 before training and is 0.900 at step 100, an improvement" in baselines
    assert re.search(
        r"b on movies_test: accuracy was 0.733 .* the change of \+0.033 .* may be chance", baselines
    )


@pytest.mark.parametrize(
    ("right", "verdict"),
    [
        (45, "lies above the 0.500"),
        (32, "is not distinguishable from the 0.500"),
        (15, "lies below the 0.500"),
    ],
)
def test_accuracy_is_judged_against_the_commoner_answer_by_its_interval(make, right, verdict):
    assert verdict in said(make("a", [(100, right, 0.2)]))["Against the baselines"]


def test_a_lower_loss_with_a_worse_metric_is_told_with_its_rank_correlation(make):
    runs = [make(f"r{place}", [(100, 30 + 4 * place, 0.1 * (place + 1))]) for place in range(5)]
    found = said(*runs)["Loss and task metric"]
    assert "the lowest evaluation loss is that of r0 (0.100, with accuracy 0.500)" in found
    assert "the best accuracy that of r4 (0.767, with a loss of 0.500); the two are told apart by it" in found
    assert "put them in opposite orders: rank correlation -1.00 (p 0.017)" in found


def test_losses_of_different_models_are_not_put_beside_each_other(make):
    found = said(
        make("a", [(100, 40, 0.2)], settings={"model_name_or_path": "org/one"}),
        make("b", [(100, 50, 0.3)], settings={"model_name_or_path": "org/two"}),
    )
    assert "Loss and task metric" not in found
    assert "org/two (b) against org/one (a)" in found["By model"]


def test_methods_are_compared_where_all_else_agrees_and_say_what_does_not(make):
    lora = {"finetuning_type": "lora", "lora_rank": 16, "learning_rate": 2e-4}
    found = said(make("full", [(100, 57, 0.2)]), make("lora", [(100, 33, 0.3)], settings=lora))
    text = found["By method"]
    start = (
        "full (full) against LoRA (lora) on movies_test: accuracy 0.950 against 0.550 (+0.400, 95 % interval"
    )
    assert text.startswith(start)
    assert "The first is better" in text
    assert "differ in learning rate (0.002, 0.0002), so that the method alone does not explain it" in text
    other = make("other", [(100, 20, 0.3)], settings=lora | {"model_name_or_path": "org/other"})
    assert "By method" not in said(make("full2", [(100, 57, 0.2)]), other)


def test_kinds_of_answers_are_compared_as_data_sets(make):
    def socratic(run):
        run["datasets"]["movies_socratic"] = run["datasets"].pop("movies_train") | {"sha256": "0" * 64}

    found = said(
        make("main", [(100, 50, 0.3)]),
        make("socratic", [(100, 40, 0.1)], settings={"dataset": "movies_socratic"}, provenance=socratic),
    )
    assert "movies_train (main) against movies_socratic (socratic)" in found["By training data"]
    assert "lowest evaluation loss is that of socratic" in found["Loss and task metric"]


def test_sets_of_one_name_and_different_files_are_not_compared(make):
    def other(run):
        run["datasets"]["movies_test"]["sha256"] = "1" * 64

    found = said(make("a", [(100, 57, 0.2)]), make("b", [(100, 33, 0.3)], provenance=other))
    assert "The files behind movies_test were not the same" in found["Between the runs"]
    assert "better" not in found["Between the runs"]


def test_sets_without_a_name_are_not_taken_for_the_same():
    assert "Between the runs" not in said(RUNS / "plain", RUNS / "axolotl")


def test_unread_and_cut_answers_and_the_choice_of_the_step_stand_in_the_limits(make):
    folder = make("a", [(100, 40, 0.2), (200, 44, 0.3)])
    path = folder / "tunebook" / "eval_metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for line in lines:
        line |= {"n_unparsed": 7, "answers_cut": 3}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    limits = " ".join(study_of(gather([folder])).limits)
    assert "7 of 60 answers could not be read" in limits
    assert "3 reference answers of 60 on movies_test lost tokens" in limits
    assert "the best of 2 evaluations on the very rows" in limits
    assert "accuracy is known to +/- 0." in limits


def test_a_setting_of_zero_is_a_setting(make):
    zero = {"seed": 0, "lora_dropout": 0.0, "finetuning_type": "lora"}
    text = study(
        make("a", [(100, 40, 0.2)], settings=zero), make("b", [(100, 40, 0.2)], settings={"seed": 1})
    )
    assert "| seed | 0 | 1 |" in text
    assert "| LoRA dropout | 0 | not used |" in text


def test_figures_that_are_not_finite_are_said_to_be_so_and_are_never_the_best(make):
    folder = make("a", [(100, 40, 0.2), (200, 44, 0.3)])
    path = folder / "tunebook" / "eval_metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    lines[0]["values"] |= {"accuracy": float("inf")}
    lines[1]["values"] |= {
        "loss": float("nan"),
        "perplexity": float("inf"),
        "majority_accuracy": float("nan"),
    }
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    results = folder / "train_results.json"
    found = json.loads(results.read_text("utf-8")) | {"train_runtime": float("nan")}
    results.write_text(json.dumps(found), encoding="utf-8")
    report = gather([folder, RUNS / "axolotl"])
    row = study_of(report).results.rows[0]
    assert row[3] == "0.733"
    assert row[7:10] == ("not finite", "not finite", "not finite")
    for content in render_templates(report, ["study", "slides"]).values():
        assert not re.findall(r"\binf\b|\bnan\b(?! or infinite)", content.decode())


def test_what_started_the_runs_can_be_copied_from_the_study(make):
    def overlaid(run):
        run["recipe"] |= {"name": "llamafactory/demo/x", "overlays": ["gpu_24gb", "max_steps=8"]}

    text = study(make("a b", [(100, 40, 0.2)], provenance=overlaid))
    assert "    tunebook train llamafactory/demo/x -o gpu_24gb max_steps=8\n" in text
    assert re.search(r"    tunebook report '\S+/a b' --template study -o study\n", text)


def test_cards_are_named_by_what_nvidia_smi_told(make):
    card = {"name": "NVIDIA A100", "memory.total": "81920 MiB", "driver_version": "550.54"}
    text = study(make("a", [(100, 40, 0.2)], provenance=lambda run: run.update(gpus=[card, card])))
    assert "a machine with NVIDIA A100, 81920 MiB, 550.54 and NVIDIA A100, 81920 MiB, 550.54" in text


def test_secrets_do_not_reach_a_study(make):
    token = "hf_" + "aB3dE5gH7jK9mN1pQ3rS5tU7vW9xY1zA3b"

    def plant(run):
        run["command"] += [f"hub_token={token}"]
        run["recipe"]["overlays"] = [f"hub_token={token}"]

    report = gather([make("a", [(100, 40, 0.2)], provenance=plant)])
    for content in render_templates(report, ["study", "slides"]).values():
        assert token not in content.decode()
    assert "[redacted]" in render_templates(report, ["study"])["study.md"].decode()


def test_slides_are_about_ten_each_with_words_for_the_speaker():
    text = render_templates(gather([RUNS / "movies", RUNS / "plain"]), ["slides"])["slides.md"].decode()
    slides = re.split(r"(?m)^---$", text)
    assert 8 <= len(slides) <= 14
    for slide in slides:
        assert re.search(r"(?m)^#{1,2} \S", slide), slide
        assert re.search(r"<!--\n\S(?s:.*)\n-->", slide), slide
        assert slide.count("<!--") == slide.count("-->") == 1


def test_words_of_a_run_end_no_comment_of_the_slides(make):
    report = gather([make("a --> b", [(100, 40, 0.2)])])
    text = render_templates(report, ["slides"])["slides.md"].decode()
    assert (
        text.count("<!--") == len(re.findall(r"(?m)^-->$", text)) == text.count("-->") - text.count("b -->")
    )


def test_the_command_writes_the_templates_beside_the_report(tmp_path):
    arguments = [
        str(RUNS / "movies"),
        "-o",
        str(tmp_path / "r"),
        "--template",
        "study",
        "--template",
        "slides",
    ]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert "report.md, study.md, slides.md and report.json beside it" in result.output
    text = (tmp_path / "r" / "study.md").read_text("utf-8")
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text):
        assert (tmp_path / "r" / picture).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "r" / "slides.md").is_file()


def test_the_command_names_the_templates_for_programs(tmp_path):
    arguments = [str(RUNS / "plain"), "-o", str(tmp_path / "r"), "--template", "study", "--json"]
    outcome = json.loads(CliRunner().invoke(command, arguments).stdout)
    assert Path(outcome["study"]).name == "study.md"
    assert Path(outcome["study"]).is_file()
    assert "slides" not in outcome
