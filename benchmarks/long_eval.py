"""Evaluating ever longer rows: the engine's own way against ours, and where it stops.

`stock` calls the model with labels, as a Hugging Face Trainer does: logits at every position and their fp32
copy. `ours` is tunebook's answer pass on the same row. `generate` writes ten tokens after the prompt, read
whole and read in pieces. The model has random weights, a small backbone and Qwen3's vocabulary of 151,936;
`--model` takes the sizes of a real one. Each case runs in a process of its own, so that its peak
is its own; `--budget` is the memory it may take: the operating system sees to it on a CPU, torch on a GPU.

Example:
  python benchmarks/long_eval.py --tokens 2048 4096 8192 16384 --budget 8
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

VOCABULARY = 151_936
_GIB = 2**30
_NO_MEMORY = 86  # exit status of a case that did not fit


def build(name: str | None) -> Any:
    """A causal language model with random weights: in bf16 on a GPU, in fp32 on a CPU."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config

    from tunebook.memory import find_config

    torch.manual_seed(0)
    if name:
        config = AutoConfig.for_model(**find_config(name))
    else:
        config = Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=4096,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            tie_word_embeddings=True,
            max_position_embeddings=262_144,
        )
    cuda = torch.cuda.is_available()
    with torch.device("cuda" if cuda else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if cuda else torch.float32)
    return model.eval()


def run(case: str, tokens: int, answer: int, budget: float, name: str | None) -> dict[str, Any]:
    """Run one case in this process."""
    import torch

    from tunebook.hooks import forward, memory
    from tunebook.hooks.batches import collate

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    model = build(name)
    cuda = torch.cuda.is_available()
    vocabulary = model.config.vocab_size
    ids = torch.randint(vocabulary, (tokens,), generator=torch.Generator().manual_seed(1)).tolist()
    row = {"index": 0, "input_ids": ids, "labels": [-100] * (tokens - answer) + ids[tokens - answer :]}
    batch = collate([{**row, "answer_start": tokens - answer}], pad_id=0)
    device = next(model.parameters()).device
    inputs = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
    batch = batch._replace(inputs=inputs, labels=batch.labels.to(device))
    before = _resident()
    if cuda:
        torch.cuda.set_per_process_memory_fraction(
            min(1.0, budget * _GIB / torch.cuda.get_device_properties(0).total_memory)
        )
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    else:
        # Address space, counted from what the process has mapped by now: libraries map more than they use.
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = mapped + int(budget * _GIB)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    started, wall = time.process_time(), time.perf_counter()
    value: Any
    try:
        with torch.no_grad():
            if case == "stock":
                value = model(**inputs, labels=batch.labels, use_cache=False).loss.item()
            elif case == "ours":
                found = forward.forward(
                    model, batch, keep_answers_only=True, read_at_a_time=memory.read_at_a_time(model, batch)
                )[0]
                value = found.nll / found.tokens
            else:
                piece = memory.prefill_at_a_time(model, 1, tokens) if case == "generate in pieces" else None
                value = model.generate(
                    **{name: inputs[name] for name in ("input_ids", "attention_mask")},
                    do_sample=False,
                    max_new_tokens=10,
                    use_cache=True,
                    pad_token_id=0,
                    eos_token_id=vocabulary - 1,
                    prefill_chunk_size=piece,
                )[0, tokens:].tolist()
        if cuda:
            torch.cuda.synchronize()
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error):
            sys.exit(_NO_MEMORY)
        raise
    return {
        "value": value,
        "cpu": time.process_time() - started,
        "wall": time.perf_counter() - wall,
        "peak": (torch.cuda.max_memory_allocated() - held) if cuda else _peak() - before,
        "device": torch.cuda.get_device_name() if cuda else "CPU",
    }


def _resident() -> int:
    """Bytes of memory that the process uses now; the peak starts anew here."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024


def measure(case: str, tokens: int, chosen: argparse.Namespace) -> dict[str, Any] | None:
    """Run one case in a process of its own; None where it did not fit.

    Forked, since importing costs more than a short case. Nothing here has touched a GPU before.
    """
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        status = 1
        try:
            found = run(case, tokens, chosen.answer_tokens, chosen.budget, chosen.model)
            os.write(into, json.dumps(found).encode())
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        except BaseException:  # noqa: BLE001 - a forked process must not go on as its parent
            traceback.print_exc()
        os._exit(status)
    os.close(into)
    with os.fdopen(out, "rb") as told:
        text = told.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == _NO_MEMORY:
        return None
    if status:
        raise SystemExit(f"{case} at {tokens} tokens ended with status {status}")
    told_by_child: dict[str, Any] = json.loads(text)
    return told_by_child


def compare(slow: str, fast: str, tokens: int, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Print one line: a length, two ways."""
    found = {case: measure(case, tokens, chosen) for case in (slow, fast)}
    cells = [
        f"{one['peak'] / _GIB:8.2f} {one['cpu']:8.1f}" if one else f"{'does not fit':>17}"
        for one in found.values()
    ]
    first, second = found[slow], found[fast]
    ratio = ""
    if first and second:
        ratio = (
            f"{first['peak'] / max(second['peak'], 1):8.1f} {first['cpu'] / max(second['cpu'], 1e-9):8.1f}"
        )
        if isinstance(first["value"], float):
            ratio += f"   losses differ by {abs(first['value'] - second['value']):.1e}"
        else:
            ratio += "   same tokens" if first["value"] == second["value"] else "   OTHER TOKENS"
    print(f"{tokens:>9,} {cells[0]} {cells[1]} {ratio}", flush=True)
    return [{"case": case, "tokens": tokens, "measured": one} for case, one in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048, 4096, 8192, 16384])
    parser.add_argument("--prompts", type=int, nargs="*", default=[33_000], help="lengths to generate after")
    parser.add_argument("--answer-tokens", type=int, default=1024)
    parser.add_argument("--budget", type=float, default=8.0, help="GiB beside the weights")
    parser.add_argument("--model", help="a name that `tunebook estimate` knows, or a config.json")
    parser.add_argument("--json", action="store_true", help="print what was measured as JSON at the end")
    chosen = parser.parse_args()
    import transformers.generation

    import tunebook.hooks.memory  # noqa: F401

    del transformers
    print(f"one row, answer of {chosen.answer_tokens:,} tokens, {chosen.budget:g} GiB beside the weights")
    head = f"{'GiB':>8} {'CPU s':>8}"
    print(f"{'tokens':>9} {head} {head} {'ratio':>8} {'ratio':>8}   stock, then ours")
    found = []
    for tokens in chosen.tokens:
        found += compare("stock", "ours", tokens, chosen)
    if chosen.prompts:
        print(f"{'prompt':>9} {head} {head} {'ratio':>8} {'ratio':>8}   generate whole, then in pieces")
    for tokens in chosen.prompts:
        found += compare("generate", "generate in pieces", tokens, chosen)
    if chosen.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
