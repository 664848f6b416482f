"""What the installed LLaMA-Factory and transformers say, beside what the check says without them."""

import subprocess
import sys
from pathlib import Path

import pytest
from engine_cases import verdicts

from tunebook.checks.learning_rate import SCHEDULERS, schedule

pytestmark = pytest.mark.engine

ROOT = Path(__file__).resolve().parents[2]

COMPARE = """
import sys
sys.path.insert(0, "scripts")
from snapshot_schema import PARTS, snapshot
from tunebook.engines import schema
for part in PARTS["llamafactory"]:
    version, sections = snapshot(part)
    held = schema.select(schema._read(part), version)
    if any(held[name] != section for name, section in sections.items()):
        sys.exit(f"{part} {version} has changed; ")
"""

STEPS, PEAK = 57, 3e-4
CASES = [
    ("constant", 0, {}),
    ("constant_with_warmup", 7, {}),
    ("linear", 7, {}),
    ("linear", 0, {}),
    ("cosine", 7, {}),
    ("cosine", 7, {"num_cycles": 1.5}),
    ("cosine_with_restarts", 7, {"num_cycles": 3}),
    ("cosine_with_min_lr", 7, {"min_lr": 1e-5}),
    ("cosine_with_min_lr", 0, {"min_lr_rate": 0.1, "num_cycles": 1}),
    ("polynomial", 7, {"lr_end": 1e-6, "power": 2.0}),
    ("polynomial", 7, {}),
    ("inverse_sqrt", 7, {}),
    ("inverse_sqrt", 0, {}),
    ("inverse_sqrt", 7, {"timescale": 20}),
    ("warmup_stable_decay", 7, {"num_decay_steps": 20}),
    ("warmup_stable_decay", 7, {"num_decay_steps": 20, "decay_type": "linear", "min_lr_ratio": 0.1}),
    ("warmup_stable_decay", 7, {"num_decay_steps": 20, "decay_type": "1-sqrt", "warmup_type": "cosine"}),
    ("warmup_stable_decay", 7, {"num_decay_steps": 9, "num_stable_steps": 9, "warmup_type": "1-sqrt"}),
]


@pytest.mark.parametrize(("name", "warmup", "options"), CASES)
def test_the_previewed_rate_is_the_schedulers_own_at_every_step(name, warmup, options):
    torch = pytest.importorskip("torch")
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    real = get_scheduler(name, optimizer, warmup, STEPS, scheduler_specific_kwargs=dict(options))
    ours = schedule(name, peak=PEAK, steps=STEPS, warmup=warmup, options=options)
    for step in range(STEPS + 1):
        assert ours(step) == pytest.approx(real.get_last_lr()[0], rel=1e-9, abs=1e-15), step
        optimizer.step()
        real.step()


def test_the_options_we_allow_a_scheduler_are_its_own():
    import inspect

    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    own = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    for kind, function in TYPE_TO_SCHEDULER_FUNCTION.items():
        if kind.value in SCHEDULERS:
            assert set(SCHEDULERS[kind.value]) == set(inspect.signature(function).parameters) - own, kind


def test_the_config_refuses_the_length_that_rope_scaling_sets():
    """Where this fails, the engine is mended, and the rule `rope-length-type` is to go."""
    from types import SimpleNamespace

    from llamafactory.model.model_utils.rope import configure_rope
    from transformers import Qwen3Config

    wanted = SimpleNamespace(rope_scaling="yarn", model_max_length=100)
    with pytest.raises(Exception, match="'max_position_embeddings' expected int, got float"):
        configure_rope(Qwen3Config(max_position_embeddings=64), wanted)


def test_the_snapshot_holds_the_keys_of_the_installed_engine():
    done = subprocess.run(
        [sys.executable, "-c", COMPARE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:] + "run scripts/snapshot_schema.py llamafactory"


VERDICT = """
model_name_or_path: some/model
stage: sft
finetuning_type: lora
template: qwen3_nothink
dataset_dir: ONLINE
dataset: one
do_train: true
output_dir: out
deepspeed: {zero_optimization: {stage: 2}}
"""


def test_the_parser_s_own_verdict_is_told_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {
        "taken": "use_cpu: true",
        "refused": "use_cpu: true\npissa_init: true\nquantization_bit: 4",
        "a package is missing": "use_cpu: true\nuse_swanlab: true",
        "two at once": "finetuning_type: full\nuse_galore: true\nuse_apollo: true",
    }
    for name, more in given.items():
        text = VERDICT.replace("finetuning_type: lora", "") if "finetuning_type" in more else VERDICT
        Path(f"{name}.yaml").write_text(text + more + "\n")
    told = verdicts(list(given))
    assert {name: severity for name, (severity, _) in told.items()} == {
        "taken": "hint",
        "refused": "error",
        "a package is missing": "warning",
        "two at once": "error",
    }
    assert "Please use scripts/pissa_init.py to initialize PiSSA" in told["refused"][1]
    assert "on this machine" in told["a package is missing"][1]
    assert "Cannot use GaLore, APOLLO or BAdam together" in told["two at once"][1]
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(given)


def test_a_workflow_without_the_names_that_we_bind_is_left_alone():
    from types import ModuleType

    from tunebook.hooks.llamafactory import bind

    workflow = ModuleType("llamafactory.train.sft.workflow")
    with pytest.raises(AttributeError, match=r"no run_sft and no .* and no load_model"):
        bind(workflow)
    assert not any(name.startswith("run_") for name in vars(workflow))
