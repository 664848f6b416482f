"""Architectures with a layer of their own: Qwen 1, ChatGLM, Falcon, GPT-NeoX, OPT, BLOOM, Phi, GPT-2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook.memory.shapes import Block, attention_widths, build, first, linear

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tunebook.memory.shapes import Linear, Shape


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
    """GPT-NeoX, Pythia and StableLM Alpha: layer norms and biases everywhere."""
    return _classic(kind, config, fused="query_key_value", tied=False)


def bloom(kind: str, config: Mapping[str, Any]) -> Shape:
    """BLOOM: ALiBi, a norm after the embedding, tied head."""
    hidden = int(first(config, "hidden_size", "n_embed"))
    config = {
        **config,
        "hidden_size": hidden,
        "num_hidden_layers": first(config, "n_layer", "num_hidden_layers"),
        "num_attention_heads": first(config, "n_head", "num_attention_heads"),
        "intermediate_size": 4 * hidden,
    }
    return _classic(kind, config, fused="query_key_value", tied=True, extra_embedding=2 * hidden)


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


def opt(kind: str, config: Mapping[str, Any]) -> Shape:
    """OPT: learned positions (two more than it can use), biases everywhere."""
    config = {**config, "intermediate_size": config["ffn_dim"]}
    positions = int(config["max_position_embeddings"]) + 2
    return _classic(
        kind,
        config,
        names=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
        tied=True,
        positions=positions,
    )


def phi(kind: str, config: Mapping[str, Any]) -> Shape:
    """Phi-1.5 and Phi-2: one norm for attention and MLP, biases everywhere, the head's too."""
    return _classic(
        kind,
        config,
        names=("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
        tied=False,
        norms=1,
        head_bias=True,
    )


def gpt2(kind: str, config: Mapping[str, Any]) -> Shape:
    """GPT-2."""
    config = {
        **config,
        "hidden_size": config["n_embd"],
        "num_hidden_layers": config["n_layer"],
        "num_attention_heads": config["n_head"],
        "intermediate_size": config.get("n_inner") or 4 * int(config["n_embd"]),
    }
    positions = int(first(config, "n_positions", "n_ctx"))
    return _classic(
        kind,
        config,
        fused="c_attn",
        names=("", "", "", "c_proj", "c_fc", "c_proj"),
        tied=True,
        positions=positions,
    )


def starcoder2(kind: str, config: Mapping[str, Any]) -> Shape:
    """StarCoder 2: grouped keys and a plain MLP, biases everywhere."""
    return _classic(kind, config, names=("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"), tied=True)


def _classic(
    kind: str,
    config: Mapping[str, Any],
    *,
    tied: bool,
    fused: str | None = None,
    names: tuple[str, ...] = ("q", "k", "v", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    norms: int = 2,
    positions: int = 0,
    extra_embedding: int = 0,
    head_bias: bool = False,
) -> Shape:
    """A layer with biases, layer norms of weight and bias, and an MLP without a gate."""
    hidden, width = int(config["hidden_size"]), int(config["intermediate_size"])
    heads, query, key = attention_widths(config)
    if fused:
        linears = [linear(fused, hidden, query + 2 * key, True)]
    else:
        linears = [
            linear(names[0], hidden, query, True), linear(names[1], hidden, key, True),
            linear(names[2], hidden, key, True),
        ]  # fmt: skip
    linears += [
        linear(names[3], query, hidden, True), linear(names[4], hidden, width, True),
        linear(names[5], width, hidden, True),
    ]  # fmt: skip
    return _one_block(
        kind, config, linears, query, key, width, heads=heads, other=2 * norms * hidden, gated=False,
        tied=tied, final=2 * hidden, positions=positions, extra_embedding=extra_embedding,
        head_bias=head_bias,
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
    **more: Any,
) -> Shape:
    block = Block(
        count=layers or int(config["num_hidden_layers"]), linears=tuple(linears), other_params=other,
        query_width=query, key_width=key, mlp_width=width, gated=gated,
    )  # fmt: skip
    norm = int(config["hidden_size"]) if final is None else final
    return build(kind, config, blocks=[block], heads=heads, tied_default=tied, norm_params=norm, **more)


OLDER_FAMILIES: dict[str, Callable[[str, Mapping[str, Any]], Shape]] = {
    "qwen": qwen, "chatglm": chatglm, "gpt_neox": neox, "bloom": bloom, "falcon": falcon,
    "refinedweb": falcon, "refinedwebmodel": falcon, "opt": opt, "phi": phi, "gpt2": gpt2,
    "starcoder2": starcoder2,
}  # fmt: skip
