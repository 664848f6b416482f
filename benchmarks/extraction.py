"""Outputs a second of the yes_no and gsm8k extractors, beside simple peers measured in the same run.

    python benchmarks/extraction.py

Single thread, CPU time, best of seven rounds. The peers do less: lm-evaluation-harness's flexible regex takes
the last number-like run of characters wherever it stands, and the substring parser takes "know" for a no.
"""

import re
import time
from collections.abc import Callable

from tunebook.metrics import gsm8k, yes_no

WORK = (
    "Janet's ducks lay 16 eggs per day. She eats 3 for breakfast and bakes 4 into muffins. "
    "That leaves 16 - 3 - 4 = 9 eggs. "
)
TASTE = "The user liked Alien, Heat and Ronin, which are slow and dark. The film is slow and quiet. "
ENDINGS = {
    "gsm8k": ("\n#### 18", " The answer is 18.", " So she makes $18 every day."),
    "yes_no": ("\nAnswer: Yes", " There is no reason against it. So yes.", " Overall, no."),
}
GOALS = {500: 15_000, 10_000: 8_000}

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


def outputs(metric: str, size: int) -> list[str]:
    """Outputs of `size` characters: plain ones, and above 1,000 ones whose thoughts make up the length."""
    filler = WORK if metric == "gsm8k" else TASTE
    texts = []
    for ending in ENDINGS[metric]:
        answer = (filler * 9)[: 500 - len(ending)] + ending
        thoughts = (filler * (size // len(filler) + 1))[: max(0, size - len(answer) - 15)]
        texts.append(answer if size <= 1_000 else f"<think>{thoughts}</think>{answer}")
    return texts


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


def main() -> None:
    print(f"{'metric':8} {'chars':>7} {'outputs/s':>10} {'goal':>7}   peer")
    for metric, extract, peer in (("gsm8k", gsm8k.extract, flexible), ("yes_no", yes_no.extract, substring)):
        for size, goal in GOALS.items():
            texts = outputs(metric, size)
            ours, theirs = per_second(extract, texts), per_second(peer, texts)
            beside = f"{peer.__name__} {theirs:.0f}/s, ratio {ours / theirs:.2f}"
            print(f"{metric:8} {size:7} {ours:10.0f} {goal:7}   {beside}")


if __name__ == "__main__":
    main()
