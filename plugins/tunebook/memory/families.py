"""Reads a Hugging Face `config.json` into the sizes that memory depends on, for each family of models.

Every reader is checked against published parameter counts in `tests/test_memory_shapes.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.memory.shapes import Block, attention_widths, build, first, linear, text_part

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tunebook.memory.shapes import Linear, Shape


def llama_like(kind: str, config: Mapping[str, Any]) -> Shape:
    """Llama and all that share its layer: RMS norms, q/k/v/o, a gated MLP; dense or mixture of experts."""
    traits = _TRAITS.get(kind, {})
    config = {**traits.get("defaults", {}), **config}
    hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    heads, query, key = attention_widths(config)
    attention_bias = bool(
        config.get("attention_bias", config.get("bias", traits.get("attention_bias", False)))
    )
    qkv_bias = bool(traits.get("qkv_bias", attention_bias))
    if kind == "stablelm":
        qkv_bias = bool(config.get("use_qkv_bias", False))
    names = traits.get("names", {})
    if traits.get("fused_qkv"):
        attention = [linear(traits["fused_qkv"], hidden, query + 2 * key, qkv_bias)]
    else:
        attention = [
            linear("q_proj", hidden, query, qkv_bias),
            linear("k_proj", hidden, key, qkv_bias),
            linear("v_proj", hidden, key, qkv_bias),
        ]
    out_bias = bool(traits.get("out_bias", attention_bias and not traits.get("qkv_bias")))
    attention.append(linear(names.get("o_proj", "o_proj"), query, hidden, out_bias))
    norms = int(traits.get("norms", 2)) * hidden * int(traits.get("norm_width", 1))
    norms += (query + key) if traits.get("full_qk_norm") else 0
    if traits.get("qk_norm"):
        norms += 2 * int(config.get("head_dim") or hidden // heads)

    def mlp(width: int, copies: int = 1, prefix: str = "") -> list[Linear]:
        bias = bool(config.get("mlp_bias", False))
        if traits.get("fused_gate"):
            return [
                linear(prefix + traits["fused_gate"], hidden, 2 * width, bias, copies),
                linear(prefix + names.get("down_proj", "down_proj"), width, hidden, bias, copies),
            ]
        return [
            linear(prefix + names.get("gate_proj", "gate_proj"), hidden, width, bias, copies),
            linear(prefix + names.get("up_proj", "up_proj"), hidden, width, bias, copies),
            linear(prefix + names.get("down_proj", "down_proj"), width, hidden, bias, copies),
        ]

    def block(count: int, feed_forward: list[Linear], width: int, other: int = 0) -> Block:
        return Block(
            count=count, linears=(*attention, *feed_forward), other_params=norms + other,
            query_width=query, key_width=key, mlp_width=width, gated=True,
        )  # fmt: skip

    experts = int(
        config.get("num_local_experts") or config.get("num_experts") or config.get("n_routed_experts") or 0
    )
    if not experts:
        width = int(config["intermediate_size"])
        blocks = [block(layers, mlp(width), width)]
    else:
        active = int(config.get("num_experts_per_tok") or 2)
        width = int(config.get("moe_intermediate_size") or config["intermediate_size"])
        shared = int(config.get("shared_expert_intermediate_size") or 0)
        shared += int(config.get("n_shared_experts") or 0) * width
        dense = int(config.get("first_k_dense_replace") or 0)
        parts = mlp(width, copies=experts) + (mlp(shared) if shared else [])
        router = hidden * experts + (hidden if config.get("shared_expert_intermediate_size") else 0)
        blocks = [block(layers - dense, parts, active * width + shared, router)]
        if dense:
            full = int(config["intermediate_size"])
            blocks.append(block(dense, mlp(full), full))
    tied = bool(traits.get("tied", False))
    final = hidden * int(traits.get("norm_width", 1))
    return build(kind, config, blocks=blocks, heads=heads, tied_default=tied, norm_params=final)


def latent(kind: str, config: Mapping[str, Any]) -> Shape:
    """DeepSeek V2 and V3: latent attention (arXiv:2405.04434), shared and routed experts."""
    hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    heads = int(config["num_attention_heads"])
    rope, plain, value = (int(config[f"{part}_head_dim"]) for part in ("qk_rope", "qk_nope", "v"))
    latent, query_rank = int(config["kv_lora_rank"]), config.get("q_lora_rank")
    if query_rank:
        attention = [
            linear("q_a_proj", hidden, int(query_rank)),
            linear("q_b_proj", int(query_rank), heads * (rope + plain)),
        ]
    else:
        attention = [linear("q_proj", hidden, heads * (rope + plain))]
    attention += [
        linear("kv_a_proj_with_mqa", hidden, latent + rope),
        linear("kv_b_proj", latent, heads * (plain + value)),
        linear("o_proj", heads * value, hidden),
    ]

    def mlp(width: int, copies: int = 1) -> list[Linear]:
        return [
            linear("gate_proj", hidden, width, copies=copies),
            linear("up_proj", hidden, width, copies=copies),
            linear("down_proj", width, hidden, copies=copies),
        ]

    experts, width = int(config["n_routed_experts"]), int(config["moe_intermediate_size"])
    shared = int(config.get("n_shared_experts") or 0) * width
    dense = int(config.get("first_k_dense_replace") or 0)
    query = heads * (rope + plain)
    norms = 2 * hidden + latent + int(query_rank or 0)
    blocks = [
        Block(
            count=layers - dense,
            linears=(*attention, *mlp(width, experts), *(mlp(shared) if shared else [])),
            other_params=norms + hidden * experts, query_width=query, key_width=query,
            mlp_width=int(config["num_experts_per_tok"]) * width + shared, gated=True,
        ),
        Block(
            count=dense, linears=(*attention, *mlp(int(config["intermediate_size"]))), other_params=norms,
            query_width=query, key_width=query, mlp_width=int(config["intermediate_size"]), gated=True,
        ),
    ]  # fmt: skip
    return build(kind, config, blocks=blocks, heads=heads, tied_default=False, norm_params=hidden)


def hybrid(kind: str, config: Mapping[str, Any]) -> Shape:
    """Qwen3-Next and Qwen3.5: three layers of gated delta net to one of gated full attention."""
    hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    heads, query, key = attention_widths(config)
    kinds = config.get("layer_types")
    every = int(config.get("full_attention_interval") or 4)
    full = sum(name == "full_attention" for name in kinds) if kinds else layers // every
    key_width = int(config["linear_num_key_heads"]) * int(config["linear_key_head_dim"])
    value_heads = int(config["linear_num_value_heads"])
    value_width = value_heads * int(config["linear_value_head_dim"])
    kernel = int(config.get("linear_conv_kernel_dim") or 4)
    experts = int(config.get("num_experts") or 0)
    if experts:
        width, shared = int(config["moe_intermediate_size"]), int(config["shared_expert_intermediate_size"])
        parts = [(width, experts), (shared, 1)]
        active = int(config["num_experts_per_tok"]) * width + shared
        router = hidden * experts + hidden
    else:
        parts, active, router = [(int(config["intermediate_size"]), 1)], int(config["intermediate_size"]), 0
    mlp = [
        matrix
        for width, copies in parts
        for matrix in (
            linear("gate_proj", hidden, width, copies=copies),
            linear("up_proj", hidden, width, copies=copies),
            linear("down_proj", width, hidden, copies=copies),
        )
    ]
    attention = [
        # The output gate doubles the query projection.
        linear("q_proj", hidden, 2 * query), linear("k_proj", hidden, key),
        linear("v_proj", hidden, key), linear("o_proj", query, hidden),
    ]  # fmt: skip
    mixed = 2 * key_width + value_width
    if kind.startswith("qwen3_next"):
        fused = [("in_proj_qkvz", mixed + value_width), ("in_proj_ba", 2 * value_heads)]
    else:
        fused = [("in_proj_qkv", mixed), ("in_proj_z", value_width), ("in_proj_b", value_heads)]
        fused += [("in_proj_a", value_heads)]
    delta = [linear(name, hidden, outputs) for name, outputs in fused]
    delta.append(linear("out_proj", value_width, hidden))
    delta_other = kernel * mixed + 2 * value_heads + int(config["linear_value_head_dim"])
    head_dim = int(config["head_dim"])
    blocks = [
        Block(
            count=full, linears=(*attention, *mlp), other_params=2 * hidden + 2 * head_dim + router,
            query_width=2 * query, key_width=key, mlp_width=active, gated=True,
        ),
        Block(
            count=layers - full, linears=(*delta, *mlp), other_params=2 * hidden + delta_other + router,
            query_width=2 * value_width, key_width=key_width, mlp_width=active, gated=True, attention=False,
        ),
    ]  # fmt: skip
    return build(kind, config, blocks=blocks, heads=heads, tied_default=False, norm_params=hidden)


def qwen(kind: str, config: Mapping[str, Any]) -> Shape:
    """Qwen 1: `intermediate_size` counts both halves of the gated MLP."""
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    width = int(config["intermediate_size"]) // 2
    linears = [
        linear("c_attn", hidden, 3 * hidden, True), linear("c_proj", hidden, hidden),
        linear("w1", hidden, width), linear("w2", hidden, width),
        linear("c_proj", width, hidden),
    ]  # fmt: skip
    return _one_block(kind, config, linears, hidden, hidden, width, heads=heads, other=2 * hidden, gated=True)


def chatglm(kind: str, config: Mapping[str, Any]) -> Shape:
    """ChatGLM2, ChatGLM3 and GLM-4-9B with their own modelling file."""
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    query = heads * int(config.get("kv_channels") or hidden // heads)
    groups = int(config["multi_query_group_num"]) if config.get("multi_query_attention") else heads
    key = groups * (query // heads)
    width = int(config["ffn_hidden_size"])
    bias = bool(config.get("add_qkv_bias"))
    linears = [
        linear("query_key_value", hidden, query + 2 * key, bias),
        linear("dense", query, hidden),
        linear("dense_h_to_4h", hidden, 2 * width), linear("dense_4h_to_h", width, hidden),
    ]  # fmt: skip
    layers = int(config.get("num_layers") or config["num_hidden_layers"])
    return _one_block(
        kind, config, linears, query, key, width, heads=heads, other=2 * hidden, gated=True, layers=layers
    )


def neox(kind: str, config: Mapping[str, Any]) -> Shape:
    """GPT-NeoX, Pythia and StableLM Alpha."""
    names = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
    return _classic(kind, config, names=names, tied=False)


def falcon(kind: str, config: Mapping[str, Any]) -> Shape:
    """Falcon: one key head (7B) or several (40B), no biases, a parallel MLP of four times the width."""
    hidden, heads = int(config["hidden_size"]), int(first(config, "num_attention_heads", "n_head"))
    new = bool(config.get("new_decoder_architecture"))
    groups = int(first(config, "num_kv_heads", "n_head_kv", "num_attention_heads")) if new else 1
    if not new and config.get("multi_query") is False:
        groups = heads
    key = groups * (hidden // heads)
    width = int(config.get("ffn_hidden_size") or 4 * hidden)
    linears = [
        linear("query_key_value", hidden, hidden + 2 * key), linear("dense", hidden, hidden),
        linear("dense_h_to_4h", hidden, width), linear("dense_4h_to_h", width, hidden),
    ]  # fmt: skip
    layers = int(first(config, "num_hidden_layers", "n_layer"))
    other = 4 * hidden if new else 2 * hidden
    return _one_block(
        kind, config, linears, hidden, key, width, heads=heads, other=other, gated=False, layers=layers,
        tied=True, final=2 * hidden,
    )  # fmt: skip


def phi(kind: str, config: Mapping[str, Any]) -> Shape:
    """Phi-1.5 and Phi-2: one norm for attention and MLP, biases everywhere, the head's too."""
    names = ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")
    return _classic(kind, config, names=names, tied=False, norms=1, head_bias=True)


