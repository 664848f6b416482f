"""Parameter counts of every family against those that were published, and the text part of composite models."""

import pytest

from tunebook.errors import TunebookError
from tunebook.memory import find_config, read_shape

# Counts as the models' cards, papers or safetensors indices give them.
FAMILIES = [
    ({"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 32000}, 46_702_792_704),
    ({"model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936, "tie_word_embeddings": False}, 30_532_122_624),
    ({"model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_attention_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "vocab_size": 129280, "tie_word_embeddings": False}, 671e9),
    ({"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False}, 7_615_616_512),
    ({"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064, "tie_word_embeddings": False}, 3_821_079_552),
    ({"model_type": "phi", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 51200}, 2_779_683_840),
    ({"model_type": "gpt_neox", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 8, "vocab_size": 50304, "tie_word_embeddings": False}, 1_011_781_632),
    ({"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71, "multi_query": True, "vocab_size": 65024}, 6_921_720_704),
    ({"model_type": "chatglm", "hidden_size": 4096, "ffn_hidden_size": 13696, "num_layers": 28, "num_attention_heads": 32, "multi_query_attention": True, "multi_query_group_num": 2, "kv_channels": 128, "padded_vocab_size": 65024, "add_qkv_bias": True, "tie_word_embeddings": False}, 6_243_584_000),
    ({"model_type": "qwen", "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 151936, "tie_word_embeddings": False}, 7_721_324_544),
    ({"model_type": "baichuan", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 125696, "tie_word_embeddings": False}, 7_505_973_248),
    ({"model_type": "internlm2", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 92544, "bias": False, "tie_word_embeddings": False}, 7_737_708_544),
    ({"model_type": "qwen3_next", "hidden_size": 2048, "intermediate_size": 5120, "num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256, "linear_num_key_heads": 16, "linear_key_head_dim": 128, "linear_num_value_heads": 32, "linear_value_head_dim": 128, "num_experts": 512, "num_experts_per_tok": 10, "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512, "vocab_size": 151936, "tie_word_embeddings": False}, 79.7e9),
    ({"model_type": "stablelm", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 100352, "use_qkv_bias": True, "tie_word_embeddings": False}, 1_644_515_328),
    ({"model_type": "starcoder2", "hidden_size": 3072, "intermediate_size": 12288, "num_hidden_layers": 30, "num_attention_heads": 24, "num_key_value_heads": 2, "vocab_size": 49152, "use_bias": True}, 3_030_371_328),
    ({"model_type": "olmo2", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 100352, "tie_word_embeddings": False}, 7_298_617_344),
    ({"model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 128256}, 3_075_098_624),
    ({"model_type": "glm4", "hidden_size": 4096, "intermediate_size": 13696, "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128, "vocab_size": 151552, "attention_bias": True, "tie_word_embeddings": False}, 9_400_279_040),
    ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34}}, 3_880_263_168),
]  # fmt: skip


@pytest.mark.parametrize(("config", "params"), FAMILIES, ids=[config["model_type"] for config, _ in FAMILIES])
def test_a_family_has_as_many_parameters_as_were_published(config, params):
    tolerance = 0 if isinstance(params, int) else 0.003
    assert read_shape(config).params == pytest.approx(params, rel=tolerance)


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008), ("Qwen/Qwen3-0.6B", 596_049_920), ("Qwen/Qwen3-4B", 4_022_468_096), ("Qwen/Qwen3-32B", 32_762_123_264),
        ("google/gemma-2b-it", 2_506_172_416), ("google/gemma-2-9b-it", 9_241_705_984),
        ("google/gemma-3-1b-it", 999_885_952), ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768), ("unsloth/Qwen2.5-1.5B", 1_543_714_304),
        ("Qwen/Qwen2.5-Coder-3B-Instruct", 3_085_938_688), ("/root/models/Qwen2.5-7B-Instruct/", 7_615_616_512),
        ("Qwen/Qwen2.5-14B", 14_770_033_664), ("Qwen/Qwen2.5-32B-Instruct", 32_763_876_352),
        ("Qwen/Qwen2.5-72B-Instruct", 72_706_203_648), ("NousResearch/Meta-Llama-3-8B-Instruct", 8_030_261_248),
        ("meta-llama/Llama-3.3-70B-Instruct", 70_553_706_496), ("unsloth/Llama-3.2-3B-Instruct", 3_212_749_824),
        ("NousResearch/Llama-2-7b-chat-hf", 6_738_415_616), ("meta-llama/Llama-2-13b-hf", 13_015_864_320),
        ("mistralai/Mistral-7B-Instruct-v0.3", 7_248_023_552), ("mistralai/Mistral-7B-Instruct-v0.2", 7_241_732_096),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1_100_048_384), ("Qwen/Qwen3-8B-Base", 8_190_735_360),
        ("deepseek-ai/deepseek-coder-6.7b-instruct", 6_740_512_768), ("Qwen/Qwen2-VL-7B-Instruct", 7_615_616_512),
        ("meta-llama/Llama-3.2-1B", 1_235_814_400), ("mistralai/Mistral-7B-v0.1", 7_241_732_096),
    ],
)  # fmt: skip
def test_a_known_model_has_as_many_parameters_as_its_card_says(model, params):
    assert read_shape(find_config(model)).params == params


def test_qwen35_without_its_vision_tower_has_nearly_the_parameters_in_its_name():
    assert read_shape(find_config("Qwen/Qwen3.5-0.8B")).params == pytest.approx(0.8e9, rel=0.08)


def test_the_text_part_of_a_composite_model_is_read():
    inner = find_config("google/gemma-3-4b-it")
    outer = {"model_type": "gemma3", "text_config": inner, "vision_config": {"hidden_size": 1152}}
    assert read_shape(outer).params == read_shape(inner).params


def test_a_model_of_unknown_sizes_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TunebookError, match="neither here nor in the table"):
        find_config("Qwen/Qwen3-4")


def test_a_folder_gives_its_own_config(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert find_config(str(tmp_path)) == {"model_type": "llama"}
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(TunebookError, match="is no JSON"):
        find_config(str(tmp_path))
