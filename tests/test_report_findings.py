"""Each finding is raised by a run that has the fault, with its evidence, and not by a sound one."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tunebook.report.data import gather
from tunebook.report.findings import spike_places

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


def titles_of(run):
    return {finding.title: finding for finding in gather([run]).runs[0].findings}


def copy_of_movies(folder, **header):
    """Copy a real run of tunebook, with other facts in its recipe's header."""
    run = Path(shutil.copytree(FIXTURES / "runs" / "movies", folder / "movies"))
    path = run / "tunebook" / "run.json"
    facts = json.loads(path.read_text("utf-8"))
    facts["recipe"]["header"] |= header
    path.write_text(json.dumps(facts), encoding="utf-8")
    return run


def lines_of(run, change):
    """Pass every line of eval_metrics.jsonl through `change`."""
    path = run / "tunebook" / "eval_metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    path.write_text("".join(json.dumps(change(line)) + "\n" for line in lines), encoding="utf-8")


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


def test_a_small_set_says_how_many_examples_it_would_take(tmp_path):
    run = copy_of_movies(tmp_path, expected="not measured")
    finding = titles_of(run)["movies_test is too small for close results"]
    assert "with 60 examples; +/- 0.020 takes about 1,500" in finding.evidence


def test_a_set_too_small_for_the_claim_is_told_by_the_claims_own_width(tmp_path):
    run = copy_of_movies(tmp_path, expected="movies_test/macro_f1 0.80 +/- 0.02")
    title = "movies_test is too small for the recipe's claim of movies_test/macro_f1 0.80 +/- 0.02"
    assert "is known to +/- 0.100 with 60 examples; +/- 0.020 takes about" in titles_of(run)[title].evidence
    wide = copy_of_movies(tmp_path / "wide", expected="movies_test/macro_f1 0.80 +/- 0.15")
    assert not [title for title in titles_of(wide) if "too small" in title]


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
        findings["not shown to be better than always giving the more common answer on d"].evidence
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


def test_a_learning_rate_that_follows_the_recipe_at_every_step_is_no_finding(tmp_path):
    for name in ("movies", "plain", "axolotl"):
        assert "the learning rate is not the recipe's" not in titles_of(FIXTURES / "runs" / name)


