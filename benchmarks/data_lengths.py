"""Lengths and filtering by tokens, beside what people do today, on rows of about 500 tokens.

Peers, in the same run and on the same rows: for lengths LLaMA-Factory's own loader and a count of its rows,
which is what its script length_cdf does (the script is not in the installed package; it uses 16 processes,
here it is one, which costs less CPU); for the filter a loop that tokenises each row with the model's
transformers tokenizer. Each is a process of its own. CPU is user + system time of the whole process and its
workers, the engine's start included; "work" leaves imports out; memory is the peak of the largest process.
The histograms must be equal length by length. A second call, and the filter, find what the engine has said.

The text is the source code and documentation of the installed packages, the tokenizer a BPE trained on some
of it. Needs LLaMA-Factory's environment; without fastokens the ratios are those of `tokenizers` alone.

Example:
  python benchmarks/data_lengths.py
  python benchmarks/data_lengths.py --rows 100000 --no-peer
"""

from __future__ import annotations

import atexit
import json
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import yaml

QUESTION_CHARACTERS, ANSWER_CHARACTERS = 900, 900
CORPUS_BYTES = 24 << 20
TRAINED_BYTES = 6 << 20
VOCABULARY = 32_000
LIMIT = 480
LONGEST = 640
"""Tokens of a row that the filter keeps."""
CACHES = Path(tempfile.mkdtemp(prefix="tunebook-bench-"))
"""Of this run: the peers and we start without any."""

# What length_cdf does around LLaMA-Factory's own loader.
LF_LOOP = """
import json, os, sys
from collections import Counter
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer
started = sum(os.times()[:4])
model, data, training = get_train_args(json.loads(sys.argv[1]))[:3]
tokenizer = load_tokenizer(model)
template = get_template_and_fix_tokenizer(tokenizer["tokenizer"], data)
rows = get_dataset(template, model, data, training, stage="sft", **tokenizer)["train_dataset"]
lengths = Counter(len(row["input_ids"]) for row in rows)
print("RESULT " + json.dumps({"work": sum(os.times()[:4]) - started, "lengths": lengths}))
"""

FILTER_LOOP = """
import json, sys, time
from transformers import AutoTokenizer
started = time.process_time()
model, source, target, most = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(model)
frame = "<|im_start|>user\\n{}<|im_end|>\\n<|im_start|>assistant\\n{}<|im_end|>\\n"
kept = 0
with open(source) as rows, open(target, "w") as out:
    for line in rows:
        row = json.loads(line)
        if len(tokenizer(frame.format(row["instruction"], row["output"])).input_ids) <= int(most):
            out.write(line)
            kept += 1
print("RESULT " + json.dumps({"work": time.process_time() - started, "kept": kept}))
"""


class Timed(NamedTuple):
    """One finished process."""

    cpu: float
    """Seconds, of the whole process."""
    peak: float
    """MB."""
    output: str

    def result(self) -> dict:
        """What a peer says of itself."""
        line = next(line for line in self.output.splitlines() if line.startswith("RESULT "))
        return json.loads(line.removeprefix("RESULT "))


