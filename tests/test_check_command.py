import ast
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunebook import paths
from tunebook.checks.findings import Edit, edited
from tunebook.checks.learning_rate import schedule
from tunebook.checks.run import REFUSALS, RULES, check_recipe
from tunebook.cli.check import check
from tunebook.recipes import catalog

ROOT = Path(__file__).parents[1]
FILES = catalog.recipe_files(ROOT / "recipes")
OVERLAYS = sorted((ROOT / "recipes").rglob("overlays/*.yaml"))
CLEAN = "model_name_or_path: a/b\ntemplate: llama3\ndo_train: true\noutput_dir: out\ndataset: x\ndataset_dir: ONLINE\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str):
    return CliRunner().invoke(check, arguments)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_recipe_is_clean(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = check_recipe(str(path), ROOT).result
    assert result.clean, [finding for finding in result.findings if finding.severity != "hint"]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_overlay_is_clean_with_its_recipes(overlay, monkeypatch):
    monkeypatch.chdir(ROOT)
    # An overlay lies beside its recipes, or in the engine's folder for all of them.
    beside = [path for path in FILES if overlay.parent.parent in path.parents]
    clean = [check_recipe(str(path), ROOT, [str(overlay)]).result.clean for path in beside]
    # One that brings other data fits the recipes whose figures are measured on that data.
    brings_data = "dataset" in overlay.read_text()
    assert any(clean) if brings_data else all(clean)


def test_the_exit_status_differs_for_clean_faulty_and_wrong_use(here):
    (here / "clean.yaml").write_text(CLEAN)
    (here / "faulty.yaml").write_text(CLEAN + "cuttoff_len: 5\n")
    assert run("clean.yaml").exit_code == 0
    assert run("faulty.yaml").exit_code == 1
    assert run("clean.yaml", "faulty.yaml").exit_code == 1
    assert run("cutoff_len=5").exit_code == 2
    missing = subprocess.run(
        [sys.executable, "-m", "tunebook.cli.main", "check", "nosuch"], capture_output=True, check=False
    )
    assert missing.returncode == 2


def test_the_line_at_fault_is_shown_with_its_fix(here):
    (here / "faulty.yaml").write_text(CLEAN + "cuttoff_len: 5\n")
    shown = run("faulty.yaml").output
    assert "faulty.yaml:7: error [unknown-key] cuttoff_len: no such key" in shown
    assert "    cuttoff_len: 5\n    fix: did you mean cutoff_len?" in shown


def test_an_override_is_checked_too(here):
    (here / "clean.yaml").write_text(CLEAN)
    done = run("clean.yaml", "finetuning_type=lorra")
    assert done.exit_code == 1
    assert "command line: error [bad-choice]" in done.output


def test_a_fault_of_an_overlay_is_shown_at_its_own_line(here):
    (here / "clean.yaml").write_text(CLEAN)
    (here / "more.yaml").write_text("# changes\ncuttoff_len: 5\n")
    found = json.loads(run("clean.yaml", "-o", "./more.yaml", "--json").output)[0]["findings"]
    assert ("more.yaml", 2, "unknown-key") in [(f["file"], f["line"], f["rule"]) for f in found]


def test_json_holds_every_finding(here):
    (here / "faulty.yaml").write_text(CLEAN + "cuttoff_len: 5\n")
    document = json.loads(run("faulty.yaml", "--json").output)
    assert document[0]["clean"] is False
    finding = next(f for f in document[0]["findings"] if f["rule"] == "unknown-key")
    assert set(finding) == {"file", "line", "key", "rule", "severity", "message", "fix", "text"}


def test_fix_makes_the_mechanical_changes_and_shows_them(here):
    path = here / "faulty.yaml"
    kept = CLEAN + "# kept as it is\nquantization_bit: 3\n"
    path.write_text(
        kept
        + "cuttoff_len: 1,024    # tokens\nflash_attn: flash_attention_2\neval_strategy: no\nplot_loss: 'false'\n"
        + "report_to: wandb,tensorboard\nevaluation_strategi: 5\n"
    )
    done = run("faulty.yaml", "--fix")
    assert "-cuttoff_len: 1,024    # tokens" in done.output
    assert "+cutoff_len: 1024    # tokens" in done.output
    assert path.read_text() == (
        kept
        + "cutoff_len: 1024    # tokens\nflash_attn: fa2\neval_strategy: 'no'\nplot_loss: false\n"
        + "report_to: [wandb, tensorboard]\nevaluation_strategi: 5\n"
    )
    before = path.stat().st_mtime_ns
    run("faulty.yaml", "--fix")
    assert path.stat().st_mtime_ns == before


def test_edits_of_one_line_do_not_disturb_each_other():
    edits = [Edit(line=1, start=0, end=1, text="key"), Edit(line=1, start=3, end=4, text="value")]
    assert edited("a: b\nc: d\n", edits) == "key: value\nc: d\n"


def test_effective_batch_steps_and_warmup_are_shown(here):
    registry = here / "datasets_info"
    (registry / "demo").mkdir(parents=True, exist_ok=True)
    (registry / "dataset_info.json").write_bytes((ROOT / "datasets_info/dataset_info.json").read_bytes())
    row = {"instruction": "Will they like it?", "input": "", "output": "Yes"}
    for split, rows in (("train", 4_800), ("eval", 300)):
        (registry / "demo" / f"{split}.json").write_text(json.dumps([row] * rows))
    done = run("llamafactory/demo/full_sft_recommend", "--gpus", "2", "gradient_accumulation_steps=3")
    # 4,800 rows: 150 batches of 16 on each of 2 GPUs, 50 steps of 3 batches an epoch, 3 epochs.
    assert (
        "effective batch 96 (16 per GPU x 3 accumulated x 2 GPUs), 4,800 rows, 150 steps, 8 of them warmup"
        in done.output
    )


def test_another_effective_batch_than_the_one_asserted_is_an_error_with_its_fix(here):
    (here / "r.yaml").write_text(CLEAN + "per_device_train_batch_size: 1\ngradient_accumulation_steps: 2\n")
    done = run("r.yaml", "--gpus", "4", "--assert-effective-batch", "32")
    assert done.exit_code == 1
    assert "r.yaml:8: error [effective-batch] gradient_accumulation_steps: effective batch 8" in done.output
    assert "fix: set gradient_accumulation_steps: 8" in done.output
    right = ("r.yaml", "--gpus", "4", "gradient_accumulation_steps=8")
    assert run(*right, "--assert-effective-batch", "32").exit_code == 0
    assert "that divide 30" in run("r.yaml", "--gpus", "4", "--assert-effective-batch", "30").output


def test_the_schedule_is_shown_at_every_tenth(here):
    (here / "r.yaml").write_text(
        CLEAN + "learning_rate: 1.0e-4\nlr_scheduler_type: cosine\nwarmup_ratio: 0.1\n"
    )
    done = run("r.yaml", "--schedule", "--steps", "1000")
    assert "cosine, 1,000 steps, 100 of them warmup" in done.output
    assert "step         0  0.0000e+00  0 %" in done.output
    assert "step       100  1.0000e-04  10 %, end of warmup" in done.output
    assert "step     1,000  0.0000e+00  100 %" in done.output


@pytest.mark.parametrize("name", ["cosine_with_min_lr", "warmup_stable_decay"])
def test_a_schedule_without_what_it_needs_is_an_error(name):
    with pytest.raises(ValueError, match="needs"):
        schedule(name, peak=1.0, steps=10)


def test_the_check_is_quick_and_imports_no_array_library(here):
    (here / "clean.yaml").write_text(CLEAN)
    program = (
        "import sys, tunebook.cli.check as c\n"
        "from tunebook.checks.run import check_recipe\nfrom tunebook import paths\n"
        "check_recipe('clean.yaml', paths.home())\n"
        "print([m for m in ('numpy', 'torch', 'transformers', 'nltk', 'orjson') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_further_file_costs_less_than_ten_milliseconds(here):
    lines = "".join(f"# {number}\n" for number in range(40))
    for number in range(20):
        (here / f"r{number}.yaml").write_text(CLEAN.replace("out\n", f"out{number}\n") + lines)
    check_recipe("r0.yaml", paths.home())
    started = time.process_time()
    for number in range(20):
        check_recipe(f"r{number}.yaml", paths.home())
    assert (time.process_time() - started) / 20 < 0.01


def rules_of(source):
    """Names of rules in the calls that make findings."""
    place = {"error": 1, "warning": 1, "hint": 1, "Fault": 0, "_finding": 2, "Ignored": 0}
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        named = [keyword.value for keyword in call.keywords if keyword.arg == "rule"]
        function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if function in place:
            named.append(call.args[place[function]])
        for node in named:
            for part in (node.body, node.orelse) if isinstance(node, ast.IfExp) else (node,):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


def test_every_rule_is_explained_in_the_docs():
    text = (ROOT / "docs" / "check.md").read_text()
    sources = [path.read_text() for path in (ROOT / "plugins/tunebook/checks").glob("*.py")]
    named = {rule for source in sources for rule in rules_of(source)}
    named |= {row.rule for engine in ("llamafactory", "axolotl") for row in REFUSALS[engine]}
    assert len(named) > 90
    assert not {rule for rule in named if f"`{rule}`" not in text}
    assert len(RULES) == len(set(RULES))
