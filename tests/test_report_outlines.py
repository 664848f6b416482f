"""The outlines of a study and of slides hold what was measured, and say of the rest that it was not."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunebook.cli.report import report as command
from tunebook.report.data import gather
from tunebook.report.render import render_outlines

RUNS = Path(__file__).parent / "fixtures" / "runs"
UNFILLED = re.compile(
    r"\bNone\b|\bnan\b|\binf\b|TODO|TBD|XXX|\?\?|\{\{|\}\}|\{%|\bUndefined\b|<[A-Z_ ]+>|\[\s*\]"
)
CODE = re.compile(r"`[^`\n]*`")
"""Settings, as the recipe has them: an empty list is one."""
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


def outline(name, *folders):
    (text,) = render_outlines(gather(folders), [name]).values()
    return text.decode()


def cells(text, first):
    """The cells of the first line of a table whose first cell is this, without Markdown's escapes."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip().replace("\\", "").strip("`") for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(
    "names",
    [["movies"], ["plain"], ["axolotl"], ["movies", "plain"], ["movies", "plain", "axolotl"]],
    ids="+".join,
)
def test_every_number_is_measured_or_said_not_to_be(names):
    report = gather([RUNS / name for name in names])
    pictures = {f"{chart.id}.png" for chart in report.charts if not chart.secondary}
    for name, content in render_outlines(report, ["study", "slides"]).items():
        text = content.decode()
        assert not UNFILLED.findall(CODE.sub("", text)), name
        assert "not measured" in text
        assert "To write: " in text
        shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
        assert shown
        assert set(shown) <= pictures
        assert "\n\n\n" not in text


def test_a_run_that_lost_any_of_its_files_still_has_a_whole_outline(tmp_path):
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
        for content in render_outlines(report, ["study", "slides"]).values():
            assert not UNFILLED.findall(CODE.sub("", content.decode())), lost


@pytest.mark.parametrize("name", ["study", "slides"])
def test_the_results_are_those_of_the_report_with_their_file(name):
    figure = gather([RUNS / "movies"]).runs[0].best[0].figure
    text = outline(name, RUNS / "movies").partition("Results")[2]
    assert cells(text, "movies") == [
        *("movies", "movies_test", "macro-F1", f"{figure.value:.3f}"),
        *(f"{figure.interval.low:.3f} to {figure.interval.high:.3f}", "60", "0", "0.153", "not measured"),
        *("0.550", "300", "tunebook/eval_metrics.jsonl"),
    ]


def test_a_run_without_any_evaluation_has_a_line_that_says_so(make):
    text = outline("study", make("a", []), make("b", [(100, 40, 0.2)])).partition("## 3. Results")[2]
    assert cells(text, "a")[:4] == ["a", "never evaluated", "none", "not measured"]
    assert "- a: not measured: " in text
    assert "any evaluation" in text


def test_methods_stand_beside_data_sets(make):
    lora = {"finetuning_type": "lora", "lora_rank": 16}

    def socratic(run):
        run["datasets"]["movies_socratic"] = run["datasets"].pop("movies_train") | {"sha256": "0" * 64}

    other = {"dataset": "movies_socratic"}
    runs = [
        make("full_main", [(100, 57, 0.2)]),
        make("lora_main", [(100, 33, 0.3)], settings=lora),
        make("full_socratic", [(100, 45, 0.2)], settings=other, provenance=socratic),
    ]
    for name in ("study", "slides"):
        text = outline(name, *runs)
        assert "| method | trained on movies\\_train | trained on movies\\_socratic |" in text
        table = text.partition("| method | trained on")[2]
        full, rest = cells(table, "full"), cells(table, "LoRA")
        assert full[1].startswith("0.950 (0.8")
        assert full[1].endswith("full_main")
        assert full[2].endswith("full_socratic")
        assert rest[1].startswith("0.550")
        assert rest[2] == "no run"


def test_runs_are_told_apart_as_in_the_report(tmp_path):
    other = Path(shutil.copytree(RUNS / "movies", tmp_path / "other"))
    report = gather([RUNS / "movies", other])
    text = render_outlines(report, ["study"])["study.md"].decode()
    row = next(row for row in report.comparison.rows if row["name"] == "other")
    assert row["standing"].startswith("not distinguishable")
    assert cells(text.partition("against the best")[2], "other")[3] == row["standing"]
    for remark in report.comparison.remarks:
        assert remark.split(",")[0] in text.replace("\\", "")


def test_files_of_one_name_are_told_apart_by_their_hash(make):
    def other(run):
        run["datasets"]["movies_test"]["sha256"] = "1" * 64

    text = outline("study", make("a", [(100, 57, 0.2)]), make("b", [(100, 33, 0.3)], provenance=other))
    assert re.search(r"\| b \| movies\\_test \| 60 \| 18,963 \| 1{64} \|", text)


