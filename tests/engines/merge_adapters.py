"""Adapters of every kind that is merged, and what PEFT makes of them; shared by the tests of both engines."""

from pathlib import Path

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

PROMPT = torch.arange(5, 45)[None]

KINDS = {
    "lora": {"target_modules": "all-linear"},
    "rslora": {"target_modules": "all-linear", "use_rslora": True, "lora_alpha": 12},
    "dora": {"target_modules": "all-linear", "use_dora": True},
    "patterns": {
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "rank_pattern": {"layers.0.self_attn.q_proj": 2, "down_proj": 6},
        "alpha_pattern": {"v_proj": 40},
    },
    "saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "saved_head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]},
    "saved_embedding": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [7, 3]},
    # On weights that embedding and output layer share, PEFT's own merge is wrong for these (peft 0.18 and 0.20).
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "embedding_dora": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
    "head": {"target_modules": ["q_proj", "lm_head"]},
}
SHARED_GOES_WRONG = {"embedding", "embedding_dora", "head"}


def load(folder: Path, dtype=torch.float32):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def make_adapter(base: Path, folder: Path, seed: int = 0, size: float = 0.1, **settings) -> Path:
    """An adapter with random values everywhere, so that each part of it shows."""
    torch.manual_seed(seed)
    model = get_peft_model(
        load(base), LoraConfig(task_type="CAUSAL_LM", **{"r": 4, "lora_alpha": 8, **settings})
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * size)
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(PROMPT % model.config.vocab_size).logits


def with_adapter(base: Path, adapter: Path):
    return PeftModel.from_pretrained(load(base), adapter)


def merged_by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    return with_adapter(base, adapter).merge_and_unload().state_dict()
