"""Computes with a merged model and with what it was made of.

`python -m tunebook.hooks.merge_parity job.json`. Both are computed in fp32, so that what differs is the
rounding of weights only. How much that may be is measured on the merged model: its changed weights are moved
at random within the half of a last place.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open

from tunebook import files
from tunebook.hooks.merge import DTYPES

_TEXTS = (
    "Is 17 a prime number? Answer Yes or No.",
    "Tom has 12 apples, gives away 5 and buys twice as many as he has left. How many has he now?",
    "Summarise: The river rose overnight, and by the morning the lower road could not be used any more.",
)
_RANDOM_TOKENS = 96
_ROWS = 4


def main(path: str) -> int:
    """Write the figures into the job's `answer`."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    transformers.utils.logging.set_verbosity_error()
    figures: dict[str, Any] = {}
    if job["reference"] == "tensors":
        figures["tensors"] = _tensors(job)
    model = _made(job)
    prompts = _prompts(job, model)
    merged = [_logits(model, prompt) for prompt in prompts]
    figures["finite"] = all(bool(torch.isfinite(logits).all()) for logits in merged)
    if job["reference"] == "logits" and figures["finite"]:
        _move_within_rounding(model, job["changed"])
        rounding = max(_largest(logits, _logits(model, p)) for logits, p in zip(merged, prompts, strict=True))
        del model
        gc.collect()
        figures |= _compared(job, prompts, merged)
        figures["rounding"] = rounding
        figures["dtypes"] = sorted(set(job["changed"].values())) or ["nothing"]
    files.write_json(Path(job["answer"]), figures)
    return 0


def _load(folder: str) -> Any:
    config = transformers.AutoConfig.from_pretrained(folder)
    names = config.architectures or []
    kind = getattr(transformers, names[0], None) if names else None
    if kind is None and getattr(config, "auto_map", None):
        raise SystemExit(f"{folder}: {names} is code of the model's own, which is not run: use --no-check")
    kind = kind or transformers.AutoModelForCausalLM
    where = {"device_map": "auto"} if torch.cuda.is_available() else {}
    model = kind.from_pretrained(folder, dtype=torch.float32, **where)
    return model.eval()


def _made(job: dict[str, Any]) -> Any:
    if not job["made_is_adapter"]:
        return _load(job["made"])
    return _with_adapters(job["base"], [(job["made"], 1.0)])


def _with_adapters(base: str, adapters: list[tuple[str, float]]) -> Any:
    from peft import PeftModel

    model = _load(base)
    rows = _embedding_rows(adapters[0][0])
    if rows is not None and rows != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows)
    names = [f"adapter{number}" for number in range(len(adapters))]
    model = PeftModel.from_pretrained(model, adapters[0][0], adapter_name=names[0])
    for name, (folder, _) in zip(names[1:], adapters[1:], strict=True):
        model.load_adapter(folder, adapter_name=name)
    if len(names) > 1:
        model.base_model.set_adapter(names)
        for module in model.modules():
            scaling = getattr(module, "scaling", None)
            if isinstance(scaling, dict):
                for name, (_, weight) in zip(names, adapters, strict=True):
                    scaling[name] *= weight
    return model.eval()


def _embedding_rows(folder: str) -> int | None:
    """Rows of the input embedding that an adapter brings along; None where it brings none."""
    with safe_open(str(Path(folder) / "adapter_model.safetensors"), "pt") as reader:
        for name in reader.keys():  # noqa: SIM118  # no mapping
            if name.endswith(("embed_tokens.weight", "embed_tokens.base_layer.weight", "wte.weight")):
                return int(reader.get_slice(name).get_shape()[0])
    return None


def _compared(job: dict[str, Any], prompts: list[torch.Tensor], merged: list[torch.Tensor]) -> dict[str, Any]:
    effect = None
    if job["base"] is None:
        model = _load(job["inputs"][0]["folder"])
        before = [_logits(model, prompt) for prompt in prompts]
    else:
        model = _with_adapters(job["base"], [(given["folder"], given["weight"]) for given in job["inputs"]])
        before = [_logits(model, prompt) for prompt in prompts]
        with model.disable_adapter():
            effect = max(
                _largest(logits, _logits(model, p)) for logits, p in zip(before, prompts, strict=True)
            )
    divergences = torch.cat([_kl(a, b) for a, b in zip(before, merged, strict=True)])
    agree = torch.cat([a.argmax(-1) == b.argmax(-1) for a, b in zip(before, merged, strict=True)])
    return {
        "prompts": len(prompts),
        "positions": agree.numel(),
        "difference": max(_largest(a, b) for a, b in zip(before, merged, strict=True)),
        "largest_logit": max(a.abs().max().item() for a in before),
        "kl_mean": divergences.mean().item(),
        "kl_max": divergences.max().item(),
        "top1": agree.float().mean().item(),
        "effect": effect,
    }


