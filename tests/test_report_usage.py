"""Time by phase, restarts and GPUs as the run tells them; estimates beside what was really measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tunebook.report.facts import facts_of
from tunebook.report.usage import usage_of
from tunebook.runlog import read_run
from tunebook.runlog.records import Phase, Restart, Series, Sourced, TimeSeries, WatchedGpu

RUNS = Path(__file__).parent / "fixtures" / "runs"
# Qwen3-0.6B in small: what the estimate needs and nothing else.
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "vocab_size": 1000, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture
def run():
    return read_run(RUNS / "movies")


def row(usage, label):
    return next(one for one in usage.estimates if one.label == label)


def fact(run, label):
    return next(one for one in facts_of(run) if one.label == label)


def test_phases_keep_their_source_and_get_their_share_of_what_is_known(run):
    phases = (
        Phase(name="tokenising", seconds=10.0, stretches=1, source="train.log"),
        Phase(name="training", seconds=80.0, stretches=2, source="train.log"),
        Phase(name="evaluating", seconds=10.0, stretches=4, source="tunebook/eval_metrics.jsonl"),
        Phase(name="saving", seconds=None, stretches=None, source="train.log"),
    )
    usage = usage_of(replace(run, phases=phases))
    assert [(one.name, one.share) for one in usage.phases] == [
        ("tokenising", 0.1),
        ("training", 0.8),
        ("evaluating", 0.1),
        ("saving", None),
    ]
    assert usage.phases_missing is None
    assert "no file" in usage_of(replace(run, phases=())).phases_missing


def test_restarts_are_told_with_their_steps(run):
    restart = Restart(
        resumed_at_step=200, steps_repeated=40, source="train.log", message="resumed at step 200"
    )
    (told,) = usage_of(replace(run, restarts=(restart,))).restarts
    assert told == {"step": 200, "repeated": 40, "message": "resumed at step 200", "source": "train.log"}


def test_a_card_that_was_watched_is_told_with_its_peak_and_means(run):
    watched = TimeSeries(
        seconds=np.array([0.0, 1.0, 2.0]), values=np.array([10.0, 50.0, 90.0]), source="gpu.csv"
    )
    gpu = WatchedGpu(
        host=None, index="0", name="NVIDIA H200", memory_total_mib=143771.0, memory_mib=None,
        utilization_percent=watched, power_w=None,
        peak_memory_mib=Sourced(value=20480.0, source="gpu.csv"),
    )  # fmt: skip
    (told,) = usage_of(replace(run, gpus=(gpu,))).gpus
    assert (told.peak_gib, told.mean_utilization_percent, told.mean_power_w) == (20.0, 50.0, None)
    peak = Sourced(value=20480.0, source="gpu.csv")
    assert (
        row(usage_of(replace(run, facts={"peak_gpu_memory_mib": peak})), "Peak GPU memory").measured == 20.0
    )


def test_what_was_not_measured_says_so_and_is_never_zero(run):
    measured = row(usage_of(run), "Peak GPU memory")
    assert measured.measured is None
    assert "nobody watched the GPU" in measured.source
    without = replace(run, gpu_count=Sourced(value=0.0, source="tunebook/run.json"))
    assert "the run had no GPU" in row(usage_of(without), "Peak GPU memory").source
    # Axolotl logs zeros on a CPU.
    on_cpu = read_run(RUNS / "axolotl")
    assert float(on_cpu.series["memory/max_allocated (GiB)"].values.max()) == 0.0
    assert row(usage_of(on_cpu), "Peak of torch's tensors").measured is None


def test_what_axolotl_logged_of_memory_is_the_measurement():
    run = read_run(RUNS / "axolotl")
    name = "memory/max_allocated (GiB)"
    series = Series(name=name, steps=np.array([2, 4]), values=np.array([3.5, 4.25]), source="events")
    found = row(usage_of(replace(run, series={**run.series, name: series})), "Peak of torch's tensors")
    assert (found.measured, found.source) == (4.25, f"events ({name})")


def test_the_estimate_is_of_the_recorded_recipe_and_counts_what_was_trained(tmp_path):
    folder = Path(shutil.copytree(RUNS / "movies", tmp_path / "movies"))
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    checkpoint = folder / "checkpoint-400"
    checkpoint.mkdir()
    (checkpoint / "optimizer.pt").write_bytes(b"0" * (1 << 20))
    usage = usage_of(read_run(folder))
    # Embedding 64,000; each layer 2 * 64 * 64 + 2 * 64 * 32 for attention, 3 * 64 * 128 for the MLP, 160 of norms.
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64 + 2 * 16
    assert row(usage, "Trained parameters").estimate == 64_000 + 2 * layer + 64
    memory = row(usage, "Peak GPU memory")
    assert memory.low < memory.estimate < memory.high
    optimizer = row(usage, "Optimizer file")
    assert (optimizer.measured, optimizer.source) == (1.0, "checkpoint-400/optimizer.pt")


def test_without_the_models_config_there_is_no_estimate_and_the_reason(run):
    found = row(usage_of(run), "Trained parameters")
    assert found.estimate is None
    assert "config.json is neither here" in found.estimate_missing


def test_tokens_per_second_are_tokens_by_training_time_or_missing(run):
    assert fact(run, "Tokens per second").value == pytest.approx(512_000 / 73.3014)
    bare = replace(run, series={k: v for k, v in run.series.items() if k != "num_input_tokens_seen"})
    assert fact(bare, "Tokens per second").value is None
    assert "include_num_input_tokens_seen" in fact(bare, "Tokens per second").source


def test_gpu_hours_and_wall_time_are_the_runs_or_missing(run):
    told = replace(
        run,
        wall_seconds=Sourced(value=7200.0, source="train.log"),
        gpu_count=Sourced(value=2.0, source="tunebook/run.json"),
        gpu_hours=Sourced(value=4.0, source="train.log, tunebook/run.json"),
    )
    values = {one.label: one.value for one in facts_of(told)}
    assert (values["Wall time"], values["GPUs"], values["GPU hours"]) == (7200.0, 2, 4.0)
    bare = replace(run, wall_seconds=None, gpu_count=None, gpu_hours=None)
    values = {one.label: one.value for one in facts_of(bare)}
    assert (values["Wall time"], values["GPUs"], values["GPU hours"]) == (None, None, None)
