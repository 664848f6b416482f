"""Strangers' tables, chats and folders as JSONL and registry entries, with a hold-out.

What is read as what is said; an encoding or a column that cannot be told is asked for.
"""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import io
import json
import lzma
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from tunebook import metrics
from tunebook.data.forms import form_of, refuse_other_tables
from tunebook.data.registry import REGISTRY_FILE, load_registry, write_entry
from tunebook.data.rows import iter_table
from tunebook.data.sources import asked_columns
from tunebook.errors import TunebookError
from tunebook.files import open_atomic
from tunebook.splits.plan import GROUP_TABLE, choose_groups, share_of_groups
from tunebook.splits.scan import prompt_group

_TABLES = {".csv", ".tsv", ".txt"}
_JSON = {".json": ".json", ".jsonl": ".jsonl", ".ndjson": ".jsonl"}
_PACKED = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
_READ = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".xlsx", *_PACKED, ".zst")
_MOST_CLASSES = 50
_ROWS_A_CLASS = 5
_SAMPLE = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """What is imported, and how."""

    sources: tuple[str, ...]
    """Files, folders or globs."""
    question: str | None = None
    answer: str | None = None
    system: str | None = None
    encoding: str | None = None
    """Of text files; None: UTF-8, or UTF-16 where it says so itself."""
    delimiter: str | None = None
    holdout: float = 0.0
    """Rows from 1 on, or a share below 1."""
    seed: int = 0


