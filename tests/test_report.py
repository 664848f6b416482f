"""A report says what was measured, where from, how surely, and what is missing; and never a secret."""

# ruff: noqa: F811 - a fixture is imported by name
from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunebook.cli.report import report as command
from tunebook.errors import TunebookError
from tunebook.report.best import claims
from tunebook.report.data import gather
from tunebook.report.render import render, write_report
from tunebook.text import cut
from wandb_service import wandb  # noqa: F401

RUNS = Path(__file__).parent / "fixtures" / "runs"
GOLDEN = Path(__file__).parent / "golden"
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
PLANTED = {
    "hf": "hf_" + "aB3dE5gH7jK9mN1pQ3rS5tU7vW9xY1zA3b",
    "wandb": "0123456789abcdef" * 2 + "01234567",
    "openai": "sk-proj-" + "Zz9" * 12,
    "github": "ghp_" + "a1B2" * 9,
    "password": "correct-horse-battery",
    "aws": "AKIA" + "ABCDEFGH12345678",
}


@pytest.fixture
def movies(tmp_path):
    return Path(shutil.copytree(RUNS / "movies", tmp_path / "runs" / "movies"))


@pytest.fixture(scope="module")
def both():
    return gather([RUNS / "movies", RUNS / "plain"], now=NOW)


@pytest.fixture(scope="module")
def files(both):
    return render(both)


def edit_json(path, change):
    value = json.loads(path.read_text("utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_the_headline_gives_metric_interval_baseline_and_the_recipes_claim(both):
    assert both.runs[0].headline == (
        "qwen3, full SFT, trained on movies_train, reached macro-F1 0.812 (95 % interval 0.691 to 0.891, n 60) "
        "on movies_test at step 300; accuracy 0.817 against 0.550 for always giving the more common answer. "
        "Macro-F1 0.812, which is within the error of the recipe's claim of movies_test/macro_f1 0.90 +/- 0.02."
    )


def test_a_run_of_the_engine_alone_has_a_whole_report_and_says_what_is_missing(both):
    run = both.runs[1]
    assert run.best[0].figure.name == "loss"
    assert "no task metric was measured" in run.headline
    assert run.examples_missing
    assert {fact.label: fact.value for fact in run.facts}["Training time"] == 6.5676
    missing = [fact for fact in run.facts if fact.value is None]
    assert missing
    assert all(fact.source.startswith(("not written down", "not measured")) for fact in missing)
    assert "counts tokens" in run.findings[0].title


def test_every_figure_names_its_file_and_step(both):
    for run in both.runs:
        for best in run.best:
            for figure in (best.figure, *best.beside):
                assert figure.source
                assert figure.step == best.figure.step
    for chart in both.charts:
        assert all(line.source for line in chart.lines)


def test_wrong_answers_are_the_most_confident_ones_with_all_that_explains_them(both):
    (examples,) = both.runs[0].examples
    assert examples.n == 60
    assert examples.n_wrong == 11
    assert len(examples.wrong) == 10
    margins = [abs(example.margin) for example in examples.wrong]
    assert margins == sorted(margins, reverse=True)
    for example in examples.wrong:
        assert example.reference.lower() != example.parsed
        assert len(example.prompt) <= 300
        assert "<|im_start|>" not in example.prompt
        assert "Candidate" in example.prompt


def test_answers_that_could_not_be_read_are_counted_with_their_reasons(movies):
    path = movies / "tunebook" / "eval_records-movies_test-300.jsonl"
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for record, reason in zip(records, ["empty", "hedge", "hedge"], strict=False):
        record["scores"]["yes_no"] |= {"parsed": None, "reason": reason, "values": {"accuracy": 0.0}}
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    (examples,) = gather([movies]).runs[0].examples
    assert examples.n_unparsed == 3
    assert examples.unparsed_reasons == {"hedge": 2, "empty": 1}
    counts = Counter(
        (record["scores"]["yes_no"]["reference"], record["scores"]["yes_no"]["parsed"] or "unparsed")
        for record in records
    )
    assert examples.confusion == {
        reference: {answer: n for (of, answer), n in sorted(counts.items()) if of == reference}
        for reference in ("no", "yes")
    }
    assert [example.reason for example in examples.unparsed] == ["empty", "hedge", "hedge"]
    assert all(example.parsed for example in examples.wrong)


def test_the_engines_token_accuracy_never_stands_in_a_chart_of_answer_accuracy(both):
    (accuracy,) = [chart for chart in both.charts if chart.id == "metric_accuracy"]
    assert {line.run for line in accuracy.lines} == {"r1"}
    (tokens,) = [chart for chart in both.charts if chart.id == "metric_token_accuracy"]
    assert {line.run for line in tokens.lines} == {"r1", "r2"}


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("movies_test/macro_f1 0.81 +/- 0.01", "met"),
        ("macro-F1 >= 0.8, seed 1", "met"),
        ("movies_test/macro_f1 0.90 +/- 0.02, seed 1.", "within error"),
        ("movies_test/macro_f1 0.95", "missed"),
        ("movies_test/macro_f1 0.5 +/- 0.1", "above"),
        ("other_test/macro_f1 0.5", "not measured"),
        ("it should work well", "not comparable"),
    ],
)
def test_a_claim_is_judged_by_the_value_and_its_interval(movies, text, verdict):
    edit_json(movies / "tunebook" / "run.json", lambda run: run["recipe"]["header"].update(expected=text))
    (expected,) = gather([movies]).runs[0].expected
    assert expected.verdict == verdict


