"""The eyes of a tiny model: Qwen3.5 sees, and engines ask for its processor where there is no picture too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_tokenizers import qwen_tokenizer

VISION_TOKENS = {
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
}
PATCH = 16

_VISION = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "patch_size": PATCH,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 16,
}
# Pixels of a picture: the processor scales it to a size between these.
_PICTURE = {"patch_size": PATCH, "size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}}
# As transformers writes it, since its class for videos is made only where torchvision is installed.
_PROCESSOR = {
    "processor_class": "Qwen3VLProcessor",
    "image_processor": {"image_processor_type": "Qwen2VLImageProcessor", **_PICTURE},
    "video_processor": {"video_processor_type": "Qwen3VLVideoProcessor", **_PICTURE},
}


def seeing_qwen_tokenizer() -> Any:
    """The tokenizer of a tiny Qwen3, with the tokens that stand for pictures."""
    tokenizer = qwen_tokenizer()
    tokenizer.add_tokens(list(VISION_TOKENS.values()), special_tokens=True)
    return tokenizer


def with_eyes(text: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Return the options of a whole model's configuration around those of its text part."""
    return {
        "text_config": text,
        "vision_config": {**_VISION, "out_hidden_size": text["hidden_size"]},
        "tie_word_embeddings": text["tie_word_embeddings"],
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in VISION_TOKENS.items()},
    }


def write_processor(folder: Path) -> None:
    """Write what tells engines how pictures become a model's inputs."""
    (folder / "processor_config.json").write_text(json.dumps(_PROCESSOR, indent=2) + "\n")
