"""Nasty rows, the files that hold them, and a way to split these; shared by the tests of splits."""

import csv
import io
import json
from pathlib import Path

from hypothesis import strategies as st

from tunebook.splits.entries import find_dataset
from tunebook.splits.manifest import Names
from tunebook.splits.plan import SplitOptions
from tunebook.splits.run import SplitJob, split

COLUMNS = ["prompt", "question", "response"]
NASTY = [
    '"',
    '""',
    ",",
    "\n",
    "\r\n",
    "\\",
    '\\"',
    "{",
    "}",
    "[",
    "]",
    "NA",
    "null",
    "None",
    "\ufeff",
    "\u2028",
    "日本",
    "😀",
    "'",
    " ",
    "\t",
    "a",
    "",
]
TEXTS = st.lists(st.sampled_from(NASTY), max_size=6).map("".join)
ROWS = st.lists(st.tuples(TEXTS, TEXTS, TEXTS).filter(any), min_size=1, max_size=25)


def csv_text(rows, *, newline="\n", quoting=csv.QUOTE_MINIMAL, header=COLUMNS) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator=newline, quoting=quoting)
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()


def read_csv(path: Path) -> list[dict[str, str]]:
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def read_jsonl(path: Path) -> list[dict]:
    text = path.read_text(encoding="utf-8-sig")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def read_json(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8-sig"))


READ = {".csv": read_csv, ".jsonl": read_jsonl, ".json": read_json}


def read(path: Path) -> list[dict]:
    return READ[path.suffix](path)


def job(
    source, out: Path, *, names=None, dataset_dir=Path("nowhere"), memory=256 << 20, count=None, **options
) -> SplitJob:
    names = {"eval_name": None, "eval_metric": None, "node_names": False, "joint": False, **(names or {})}
    return SplitJob(
        dataset=find_dataset(str(source), dataset_dir),
        options=SplitOptions(**{"nodes": 2, **options}),
        names=Names(**names),
        out=out,
        memory=memory,
        count_tokens=count,
    )


def split_file(source, out: Path, **options) -> dict:
    return split(job(source, out, **options))


def parts(out: Path, manifest: dict) -> list[Path]:
    return [out / part["file"] for part in manifest["nodes"]]