def _prompts(job: dict[str, Any], model: Any) -> list[torch.Tensor]:
    """A few rendered prompts, and random tokens of the whole vocabulary."""
    rows = model.get_input_embeddings().weight.shape[0]
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None) or _RANDOM_TOKENS
    count = min(_RANDOM_TOKENS, longest)
    found = [torch.randint(0, rows, (count,), generator=torch.Generator().manual_seed(0))]
    folder = next(
        (f for f in (job["made"], job["base"]) if f and (Path(f) / "tokenizer_config.json").is_file()), None
    )
    if folder is None:
        return found
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for text in _TEXTS:
        if tokenizer.chat_template:
            turn = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=not tokenizer.chat_template)["input_ids"]
        found.append(torch.tensor(ids[:longest]))
    return found


def _logits(model: Any, prompt: torch.Tensor) -> torch.Tensor:
    """(positions, vocabulary) in fp32, on the CPU."""
    found: torch.Tensor = model(input_ids=prompt[None].to(model.device), use_cache=False).logits[0]
    return found.float().cpu()


def _largest(one: torch.Tensor, other: torch.Tensor) -> float:
    # The output layer may be padded further on one side.
    width = min(one.shape[-1], other.shape[-1])
    return float((one[:, :width] - other[:, :width]).abs().max())


def _kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    width = min(one.shape[-1], other.shape[-1])
    p, q = one[:, :width].log_softmax(-1), other[:, :width].log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).clamp_min(0)


def _move_within_rounding(model: Any, changed: dict[str, str]) -> None:
    """Move every changed weight at random by up to half of its last place in the type it is stored in."""
    parameters = dict(model.named_parameters())
    named = {name: parameters[name] for name in changed if name in parameters}
    if len(named) < len(changed):
        # Stored under other names than in memory: then all weights, which allows for more.
        dtype = next(iter(changed.values()), "F32")
        chosen = [(parameter, dtype) for parameter in parameters.values()]
    else:
        chosen = [(parameter, changed[name]) for name, parameter in named.items()]
    generator = torch.Generator().manual_seed(0)
    for parameter, name in chosen:
        last = torch.finfo(DTYPES[name]).eps
        exponent = torch.frexp(parameter).exponent - 1
        ulp = torch.ldexp(torch.full_like(parameter, last), exponent)
        noise = torch.rand(parameter.shape, generator=generator).to(parameter.device) - 0.5
        parameter.add_(noise * ulp)


def _tensors(job: dict[str, Any]) -> dict[str, Any]:
    """Average some rows of every tensor again, through another reader and in double precision."""
    made = _by_name(Path(job["made"]))
    inputs = [(_by_name(Path(given["folder"])), given["weight"]) for given in job["inputs"]]
    generator = torch.Generator().manual_seed(0)
    off, rows = [], 0
    for name, file in sorted(made.items()):
        shape = _shape(file, name)
        chosen = torch.randperm(shape[0], generator=generator)[:_ROWS].tolist() if shape else [None]
        for at in chosen:
            found = _row(file, name, at)
            expected = torch.zeros_like(found, dtype=torch.float64)
            for where, weight in inputs:
                expected += _row(where[name], name, at).double() * weight
            # The last place, since fp32 sums are rounded before bf16 is.
            last = torch.finfo(found.dtype).eps * expected.abs() + torch.finfo(found.dtype).tiny
            rows += 1
            if bool(((found.double() - expected).abs() > last).any()):
                off.append(name)
                break
    return {"count": len(made), "rows": rows, "off": off}


def _by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), "pt") as reader:
            found |= dict.fromkeys(reader.keys(), file)
    return found


def _shape(file: Path, name: str) -> list[int]:
    with safe_open(str(file), "pt") as reader:
        return list(reader.get_slice(name).get_shape())


def _row(file: Path, name: str, at: int | None) -> torch.Tensor:
    with safe_open(str(file), "pt") as reader:
        found: torch.Tensor = reader.get_tensor(name) if at is None else reader.get_slice(name)[at : at + 1]
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