def starcoder2(kind: str, config: Mapping[str, Any]) -> Shape:
    """StarCoder 2: grouped keys and a plain MLP, biases everywhere."""
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj")
    return _classic(kind, config, names=names, tied=True)


def _classic(
    kind: str,
    config: Mapping[str, Any],
    *,
    names: tuple[str, ...],
    tied: bool,
    norms: int = 2,
    head_bias: bool = False,
) -> Shape:
    """A layer with biases everywhere, layer norms of weight and bias, and an MLP without a gate.

    Args:
        names: Of query, key and value together, or of each; of the attention's output, and of the MLP's two.
        tied: The default of `tie_word_embeddings`.
        norms: Of a layer.
        head_bias: The output head has a bias too.
    """
    hidden, width = int(config["hidden_size"]), int(config["intermediate_size"])
    heads, query, key = attention_widths(config)
    *attention, output, up, down = names
    widths = [query + 2 * key] if len(attention) == 1 else [query, key, key]
    linears = [linear(name, hidden, size, True) for name, size in zip(attention, widths, strict=True)]
    linears += [
        linear(output, query, hidden, True),
        linear(up, hidden, width, True),
        linear(down, width, hidden, True),
    ]
    return _one_block(
        kind, config, linears, query, key, width, heads=heads, other=2 * norms * hidden, gated=False,
        tied=tied, final=2 * hidden, head_bias=head_bias,
    )  # fmt: skip


