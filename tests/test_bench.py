"""`tunebook bench`: what its figures are worked out from, and what it takes out of a recipe."""

import pytest

from tunebook import memory
from tunebook.bench import bench_values, figures_of
from tunebook.bench.figures import flops_per_token, peak_flops
from tunebook.engines.axolotl.rules import PLUGIN
from tunebook.errors import TunebookError

LEFT = {
    "steps": [
        {"seconds": 9.0, "loading": 5.0, "tokens": 400},
        *({"seconds": seconds, "loading": 0.5, "tokens": 1000} for seconds in (1.0, 2.0, 3.0, 4.0)),
    ],
    "ranks": 2,
    "rows_per_step": 4,
    "attention": "sdpa",
    "device": "NVIDIA A100-SXM4-80GB",
    "peak_allocated_bytes": 10,
    "peak_reserved_bytes": 12,
    "peak_resident_bytes": 14,
}
QWEN = memory.read_shape(memory.find_config("Qwen/Qwen3-0.6B"))


def test_the_first_steps_are_left_out():
    figures = figures_of(LEFT, warmup=1, shape=None, full=True)
    assert (figures.steps, figures.step_seconds, figures.step_seconds_p90) == (4, 2.5, 4.0)
    assert figures.tokens_per_second == 400.0
    assert figures.rows_per_second == 1.6
    assert figures.loading_share == 0.2
    with pytest.raises(ValueError, match="5 of them are left out"):
        figures_of(LEFT, warmup=5, shape=None, full=True)


def test_utilisation_is_of_all_ranks_and_of_a_known_card_alone():
    figures = figures_of(LEFT, warmup=1, shape=QWEN, full=True)
    assert figures.mfu == pytest.approx(400 * figures.flops_per_token / (2 * 312e12))
    assert figures_of({**LEFT, "device": "cpu"}, warmup=1, shape=QWEN, full=True).mfu is None
    assert figures_of(LEFT, warmup=1, shape=None, full=True).mfu is None


def test_operations_of_a_token_are_those_one_counts_by_hand():
    # 28 layers of q 1024x2048, k and v 1024x1024, o 2048x1024, three of 1024x3072; head 1024x151936.
    weights = 28 * (2 * 1024 * 2048 + 2 * 1024 * 1024 + 3 * 1024 * 3072) + 1024 * 151936
    attention = 28 * 2048 * 500
    assert flops_per_token(QWEN, length=500, full=True) == 6 * weights + 6 * attention
    assert flops_per_token(QWEN, length=500, full=False) == 4 * weights + 6 * attention


def test_experts_are_not_guessed_at():
    moe = memory.read_shape(
        {
            "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 2, "num_attention_heads": 32,
            "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768,
            "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936, "tie_word_embeddings": False,
            "decoder_sparse_step": 1, "mlp_only_layers": [],
        }
    )  # fmt: skip
    assert figures_of(LEFT, warmup=1, shape=moe, full=True).flops_per_token is None


@pytest.mark.parametrize(
    ("device", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("Tesla T4", 65.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA A10G", 125.0),
        ("AMD Instinct MI300X", None),
        ("cpu", None),
    ],
)
def test_peaks_are_found_by_the_devices_own_name(device, teraflops):
    peak = peak_flops(device)
    assert peak == (None if teraflops is None else pytest.approx(teraflops * 1e12))


def test_nothing_but_training_is_left_of_a_recipe():
    recipe = {
        "model_name_or_path": "m",
        "eval_dataset": "e",
        "eval_strategy": "steps",
        "load_best_model_at_end": True,
        "eval_on_start": True,
        "eval_on_each_dataset": True,
        "push_to_hub": True,
        "hub_model_id": "me/mine",
        "use_swanlab": True,
        "swanlab_project": "p",
        "num_train_epochs": 3,
        "hf_hub_token": "t",
        "neat_packing": True,
        "learning_rate": 1e-4,
    }
    values = bench_values(recipe, "llamafactory", steps=7, attention="fa2", synthetic=True)
    assert values["max_steps"] == 7
    assert values["save_strategy"] == "no"
    assert values["flash_attn"] == "fa2"
    assert values["train_from_scratch"] is True
    assert values["learning_rate"] == 1e-4
    ours = {"max_steps", "save_strategy", "report_to", "logging_steps", "plot_loss", "flash_attn"}
    kept = {"model_name_or_path", "learning_rate", "hf_hub_token", "neat_packing"}
    assert values.keys() == kept | ours | {"train_from_scratch"}


def test_our_plugin_does_not_evaluate_in_axolotl():
    recipe = {
        "base_model": "m",
        "plugins": [PLUGIN, "other.Plugin"],
        "test_datasets": [{}],
        "tunebook_eval_datasets": ["e"],
        "do_causal_lm_eval": True,
        "use_wandb": True,
        "wandb_project": "p",
        "hub_model_id": "me/mine",
        "num_epochs": 2,
    }
    values = bench_values(recipe, "axolotl", steps=7, attention="sdpa", synthetic=False)
    assert values["plugins"] == ["other.Plugin"]
    assert values["attn_implementation"] == "sdpa"
    ours = {"max_steps", "save_strategy", "val_set_size", "logging_steps", "attn_implementation"}
    assert values.keys() == {"base_model", "plugins", "num_epochs"} | ours
    assert "plugins" not in bench_values(
        {**recipe, "plugins": [PLUGIN]}, "axolotl", steps=7, attention=None, synthetic=False
    )
    with pytest.raises(TunebookError, match="no random weights"):
        bench_values(recipe, "axolotl", steps=7, attention=None, synthetic=True)