@dataclass(slots=True)
class Imported:
    """What came in."""

    values: dict[str, Any] = field(default_factory=dict)
    """Of the registry entry, but for `file_name`."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    held: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """How each file was read."""
    left_out: tuple[str, ...] = ()
    """Columns that are left out."""
    without: int = 0
    """Rows without a question or an answer, left out."""
    metric: Any = None
    """Proposed for the hold-out."""


def read(request: ImportRequest) -> Imported:
    """Read everything that is asked for.

    Raises:
        TunebookError: A file cannot be read, or what its columns are cannot be told.
    """
    found = Imported()
    rows: list[dict[str, Any]] = []
    files = [path for source in request.sources for path in _files(source)]
    for path in files:
        rows += _rows(path, request, found.said)
    if not rows:
        raise TunebookError(f"{', '.join(request.sources)}: no rows", fix="name a file with rows")
    if request.question or request.answer:
        _map(rows, request, found)
    else:
        refuse_other_tables(rows, files[0])
        form = form_of(rows[:100], files[0])
        found.values, found.rows, found.left_out = form.values, rows, form.left_out
    if request.holdout:
        _hold_out(found, request)
    found.metric = _metric(found)
    return found


def write(found: Imported, folder: Path, name: str) -> list[Path]:
    """Write the data files, each whole or not at all, then their entries.

    Raises:
        TunebookError: An entry or a file of that name is there, or there is no room or no right to write.
    """
    parts = {name: found.rows, **({f"{name}_eval": found.held} if found.held else {})}
    if folder.exists() and not folder.is_dir():
        raise TunebookError(f"{folder} is a file", fix="give -o a folder")
    registry = folder / REGISTRY_FILE
    entries = load_registry(registry).values if registry.is_file() else {}
    there = next((one for one in parts if one in entries or (folder / f"{one}.jsonl").exists()), None)
    if there is not None:
        raise TunebookError(f"{folder} already has {there}", fix="choose another --name or another folder")
    paths = []
    try:
        for one, rows in parts.items():
            path = folder / f"{one}.jsonl"
            with open_atomic(path, "wb") as stream:
                stream.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
            paths.append(path)
    except OSError as error:
        raise TunebookError(
            f"{folder}: cannot write: {error.strerror}", fix="make room, or give -o a folder you may write to"
        ) from error
    for one in parts:
        measured = {"metric": found.metric} if found.metric and (one != name or not found.held) else {}
        write_entry(folder, one, {"file_name": f"{one}.jsonl", **found.values, **measured})
    return paths


def _files(source: str) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        found = sorted(one for one in path.rglob("*") if one.is_file() and _suffix(one) in _READ)
        found = [one for one in found if not one.name.startswith((".", "dataset_info", "state"))]
    elif path.is_file():
        found = [path]
    else:
        # Path.glob takes no absolute pattern.
        found = sorted(Path(one) for one in glob.glob(source, recursive=True) if Path(one).is_file())  # noqa: PTH207
    if not found:
        raise TunebookError(
            f"{source}: there is no such file, nor a folder or pattern with data files",
            fix=f"name files that end in {', '.join(_READ)}; download what is on a hub first",
        )
    return found


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _rows(path: Path, request: ImportRequest, said: list[str]) -> list[dict[str, Any]]:
    """The rows of one file; says how it was read."""
    kind = _suffix(path)
    packed = kind if kind in _PACKED or kind == ".zst" else ""
    inner = Path(path.stem).suffix.lower() if packed else kind
    how = [inner.removeprefix(".").upper()]
    try:
        if kind == ".parquet":
            rows = list(iter_table(path))
        elif kind == ".arrow":
            rows = _arrow(path)
        elif kind == ".xlsx":
            rows = _excel(path)
        elif inner in _TABLES:
            text, encoding = _text(path, packed, request.encoding)
            rows, delimiter = _table(text, path, request.delimiter or ("\t" if inner == ".tsv" else None))
            how += [encoding, f"separated by {delimiter!r}"]
        elif inner in _JSON:
            text, encoding = _text(path, packed, request.encoding)
            rows = _json(text, path, _JSON[inner])
            how.append(encoding)
        else:
            raise TunebookError(
                f"{path}: its name ends in {kind!r}", fix=f"convert it to one of {', '.join(_READ)}"
            )
    except OSError as error:
        raise TunebookError(
            f"{path}: cannot be read: {error.strerror or error}", fix="check the file and its rights"
        ) from error
    said.append(f"{path}: {len(rows):,} rows, {', '.join(how)}")
    return rows


def _opened(path: Path, packed: str) -> IO[bytes]:
    if packed == ".zst":
        try:
            import zstandard
        except ImportError as error:
            raise TunebookError(
                f"{path}: zstandard is not installed", fix="`pip install zstandard`"
            ) from error
        stream: IO[bytes] = zstandard.open(path, "rb")
        return stream
    opener: Any = _PACKED.get(packed, open)
    opened: IO[bytes] = opener(path, "rb")
    return opened


def _text(path: Path, packed: str, encoding: str | None) -> tuple[str, str]:
    with _opened(path, packed) as stream:
        data = stream.read()
    if encoding is None:
        encoding = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "UTF-8"
    try:
        return data.decode("utf-8-sig" if encoding == "UTF-8" else encoding), encoding
    except LookupError as error:
        raise TunebookError(f"{encoding!r} is no encoding", fix="e.g. --encoding gb18030") from error
    except UnicodeDecodeError as error:
        place = max(0, error.start - 20)
        seen = {
            name: data[place : error.start + 20].decode(name, "replace") for name in ("gb18030", "cp1252")
        }
        shown = "; ".join(f"{name} reads {text!r}" for name, text in seen.items())
        raise TunebookError(
            f"{path}: is not {encoding} text from byte {error.start} on: {shown}",
            fix="give the one that reads right with --encoding",
        ) from error


def _table(text: str, path: Path, delimiter: str | None) -> tuple[list[dict[str, Any]], str]:
    if text.startswith("sep=") and "\n" in text:  # Excel's own first line
        first, text = text.split("\n", 1)
        delimiter = delimiter or first.strip()[4:5]
    if delimiter is None:
        try:
            delimiter = csv.Sniffer().sniff(text[:_SAMPLE], ",;\t|").delimiter
        except csv.Error:
            head = text.split("\n", 1)[0]
            delimiter = max(",;\t|", key=head.count)
    csv.field_size_limit(2**31 - 1)
    rows = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = next(reader, [])
        if len(set(names)) < len(names):
            raise TunebookError(
                f"{path}: two columns have the same name: {', '.join(names)}", fix="rename one"
            )
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(names):
                raise TunebookError(
                    f"{path}, line {reader.line_num}: has {len(fields)} fields, the header {len(names)}",
                    fix=f"put fields with {delimiter!r} or a line end in quotes, or give --delimiter",
                )
            rows.append(dict(zip(names, fields, strict=True)))
    except csv.Error as error:
        raise TunebookError(f"{path}, line {reader.line_num}: {error}", fix="correct the line") from error
    return rows, delimiter


def _json(text: str, path: Path, kind: str) -> list[dict[str, Any]]:
    rows: list[Any] = []
    try:
        if kind == ".json" and not text.lstrip().startswith("{"):
            held = json.loads(text)
            rows = held if isinstance(held, list) else [held]
        elif kind == ".json":
            decoder, at = json.JSONDecoder(), 0
            text = text.strip()
            while at < len(text):
                value, at = decoder.raw_decode(text, at)
                rows.append(value)
                at += len(text[at:]) - len(text[at:].lstrip())
            held = [value for value in rows[0].values() if isinstance(value, list)] if len(rows) == 1 else []
            if (
                len(held) == 1
                and held[0]
                and all(isinstance(one, dict) and "role" not in one for one in held[0])
            ):
                rows = held[0]  # {"data": [...]}
        else:
            for number, line in enumerate(text.splitlines(), 1):
                if line.strip():
                    try:
                        rows.append(orjson.loads(line))
                    except orjson.JSONDecodeError as error:
                        raise TunebookError(
                            f"{path}, line {number}: {error}", fix="write one object a line"
                        ) from error
    except json.JSONDecodeError as error:
        raise TunebookError(f"{path}, line {error.lineno}: {error.msg}", fix="correct the file") from error
    odd = next((number for number, row in enumerate(rows, 1) if not isinstance(row, dict)), None)
    if odd is not None:
        raise TunebookError(
            f"{path}, row {odd}: is no object", fix='write each row as {"column": value, ...}'
        )
    return rows


def _arrow(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise TunebookError(f"{path}: pyarrow is not installed", fix="`pip install pyarrow`") from error
    with pa.memory_map(str(path)) as source:
        try:
            table = pa.ipc.open_stream(source).read_all()  # as `datasets` saves it
        except pa.ArrowInvalid:
            try:
                table = pa.ipc.open_file(source).read_all()
            except pa.ArrowInvalid as error:
                raise TunebookError(f"{path}: is no Arrow file: {error}", fix="save it anew") from error
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def _excel(path: Path) -> list[dict[str, Any]]:
    try:
        import openpyxl
    except ImportError as error:
        raise TunebookError(
            f"{path}: openpyxl is not installed", fix="`pip install openpyxl`, or save the sheet as CSV"
        ) from error
    try:
        sheet = openpyxl.load_workbook(path, read_only=True, data_only=True).active
    except Exception as error:  # of zip, XML and openpyxl alike
        raise TunebookError(f"{path}: is no Excel file: {error}", fix="save it anew as .xlsx") from error
    lines = sheet.iter_rows(values_only=True)
    names = [str(name) for name in next(lines, ()) if name is not None]
    return [
        dict(zip(names, cells, strict=False)) for cells in lines if any(cell is not None for cell in cells)
    ]


def _map(rows: Sequence[Mapping[str, Any]], request: ImportRequest, found: Imported) -> None:
    """Make rows of the named columns."""
    wanted = {"instruction": request.question, "output": request.answer, "system": request.system}
    names = list(dict.fromkeys(name for row in rows for name in row))
    for option, name in (("--question", request.question), ("--answer", request.answer)):
        if name is None:
            raise TunebookError(f"{option} is missing", fix=f"name one of {', '.join(names)}")
    missing = [name for name in wanted.values() if name is not None and name not in names]
    if missing:
        raise TunebookError(
            f"there is no column {missing[0]!r}", fix=f"the columns are {', '.join(map(str, names))}"
        )
    for row in rows:
        made = {key: _as_text(row.get(name)) for key, name in wanted.items() if name is not None}
        if not made["instruction"].strip() or not made["output"].strip():
            found.without += 1
            continue
        found.rows.append(made)
    if not found.rows:
        raise TunebookError("no row has both a question and an answer", fix="name other columns")
    columns = {"prompt": "instruction", "response": "output"}
    found.values = {"columns": {**columns, **({"system": "system"} if request.system else {})}}
    found.left_out = tuple(name for name in names if name not in wanted.values())


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():  # of a table, where 5 is kept as 5.0
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str).strip('"')


def _hold_out(found: Imported, request: ImportRequest) -> None:
    asked = asked_columns(found.values)
    groups = np.array([prompt_group(row, asked) for row in found.rows])
    if request.holdout < 1:
        chosen = share_of_groups(GROUP_TABLE, request.holdout, request.seed)
    else:
        rows_of = np.bincount(groups, minlength=GROUP_TABLE)
        chosen = choose_groups(rows_of, int(request.holdout), request.seed)
    held = chosen[groups]
    if not held.any() or held.all():
        raise TunebookError(
            f"cannot hold out {request.holdout:g} of {len(groups):,} rows: "
            f"{len(set(groups.tolist())):,} prompts are different",
            fix="choose another --holdout",
        )
    rows = found.rows
    found.held = [row for row, out in zip(rows, held.tolist(), strict=True) if out]
    found.rows = [row for row, out in zip(rows, held.tolist(), strict=True) if not out]


def _metric(found: Imported) -> Any:
    """A metric that can read every answer; None for free text, where none is best without asking."""
    columns = found.values.get("columns", {})
    name = columns.get("response")
    if name is None or "kto_tag" in columns:
        return None
    answers = Counter(str(row.get(name, "")).strip() for row in _all(found))
    if len(answers) > _MOST_CLASSES:
        return "gsm8k" if all("####" in answer for answer in answers) else None
    yes_no = metrics.load("yes_no")
    try:
        if len({yes_no.score("", answer).reference for answer in answers}) == 2:
            return "yes_no"
    except ValueError:
        pass
    # A hold-out may lack a rare label that the training rows have, so all are named.
    if len(answers) > 1 and sum(answers.values()) >= _ROWS_A_CLASS * len(answers):
        return {"name": "classification", "labels": sorted(answers)}
    return None


def _all(found: Imported) -> Iterator[Mapping[str, Any]]:
    yield from found.rows
    yield from found.held
