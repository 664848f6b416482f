"""tunebook from Python finds what the commands find."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tunebook import api
from tunebook.errors import TunebookError

RUNS = Path(__file__).parent / "fixtures" / "runs"


def test_runs_are_read_and_become_tables():
    found = api.runs(RUNS)
    assert found
    run = api.read_run(RUNS / "axolotl")
    pytest.importorskip("pandas")
    table = api.frame(run)
    assert table.index.name == "step"
    assert table["loss"].dropna().tolist() == run.series["loss"].values.tolist()
    with pytest.raises(TunebookError, match="no folder"):
        api.runs("nowhere")


def test_texts_and_files_are_scored_alike(tmp_path):
    said, wanted = ["Yes", "no", "perhaps", "Yes."], ["yes", "yes", "no", "yes"]
    summary = api.score("yes_no", said, wanted)
    assert (summary.n, summary.n_unparsed) == (4, 1)
    assert summary.figures["accuracy"].value == 0.5
    rows = [{"predict": one, "label": two} for one, two in zip(said, wanted, strict=True)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert api.score("yes_no", tmp_path / "x.jsonl") == summary
    assert set(api.score("classification", ["a", "b"], ["a", "b"]).confusion) == {"a", "b"}
    for wrong in ((said, wanted[:3]), (said, None), (str(tmp_path / "x.jsonl"), wanted)):
        with pytest.raises(TunebookError):
            api.score("yes_no", *wrong)


def test_comparison_check_and_report_are_those_of_the_commands(tmp_path):
    for name, answers in (("a", "Yes No Yes No"), ("b", "Yes Yes Yes No")):
        rows = [
            {"prompt": f"q{n}", "predict": one, "label": "Yes"} for n, one in enumerate(answers.split() * 3)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = api.compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl", metric="yes_no")
    assert found.sets[0].better == 3
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model_name_or_path: m\nstage: sft\ndo_train: true\nlearing_rate: 1.0e-4\n")
    assert "unknown-key" in {finding.rule for finding in api.check(recipe).findings}
    page = api.report(RUNS / "axolotl", tmp_path / "report")
    assert page.is_file()
    assert (tmp_path / "report" / "report.json").is_file()


def test_the_import_is_light():
    program = "import sys, tunebook.api; print({'torch', 'pandas', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
