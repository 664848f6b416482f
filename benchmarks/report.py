"""Reading logs and drawing reports against the usual ways, on the same files in the same run.

Usage: python benchmarks/report.py [--scale 0.1] [--only console,state,events,wandb,page]

Each side runs in a process of its own and reports CPU seconds and peak memory of that process. A scale of
1 is a console log of 100 MB for each of five real logs, grown by repeating what they say of training, a state
file of a million entries, 500,000 TensorBoard scalars, 100,000 rows of W&B history, and a page of 20 runs of
100,000 points.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import re
import resource
import struct
import tempfile
import time
from pathlib import Path

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures"
CONSOLES = (
    "logs/llamafactory.log",
    "logs/background_llamafactory.log",
    "logs/background_axolotl.log",
    "runs/resumed/slurm-201.out",
    "logs/transformers4.log",
)
"""Logs of real runs: stdout and stderr of both engines and of the bare Trainer."""


def grow_console(path: Path, source: Path, size: float) -> None:
    """Write the log of a longer run: what `source` printed in training, repeated up to `size` bytes.

    Epochs, and the steps of training's bar, go on from one repetition to the next.
    """
    data = source.read_bytes()
    first = data.rfind(b"\n", 0, data.find(b"{'loss'")) + 1
    after = data.find(b"\n", data.rfind(b"{'loss'")) + 1
    head, training = data[:first], data[first:after]
    epochs = max(float(epoch) for epoch in _EPOCH.findall(training))
    bars = [(int(step), int(total)) for step, total in re.findall(rb"(\d+)/(\d+) \[", training)]
    total = max(total for _, total in bars)
    steps = max(step for step, whole in bars if whole == total)
    times = math.ceil(size / len(training))

    def advanced(by: int) -> bytes:
        text = _EPOCH.sub(lambda found: b"%.6f" % (float(found[0]) + by * epochs), training)
        bar = rb"(\d+)/%d \[" % total
        return re.sub(bar, lambda found: b"%d/%d [" % (int(found[1]) + by * steps, times * total), text)

    with path.open("wb") as file:
        file.write(head)
        for repetition in range(times):
            file.write(advanced(repetition))


_EPOCH = re.compile(rb"(?<='epoch': ')[\d.]+|(?<='epoch': )[\d.]+")


def console_usual(path: Path) -> int:
    """The parser most projects write: a pattern for each line, then literal_eval."""
    import ast

    found = []
    with path.open(errors="replace") as file:
        for line in file:
            match = re.search(r"\{'.*\}", line)
            if match:
                try:
                    entry = ast.literal_eval(match.group())
                except (ValueError, SyntaxError):
                    continue
                if "loss" in entry:
                    found.append(entry)
    return len(found)


def console_ours(path: Path) -> int:
    from tunebook.runlog.console import read_console

    console = read_console(path, path.name)
    assert console is not None
    return len(console.series["loss"].steps)


def make_state(path: Path, entries: int) -> None:
    with path.open("w") as file:
        file.write('{\n  "global_step": 1,\n  "log_history": [\n')
        for step in range(1, entries + 1):
            norm = "NaN" if step % 1000 == 0 else repr(0.5 + (step % 977) / 977)
            file.write(
                f'    {{\n      "epoch": {step / entries:.12f},\n      "grad_norm": {norm},\n      '
                f'"learning_rate": {1e-4 * (1 - step / entries)!r},\n      "loss": {1 + 1 / step!r},\n      '
                f'"step": {step}\n    }}{"," if step < entries else ""}\n'
            )
        file.write(f'  ],\n  "max_steps": {entries}\n}}\n')


def state_usual(path: Path) -> int:
    import pandas

    with path.open() as file:
        frame = pandas.DataFrame(json.load(file)["log_history"])
    return int(frame["loss"].count())


def state_ours(path: Path) -> int:
    from tunebook.runlog.trainer_files import read_trainer_state

    state = read_trainer_state(path, path.name)
    assert state is not None
    return len(state.series["loss"].steps)


def make_events(path: Path, scalars: int) -> None:
    """Event records as torch's SummaryWriter writes them, checksums of zero apart."""

    def varint(number: int) -> bytes:
        digits = bytearray()
        while number > 0x7F:
            digits.append(number & 0x7F | 0x80)
            number >>= 7
        digits.append(number)
        return bytes(digits)

    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    tags = [b"train/loss", b"train/grad_norm", b"train/learning_rate", b"train/epoch", b"eval/loss"]
    with path.open("wb") as file:
        for place in range(scalars):
            tag = tags[place % len(tags)]
            value = b"\x0a" + bytes([len(tag)]) + tag + b"\x15" + struct.pack("<f", place / scalars)
            summary = b"\x0a" + bytes([len(value)]) + value
            event = b"\x09" + struct.pack("<d", 1.7e9 + place) + b"\x10" + varint(place // len(tags) + 1)
            event += b"\x2a" + bytes([len(summary)]) + summary
            length = struct.pack("<Q", len(event))
            file.write(length + struct.pack("<I", masked_crc32c(length)))
            file.write(event + struct.pack("<I", masked_crc32c(event)))


def events_usual(path: Path) -> int:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
    return sum(len(accumulator.Scalars(tag)) for tag in accumulator.Tags()["scalars"])


def events_ours(path: Path) -> int:
    from tunebook.runlog.tensorboard import read_events

    series = read_events(path, path.name).series
    # The clock is ours, made of the same records.
    return sum(len(series[name].steps) for name in series if name != "elapsed_seconds")


def make_wandb(path: Path, rows: int) -> None:
    """History records as wandb 0.31 writes them for the Trainer, in blocks of 32 KiB."""
    import zlib

    from wandb.proto import wandb_internal_pb2 as messages

    with path.open("wb") as file:
        file.write(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
        for row in range(rows):
            record = messages.Record(num=row)
            values = {
                "train/loss": 1 + 1 / (row + 1),
                "train/grad_norm": float("nan") if row % 1000 == 0 else row / rows,
                "train/learning_rate": 1e-4 * (1 - row / rows),
                "train/epoch": row / rows,
                "train/global_step": row,
                "_timestamp": 1.7e9 + row,
                "_runtime": float(row),
                "_step": row,
            }
            for key, value in values.items():
                item = record.history.item.add(value_json=json.dumps(value))
                item.nested_key.append(key)
            record.history.step.num = row
            data, kind = record.SerializeToString(), 1
            while data:
                left = 32768 - file.tell() % 32768
                if left < 7:
                    file.write(bytes(left))
                    continue
                part, data = data[: left - 7], data[left - 7 :]
                kind = (3 if data else 4) if kind in (2, 3) else (2 if data else 1)
                header = struct.pack("<HB", len(part), kind)
                file.write(struct.pack("<I", zlib.crc32(header[2:] + part)) + header + part)


def wandb_usual(path: Path) -> int:
    """A walk over the log, with wandb's own messages and json for the values: it ships no reader."""
    from wandb.proto import wandb_internal_pb2 as messages

    found = []
    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = messages.Record.FromString(parts)
            parts = b""
            found.append({item.nested_key[0]: json.loads(item.value_json) for item in record.history.item})
    return sum("train/loss" in row for row in found)


def wandb_ours(path: Path) -> int:
    from tunebook.runlog.wandb_run import read_wandb

    run = read_wandb(path, path.name)
    assert run is not None
    return len(run.series["loss"].steps)


def make_runs(folder: Path, runs: int, points: int) -> None:
    for run in range(runs):
        one = folder / f"run_{run:02d}"
        one.mkdir(parents=True)
        make_state(one / "trainer_state.json", points)


def page_ours(folder: Path) -> int:
    from tunebook.report.data import gather
    from tunebook.report.render import render

    files = render(gather(sorted(folder.iterdir())))
    (folder.parent / "report.html").write_bytes(files["report.html"])
    return len(files["report.html"])


def _measured(function, path, queue):
    before = time.process_time()
    result = function(path)
    seconds = time.process_time() - before
    queue.put((result, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measure(function, path: Path) -> tuple[int, float, float]:
    """Result, CPU seconds and peak MB of `function(path)` in a fresh process, imports included."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_measured, args=(function, path, queue))
    process.start()
    found = queue.get()
    process.join()
    return found


def compare(title: str, path: Path, usual, ours, *, at_least: float, under_mb: float) -> None:
    expected, usual_seconds, usual_mb = measure(usual, path)
    found, seconds, mb = measure(ours, path)
    ratio = usual_seconds / seconds
    print(f"{title} ({path.stat().st_size / 1e6:,.0f} MB)")
    print(f"  usual     {usual_seconds:8.2f} CPU s  {usual_mb:7.0f} MB  {expected:,} values")
    print(f"  tunebook  {seconds:8.2f} CPU s  {mb:7.0f} MB  {found:,} values")
    print(f"  {ratio:.1f}x (aim {at_least:g}x), {mb:.0f} MB (aim under {under_mb:g} MB)")


def browser_seconds(page: Path) -> tuple[float, float] | None:
    """Seconds from opening the page until its table has been filtered, and until its last chart is drawn.

    None without playwright and Chromium.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        started = time.perf_counter()
        tab.goto(page.as_uri(), wait_until="commit")
        tab.wait_for_selector("html[data-ready]", state="attached")
        tab.fill("input[data-table]", "no such run")
        rows = "[...document.querySelectorAll('#comparison-table tbody tr')]"
        tab.wait_for_function(f"{rows}.every((row) => row.hidden)")
        used = time.perf_counter() - started
        tab.wait_for_selector("html[data-drawn]", state="attached")
        drawn = time.perf_counter() - started
        browser.close()
    return used, drawn


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--only", default="console,state,events,wandb,page")
    options = parser.parse_args()
    wanted = options.only.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "console" in wanted:
            for name in CONSOLES:
                path = folder / "train.log"
                grow_console(path, FIXTURES / name, 1e8 * options.scale)
                compare(name, path, console_usual, console_ours, at_least=1.5, under_mb=200)
                path.unlink()
        if "state" in wanted:
            path = folder / "trainer_state.json"
            make_state(path, int(1e6 * options.scale))
            compare("trainer_state.json", path, state_usual, state_ours, at_least=0.5, under_mb=500)
            path.unlink()
        if "events" in wanted:
            path = folder / "events.out.tfevents.1"
            make_events(path, int(5e5 * options.scale))
            compare("TensorBoard events", path, events_usual, events_ours, at_least=8, under_mb=250)
            path.unlink()
        if "wandb" in wanted:
            path = folder / "run-1.wandb"
            make_wandb(path, int(1e5 * options.scale))
            compare("W&B file", path, wandb_usual, wandb_ours, at_least=0.5, under_mb=300)
            path.unlink()
        if "page" in wanted:
            make_runs(folder / "runs", 20, int(1e5 * options.scale))
            size, seconds, mb = measure(page_ours, folder / "runs")
            opened = browser_seconds(folder / "report.html")
            print(f"page of 20 runs: {size / 1e6:.2f} MB (aim under 3), {seconds:.1f} CPU s, {mb:.0f} MB")
            print(
                f"  table filtered {opened[0]:.2f} s after opening, all drawn after {opened[1]:.2f} s"
                if opened
                else "  no browser to open it with"
            )


if __name__ == "__main__":
    main()
