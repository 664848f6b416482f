"""What stands below the wrappers that engines put around a model."""

from __future__ import annotations

import inspect
from typing import Any

import torch


def innermost(model: torch.nn.Module) -> torch.nn.Module:
    """The Hugging Face model below DDP, DeepSpeed, FSDP and PEFT wrappers."""
    while hasattr(model, "module"):
        model = model.module
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return model


def decoder_of(model: torch.nn.Module) -> torch.nn.Module | None:
    """The part of a causal language model that gives hidden states to its output head; None if unknown."""
    inner = innermost(model)
    if hasattr(inner, "_orig_mod"):  # torch.compile has bound the whole: nothing in it can be exchanged
        return None
    decoder = getattr(inner, "base_model", None)
    return decoder if isinstance(decoder, torch.nn.Module) and decoder is not inner else None


def text_config(model: torch.nn.Module) -> dict[str, Any]:
    """The configuration of the model's text part as a mapping; empty when it has none."""
    config = getattr(innermost(model), "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        return {}
    return dict(config.get_text_config(decoder=True).to_dict())


def attention_of(model: torch.nn.Module) -> str:
    """The attention kernel in the words of `tunebook.memory`: flash, sdpa or eager."""
    name = str(getattr(getattr(innermost(model), "config", None), "_attn_implementation", None))
    if "flash" in name or "flex" in name:
        return "flash"
    return "sdpa" if "sdpa" in name else "eager"


def takes_index_tensor(model: torch.nn.Module) -> bool:
    """Whether the model's forward documents `logits_to_keep` as something that may be an index tensor.

    Read from the signature of the innermost model, since wrappers pass keywords through.
    """
    parameter = inspect.signature(innermost(model).forward).parameters.get("logits_to_keep")
    return parameter is not None and "Tensor" in str(parameter.annotation)


def takes_position_ids(model: torch.nn.Module) -> bool:
    """Whether to pass `position_ids`, one per token.

    Models with multimodal rotary positions want three per token and derive them from the mask themselves.
    """
    inner = innermost(model)
    multimodal = "mrope" in str(getattr(inner, "config", ""))
    return "position_ids" in inspect.signature(inner.forward).parameters and not multimodal