def run(argv: list[str]) -> Timed:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(CACHES / "hf")}
    env["TUNEBOOK_CACHE"] = str(CACHES / "tunebook")
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(argv, stdout=out, stderr=err, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise SystemExit(f"{argv[:4]} failed:\n{err.read().decode()[-2000:]}")
        return Timed(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, out.read().decode())


def corpus() -> str:
    """Text of the installed packages, the same each time for the same packages."""
    root = Path(sysconfig.get_path("purelib"))
    found, size = [], 0
    for path in sorted([*root.glob("*/**/*.py"), *root.glob("*/**/*.md"), *root.glob("*/**/*.rst")]):
        text = path.read_text(encoding="utf-8", errors="ignore")
        found.append(text)
        size += len(text)
        if size > CORPUS_BYTES:
            break
    random.Random(0).shuffle(found)
    return "\n".join(found)


def make_model(text: str, folder: Path) -> Path:
    """Train a byte-level BPE with the split and the chat tokens of Qwen3."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    from tiny_tokenizers import QWEN_CHAT, QWEN_SPLIT

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(text[:TRAINED_BYTES].splitlines(keepends=True), trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "TokenizersBackend", "chat_template": QWEN_CHAT,
        "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def rows(text: str, count: int) -> Iterator[dict[str, str]]:
    rng = random.Random(count)
    for _ in range(count):
        sizes = [
            round(rng.lognormvariate(0, 0.5) * most) for most in (QUESTION_CHARACTERS, ANSWER_CHARACTERS)
        ]
        starts = [rng.randrange(len(text) - size) for size in sizes]
        question, answer = (text[start : start + size] for start, size in zip(starts, sizes, strict=True))
        yield {"instruction": question, "input": "", "output": answer}


def make_recipe(folder: Path, model: Path, text: str, count: int) -> dict:
    data = folder / f"data{count}"
    data.mkdir()
    with (data / "rows.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(text, count))
    (data / "dataset_info.json").write_text('{"rows": {"file_name": "rows.jsonl"}}')
    recipe = {
        "model_name_or_path": str(model), "template": "qwen3_nothink", "stage": "sft", "do_train": True,
        "finetuning_type": "lora", "dataset_dir": str(data), "dataset": "rows", "cutoff_len": LIMIT,
        "output_dir": str(folder / "out"), "report_to": "none", "overwrite_cache": True,
    }  # fmt: skip
    (folder / f"recipe{count}.yaml").write_text(yaml.safe_dump(recipe))
    return recipe


def _several(workers: int) -> int | None:
    """LLaMA-Factory's key: with one worker it starts a pool of one."""
    return workers if workers > 1 else None


def show(what: str, theirs: Timed | None, ours: Timed) -> None:
    line = f"{what:26} tunebook {ours.cpu:7.2f} CPU s, {ours.peak:6.0f} MB"
    if theirs is not None:
        work = theirs.result()["work"]
        line += (
            f"   peer {theirs.cpu:7.1f} (work {work:7.1f}), {theirs.peak:6.0f} MB"
            f"   {theirs.cpu / ours.cpu:5.1f}x (its work alone {work / ours.cpu:5.1f}x)"
        )
    print(line, flush=True)


@click.command()
@click.option("--rows", "counts", multiple=True, type=int, default=[10_000], show_default=True)
@click.option(
    "--workers", default=1, show_default=True, help="Processes of LLaMA-Factory; its script has 16."
)
@click.option(
    "--peer/--no-peer", default=True, show_default=True, help="Run the peers too; minutes at 100,000."
)
def main(counts: tuple[int, ...], workers: int, *, peer: bool) -> None:
    """Measure lengths and filter of each number of rows."""
    command = str(Path(sys.executable).with_name("tunebook"))
    text = corpus()
    atexit.register(shutil.rmtree, CACHES, ignore_errors=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.process_time()
        model = make_model(text, folder / "model")
        print(
            f"a tokenizer of {VOCABULARY:,} entries was trained in {time.process_time() - started:.0f} CPU s"
        )
        for count in counts:
            recipe = make_recipe(folder, model, text, count)
            file = folder / f"recipe{count}.yaml"
            size = (Path(recipe["dataset_dir"]) / "rows.jsonl").stat().st_size / 1e6
            ask = [command, "data", "lengths", str(file), "--bins", "1", "--json", "cutoff_len=1000000"]
            ours = run(ask)
            report = json.loads(ours.output)
            found = report["sets"][0]
            print(f"\n{count:,} rows, {size:.0f} MB, {found['total']['mean']:.0f} tokens a row on average")
            print(f"counted by {report['counted_by']}")
            theirs = None
            if peer:
                more = {
                    "cutoff_len": 1_000_000,
                    "preprocessing_num_workers": workers if workers > 1 else None,
                }
                arguments = json.dumps({**recipe, **more})
                theirs = run([sys.executable, "-c", LF_LOOP, arguments])
                lengths = Counter({int(key): rows for key, rows in theirs.result()["lengths"].items()})
                histogram = enumerate(found["histogram"]["counts"])
                same = lengths == Counter({length: rows for length, rows in histogram if rows})
                print(f"histogram identical: {same}")
                if not same:
                    raise SystemExit("the lengths differ")
            show(f"lengths of {count:,}", theirs, ours)
            again = run(ask)
            assert again.output == ours.output
            show("the same again", theirs, again)
            target = folder / f"kept{count}"
            bounds = ["--max-tokens", str(LONGEST), "-o", str(target), "--json"]
            ours = run([command, "data", "filter", str(file), *bounds])
            theirs = None
            if peer:
                source = Path(recipe["dataset_dir"]) / "rows.jsonl"
                copied = str(folder / "kept.jsonl")
                theirs = run(
                    [sys.executable, "-c", FILTER_LOOP, str(model), str(source), copied, str(LONGEST)]
                )
                same = Path(copied).read_bytes() == (target / f"rows_max{LONGEST}.jsonl").read_bytes()
                print(f"kept rows identical: {same}")
            show(f"filter of {count:,}", theirs, ours)


if __name__ == "__main__":
    main()
