"""A finished run, and small data sets that a tiny model can learn, for tests that run an engine."""

import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOUNS = [
    "plum",
    "brick",
    "river",
    "candle",
    "ladder",
    "violin",
    "cactus",
    "pillow",
    "anchor",
    "walnut",
    "magnet",
    "saddle",
]
LIKED = frozenset(NOUNS[::2])

OWN_START = {"TUNEBOOK_FORK_SERVER": ""}
"""For an environment: here an engine imports itself, as a user's does; see tests/forking."""


@dataclass
class Run:
    """What a finished engine process left."""

    code: int
    log: str
    output: Path

    def state(self) -> dict:
        return json.loads((self.output / "trainer_state.json").read_text())

    def evaluations(self) -> list[dict]:
        """Our lines of figures, in the order written."""
        lines = (self.output / "tunebook" / "eval_metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def records(self, dataset: str, step: int) -> list[dict]:
        path = self.output / "tunebook" / f"eval_records-{dataset}-{step}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def logged(self, key: str) -> list[float]:
        """Every value of one key in the trainer's own history, up to the last training step."""
        return [entry[key] for entry in self.state()["log_history"] if key in entry]


def liking(rows: int, seed: int, answer=lambda noun, rng: "Yes" if noun in LIKED else "No") -> list[dict]:
    """Rows that ask whether somebody likes a thing; by default the thing decides."""
    rng = random.Random(seed)
    people = ["Anna", "Ben", "Cleo", "Dan", "Eve", "Finn"]
    found = []
    for _ in range(rows):
        noun = rng.choice(NOUNS)
        question = (
            f"{rng.choice(people)} saw a {noun} by the {rng.choice(NOUNS)}. Is it liked? Answer Yes or No."
        )
        found.append({"instruction": question, "input": "", "output": answer(noun, rng)})
    return found


def sums(rows: int, seed: int) -> list[dict]:
    """Word problems with a worked answer in the form of GSM8K."""
    rng = random.Random(seed)
    found = []
    for _ in range(rows):
        a, b = rng.randint(1, 9), rng.randint(1, 9)
        found.append(
            {
                "instruction": f"Dan has {a} plums and buys {b} more. How many plums has he?",
                "input": "",
                "output": f"He has {a} and {b}, so {a}+{b}={a + b}.\n#### {a + b}",
            }
        )
    return found


def verdicts(names) -> dict[str, tuple[str, str]]:
    """What the engine's own parser says of NAME.yaml in this folder: severity and message, by name.

    By the command: what asks an engine ends all processes below it, the server of forks among them.
    """
    command = [
        sys.executable,
        "-m",
        "tunebook",
        "check",
        "--engine",
        "--json",
        *(f"{name}.yaml" for name in names),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return {
        name: next(
            (one["severity"], one["message"]) for one in each["findings"] if one["rule"] == "engine-verdict"
        )
        for name, each in zip(names, json.loads(done.stdout), strict=True)
    }
