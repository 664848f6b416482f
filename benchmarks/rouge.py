"""ROUGE against rouge-score and rouge-score-rs: CPU time for one pair, ratios and memory, in one run.

    python benchmarks/rouge.py --quick
    python benchmarks/rouge.py --shape one-line-prediction --sizes 1000 5000
    python benchmarks/rouge.py --rouge-score-up-to 20000     (rouge-score: 3 minutes and 3.5 GB)

Four ROUGE types with stemming. The text is the English of Python's own manual; prediction and reference
have the same number of words, and half of the prediction's sentences are the reference's with every fifth
word left out. Times are CPU seconds of one thread, the best of several repeats, with the words already
stemmed; memory is the growth of the resident peak while scoring. Then come predictions of one megabyte that
nobody would write, against a reference of 110 words, with no word stemmed before. Needs Linux and the `dev`
extra.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import random
import re
import string
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from pydoc_data.topics import topics
from typing import NamedTuple

TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
SHAPES = ("lines", "paragraphs", "one-line", "one-line-prediction")
MEGABYTE = 1_000_000
PAIRS = {100: 200, 1000: 50, 5000: 10, 20_000: 2}
"""Pairs of each size; rouge-score, whose time depends on nothing but the size, gets the first twentieth."""

Pair = tuple[str, str]
Scores = list[tuple[tuple[float, ...], ...]]


class Measured(NamedTuple):
    """What one scorer did with the pairs of one size."""

    seconds: float
    """CPU seconds a pair."""
    growth_bytes: int
    scores: Scores


@functools.cache
def manual_sentences() -> list[str]:
    text = " ".join(topics[name] for name in sorted(topics))
    found = (" ".join(part.split()) for part in re.split(r"(?<=[.:])\s+|\n\n", text))
    return [sentence for sentence in found if 8 <= count_words(sentence) <= 45]


def count_words(text: str) -> int:
    return len(re.findall("[a-z0-9]+", text.lower()))


def cut(sentences: list[str], words: int) -> list[str]:
    """The first sentences up to that many words; the last one may be cut."""
    kept = []
    for sentence in sentences:
        parts = re.findall("[A-Za-z0-9]+", sentence)[:words]
        words -= len(parts)
        kept.append(" ".join(parts))
        if not words:
            return kept
    raise ValueError(f"{words} words are missing")


def make_pair(words: int, rng: random.Random) -> Pair:
    pool = manual_sentences()
    start = rng.randrange(len(pool))
    around = (pool[start:] + pool[:start]) * (1 + words // 20_000)
    thinned = [" ".join(word for word in text.split() if rng.random() > 0.2) for text in around]
    mixed = [other if rng.random() < 0.5 else rng.choice(pool) for other in thinned]
    return "\n".join(cut(mixed, words)), "\n".join(cut(around, words))


def in_shape(pair: Pair, shape: str) -> Pair:
    prediction, reference = pair
    if shape == "paragraphs":
        return join_lines(prediction, 6), join_lines(reference, 6)
    if shape == "one-line":
        return prediction.replace("\n", " "), reference.replace("\n", " ")
    if shape == "one-line-prediction":
        return prediction.replace("\n", " "), reference
    return pair


def join_lines(text: str, together: int) -> str:
    lines = text.split("\n")
    return "\n".join(" ".join(lines[at : at + together]) for at in range(0, len(lines), together))


def tunebook_many(pairs: list[Pair]) -> Scores:
    from tunebook.metrics import rouge

    return list(rouge.score_many(pairs))


def tunebook_one(pairs: list[Pair]) -> Scores:
    from tunebook.metrics import rouge

    return [rouge.score(prediction, reference) for prediction, reference in pairs]


def rouge_score(pairs: list[Pair]) -> Scores:
    from rouge_score.rouge_scorer import RougeScorer

    return with_scorer(RougeScorer(list(TYPES), use_stemmer=True), pairs)


def rouge_score_rs(pairs: list[Pair]) -> Scores:
    from rouge_score_rs import RougeScorer

    return with_scorer(RougeScorer(list(TYPES), use_stemmer=True), pairs)


def with_scorer(scorer: object, pairs: list[Pair]) -> Scores:
    found = [scorer.score(reference, prediction) for prediction, reference in pairs]  # type: ignore[attr-defined]
    return [tuple(tuple(scores[name]) for name in TYPES) for scores in found]


SCORERS = {
    "many": tunebook_many,
    "one": tunebook_one,
    "rouge-score": rouge_score,
    "rouge-score-rs": rouge_score_rs,
}


def measure(name: str, words: int, shape: str) -> Measured:
    """Run in a process of its own, so that the peak is this scorer's."""
    rng = random.Random(words)
    pairs = [in_shape(make_pair(words, rng), shape) for _ in range(PAIRS.get(words, 2))]
    if name == "rouge-score":
        pairs = pairs[: max(1, len(pairs) // 20)]
    scorer = SCORERS[name]
    scorer(pairs if words <= 1000 else [("warm", "up")])
    resident = start_peak()
    best = float("inf")
    started = time.monotonic()
    for repeat in range(5):
        if repeat and time.monotonic() - started > 10:
            break
        before = time.process_time()
        scores = scorer(pairs)
        best = min(best, time.process_time() - before)
    return Measured(best / len(pairs), max(0, memory("VmHWM") - resident), scores)


def start_peak() -> int:
    """Let the peak of resident memory start anew, from what is resident now."""
    resident = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    return resident


def memory(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def row(words: int, shape: str, results: dict[str, Measured]) -> str:
    ours = results["many"].seconds
    cells = [f"{shape:20}{words:7,}{ours * 1e3:10.2f}{results['one'].seconds * 1e3:10.2f}"]
    for peer in ("rouge-score", "rouge-score-rs"):
        if peer in results:
            theirs = results[peer].seconds
            ratios = f"({theirs / ours:.1f}x, {theirs / results['one'].seconds:.1f}x)"
            cells.append(f"{theirs * 1e3:12.2f} {ratios:18}")
        else:
            cells.append(f"{'not run':>12} {'':18}")
    for name in ("many", "rouge-score", "rouge-score-rs"):
        growth = f"{results[name].growth_bytes / 1e6:.0f}" if name in results else "not run"
        cells.append(f"{growth:>9}")
    compared = [
        (a, b) for name in results for a, b in zip(results["many"].scores, results[name].scores, strict=False)
    ]
    return "".join([*cells, f"{sum(a != b for a, b in compared):8}"])


def stemmed_words() -> str:
    """Distinct words that each have a suffix to lose."""
    rng = random.Random(0)
    suffixes = ("ational", "ization", "fulness", "iveness", "ing", "ed", "ies", "ally", "alize", "ement")
    words = {
        "".join(rng.choices(string.ascii_lowercase, k=6)) + suffix
        for suffix in suffixes
        for _ in range(10_000)
    }
    return " ".join(sorted(words))[:MEGABYTE]


HOSTILE = {
    "one word repeated": lambda: "spam " * (MEGABYTE // 5),
    "one endless word": lambda: "y" * MEGABYTE,
    "only newlines": lambda: "\n" * MEGABYTE,
    "the same word on each line": lambda: "spam\n" * (MEGABYTE // 5),
    "two words on each line": lambda: "".join(f"the n{number}\n" for number in range(MEGABYTE // 10)),
    "distinct words, not to be stemmed": lambda: " ".join(f"{number:x}k" for number in range(MEGABYTE // 7)),
    "distinct words, to be stemmed": stemmed_words,
    "the same, one to a line": lambda: stemmed_words().replace(" ", "\n"),
    "no word at all": lambda: "\u2260 " * (MEGABYTE // 2),
}


def measure_hostile(name: str) -> str:
    from tunebook.metrics import rouge

    reference = "\n".join(cut(manual_sentences(), 110))
    prediction = HOSTILE[name]()
    resident = start_peak()
    before = time.process_time()
    rouge.score(prediction, reference)
    spent = time.process_time() - before
    grown = max(0, memory("VmHWM") - resident)
    return f"{name:36}{len(prediction.split()):10,}{spent:9.3f}{grown / 1e6:6.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[100, 1000, 5000, 20_000], help="words a text"
    )
    parser.add_argument("--shape", choices=SHAPES, nargs="+", default=["lines"])
    parser.add_argument(
        "--rouge-score-up-to", type=int, default=5000, help="larger sizes are not run with it"
    )
    parser.add_argument("--quick", action="store_true", help="100 and 1,000 words only")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    print("milliseconds of CPU a pair (ratio to many, to one); MB grown; pairs scored differently")
    peers = f"{'rouge-score':>12} {'':18}{'rouge-score-rs':>14} {'':16}"
    memory_columns = f"{'many':>9}{'r-s':>9}{'r-s-rs':>9}"
    print(f"{'shape':20}{'words':>7}{'many':>10}{'one':>10}{peers}{memory_columns}{'differ':>8}")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as own_process:
        for shape in options.shape:
            for words in [100, 1000] if options.quick else options.sizes:
                names = [
                    name for name in SCORERS if name != "rouge-score" or words <= options.rouge_score_up_to
                ]
                results = {name: own_process.submit(measure, name, words, shape).result() for name in names}
                print(row(words, shape, results), flush=True)
        print(f"\n{'a prediction of one megabyte':36}{'words':>10}{'seconds':>9}{'MB':>6}")
        for name in HOSTILE:
            print(own_process.submit(measure_hostile, name).result(), flush=True)


if __name__ == "__main__":
    main()
