"""Memory of an evaluation: the cache of keys and values, and what is read at a time."""

import json

import pytest
from click.testing import CliRunner

from tunebook.cli.main import cli
from tunebook.memory import find_config, read_shape
from tunebook.memory.inference import (
    answer_memory,
    answer_piece,
    cache_bytes,
    generation_memory,
    layer_kinds,
    piece,
    reads_in_pieces,
)

LAYER = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}


@pytest.mark.parametrize(
    ("config", "tokens", "elements"),
    [
        ({"model_type": "qwen3", "num_hidden_layers": 3}, 100, 3 * 64 * 100),
        # One of two layers keeps only its window.
        ({"model_type": "gemma2", "num_hidden_layers": 2, "sliding_window": 30}, 100, 64 * 100 + 64 * 30),
        ({"model_type": "gemma2", "num_hidden_layers": 2, "sliding_window": 300}, 100, 2 * 64 * 100),
        ({"model_type": "gemma3_text", "num_hidden_layers": 6, "sliding_window": 10}, 100, 64 * 150),
        ({"model_type": "llama", "layer_types": ["sliding_attention"], "sliding_window": 7}, 100, 64 * 7),
        # The last layers read the keys of others.
        ({"model_type": "gemma3n", "layer_types": ["full_attention"] * 4, "num_kv_shared_layers": 3}, 100, 6400),
        ({"model_type": "gemma3", "text_config": {**LAYER, "num_hidden_layers": 6, "sliding_window": 10}},
         100, 64 * 150),
    ],
)  # fmt: skip
def test_the_cache_counts_each_layer_by_what_it_keeps(config, tokens, elements):
    assert cache_bytes({**LAYER, **config}, rows=2, tokens=tokens) == 2 * 2 * elements


def test_the_cache_of_real_models_is_what_their_heads_say():
    qwen, gemma = find_config("Qwen/Qwen3-4B"), find_config("google/gemma-3-4b-it")
    assert cache_bytes(qwen, rows=1, tokens=1) == 2 * 36 * 8 * 128 * 2
    full = layer_kinds(gemma).count("full_attention")
    assert (full, len(layer_kinds(gemma))) == (5, 34)
    assert cache_bytes(gemma, rows=1, tokens=200_000) == 2 * 4 * 256 * 2 * (5 * 200_000 + 29 * 1024)


def test_linear_attention_reads_whole_and_keeps_a_state_of_fixed_size():
    config = {
        **LAYER,
        "model_type": "qwen3_5_text",
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "linear_conv_kernel_dim": 4,
    }
    assert not reads_in_pieces(config)
    grown = cache_bytes(config, rows=1, tokens=200) - cache_bytes(config, rows=1, tokens=100)
    assert grown == 64 * 100 * 2
    assert cache_bytes(config, rows=1, tokens=0) == (32 * 16 + 96 * 4) * 4


def test_short_batches_are_read_whole_and_long_ones_in_pieces_whatever_the_machine():
    # Promises: an evaluation is repeated with the same pieces.
    assert [piece(*size) for size in ((16, 2048), (1, 32_768), (1, 32_769), (8, 8192), (64, 1024))] == [
        None, None, 2048, 256, 256,
    ]  # fmt: skip


def test_the_answer_pass_takes_whichever_way_needs_less():
    qwen, gemma = find_config("Qwen/Qwen3-4B"), find_config("google/gemma-3-4b-it")
    size = {"rows": 1, "tokens": 200_000}
    assert answer_piece(read_shape(qwen), qwen, **size, attention="flash", padded=False) is None
    assert answer_piece(read_shape(qwen), qwen, **size, attention="sdpa", padded=True) == 2048
    assert answer_piece(read_shape(gemma), gemma, **size, attention="flash", padded=False) == 2048


def test_a_mask_and_scores_are_counted_where_the_kernel_makes_them():
    config = find_config("Qwen/Qwen3-4B")
    shape = read_shape(config)

    def attention(kernel, padded, step=None):
        return answer_memory(
            shape, config, rows=1, tokens=200_000, answer_tokens=1, step=step, attention=kernel, padded=padded
        ).attention

    assert attention("flash", True) == attention("sdpa", False) == 0
    assert attention("sdpa", True) >= 200_000**2 * 3
    assert attention("sdpa", True, step=2048) < 0.1 * attention("sdpa", True)
    assert attention("eager", False) == 200_000**2 * 32 * 8


def test_a_long_answer_has_bounded_logits():
    config = find_config("Qwen/Qwen3-4B")
    shape = read_shape(config)
    logits = [
        answer_memory(
            shape, config, rows=1, tokens=30_000, answer_tokens=tokens, step=None, attention="flash", padded=False
        ).logits
        for tokens in (100, 20_000)
    ]  # fmt: skip
    assert logits == [100 * 151_936 * 6, 2**27 * 6]


def test_a_cache_in_host_memory_leaves_two_layers_on_the_gpu():
    config = find_config("Qwen/Qwen3-4B")
    found = generation_memory(
        read_shape(config), config, rows=1, prompt=199_000, new_tokens=1000, attention="flash", padded=False
    )
    one = 200_000 * 2 * 8 * 128 * 2
    assert found.cache == 36 * one
    assert found.total - found.on_host().total == 35 * one


def test_estimate_shows_an_evaluation_by_its_passes(tmp_path):
    arguments = ["estimate", "llamafactory/qwen3-4b/lora_sft_legal_200k", "--answer-tokens", "2000"]
    done = CliRunner().invoke(cli, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)["evaluation"]
    written, answers = found["generation"], found["answer_positions"]
    assert written["cache"] == 2 * 36 * 8 * 128 * 2 * 200_000
    assert written["read_at_a_time"] == 2048
    assert answers["cache"] == 0
    assert answers["logits"] == 2 * 2**27
    assert written["after_training"] == pytest.approx(written["total"] - written["optimizer"])
    shown = CliRunner().invoke(cli, arguments).output
    assert "keys and values" in shown
    assert "read 2,048 tokens at a time" in shown