@pytest.mark.parametrize(
    ("before", "after", "gives"),
    [
        ("lr_scheduler_type: cosine", "lr_scheduler_type: linear", "linear"),
        ("warmup_ratio: 0.05", "warmup_ratio: 0.3", "cosine"),
        ("learning_rate: 0.002", "learning_rate: 0.0019", "cosine"),
    ],
)
def test_a_learning_rate_of_another_schedule_is_found_though_its_peak_may_be_right(
    tmp_path, before, after, gives
):
    run = copy_of_movies(tmp_path)
    path = run / "tunebook" / "recipe.yaml"
    text = path.read_text("utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    evidence = titles_of(run)["the learning rate is not the recipe's"].evidence
    assert f"where the recipe ({gives}, peak 0.00" in evidence
    assert re.match(r"at \d+ of 40 logged steps", evidence)


def test_a_metric_that_an_evaluation_lost_is_found(tmp_path):
    run = copy_of_movies(tmp_path)
    title = "macro_f1 is missing at some evaluations of movies_test"
    assert title not in titles_of(run)
    lines_of(
        run,
        lambda line: (
            line
            | {"values": {k: v for k, v in line["values"].items() if line["step"] != 200 or k != "macro_f1"}}
        ),
    )
    assert "at step 200: 1 of 4 evaluations" in titles_of(run)[title].evidence


@pytest.mark.parametrize(("rate", "is_found"), [(0.5, True), (0.0, False)])
def test_answers_cut_by_max_new_tokens_are_counted(tmp_path, rate, is_found):
    run = copy_of_movies(tmp_path)
    lines_of(run, lambda line: line | {"values": line["values"] | {"generation_cut_rate": rate}})
    title = "answers cut off by max_new_tokens on movies_test"
    assert (title in titles_of(run)) == is_found
    if is_found:
        assert "30 of 60 generated answers at step 300" in titles_of(run)[title].evidence


@pytest.mark.parametrize("steady", [True, False])
def test_evaluations_without_gain_after_the_best_are_told_with_their_range(tmp_path, steady):
    folder = tmp_path / "tunebook"
    folder.mkdir()
    values = [0.5, 0.9, 0.88, 0.89, 0.87, 0.88] if steady else [0.5, 0.9, 0.88, 0.2, 0.87, 0.88]
    lines = [
        {
            "dataset": "d", "step": 20 * place, "select_by": "accuracy", "metric": ["yes_no"], "n": 100,
            "values": {"accuracy": value}, "stderr": {"accuracy": 0.03},
        }
        for place, value in enumerate(values, 1)
    ]  # fmt: skip
    (folder / "eval_metrics.jsonl").write_text(
        "".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8"
    )
    findings = found(tmp_path, training(GOOD))
    title = "no gain in accuracy after step 40 on d"
    assert (title in findings) == steady
    if steady:
        assert "4 later evaluations lie between 0.870 and 0.890" in findings[title].evidence
        assert "80 of 120 steps came after it" in findings[title].evidence


def with_base(run, wrong):
    """Put an evaluation before training into a run, that answers `wrong` rows otherwise than its best one."""
    path = run / "tunebook" / "eval_metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    best = next(line for line in lines if line["step"] == 300)
    records = (run / "tunebook" / "eval_records-movies_test-300.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(record) | {"step": 0} for record in records]
    right = [one for one in records if one["scores"]["yes_no"]["values"]["accuracy"] == 1.0]
    for record in right[:wrong]:
        turned = "no" if record["reference"] == "Yes" else "yes"
        record["scores"]["yes_no"] |= {"parsed": turned, "values": {"accuracy": 0.0}}
    (run / "tunebook" / "eval_records-movies_test-0.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records), encoding="utf-8"
    )
    accuracy = (49 - wrong) / 60
    base = best | {"step": 0, "values": best["values"] | {"accuracy": accuracy, "macro_f1": accuracy}}
    path.write_text("".join(json.dumps(line) + "\n" for line in [base, *lines]), encoding="utf-8")
    return run


def test_the_best_evaluation_is_tested_against_the_base_model(tmp_path):
    (best,) = gather([with_base(copy_of_movies(tmp_path), wrong=30)]).runs[0].best
    assert best.base.figure.step == 0
    assert "paired bootstrap over 60 rows: +0." in best.base.test
    assert best.base.p_value < 0.01
    (best,) = gather([copy_of_movies(tmp_path / "alone")]).runs[0].best
    assert best.base.figure is None
    assert "was not evaluated" in best.base.reason


@pytest.mark.parametrize(("wrong", "is_found"), [(30, False), (2, True)])
def test_a_gain_over_the_base_that_chance_explains_is_a_finding(tmp_path, wrong, is_found):
    run = with_base(copy_of_movies(tmp_path), wrong=wrong)
    title = "not shown to be better than the base model on movies_test"
    assert (title in titles_of(run)) == is_found
    headline = gather([run]).runs[0].headline
    assert "; before training it was 0." in headline


def test_early_stopping_names_the_figure_that_did_not_improve(tmp_path):
    stopping = {
        "EarlyStoppingCallback": {
            "args": {"early_stopping_patience": 3},
            "attributes": {"early_stopping_patience_counter": 3},
        }
    }
    findings = found(
        tmp_path,
        training(GOOD),
        max_steps=500,
        stateful_callbacks=stopping,
        best_metric=0.71,
        best_global_step=60,
    )
    evidence = findings["early stopping ended the run"].evidence
    assert "without improvement of the engine's figure on 0.710 of step 60, patience 3" in evidence


def test_loss_that_rises_within_five_percent_or_with_the_training_loss_is_no_overfitting(tmp_path):
    title = "the evaluation loss rises while the training loss falls"
    assert title not in found(tmp_path, training(GOOD) + evaluated([1.0, 0.7, 0.71, 0.72, 0.73]))
    rising = [0.3 + 0.01 * step for step in range(100)]
    assert title not in found(tmp_path, training(rising) + evaluated([1.0, 0.7, 0.75, 0.9, 1.1]))


def test_a_loss_that_is_never_nan_or_zero_is_not_called_so(tmp_path):
    sound = found(tmp_path, training(GOOD))
    assert not [title for title in sound if "finite" in title or "zero" in title]
    broken = found(tmp_path, training([*GOOD[:50], math.nan, *[0.0] * 49]))
    assert "1 of 100 logged values" in broken["loss is not finite"].evidence
    assert (
        "at 49 of 100 logged steps, first at step 52" in broken["the training loss is exactly zero"].evidence
    )