def test_a_recipe_that_was_not_measured_claims_nothing(movies):
    edit_json(
        movies / "tunebook" / "run.json", lambda run: run["recipe"]["header"].update(expected="not measured")
    )
    run = gather([movies]).runs[0]
    assert run.expected == ()


def test_several_claims_are_read_from_one_line():
    found = claims("gsm8k_test/flexible_extract 0.47 +/- 0.03, strict_match at least 0.4; seed 42, step 200.")
    assert [(claim.dataset, claim.figure, claim.low, claim.high) for claim in found] == [
        ("gsm8k_test", "flexible_extract", pytest.approx(0.44), pytest.approx(0.50)),
        (None, "strict_match", 0.4, None),
    ]


def test_runs_are_ranked_where_they_share_a_figure_and_differ_where_they_differ(movies):
    other = Path(shutil.copytree(movies, movies.parent / "slower"))
    text = (other / "tunebook" / "recipe.yaml").read_text("utf-8")
    (other / "tunebook" / "recipe.yaml").write_text(
        re.sub("learning_rate: .*", "learning_rate: 1e-5", text), "utf-8"
    )
    lines = (other / "tunebook" / "eval_metrics.jsonl").read_text("utf-8").splitlines()
    first = json.loads(lines[0])
    (other / "tunebook" / "eval_metrics.jsonl").write_text(json.dumps(first) + "\n", encoding="utf-8")
    found = gather([other, movies])
    on_test = [row["name"] for row in found.comparison.rows if row["dataset"] == "movies_test"]
    assert on_test == ["movies", "slower"]
    assert [difference.key for difference in found.comparison.differences] == ["learning_rate"]
    assert found.comparison.differences[0].values == {"r1": "1e-05", "r2": "0.002"}
    assert "movies is best" in found.headline


def test_a_setting_of_both_engines_is_one_line_under_both_names(movies):
    found = gather([movies, RUNS / "axolotl"])
    ours, theirs = ({setting.key: setting.value for setting in run.settings} for run in found.runs)
    told = {difference.key: difference.values for difference in found.comparison.differences}
    assert ours["num_train_epochs"] != theirs["num_epochs"]
    assert told["num_train_epochs, num_epochs"] == {
        "r1": str(int(ours["num_train_epochs"])),
        "r2": str(theirs["num_epochs"]),
    }
    assert "num_train_epochs" not in told
    assert "num_epochs" not in told


def test_runs_of_the_same_name_are_told_apart_by_their_parents(tmp_path):
    for parent in ("a", "b"):
        shutil.copytree(RUNS / "plain", tmp_path / parent / "run")
    assert [run.name for run in gather([tmp_path / "a" / "run", tmp_path / "b" / "run"]).runs] == [
        "a/run",
        "b/run",
    ]


def test_all_faults_of_several_runs_are_named_at_once(tmp_path):
    with pytest.raises(TunebookError) as error:
        gather([tmp_path / "x", tmp_path / "y", RUNS / "plain"])
    assert "2 faults" in error.value.problem


def test_the_markdown_is_the_reviewed_one(files):
    made = files["report.md"].decode().replace(str(RUNS.resolve()), "RUNS")
    path = GOLDEN / "report.md"
    assert made == path.read_text("utf-8"), f"if the change is meant, write the new text to {path}"


def test_pictures_of_the_markdown_lie_beside_it(files):
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", files["report.md"].decode())
    assert pictures
    for picture in pictures:
        assert files[picture].startswith(b"\x89PNG")
    assert set(files) == {"report.json", "report.md", "report.html", *pictures}


def test_the_page_names_no_address_to_load_from(files):
    page = files["report.html"].decode()
    style_and_body = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)=[\"'](?!#|data:)", style_and_body)
    assert "url(" not in style_and_body
    assert "default-src 'none'" in page


def test_the_json_is_the_report_with_every_field(files):
    found = json.loads(files["report.json"])
    assert found["format"] == 1
    assert found["made_at"] == "2026-11-20T12:00:00+00:00"
    assert found["runs"][0]["best"][0]["figure"]["value"] == 0.8124467178175618
    assert "provenance" in found["runs"][1]


