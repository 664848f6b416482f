"""A small real tokenizer and data sets, for the tests of lengths."""

import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

CHAT = """\
{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
_ENGINE_TALKS = StringIO()
"""For good: an engine's loggers keep the stream that they found when it was imported."""
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"


def make_tokenizer(
    folder: Path, corpus: str = "the plum and the brick saw the river " * 20, **config
) -> Path:
    """A byte-level BPE with ChatML's tokens, in `folder`; text that it has not seen takes a token a byte."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([corpus], trainer)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    values = {
        "tokenizer_class": "TokenizersBackend",
        "eos_token": "<|im_end|>",
        "chat_template": CHAT,
        **config,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    return folder


def answer_here(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Let the engine answer in this process, where it is imported once, and keep what it says in `cache`."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "AXOLOTL_DO_NOT_TRACK"):
        monkeypatch.setenv(name, "1")
    from tunebook.hooks import row_probe
    from tunebook.lengths import asking

    def answer(job: dict) -> None:
        with redirect_stdout(_ENGINE_TALKS), redirect_stderr(_ENGINE_TALKS):
            row_probe.answer(job)

    monkeypatch.setenv("TUNEBOOK_CACHE", str(cache))
    monkeypatch.setattr(asking, "start", answer)


def make_registry(folder: Path, **sets: dict) -> Path:
    """A `dataset_dir`: name -> rows, written as JSON, or an entry whose file is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    info = {}
    for name, rows in sets.items():
        if isinstance(rows, list):
            (folder / f"{name}.json").write_text(json.dumps(rows))
            rows = {"file_name": f"{name}.json"}
        info[name] = rows
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def row(question: str, answer: str | None = "Yes", more: str = "") -> dict:
    return {"instruction": question, "input": more, "output": answer}
