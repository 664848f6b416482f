"""Evaluation with logits at the answers alone, against the stock evaluation of the same rows.

Both sides are a `transformers.Trainer` evaluating the same random Qwen3 with the real vocabulary of
151,936 entries on the same rows; the stock one reduces logits to their argmax as LLaMA-Factory's
`compute_accuracy` does. Each side runs in a process of its own, so that its peak memory is its own. The
backbone is tiny: on a real model the ratio of time is smaller, the ratio of memory is not.

Example:
  python benchmarks/answer_positions.py --tokens 4096 --rows 4
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VOCABULARY = 151_936
ANSWER_TOKENS = 6


def make_rows(count: int, tokens: int) -> list[dict[str, list[int]]]:
    rng = random.Random(0)
    rows = []
    for number in range(count):
        ids = [rng.randrange(VOCABULARY) for _ in range(tokens - 17 * number)]
        labels = [-100] * (len(ids) - ANSWER_TOKENS) + ids[-ANSWER_TOKENS:]
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    return rows


def evaluate(side: str, rows: list[dict[str, list[int]]], batch: int) -> dict[str, object]:
    """Run one side in this process."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments
    from transformers.data import DataCollatorForSeq2Seq

    from tunebook.hooks import evaluator
    from tunebook.hooks.attach import attach
    from tunebook.hooks.preparation import EngineWords, EvaluationSet

    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=True,
        max_position_embeddings=262_144,
    )
    model = Qwen3ForCausalLM(config)
    tokenizer = AutoTokenizer.from_pretrained(os.environ["TUNEBOOK_BENCH_TOKENIZER"])
    found: dict[int, list[int]] = {}

    def capture(prediction: object) -> dict[str, float]:
        for row, (ids, labels) in enumerate(zip(prediction.predictions, prediction.label_ids, strict=True)):
            found[row] = ids[:-1][labels[1:] != -100].tolist()
        return {}

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                folder, per_device_eval_batch_size=batch, report_to="none", disable_tqdm=True
            ),
            eval_dataset=Dataset.from_list(rows),
            data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
            compute_metrics=capture,
            preprocess_logits_for_metrics=lambda logits, _labels: logits.argmax(dim=-1),
            processing_class=tokenizer,
        )
        if side == "ours":
            words = EngineWords(length_key="", prompt_loss_key="", length_limit=10**9)
            attach(
                trainer,
                {"eval": EvaluationSet(name="rows", metrics=())},
                words=words,
                output_dir=Path(folder),
            )
            forward = evaluator.forward

            def keep(*args: object, **kwargs: object) -> list[evaluator.RowResult]:
                results = forward(*args, **kwargs)
                found.update({result.row: result.argmax_ids for result in results})
                return results

            evaluator.forward = keep
        before = resource.getrusage(resource.RUSAGE_SELF)
        cpu, wall = time.process_time(), time.perf_counter()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        loss = trainer.evaluate()["eval_loss"]
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated() / 2**20
        else:
            peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before.ru_maxrss) / 1024
        return {
            "cpu": time.process_time() - cpu,
            "wall": time.perf_counter() - wall,
            "peak_mb": peak,
            "loss": loss,
            "argmax": [found[row] for row in range(len(rows))],
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--side", choices=("stock", "ours"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.side:
        print(
            "RESULT", json.dumps(evaluate(chosen.side, make_rows(chosen.rows, chosen.tokens), chosen.batch))
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        script = Path(__file__).parents[1] / "scripts" / "make_tiny_model.py"
        subprocess.run([sys.executable, script, "-o", f"{folder}/tiny"], check=True, capture_output=True)
        results = {}
        for side in ("stock", "ours"):
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--side", side],
                env={**os.environ, "TUNEBOOK_BENCH_TOKENIZER": f"{folder}/tiny"},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            results[side] = json.loads(done.stdout.split("RESULT", 1)[1])
    stock, ours = results["stock"], results["ours"]
    print(f"{chosen.rows} rows of up to {chosen.tokens} tokens, batch {chosen.batch}, {stock['device']}")
    print(f"{'':16}{'stock':>12}{'answers only':>14}{'ratio':>8}")
    for name, key in (("CPU seconds", "cpu"), ("wall seconds", "wall"), ("added peak MB", "peak_mb")):
        print(f"{name:16}{stock[key]:12.2f}{ours[key]:14.2f}{stock[key] / max(ours[key], 1e-9):8.1f}")
    print(f"loss difference  {abs(stock['loss'] - ours['loss']):.1e}")
    print(f"argmax identical {stock['argmax'] == ours['argmax']}")


if __name__ == "__main__":
    main()
