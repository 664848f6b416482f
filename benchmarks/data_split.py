"""`tunebook data split` against pandas and polars: CPU time, peak memory, and whether the text is unchanged.

    python benchmarks/data_split.py                    (200 MB, about a minute)
    python benchmarks/data_split.py --megabytes 2000   (half an hour, 10 GB of memory for pandas)
    python benchmarks/data_split.py --only balance

The same rows as CSV and as JSONL, with quotes, newlines, code, CJK and emoji, log-normal lengths and a few
very long ones, into 8 parts. pandas reads CSV whole and writes each part with `to_csv`; shuffled, it permutes
the frame first. JSONL it reads and writes in pieces, since whole it takes sixteen times the file in memory.
polars streams with `sink_csv` or `sink_ndjson` by key (`PartitionBy`), everything as text; it is no
dependency of the project: `uv pip install polars` to compare with it.

Each runs in a process of its own; CPU seconds are those of the whole process, imports left out. Input and
output are in `--folder`, by default /dev/shm, since on a disk the system's own work is charged to whoever
writes. "text" says whether the parts hold every row of the source with its text unchanged, read by Python's
csv and json modules. Needs Linux and the `dev` extra.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.util
import json
import multiprocessing
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

NODES = 8
COLUMNS = ["id", "prompt", "question", "response"]
SNIPPETS = [
    *("the", "of", "model", "data, said", "node", "answer", "and", "each", "train", "row", "which", "is"),
    *("日本語", "é", "😀", "{x}", '"quoted"', "line\n", "```py\nprint('a, b')\n```"),
]
MISSING = ("NA", "None", "null", "nan", "N/A")
"""Words that pandas takes for no value at all."""


class Measured(NamedTuple):
    """What one run took."""

    seconds: float
    """CPU seconds of the process, its children included."""
    peak_bytes: int
    digest: str
    """Sum of the hashes of all rows."""


def rows(megabytes: int) -> Iterator[list[str]]:
    rng = random.Random(7)
    # Plain words mostly, as in text; quotes and line breaks are a few per cent of it.
    pool = " ".join(rng.choices(SNIPPETS, weights=[20] * 12 + [1] * 7, k=200_000))
    size = number = 0
    while size < megabytes * 1_000_000:
        texts = []
        for _ in range(3):
            length = min(20_000, int(rng.lognormvariate(5.7, 0.9)))
            start = rng.randrange(len(pool) - 20_000)
            texts.append(pool[start : start + length])
        if number % 20 == 0:
            texts[2] = rng.choice(MISSING)
        if number % 50_000 == 25_000:
            texts[1] = pool[:600_000]
        yield [f"r{number}", *texts]
        size += sum(len(text.encode()) for text in texts)
        number += 1


def make(folder: Path, megabytes: int) -> tuple[Path, Path]:
    table, lines = folder / "data.csv", folder / "data.jsonl"
    with table.open("w", newline="", encoding="utf-8") as left, lines.open("w", encoding="utf-8") as right:
        writer = csv.writer(left, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows(megabytes):
            writer.writerow(row)
            right.write(json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) + "\n")
    return table, lines


def tunebook(source: Path, out: Path, **options: object) -> None:
    from tunebook.splits.entries import find_dataset
    from tunebook.splits.manifest import Names
    from tunebook.splits.plan import SplitOptions
    from tunebook.splits.run import SplitJob, split

    split(
        SplitJob(
            dataset=find_dataset(str(source), Path()),
            options=SplitOptions(nodes=NODES, **options),  # type: ignore[arg-type]
            names=Names(eval_name=None, eval_metric=None, node_names=False, joint=False),
            out=out,
        )
    )


def tunebook_in_order(source: Path, out: Path) -> None:
    # As any JSONL file above 256 MB: rows are looked at, not parsed.
    tunebook(source, out, shuffle=False, balance="bytes", parse_json=False)


def tunebook_parsing(source: Path, out: Path) -> None:
    tunebook(source, out, shuffle=False, balance="bytes", parse_json=True)


def tunebook_shuffled(source: Path, out: Path) -> None:
    tunebook(source, out, shuffle=True, balance="rows")


def pandas_in_order(source: Path, out: Path) -> None:
    import pandas as pd

    out.mkdir()
    if source.suffix == ".csv":
        _write_csv(pd.read_csv(source), out)
        return
    for frame in pd.read_json(source, lines=True, chunksize=20_000):
        for node in range(NODES):
            part = frame[frame.index % NODES == node]
            part.to_json(out / f"{node}.jsonl", orient="records", lines=True, force_ascii=False, mode="a")


def pandas_shuffled(source: Path, out: Path) -> None:
    import pandas as pd

    out.mkdir()
    _write_csv(pd.read_csv(source).sample(frac=1, random_state=0), out)


def _write_csv(frame, out: Path) -> None:  # type: ignore[no-untyped-def]
    for node in range(NODES):
        frame.iloc[node::NODES].to_csv(out / f"{node}.csv", index=False)


def polars_in_order(source: Path, out: Path) -> None:
    import polars as pl

    is_csv = source.suffix == ".csv"
    frame = pl.scan_csv(source, infer_schema=False) if is_csv else pl.scan_ndjson(source)
    frame = (
        frame.with_row_index("__row").with_columns((pl.col("__row") % NODES).alias("__node")).drop("__row")
    )
    target = pl.PartitionBy(out, key="__node", include_key=False)
    if is_csv:
        frame.sink_csv(target, mkdir=True, engine="streaming")
    else:
        frame.sink_ndjson(target, mkdir=True, engine="streaming")


def measure(work: Callable[[Path, Path], None], source: Path, folder: Path) -> Measured:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_measured, args=(work, source, out, queue))
    process.start()
    try:
        seconds, peak = queue.get(timeout=3600)
    finally:
        process.join()
    digest = digest_of(path for path in out.rglob("*") if path.suffix in (".csv", ".jsonl"))
    shutil.rmtree(out)
    return Measured(seconds, peak, digest)


def _measured(work: Callable[[Path, Path], None], source: Path, out: Path, queue) -> None:  # type: ignore[no-untyped-def]
    for name in ("tunebook.splits.run", "pandas", "polars"):
        if name.split(".")[0] in work.__name__ and importlib.util.find_spec(name):
            importlib.import_module(name)
    began = time.process_time()
    work(source, out)
    seconds = time.process_time() - began
    # Not from getrusage, whose peak begins with that of the parent process.
    status = Path("/proc/self/status").read_text()
    queue.put((seconds, 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])))  # type: ignore[index]


def digest_of(paths: Iterator[Path]) -> str:
    csv.field_size_limit(2**31 - 1)
    total = 0
    for path in paths:
        with path.open(encoding="utf-8", newline="") as stream:
            found = csv.DictReader(stream) if path.suffix == ".csv" else map(json.loads, stream)
            for row in found:
                text = json.dumps([row.get(name) for name in COLUMNS]).encode()
                total += int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    return f"{total % 2**64:016x}"


def compare(
    title: str, source: Path, folder: Path, works: list[Callable[[Path, Path], None]], runs: int
) -> None:
    wanted = digest_of(iter([source]))
    print(f"\n{title}: {source.stat().st_size / 1e6:.0f} MB of {source.suffix[1:]} into {NODES} parts")
    print(f"{'':22}{'CPU s':>9}{'peak MB':>10}{'ratio':>8}  text")
    ours = None
    for work in works:
        found = [measure(work, source, folder) for _ in range(runs)]
        best = min(found)
        ours = ours or best
        same = "unchanged" if best.digest == wanted else "CHANGED"
        ratio = f"{best.seconds / ours.seconds:.1f}x"
        print(
            f"{work.__name__:22}{best.seconds:9.2f}{best.peak_bytes / 1e6:10.0f}{ratio:>8}  {same}",
            flush=True,
        )


def balance() -> None:
    """How even the parts of 64 nodes are, by each rule, on sizes alone."""
    import numpy as np

    from tunebook.splits import assign

    rng = np.random.default_rng(0)
    sizes = np.exp(rng.normal(6, 1, 200_000)).astype(np.int64)
    sizes[rng.integers(0, len(sizes), 20)] = rng.integers(350_000, 1_050_000, 20)
    nodes = 64
    dealt = {
        "in turn": assign.assign_in_turn(0, len(sizes), nodes),
        "by size": np.concatenate(
            list(
                assign.assign_by_size(
                    lambda: iter([sizes.astype(np.uint32)]), len(sizes), int(sizes.sum()), nodes
                )
            )
        ),
    }
    print(f"\nbalance: {len(sizes)} rows with 20 very long ones between {nodes} nodes")
    for name, nodes_of in dealt.items():
        loads = np.bincount(nodes_of, weights=sizes, minlength=nodes)
        counts = np.bincount(nodes_of, minlength=nodes)
        spread = (loads.max() - loads.min()) / loads.mean()
        print(f"  {name:10} sizes differ by {spread:8.3%}, row counts by {counts.max() - counts.min()}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--runs", type=int, default=2, help="the best of so many")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where input and output lie")
    parser.add_argument("--only", choices=["balance", "csv", "jsonl", "shuffled"])
    options = parser.parse_args()
    has_polars = importlib.util.find_spec("polars") is not None
    if not has_polars:
        print("polars is not installed; compared with pandas alone")
    if options.only in (None, "balance"):
        balance()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        table, lines = make(folder, options.megabytes) if options.only != "balance" else (None, None)
        in_order = [tunebook_in_order, *([polars_in_order] if has_polars else []), pandas_in_order]
        if options.only in (None, "csv"):
            compare("balanced by bytes, in order", table, folder, in_order, options.runs)
        if options.only in (None, "jsonl"):
            works = [in_order[0], tunebook_parsing, *in_order[1:]]
            compare("balanced by bytes, in order", lines, folder, works, options.runs)
        if options.only in (None, "shuffled"):
            compare("shuffled", table, folder, [tunebook_shuffled, pandas_shuffled], options.runs)


if __name__ == "__main__":
    main()