def test_neither_secrets_nor_scripts_of_a_run_reach_a_file(movies):
    def plant(run):
        run["command"] += [f"hub_token={PLANTED['hf']}", "--api-key", PLANTED["openai"]]
        run["versions"]["odd"] = f"git+https://me:{PLANTED['password']}@example.org/x"
        run["environment"] = {"WANDB_API_KEY": PLANTED["wandb"]}

    edit_json(movies / "tunebook" / "run.json", plant)
    recipe = movies / "tunebook" / "recipe.yaml"
    lines = [
        f"hub_token: {PLANTED['hf']}",
        f"wandb_api_key: {PLANTED['wandb']}  # a comment",
        f"my_password: '{PLANTED['password']}'",
        f"some_list: [x, {PLANTED['aws']}]",
        f"# export GITHUB_TOKEN={PLANTED['github']}",
    ]
    recipe.write_text(recipe.read_text("utf-8") + "\n".join(lines) + "\n", encoding="utf-8")
    attack = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    path = movies / "tunebook" / "eval_records-movies_test-300.jsonl"
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for record in records:
        record["prediction"] = f"my key is {PLANTED['openai']} and {PLANTED['github']}{attack}"
        record["prompt"] = f"wandb login {PLANTED['wandb']}"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    hashed = json.loads((movies / "tunebook" / "run.json").read_text("utf-8"))["datasets"]["movies_test"][
        "sha256"
    ]
    files = render(gather([movies]))
    for name, content in files.items():
        for kind, secret in PLANTED.items():
            assert secret.encode() not in content, f"the {kind} secret is in {name}"
    page = files["report.html"].decode()
    assert "[redacted]" in page
    assert hashed in page
    assert attack not in page
    assert "&lt;img src=x" in page


def test_a_report_replaces_an_older_one_and_nothing_else(tmp_path):
    target = tmp_path / "out" / "report"
    found = {"report.json": b"{}", "report.html": b"<p>"}
    write_report(found, target)
    (target / "left_over.png").write_bytes(b"")
    write_report(found, target)
    assert not (target / "left_over.png").exists()
    assert [path.name for path in target.parent.iterdir()] == ["report"]
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("years of work")
    with pytest.raises(TunebookError, match="holds other things"):
        write_report(found, other)
    assert (other / "chapter.tex").read_text() == "years of work"


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    target = tmp_path / "report"

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(TunebookError, match="No space left"):
        write_report({"report.json": b"{}"}, target)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_three_files_and_can_speak_json(tmp_path):
    result = CliRunner().invoke(command, [str(RUNS / "movies"), "-o", str(tmp_path / "r"), "--json"])
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.stdout)
    assert outcome["runs"][0]["best"][0]["value"] == 0.8124467178175618
    for key in ("html", "markdown", "json"):
        assert Path(outcome[key]).is_file()


def test_a_long_prompt_is_cut_around_its_question():
    prompt = "instruction " + "history " * 100 + "Candidate: The Matrix"
    shown = cut(prompt)
    assert len(shown) <= 300
    assert shown.startswith("instruction")
    assert shown.endswith("Candidate: The Matrix")


def test_no_secret_of_logs_wandb_results_or_environment_reaches_a_file(wandb, movies, tmp_path, monkeypatch):
    """Keys planted wherever a run may have left them: in its console, in W&B's files, in results, in a name."""
    for name in ("WANDB_SILENT", "WANDB_DISABLE_CODE", "WANDB_DISABLE_GIT"):
        monkeypatch.setenv(name, "true")
    logged = wandb.init(
        mode="offline",
        dir=str(movies),
        project="p",
        config={
            "hub_token": PLANTED["hf"],
            "env": {"WANDB_API_KEY": PLANTED["wandb"]},
            "note": PLANTED["github"],
        },
        notes=f"password={PLANTED['password']}",
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True),
    )
    for step in (500, 510):
        logged.log({"train/loss": 0.1, "train/global_step": step, "secret": PLANTED["openai"]})
    logged.finish()
    wandb.teardown()  # the file is whole
    (movies / "train.log").write_text(
        f"HF_TOKEN={PLANTED['hf']} WANDB_API_KEY={PLANTED['wandb']} llamafactory-cli train x.yaml\n"
        f"{{'loss': '0.2', 'epoch': '5.0', 'api_key': '{PLANTED['openai']}'}}\n"
        f"wandb: login with {PLANTED['wandb']}\nTraceback: http://me:{PLANTED['password']}@host/x\n"
        f"{{'train_runtime': '9.0', 'token': '{PLANTED['github']}'}}\n",
        encoding="utf-8",
    )
    results = movies / "eval_results"
    results.mkdir()
    result = {
        "format": 1,
        "model": {"run": str(movies), "step": 50, "kind": "full", "base": "b", "hub_token": PLANTED["hf"]},
        "dataset": f"set_{PLANTED['github']}", "metric": ["yes_no"], "select_by": "accuracy", "n": 9,
        "values": {"accuracy": 0.5}, "signatures": {"yes_no": f"key {PLANTED['openai']}"},
        "settings": {"endpoint": {"url": f"http://me:{PLANTED['password']}@host/v1"}}, "records": "none.jsonl",
    }  # fmt: skip
    (results / "r.json").write_text(json.dumps(result), encoding="utf-8")
    gathered = gather([movies])
    assert {row.step for row in gathered.runs[0].evaluations} >= {50}
    left = b"".join(path.read_bytes() for path in (movies / "wandb").rglob("*") if path.is_file())
    assert PLANTED["hf"].encode() in left
    for name, content in render(gathered).items():
        for kind, secret in PLANTED.items():
            assert secret.encode() not in content, f"the {kind} secret is in {name}"