def test_a_setting_of_zero_is_a_setting(make):
    zero = {"seed": 0, "lora_dropout": 0.0, "finetuning_type": "lora"}
    text = outline(
        "study", make("a", [(100, 40, 0.2)], settings=zero), make("b", [(100, 40, 0.2)], settings={"seed": 1})
    )
    assert cells(text, "`seed`") == ["seed", "0", "1"]
    assert cells(text, "`lora_dropout`") == ["lora_dropout", "0", "not set"]
    # What differs is not told as shared, and what is shared is told once.
    assert text.count("| `seed` |") == 1
    assert cells(text, "`cutoff_len`") == ["cutoff_len", "128"]


def test_figures_that_are_not_finite_are_said_to_be_so_and_are_never_the_best(make):
    folder = make("a", [(100, 40, 0.2), (200, 44, 0.3)])
    path = folder / "tunebook" / "eval_metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    lines[0]["values"] |= {"accuracy": float("inf")}
    lines[1]["values"] |= {"loss": float("nan"), "majority_accuracy": float("nan")}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    results = folder / "train_results.json"
    found = json.loads(results.read_text("utf-8")) | {"train_runtime": float("nan")}
    results.write_text(json.dumps(found), encoding="utf-8")
    report = gather([folder, RUNS / "axolotl"])
    for content in render_outlines(report, ["study", "slides"]).values():
        text = content.decode()
        row = cells(text.partition("Results")[2], "a")
        assert row[3] == "0.733"
        assert (row[7], row[9]) == ("not finite", "not finite")
        assert not re.findall(r"\binf\b|\bnan\b(?! or infinite)", text)


def test_what_started_the_runs_can_be_copied(make):
    def overlaid(run):
        run["recipe"] |= {"name": "llamafactory/demo/x", "overlays": ["gpu_24gb", "max_steps=8"]}

    text = outline("study", make("a b", [(100, 40, 0.2)], provenance=overlaid))
    assert "    tunebook train llamafactory/demo/x -o gpu_24gb max_steps=8\n" in text
    assert re.search(r"    tunebook report '\S+/a b' --template study -o study\n", text)


def test_cards_are_named_by_what_nvidia_smi_told(make):
    card = {"name": "NVIDIA A100", "memory.total": "81920 MiB", "driver_version": "550.54"}
    text = outline("study", make("a", [(100, 40, 0.2)], provenance=lambda run: run.update(gpus=[card, card])))
    assert "| NVIDIA A100, 81920 MiB, 550.54; NVIDIA A100, 81920 MiB, 550.54 |" in text


def test_secrets_do_not_reach_an_outline(make):
    token = "hf_" + "aB3dE5gH7jK9mN1pQ3rS5tU7vW9xY1zA3b"

    def plant(run):
        run["command"] += [f"hub_token={token}"]
        run["recipe"]["overlays"] = [f"hub_token={token}"]

    report = gather([make("a", [(100, 40, 0.2)], provenance=plant)])
    for content in render_outlines(report, ["study", "slides"]).values():
        assert token not in content.decode()
    assert "[redacted]" in render_outlines(report, ["study"])["study.md"].decode()


def test_slides_are_about_ten_each_with_words_for_the_speaker():
    text = render_outlines(gather([RUNS / "movies", RUNS / "plain"]), ["slides"])["slides.md"].decode()
    slides = re.split(r"(?m)^---$", text)
    assert 8 <= len(slides) <= 14
    for slide in slides:
        assert re.search(r"(?m)^#{1,2} \S", slide), slide
        assert re.search(r"<!--\n\S(?s:.*)\n-->", slide), slide
        assert slide.count("<!--") == slide.count("-->") == 1


def test_words_of_a_run_end_no_comment_of_the_slides(make):
    report = gather([make("a --> b", [(100, 40, 0.2)])])
    text = render_outlines(report, ["slides"])["slides.md"].decode()
    assert (
        text.count("<!--") == len(re.findall(r"(?m)^-->$", text)) == text.count("-->") - text.count("b -->")
    )


def test_the_command_writes_the_outlines_beside_the_report(tmp_path):
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


def test_the_command_names_the_outlines_for_programs(tmp_path):
    arguments = [str(RUNS / "plain"), "-o", str(tmp_path / "r"), "--template", "study", "--json"]
    outcome = json.loads(CliRunner().invoke(command, arguments).stdout)
    assert Path(outcome["study"]).name == "study.md"
    assert Path(outcome["study"]).is_file()
    assert "slides" not in outcome
