"""GPU memory: known points, physical laws that must hold, and published measurements."""

import inspect
import json
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunebook.errors import TunebookError
from tunebook.memory import (
    estimate,
    evaluate_setup,
    find_config,
    largest_batch,
    levers,
    longest_context,
    oom_ladder,
    read_setup,
    read_shape,
)

CASES = Path(__file__).parent / "cases"
QWEN_06B = find_config("Qwen/Qwen3-0.6B")
QWEN_4B = find_config("Qwen/Qwen3-4B-Instruct-2507")
QWEN_32B = find_config("Qwen/Qwen3-32B")
LLAMA_8B = find_config("meta-llama/Llama-3.1-8B")
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize(("zero_stage", "gpus"), [(0, 1), (2, 4)])
def test_lora_of_4b_at_200k_tokens_takes_about_59_gb_with_a_fused_loss(zero_stage, gpus):
    found = estimate(
        QWEN_4B, method="lora", seq_len=200_000, micro_batch=1, gpus=gpus, zero_stage=zero_stage,
        gradient_checkpointing=True, attention="flash", fused_ce="liger", lora_rank=16,
    )  # fmt: skip
    assert 57 < found.gb < 61


def test_lora_of_4b_at_200k_tokens_does_not_fit_without_a_fused_loss():
    assert estimate(QWEN_4B, method="lora", seq_len=200_000, attention="flash", lora_rank=16).gb > 120


def test_qlora_of_06b_writes_the_files_that_were_seen():
    found = estimate(QWEN_06B, method="qlora", quantization=4, lora_rank=16, lora_targets=SEVEN)
    assert found.trainable == 10_092_544
    assert found.adapter_file / 2**20 == pytest.approx(38.5)
    assert found.optimizer_file / 2**20 == pytest.approx(77)


def test_full_adam_of_32b_takes_16_bytes_per_parameter():
    found = estimate(QWEN_32B, method="full", seq_len=8192, gpus=4, zero_stage=3, optimizer="adamw_torch")
    states = 4 * sum(found.terms[name] for name in ("weights", "gradients", "optimizer"))
    assert states / found.params == pytest.approx(16)
    assert states == pytest.approx(524e9, rel=0.001)
    assert found.gb > 80


def test_offload_moves_what_it_takes_from_the_gpu_to_the_host():
    kept = estimate(QWEN_32B, method="full", seq_len=8192, gpus=4, zero_stage=3)
    moved = estimate(QWEN_32B, method="full", seq_len=8192, gpus=4, zero_stage=3, offload="all")
    # fp32 master and moments 12 bytes, fp32 gradients 4, bf16 weights 2: why the node needs 500 GB and more.
    assert moved.host / moved.params == pytest.approx(18)
    assert moved.total < kept.total - 100e9
    assert kept.host == 0


def test_evaluation_logits_of_16_rows_are_5_and_10_gb_and_vanish_at_answer_positions():
    shape, setup = read_shape(QWEN_06B), read_setup(method="qlora", seq_len=1024)
    stock = evaluate_setup(shape, setup, rows=16)
    assert stock.logits / 1e9 == pytest.approx(5.0, abs=0.05)
    assert stock.logits_float / 1e9 == pytest.approx(10.0, abs=0.05)
    answers = evaluate_setup(shape, setup, rows=16, answer_tokens=6)
    assert answers.logits + answers.logits_float < 0.1e9
    assert answers.resident == stock.resident


def test_lora_is_counted_as_peft_counts_it():
    # peft 0.18, r=16 on all linear layers of these models; the first is the file of a published run.
    counts = {
        "Qwen/Qwen3-0.6B": 10_092_544, "Qwen/Qwen3-4B": 33_030_144, "Qwen/Qwen3-32B": 134_217_728,
        "google/gemma-2b-it": 19_611_648, "google/gemma-2-9b-it": 54_018_048,
    }  # fmt: skip
    for model, count in counts.items():
        assert estimate(find_config(model), method="lora", lora_rank=16).trainable == count


