"""Cutting long documents at borders: `tunebook data chunk` beside the loops that one writes oneself.

The documents are the Python and Markdown files of this environment, joined to the length asked for; the
tokenizer is a byte-level BPE with Qwen's split, trained on some of them. Every peer is asked for the same:
pieces of at most so many tokens that end at a line or sentence. Prints CPU time (all threads), how many
pieces are too long, how many documents lost text, and the time beside ours. Ours holds reading the tokenizer
and, where fastokens is installed, comparing it with tokenizers on the first 500 pieces: about a second.

- candidates: adds one sentence after another and encodes what it has so far, each time.
- sentences: encodes each sentence once and adds the counts up. Nothing checks the pieces.
- langchain: RecursiveCharacterTextSplitter.from_huggingface_tokenizer, where langchain-text-splitters and
  transformers are installed.
- semantic-text-splitter: TextSplitter.from_huggingface_tokenizer, where it is installed.

Example:
  python benchmarks/data_chunk.py
  python benchmarks/data_chunk.py --megabytes 4 --max-tokens 4096 --document 800000
"""

from __future__ import annotations

import re
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from tunebook.lengths.chunks.cutting import Cutter
from tunebook.lengths.chunks.tokens import load

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SENTENCES = re.compile(r".+?(?:[.!?]\s+|\n+|\Z)", re.DOTALL)
TRAINED_ON = 4 << 20

Pieces = list[list[str]]


def documents(megabytes: float, length: int) -> list[str]:
    """Documents of `length` characters, made of files of this environment."""
    packages = Path(sysconfig.get_path("purelib"))
    wanted, parts, size = int(megabytes * 1e6), [], 0
    for path in sorted([*packages.glob("*/*.py"), *packages.glob("*/*.md"), *packages.glob("*/licenses/*")]):
        text = path.read_text(encoding="utf-8", errors="ignore") if path.is_file() else ""
        parts.append(text)
        size += len(text)
        if size >= wanted:
            break
    text = "\n\n".join(parts)[:wanted]
    return [text[start : start + length] for start in range(0, len(text), length)]


def train(texts: list[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE with Qwen's split and normalisation."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    levels = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, levels])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_some(texts), trainer)
    return tokenizer


def _some(texts: list[str]) -> Iterator[str]:
    size = 0
    for text in texts:
        yield text
        size += len(text)
        if size > TRAINED_ON:
            return


def by_candidates(tokenizer: Tokenizer, texts: list[str], limit: int) -> Pieces:
    result = []
    for text in texts:
        pieces, current = [], ""
        for sentence in SENTENCES.findall(text):
            if current and len(tokenizer.encode(current + sentence)) > limit:
                pieces.append(current)
                current = ""
            current += sentence
        result.append([*pieces, current])
    return result


def by_sentences(tokenizer: Tokenizer, texts: list[str], limit: int) -> Pieces:
    result = []
    for text in texts:
        pieces, current, tokens = [], "", 0
        for sentence in SENTENCES.findall(text):
            count = len(tokenizer.encode(sentence))
            if current and tokens + count > limit:
                pieces.append(current)
                current, tokens = "", 0
            current, tokens = current + sentence, tokens + count
        result.append([*pieces, current])
    return result


def by_langchain(file: Path) -> Callable[[Tokenizer, list[str], int], Pieces] | None:
    try:
        from langchain_text_splitters import RecursiveCharacterTextSplitter
        from transformers import PreTrainedTokenizerFast
    except ImportError:
        return None

    def cut(tokenizer: Tokenizer, texts: list[str], limit: int) -> Pieces:  # noqa: ARG001
        fast = PreTrainedTokenizerFast(tokenizer_file=str(file))
        splitter = RecursiveCharacterTextSplitter.from_huggingface_tokenizer(
            fast, chunk_size=limit, chunk_overlap=0, keep_separator="end", strip_whitespace=False
        )
        return [splitter.split_text(text) for text in texts]

    return cut


def by_semantic_text_splitter(file: Path) -> Callable[[Tokenizer, list[str], int], Pieces] | None:  # noqa: ARG001
    try:
        from semantic_text_splitter import TextSplitter
    except ImportError:
        return None

    def cut(tokenizer: Tokenizer, texts: list[str], limit: int) -> Pieces:
        splitter = TextSplitter.from_huggingface_tokenizer(tokenizer, limit, trim=False)
        return [splitter.chunks(text) for text in texts]

    return cut


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of all threads, and the result."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


@click.command()
@click.option("--megabytes", default=2.0, show_default=True, help="Text in all.")
@click.option("--document", default=200_000, show_default=True, help="Characters of a document.")
@click.option("--max-tokens", default=4096, show_default=True)
@click.option("--vocabulary", default=16_000, show_default=True)
@click.option("--peer", "chosen", multiple=True, help="Only these; the loop of candidates takes minutes.")
@click.option("--file", default="output/benchmark/tokenizer.json", show_default=True, type=Path)
def main(
    megabytes: float, document: int, max_tokens: int, vocabulary: int, chosen: tuple[str, ...], file: Path
) -> None:
    """Cut the same documents by each, and print a line of each."""
    texts = documents(megabytes, document)
    tokenizer = train(texts, vocabulary)
    file.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(file))
    size = sum(map(len, texts)) / 1e6

    def ours() -> Pieces:
        cut = Cutter(load(file), max_tokens).cut(texts)
        return [[text[one.start : one.end] for one in found] for text, found in zip(texts, cut, strict=True)]

    spent, pieces = seconds(ours)
    click.echo(f"{size:.1f} M characters, {len(texts)} documents, pieces of at most {max_tokens} tokens")
    click.echo(f"{'':24} CPU s   M char/s   pieces   too long   lost   beside ours")
    _print("tunebook", spent, size, pieces, texts, tokenizer, max_tokens, spent)
    peers = {
        "candidates": by_candidates,
        "sentences": by_sentences,
        "langchain": by_langchain(file),
        "semantic-text-splitter": by_semantic_text_splitter(file),
    }
    for name, peer in peers.items():
        if chosen and name not in chosen:
            continue
        if peer is None:
            click.echo(f"{name:24} not installed")
            continue
        theirs, pieces = seconds(lambda peer=peer: peer(tokenizer, texts, max_tokens))
        _print(name, theirs, size, pieces, texts, tokenizer, max_tokens, spent)
        sys.stdout.flush()


def _print(
    name: str,
    spent: float,
    size: float,
    pieces: Pieces,
    texts: list[str],
    tokenizer: Tokenizer,
    limit: int,
    ours: float,
) -> None:
    flat = [piece for document in pieces for piece in document]
    long = sum(len(one.ids) > limit for one in tokenizer.encode_batch_fast(flat))
    lost = sum("".join(found) != text for found, text in zip(pieces, texts, strict=True))
    click.echo(
        f"{name:24} {spent:5.2f} {size / spent:10.2f} {len(flat):8} {long:10} {lost:6}   {spent / ours:6.1f}x"
    )


if __name__ == "__main__":
    main()