def _one_block(
    kind: str,
    config: Mapping[str, Any],
    linears: list[Linear],
    query: int,
    key: int,
    width: int,
    *,
    heads: int,
    other: int,
    gated: bool,
    layers: int | None = None,
    tied: bool = False,
    final: int | None = None,
    head_bias: bool = False,
) -> Shape:
    block = Block(
        count=layers or int(config["num_hidden_layers"]), linears=tuple(linears), other_params=other,
        query_width=query, key_width=key, mlp_width=width, gated=gated,
    )  # fmt: skip
    return build(
        kind, config, blocks=[block], heads=heads, tied_default=tied,
        norm_params=int(config["hidden_size"]) if final is None else final, head_bias=head_bias,
    )  # fmt: skip


_TRAITS: dict[str, dict[str, Any]] = {
    "qwen2": {"qkv_bias": True, "out_bias": False},
    "qwen2_moe": {"qkv_bias": True, "out_bias": False},
    "qwen2_vl": {"qkv_bias": True, "out_bias": False},
    "qwen2_5_vl": {"qkv_bias": True, "out_bias": False},
    "qwen2_5_vl_text": {"qkv_bias": True, "out_bias": False},
    "qwen2_vl_text": {"qkv_bias": True, "out_bias": False},
    "qwen3": {"qk_norm": True},
    "qwen3_moe": {"qk_norm": True},
    "qwen3_vl_text": {"qk_norm": True},
    "gemma": {"tied": True},
    "gemma2": {"tied": True, "norms": 4},
    "gemma3_text": {
        "tied": True,
        "norms": 4,
        "qk_norm": True,
        # The 4B model's file leaves these to the library.
        "defaults": {
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "vocab_size": 262208,
        },
    },
    "internlm": {"attention_bias": True},
    "internlm2": {
        "fused_qkv": "wqkv",
        "names": {"o_proj": "wo", "gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"},
    },
    "phi3": {"fused_qkv": "qkv_proj", "fused_gate": "gate_up_proj"},
    "baichuan": {"fused_qkv": "W_pack"},
    "stablelm": {"norm_width": 2, "out_bias": False},
    "cohere": {"tied": True, "norms": 1},
    "cohere2": {"tied": True, "norms": 1},
    "olmo": {"norms": 0},
    "olmo2": {"full_qk_norm": True},
    "olmo3": {"full_qk_norm": True},
    "glm": {"qkv_bias": True, "out_bias": False, "fused_gate": "gate_up_proj"},
    "glm4": {"qkv_bias": True, "out_bias": False, "fused_gate": "gate_up_proj", "norms": 4},
    "glm4_moe": {"qkv_bias": True, "out_bias": False},
    "mixtral": {"names": {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}},
    "seed_oss": {"qkv_bias": True, "out_bias": False},
    "smollm3": {"tied": True},
    "granite": {"tied": True},
}  # fmt: skip