def test_published_trainable_parameters_are_met():
    # ms-swift's benchmark (33.55 M, 17.89 M) and peft's MetaMathQA results print these.
    configs = json.loads((CASES / "memory_configs.json").read_text())
    qwen = configs["Qwen/Qwen-7B-Chat"]
    assert estimate(qwen, method="lora", lora_rank=64, lora_targets=["c_attn"]).trainable == 33_554_432
    assert estimate(qwen, method="lora", lora_rank=8).trainable == pytest.approx(17.89e6, rel=1e-3)
    llama = configs["meta-llama/Llama-3.2-3B"]
    assert estimate(llama, lora_rank=32, lora_targets=["q_proj", "v_proj"]).trainable == 9_175_040
    assert estimate(llama, method="dora", lora_rank=32, lora_targets="q_proj,v_proj").trainable == 9_289_728


def test_estimates_stay_near_published_measurements():
    """A guard against regressions; benchmarks/memory.py prints the table by source."""
    configs = json.loads((CASES / "memory_configs.json").read_text())
    cases = [json.loads(line) for line in (CASES / "memory.jsonl").read_text().splitlines()]
    held_out = [case for case in cases if case["half"] == "held_out"]
    found = [estimate(configs[case["model"]], **case["arguments"]) for case in held_out]
    pairs = list(zip(found, held_out, strict=True))
    errors = [abs(one.total / case["measured_bytes"] - 1) for one, case in pairs]
    assert len(cases) > 250
    assert statistics.median(errors) < 0.08
    assert sum(error <= 0.2 for error in errors) / len(errors) > 0.84
    assert sum(one.low <= case["measured_bytes"] <= one.high for one, case in pairs) / len(pairs) > 0.83


@given(
    method=st.sampled_from(["full", "lora", "qlora", "dora"]),
    seq_len=st.integers(1, 300_000),
    micro_batch=st.integers(1, 64),
    gpus=st.sampled_from([1, 2, 8]),
    zero_stage=st.integers(0, 3),
    checkpointing=st.booleans(),
    attention=st.sampled_from(["flash", "sdpa", "eager"]),
    fused_ce=st.sampled_from([None, "liger", "cce", "chunked"]),
    optimizer=st.sampled_from(["adamw_torch", "adamw_8bit", "paged_adamw_8bit", "sgd", "lion", "adafactor"]),
)
def test_terms_add_up_and_nothing_is_negative_and_more_tokens_never_take_less(
    method, seq_len, micro_batch, gpus, zero_stage, checkpointing, attention, fused_ce, optimizer
):
    arguments = {
        "method": method, "micro_batch": micro_batch, "gpus": gpus, "zero_stage": zero_stage,
        "gradient_checkpointing": checkpointing, "attention": attention, "fused_ce": fused_ce,
        "optimizer": optimizer,
    }  # fmt: skip
    found = estimate(LLAMA_8B, seq_len=seq_len, **arguments)
    assert all(size >= 0 for size in found.terms.values())
    assert found.total == pytest.approx(sum(found.terms.values()))
    assert found.low < found.total < found.high
    longer = estimate(LLAMA_8B, seq_len=2 * seq_len, **arguments)
    assert longer.total >= found.total * 0.999


def test_each_lever_is_priced_and_points_the_way_one_expects():
    found = {
        lever.name: lever.saved
        for lever in levers(
            LLAMA_8B, method="lora", seq_len=4096, micro_batch=4, gpus=4, attention="eager",
            gradient_checkpointing=False, mean_tokens=900,
        )
    }  # fmt: skip
    for name in (
        "fused cross-entropy",
        "packing",
        "gradient checkpointing",
        "ZeRO-3",
        "4-bit weights",
        "flash attention",
    ):
        assert found[name] > 0, name


def test_division_and_offload_are_priced_for_full_training():
    found = {lever.name: lever for lever in levers(LLAMA_8B, method="full", seq_len=4096, gpus=4)}
    order = ["ZeRO-1", "ZeRO-2", "ZeRO-3"]
    saved = [found[name].saved for name in order]
    assert 0 < saved[0] < saved[1] < saved[2]
    assert found["offload of the optimizer"].saved > 0
    assert found["offload of parameters too"].saved > found["offload of the optimizer"].saved
    assert all(lever.price for lever in found.values())


def test_free_changes_come_first_and_each_step_saves():
    shape = read_shape(QWEN_32B)
    setup = read_setup(
        method="full", seq_len=8192, micro_batch=2, gpus=4, zero_stage=2, gradient_checkpointing=False
    )
    rungs = oom_ladder(shape, setup)
    assert [rung.name for rung in rungs][:3] == [
        "fused cross-entropy",
        "micro-batch 1",
        "gradient checkpointing",
    ]
    assert all(rung.saved > 0 for rung in rungs)
    assert rungs[-1].total < 80e9


