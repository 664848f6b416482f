"""Outputs a second of the yes_no and gsm8k extractors, beside simple peers measured in the same run.

    python benchmarks/extraction.py

Each shape is an output of 500 and of 10,000 characters: with a marked answer, with the answer in prose, with
most of it in a think block, and without an answer. Single thread, CPU time, best of seven rounds. The peers
do less: lm-evaluation-harness's flexible regex takes the last number-like run of characters wherever it
stands, and the substring parser takes "know" for a no.
"""

import re
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tunebook.metrics import gsm8k, yes_no

WORK = (
    "Janet's ducks lay 16 eggs per day. She eats 3 for breakfast and bakes 4 into muffins. "
    "That leaves 16 - 3 - 4 = 9 eggs. "
)
EGGS = "The ducks lay eggs and she eats some of them for breakfast. She bakes the others into muffins. "
TASTE = "The user liked Alien, Heat and Ronin, which are slow and dark. The film is slow and quiet. "
MUST = {500: 15_000, 10_000: 8_000}
"""Outputs a second, by characters."""
VISIBLE = 500
"""Characters, at most, that follow a think block."""

FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


def flexible(text: str) -> str | None:
    """lm-evaluation-harness's `flexible-extract`."""
    found = FLEXIBLE.findall(text)
    return (found[-1][0] or found[-1][1]).strip() if found else None


def substring(text: str) -> str | None:
    """The parser that most scripts start from."""
    text = re.sub(r"<think>.*?</think>", "", text.split("assistant")[-1], flags=re.DOTALL).lower()
    yes, no = "yes" in text, "no" in text
    return None if yes == no else "yes" if yes else "no"


class Shape(NamedTuple):
    """A kind of output: prose up to one of some endings."""

    name: str
    prose: str
    endings: tuple[str, ...]
    thinks: bool = False

    def outputs(self, size: int) -> list[str]:
        """One output of `size` characters an ending."""
        if not self.thinks:
            return [_fill(self.prose, size - len(ending)) + ending for ending in self.endings]
        answer = min(VISIBLE, size // 2)
        thoughts = _fill(self.prose, size - answer - len("<think></think>"))
        return [
            f"<think>{thoughts}</think>{_fill(self.prose, answer - len(ending))}{ending}"
            for ending in self.endings
        ]


def _fill(prose: str, size: int) -> str:
    return (prose * (size // len(prose) + 1))[:size]


class Measured(NamedTuple):
    """An extractor and what it is measured on."""

    extract: Callable[[str], object]
    peer: Callable[[str], object]
    shapes: tuple[Shape, ...]


LAST_SENTENCES = (" So she makes $18 every day.", " She makes 9 * 2 = $18 every day at the market.")
LAST_WORDS = (" There is no reason against it. So yes.", " Overall, no.")
METRICS = {
    "gsm8k": Measured(
        gsm8k.extract,
        flexible,
        (
            Shape("marked", WORK, ("\n#### 18", " The answer is 18.", " \\boxed{18}")),
            Shape("unmarked", WORK, LAST_SENTENCES),
            Shape("one a line", WORK.replace(". ", ".\n"), LAST_SENTENCES),
            Shape("think block", WORK, LAST_SENTENCES, thinks=True),
            Shape("no answer", EGGS, (" It is morning.",)),
        ),
    ),
    "yes_no": Measured(
        yes_no.extract,
        substring,
        (
            Shape("marked", TASTE, ("\nAnswer: Yes", "\n\\boxed{No}")),
            Shape("unmarked", TASTE, LAST_WORDS),
            Shape("other words", TASTE, (" I would recommend it.", " The user will not enjoy it.")),
            Shape("think block", TASTE, LAST_WORDS, thinks=True),
            Shape("no answer", TASTE, (" It is long.",)),
        ),
    ),
}


def per_second(function: Callable[[str], object], texts: list[str]) -> float:
    """Outputs a second of CPU time."""
    rounds = max(1, 2_000_000 // sum(map(len, texts)))
    best = float("inf")
    for _ in range(7):
        began = time.process_time()
        for _ in range(rounds):
            for text in texts:
                function(text)
        best = min(best, (time.process_time() - began) / rounds / len(texts))
    return 1 / best


class Row(NamedTuple):
    """One line of the table."""

    metric: str
    shape: str
    size: int
    ours: float
    """Outputs a second."""
    peer: str
    theirs: float


def rows() -> Iterator[Row]:
    for metric, (extract, peer, shapes) in METRICS.items():
        for size in MUST:
            for shape in shapes:
                texts = shape.outputs(size)
                yield Row(
                    metric,
                    shape.name,
                    size,
                    per_second(extract, texts),
                    peer.__name__,
                    per_second(peer, texts),
                )


def main() -> None:
    print(f"{'metric':7} {'shape':12} {'chars':>6} {'outputs/s':>10} {'must':>7}  {'':10} peer, ratio")
    slowest: dict[int, Row] = {}
    for row in rows():
        must = MUST[row.size]
        verdict = "holds" if row.ours >= must else "too slow"
        beside = f"{row.peer} {row.theirs:.0f}/s, {row.ours / row.theirs:.2f}"
        print(
            f"{row.metric:7} {row.shape:12} {row.size:6} {row.ours:10.0f} {must:7}  {verdict:10} {beside}",
            flush=True,
        )
        slowest[row.size] = min(slowest.get(row.size, row), row, key=lambda one: one.ours)
    for size, row in slowest.items():
        verdict = "holds" if row.ours >= MUST[size] else "does not hold"
        print(
            f"at least {MUST[size]} outputs/s at {size} characters: {verdict}; "
            f"the slowest is {row.metric}, {row.shape}, with {row.ours:.0f}"
        )


if __name__ == "__main__":
    main()
