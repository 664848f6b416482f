"""Models and adapters that are headers with nothing behind them: enough for what a merge decides."""

import json
from pathlib import Path

SIZES = {"F32": 4, "BF16": 2, "U8": 1}


def write_tensors(path: Path, tensors: dict[str, tuple[str, list[int]]], fill=b"\0") -> None:
    header, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = SIZES[dtype]
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + fill * at)


LAYERS = {f"model.layers.{n}.self_attn.q_proj.weight": ("BF16", [8, 4]) for n in range(2)}
MODEL = {"model.embed_tokens.weight": ("BF16", [10, 4]), **LAYERS}


def make_model(folder: Path, tensors=MODEL, **config) -> Path:
    write_tensors(folder / "model.safetensors", tensors)
    values = {"architectures": ["TinyForCausalLM"], "vocab_size": 10, "tie_word_embeddings": True, **config}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def make_adapter(folder: Path, base: Path, tensors=None, rank=2, **config) -> Path:
    found = {}
    for name in LAYERS:
        layer = "base_model.model." + name.removesuffix(".weight")
        found[f"{layer}.lora_A.weight"] = ("F32", [rank, 4])
        found[f"{layer}.lora_B.weight"] = ("F32", [8, rank])
    write_tensors(folder / "adapter_model.safetensors", found | (tensors or {}), fill=b"\1")
    values = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "base_model_name_or_path": str(base), **config}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    return folder