@pytest.mark.parametrize("gpu_gb", [24, 80])
def test_the_largest_batch_and_the_longest_row_fit_and_one_more_does_not(gpu_gb):
    shape, setup = read_shape(LLAMA_8B), read_setup(method="qlora", seq_len=1024)
    rows, tokens = largest_batch(shape, setup, gpu_gb), longest_context(shape, setup, gpu_gb)
    for argument, most in (("micro_batch", rows), ("seq_len", tokens)):
        sizes = {"method": "qlora", "seq_len": 1024}
        assert estimate(LLAMA_8B, **{**sizes, argument: most}).fits(gpu_gb)
        assert not estimate(LLAMA_8B, **{**sizes, argument: most + 1}).fits(gpu_gb)
    assert largest_batch(read_shape(QWEN_32B), read_setup(method="full"), gpu_gb) == 0


@pytest.mark.parametrize(
    ("argument", "one", "other"),
    [
        ("quantization", 4, "nf4"), ("quantization", "int8", 8), ("quantization", None, "none"),
        ("quantization", "awq", "gptq"), ("fused_ce", True, "liger"), ("fused_ce", False, None),
        ("attention", "flash_attention_2", "fa2"), ("attention", "auto", None), ("optimizer", "adamw_bnb_8bit", "adamw_8bit"),
        ("optimizer", None, "adamw_torch_fused"), ("offload", "all", ["optimizer", "parameters"]), ("offload", None, "none"),
        ("dtype", "bfloat16", None), ("lora_targets", "all", None), ("lora_targets", "q_proj,v_proj", ["q_proj", "v_proj"]),
        ("quantization", "bnb-nf4-double", "nf4_dq"), ("lora_targets", "q,v", ["q_proj", "v_proj"]),
        ("offload", "cpu_optimizer", "optimizer"), ("fused_ce", "liger_fused_linear_cross_entropy", "liger"),
        ("lora_targets", r"model.layers.[\d]+.self_attn.(q|v)_proj", "q_proj,v_proj"), ("zero_stage", "zero3", 3), ("zero_stage", "fsdp", 3), ("lora_targets", "attention", "q,k,v,o"), ("lora_targets", "attention+mlp", None),
        ("lora_targets", "q_proj v_proj", "q,v"), ("attention", "vanilla", "eager"), ("optimizer", "8bit", "adamw_8bit"), ("quantization", True, 4), ("gradient_checkpointing", "true", None),
    ],
)  # fmt: skip
def test_several_spellings_mean_one_thing(argument, one, other):
    common = {"method": "lora", "seq_len": 4096, "gpus": 2, "zero_stage": 3}
    first, second = (estimate(LLAMA_8B, **{**common, argument: value}) for value in (one, other))
    assert first == second


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("method", "magic"), ("quantization", "3.14"), ("attention", "telepathy"), ("optimizer", "nobody"),
        ("fused_ce", "perhaps"), ("offload", "the moon"), ("dtype", "bf12"), ("zero_stage", 7), ("seq_len", -1),
        ("lora_targets", ["no_such_layer"]),
    ],
)  # fmt: skip
def test_an_unknown_word_is_an_error_and_not_a_default(argument, value):
    with pytest.raises(TunebookError):
        estimate(LLAMA_8B, **{"method": "lora", argument: value})


def test_an_argument_of_another_name_is_refused_and_the_names_are_to_be_seen():
    names = set(inspect.signature(estimate).parameters)
    assert names >= {
        *("config", "method", "quantization", "seq_len", "micro_batch", "gpus", "zero_stage"),
        *("gradient_checkpointing", "attention", "optimizer", "fused_ce", "offload"),
        *("lora_rank", "lora_targets", "dtype"),
    }
    with pytest.raises(TypeError, match="no argument sequence_length; there are method, quantization"):
        estimate(LLAMA_8B, sequence_length=4096)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(TunebookError, match="unknown architecture: model_type 'mamba9'"):
        estimate({"model_type": "mamba9", "hidden_size": 1}, method="lora")
    with pytest.raises(TunebookError, match="lacks 'intermediate_size'"):
        estimate({key: value for key, value in LLAMA_8B.items() if key != "intermediate_size"})
