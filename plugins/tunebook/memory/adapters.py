"""Trainable parameters of LoRA, counted as PEFT counts them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from tunebook.memory.options import Setup
    from tunebook.memory.shapes import Linear, Shape

# Several families fuse what others keep apart: a target of one spelling means the matrix that holds it.
_SAME = (
    {
        "q_proj",
        "k_proj",
        "v_proj",
        "c_attn",
        "query_key_value",
        "qkv_proj",
        "wqkv",
        "w_pack",
        "wq",
        "wk",
        "wv",
        "attn",
    },
    {"o_proj", "out_proj", "dense", "wo", "output_proj", "proj"},
    {"gate_proj", "up_proj", "w1", "w3", "gate_up_proj", "dense_h_to_4h", "fc1", "c_fc", "fc_1", "fc_2"},
    {"down_proj", "w2", "dense_4h_to_h", "fc2"},
)
_EMBEDDINGS = {"embed_tokens", "wte", "embed_in", "word_embeddings", "embedding"}


def count_lora(shape: Shape, setup: Setup) -> int:
    """Count the trainable parameters of LoRA (arXiv:2106.09685): `r * (in + out)` for each adapted matrix.

    DoRA (arXiv:2402.09353) adds one magnitude for each output.

    Raises:
        TunebookError: No matrix of the model has one of the target names.
    """
    total = 0
    for block in shape.blocks:
        for linear in chosen(block.linears, setup.lora_targets):
            each = setup.lora_rank * (linear.inputs + linear.outputs) + (linear.outputs if setup.dora else 0)
            total += block.count * linear.copies * each
    if "lm_head" in {_plain(name) for name in setup.lora_targets or ()} and not embeddings_trained(setup):
        total += setup.lora_rank * (shape.hidden + shape.vocab)
    if not total:
        names = sorted({linear.name for block in shape.blocks for linear in block.linears})
        raise TunebookError(
            f"no layer of {shape.model_type} is called {', '.join(setup.lora_targets or ())}",
            fix=f"its linear layers are {', '.join(names)}",
        )
    return total


def embeddings_trained(setup: Setup) -> bool:
    """Whether the targets name the embedding: it and the head are then trained whole (`modules_to_save`)."""
    return bool({_plain(name) for name in setup.lora_targets or ()} & _EMBEDDINGS)


def chosen(linears: tuple[Linear, ...], targets: tuple[str, ...] | None) -> list[Linear]:
    """Return the matrices that the targets name; None names all."""
    if targets is None:
        return list(linears)
    if any(set("()[]*|\\") & set(name) for name in targets):
        # PEFT matches a single string with the whole path of a module, as a regular expression.
        return [linear for linear in linears if any(_matches(pattern, linear.name) for pattern in targets)]
    plain = {_plain(name) for name in targets}
    own = {linear.name.lower() for linear in linears}
    for group in _SAME:
        if plain & group and not plain & group & own:
            plain |= group
    return [linear for linear in linears if linear.name.lower() in plain]


def _matches(pattern: str, name: str) -> bool:
    paths = (
        f"{root}layers.0.{part}{name}"
        for root in ("model.", "model.language_model.", "language_model.model.", "")
        for part in ("self_attn.", "mlp.", "")
    )
    return any(re.fullmatch(pattern, path) for path in (name, *paths))


def _plain(name: str) -> str:
    return name.rsplit(".", 1)[-1].lower()