_READERS: dict[str, Callable[[str, Mapping[str, Any]], Shape]] = {
    **dict.fromkeys((*_TRAITS, "llama", "mistral", "yi", "ministral", "ministral3"), llama_like),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3"), latent),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5", "qwen3_5_moe_text", "qwen3_5_moe"), hybrid),
    **dict.fromkeys(("falcon", "refinedweb", "refinedwebmodel"), falcon),
    "qwen": qwen, "chatglm": chatglm, "gpt_neox": neox, "phi": phi, "starcoder2": starcoder2,
}  # fmt: skip
"""model_type -> reader."""
# The longest name first, so that `qwen2_moe` is found before `qwen2`.
_BY_LENGTH = sorted(_READERS, key=len, reverse=True)


def read_shape(config: Mapping[str, Any]) -> Shape:
    """Read a model's sizes out of its `config.json`.

    Args:
        config: The file as a mapping. Of a vision-language model the `text_config` is read.

    Raises:
        TunebookError: The architecture is not known, or the file lacks a size it needs.
    """
    config = text_part(config)
    kind = str(config.get("model_type") or "").lower().replace("-", "_")
    if not kind:
        names = " ".join(config.get("architectures") or ()).lower()
        kind = next((known for known in _BY_LENGTH if known.replace("_", "") in names), "")
    reader = _READERS.get(kind)
    if reader is None:
        raise TunebookError(
            f"unknown architecture: model_type {config.get('model_type')!r}",
            fix=f"known are {', '.join(sorted(_READERS))}; a guess would be worth nothing",
        )
    try:
        return reader(kind, config)
    except (KeyError, TypeError, ZeroDivisionError) as err:
        raise TunebookError(
            f"the config of a {kind} model lacks {err}",
            fix="give the complete config.json of the model, not a part of it",
        ) from err
