"""Compares estimates with published measurements: an error table by source, and the interval's coverage.

    python benchmarks/memory.py [--rows]

The constants were chosen on the half that is marked `fit` in tests/cases/memory.jsonl; the other half is
held out. Both halves come from the same sources. Every row is estimated cold: from the model's config.json
and the arguments, without knowing the engine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from tunebook.memory import estimate

CASES = Path(__file__).parents[1] / "tests" / "cases"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", action="store_true", help="Print every row.")
    every = parser.parse_args().rows
    configs = json.loads((CASES / "memory_configs.json").read_text(encoding="utf-8"))
    cases = [json.loads(line) for line in (CASES / "memory.jsonl").read_text(encoding="utf-8").splitlines()]

    errors: dict[str, list[float]] = {}
    inside = 0
    started = time.perf_counter()
    for case in cases:
        found = estimate(configs[case["model"]], **case["arguments"])
        error = found.total / case["measured_bytes"] - 1
        inside += found.low <= case["measured_bytes"] <= found.high
        source = case["source"].split(" ")[0].rsplit("/", 2)
        for group in ("/".join(source[-2:]), f"half: {case['half']}", "all"):
            errors.setdefault(group, []).append(error)
        if every:
            print(
                f"{100 * error:+6.1f} %  {found.gib:7.1f} GiB of {case['measured_bytes'] / 2**30:7.1f}",
                end="  ",
            )
            print(case["model"], json.dumps(case["arguments"]))
    seconds = time.perf_counter() - started

    print(
        "| source | rows | median error | mean error | median bias | within 20 % |\n|---|---|---|---|---|---|"
    )
    for group, values in errors.items():
        absolute = [abs(value) for value in values]
        near = sum(value <= 0.2 for value in absolute) / len(absolute)
        middle, mean = statistics.median(absolute), statistics.fmean(absolute)
        bias = statistics.median(values)
        print(
            f"| {group} | {len(values)} | {100 * middle:.1f} % | {100 * mean:.1f} % "
            f"| {100 * bias:+.1f} % | {100 * near:.0f} % |"
        )
    print(f"\ninterval holds the measured value in {100 * inside / len(cases):.0f} % of rows")
    print(f"{1e6 * seconds / len(cases):.0f} us per estimate")


if __name__ == "__main__":
    main()
