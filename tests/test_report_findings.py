"""Each finding is raised by a run that has the fault, with its evidence, and not by a sound one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tunebook.report.curve_findings import spike_places
from tunebook.report.data import gather

FIXTURES = Path(__file__).parent / "fixtures"
GOOD = [2.0 / step + 0.3 for step in range(1, 101)]


def found(folder, entries, **facts):
    state = {
        "global_step": entries[-1]["step"],
        "max_steps": entries[-1]["step"],
        "log_history": entries,
    } | facts
    (folder / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    return {finding.title: finding for finding in gather([folder]).runs[0].findings}


def training(losses, **more):
    return [{"loss": loss, "step": step} | more for step, loss in enumerate(losses, 1)]


def evaluated(losses, every=20):
    return [{"eval_loss": loss, "step": every * (place + 1)} for place, loss in enumerate(losses)]


def test_a_sound_run_gives_no_finding(tmp_path):
    assert found(tmp_path, training(GOOD) + evaluated([1.0, 0.8, 0.7, 0.65, 0.6])) == {}


def test_nan_then_zero_is_found_in_a_log_that_transformers_4_really_wrote():
    findings = {f.title: f for f in gather([FIXTURES / "logs" / "transformers4_nan.log"]).runs[0].findings}
    assert "8 of 8" in findings["grad_norm is not finite"].evidence
    assert "7 of 8 logged steps, first at step 8" in findings["the training loss is exactly zero"].evidence


def test_nan_then_zero_is_found_in_a_log_that_transformers_5_really_wrote():
    titles = [f.title for f in gather([FIXTURES / "logs" / "transformers5_nan.log"]).runs[0].findings]
    assert "grad_norm is not finite" in titles
    assert "the training loss is exactly zero" in titles


def test_a_spike_is_found_where_it_is(tmp_path):
    losses = list(GOOD)
    losses[69] = 7.5
    finding = found(tmp_path, training(losses))["the training loss jumps up 1 time"]
    assert "at step 70: 7.500" in finding.evidence


def test_noise_and_the_fall_at_the_start_are_no_spikes():
    rng = np.random.default_rng(0)
    losses = 3.0 / np.arange(1, 2001) + 0.5 + rng.normal(0, 0.05, 2000)
    assert len(spike_places(losses)) == 0


def test_a_rising_evaluation_loss_beside_a_falling_training_loss_is_found(tmp_path):
    findings = found(tmp_path, training(GOOD) + evaluated([1.0, 0.7, 0.75, 0.9, 1.1]))
    finding = findings["the evaluation loss rises while the training loss falls"]
    assert "lowest 0.700 at step 40, 1.100 at step 100 (+57%)" in finding.evidence


def test_a_run_that_stopped_before_its_end_is_told_from_early_stopping(tmp_path):
    assert "the run ended early, or is still going" in found(tmp_path, training(GOOD), max_steps=500)
    stopping = {
        "EarlyStoppingCallback": {
            "args": {"early_stopping_patience": 3},
            "attributes": {"early_stopping_patience_counter": 3},
        }
    }
    findings = found(tmp_path, training(GOOD), max_steps=500, stateful_callbacks=stopping)
    assert "3 evaluations without improvement" in findings["early stopping ended the run"].evidence
    assert "the run ended early, or is still going" not in findings


def test_a_small_set_says_how_many_examples_it_would_take():
    titles = {f.title: f for f in gather([FIXTURES / "runs" / "movies"]).runs[0].findings}
    finding = titles["movies_test is too small to tell close results apart"]
    assert "with 60 examples" in finding.evidence


def test_a_model_not_better_than_the_baseline_is_found(tmp_path):
    folder = tmp_path / "tunebook"
    folder.mkdir()
    line = {
        "dataset": "d", "step": 5, "epoch": 1.0, "in_training": True, "mode": "answer", "n": 100, "n_unparsed": 7,
        "unparsed_reasons": {"hedge": 7}, "answers_cut": 3, "metric": ["yes_no"], "select_by": "accuracy",
        "larger_is_better": True, "values": {"accuracy": 0.6, "majority_accuracy": 0.55}, "stderr": {"accuracy": 0.049},
    }  # fmt: skip
    (folder / "eval_metrics.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    findings = found(tmp_path, training(GOOD))
    assert "0.600 (low end of the 95 % interval 0.502) against 0.550" in (
        findings["not shown to be better than always giving the commoner answer on d"].evidence
    )
    assert "7 of 100 at step 5: 7 hedge" in findings["answers that could not be read on d"].evidence
    assert "3 of 100 rows" in findings["answers cut off by the length limit on d"].evidence


@pytest.mark.parametrize("flat", [True, False])
def test_a_metric_that_never_moves_is_found(tmp_path, flat):
    folder = tmp_path / "tunebook"
    folder.mkdir()
    lines = [
        {
            "dataset": "d",
            "step": step,
            "select_by": "f1",
            "metric": ["m"],
            "n": 9,
            "values": {"f1": 0.4 if flat else step / 10},
        }
        for step in range(1, 6)
    ]
    (folder / "eval_metrics.jsonl").write_text(
        "".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8"
    )
    assert ("f1 on d never moved" in found(tmp_path, training(GOOD))) == flat


def test_a_run_of_axolotl_alone_is_reported_from_its_checkpoint_and_card():
    (run,) = gather([FIXTURES / "runs" / "axolotl"]).runs
    assert run.engine == "axolotl"
    assert run.method == "full"
    assert run.best[0].figure.source == "checkpoint-40/trainer_state.json"
    assert {setting.key for setting in run.settings} >= {"base_model", "micro_batch_size", "learning_rate"}


def test_the_console_log_of_axolotl_gives_the_numbers_of_its_checkpoint():
    whole = gather([FIXTURES / "runs" / "axolotl"]).charts
    console = gather([FIXTURES / "runs" / "axolotl" / "debug.log"]).charts
    (ours,), (theirs,) = (
        [line for c in charts if c.id == "loss" for line in c.lines if line.dataset == "training"]
        for charts in (console, whole)
    )
    assert ours.steps == theirs.steps
    assert np.allclose(ours.values, theirs.values, rtol=6e-4)
