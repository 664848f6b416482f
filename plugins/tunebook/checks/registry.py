"""The dataset registry: LLaMA-Factory ignores what it does not know in it, and drops rows it cannot read."""

from __future__ import annotations

import difflib
import json
import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook import engines
from tunebook.checks.data import check_datasets
from tunebook.checks.deepspeed import config_faults, read_config
from tunebook.checks.findings import Finding
from tunebook.data import registry
from tunebook.data import rows as data_files
from tunebook.data.registry import REGISTRY_FILE, Registry, load_registry
from tunebook.engines.axolotl.datasets import ALPACA_TYPE, CONVERSATION_TYPE
from tunebook.errors import TunebookError
from tunebook.recipes import nested
from tunebook.recipes.engine_yaml import read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tunebook.checks.findings import Severity
    from tunebook.checks.recipe import CheckedRecipe
    from tunebook.types import DatasetEntry


# llamafactory/data/parser.py, and "metric", which is ours.
_SOURCES = (*registry.REMOTE_KEYS, "file_name")
_KEYS = (
    *(*_SOURCES, "formatting", "ranking", "subset", "split", "folder"),
    *("num_samples", "columns", "tags", "metric"),
)
_COLUMNS = (
    *("prompt", "query", "response", "history", "messages", "system", "tools"),
    *("images", "videos", "audios", "chosen", "rejected", "kto_tag"),
)
_TAGS = (
    *("role_tag", "content_tag", "user_tag", "assistant_tag"),
    *("observation_tag", "function_tag", "system_tag"),
)
_FORMATTINGS = ("alpaca", "sharegpt", "openai")
_FILE_TYPES = frozenset({".arrow", ".csv", ".json", ".jsonl", ".parquet", ".txt"})

_ROWS_LOOKED_AT = 20


class Fault(NamedTuple):
    """What is wrong with an entry or its data."""

    rule: str
    message: str
    fix: str | None
    severity: Severity = "error"


def check_registry(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`missing-registry`, `undefined-dataset`, and the faults of each entry that the recipe names."""
    names = _names(recipe)
    if recipe.registry_folder is None or not names:
        return
    if not isinstance(recipe.registry, Registry):
        error = recipe.registry
        if error is not None:
            yield recipe.error(
                engines.load(recipe.engine).registry_key, "missing-registry", error.problem, fix=error.fix
            )
        return
    for name in names:
        key = _key_of(recipe, name)
        try:
            entry = recipe.registry.entry(name)
        except TunebookError as error:
            rule = "registry-key" if name in recipe.registry.values else "undefined-dataset"
            yield recipe.error(key, rule, error.problem, fix=error.fix)
            continue
        stage = str(recipe.effective("stage"))
        faults = [*entry_faults(entry, stage=stage)]
        if recipe.engine == "llamafactory" and recipe.command == "train":
            faults += _wrong_stage(entry.values, stage)
        if recipe.engine == "axolotl" and (recipe.objective is not None or _own_type(recipe, name)):
            # What the columns of pairs are, and of a type of its own, the block says and no entry.
            faults = [fault for fault in faults if fault.rule not in _ABOUT_COLUMNS]
        for fault in faults:
            ours = fault.rule == "missing-data" and _to_be_made(recipe, entry.registry)
            severity = "hint" if ours else fault.severity
            message = f"{entry.registry}: {name}: {fault.message}"
            yield recipe.finding(key, rule=fault.rule, severity=severity, message=message, fix=fault.fix)
        if not faults and recipe.command == "train":
            yield from _references(recipe, recipe.registry, name, key)


def _references(recipe: CheckedRecipe, held: Registry, name: str, key: str | None) -> Iterator[Finding]:
    """What a metric cannot read, found in the rows themselves."""
    trained_for = recipe.objective
    # Of Axolotl's pairs, and of a type of its own, an entry cannot say the columns: the plugin reads them.
    unread = recipe.engine == "axolotl" and (trained_for is not None or _own_type(recipe, name))
    measured = () if unread or (trained_for and trained_for.no_answers) else recipe.evaluation_sets
    limit = recipe.get("max_samples")
    rows = limit if isinstance(limit, int) and limit > 0 else None
    for error in check_datasets(held, [name], measured, max_rows=rows):
        yield recipe.error(key, "reference", error.problem, fix=error.fix)


def _own_type(recipe: CheckedRecipe, name: str) -> bool:
    """Whether the block of an evaluation set makes its rows otherwise than its registry entry says."""
    blocks = recipe.get("test_datasets")
    pairs = zip(recipe.evaluation_sets, blocks if isinstance(blocks, list) else (), strict=False)
    types = [block.get("type") for own, block in pairs if own == name and isinstance(block, dict)]
    return any(kind not in (ALPACA_TYPE, CONVERSATION_TYPE) for kind in types)


_ABOUT_COLUMNS = ("missing-column", "partial-columns", "answer-type")


def check_data_files(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`missing-data`: files that Axolotl's own blocks name."""
    for key in ("datasets", "test_datasets") if recipe.engine == "axolotl" else ():
        blocks = recipe.get(key)
        for number, block in enumerate(blocks if isinstance(blocks, list) else []):
            path = block.get("path") if isinstance(block, dict) else None
            if not isinstance(path, str) or Path(path).suffix not in _FILE_TYPES or "://" in path:
                continue
            if recipe.locate(path) is None:
                ours = _to_be_made(recipe, recipe.home / path)
                yield recipe.finding(
                    f"{key}[{number}].path",
                    rule="missing-data",
                    severity="hint" if ours else "error",
                    message=f"there is no file {path}",
                    fix="make or download it as datasets_info/README.md says" if ours else "check the path",
                )


def entry_faults(entry: DatasetEntry, *, stage: str = "sft") -> Iterator[Fault]:
    """Yield the faults of one entry and of the first rows of its data.

    Args:
        entry: The entry.
        stage: LLaMA-Factory's training stage, which decides what columns are needed.
    """
    values = entry.values
    yield from _unknown(values, _KEYS, "")
    for group, known in (("columns", _COLUMNS), ("tags", _TAGS)):
        if isinstance(values.get(group), dict):
            yield from _unknown(values[group], known, f"{group}.")
        elif group in values:
            yield Fault("registry-key", f'"{group}" is no object', f'write "{group}": {{...}}')
    formatting = values.get("formatting", "alpaca")
    if formatting not in _FORMATTINGS:
        one_of = f"write one of {', '.join(_FORMATTINGS)}"
        yield Fault("registry-key", f'"formatting" is {formatting!r}', one_of)
    yield from _left_out_columns(values, formatting, stage)
    try:
        files = registry.data_files(entry)
    except TunebookError as error:
        where = f"{entry.registry}: {entry.name}: "
        yield Fault("missing-data", error.problem.removeprefix(where), error.fix)
        return
    for path in files:
        if path.suffix not in _FILE_TYPES:
            problem = f"LLaMA-Factory reads no {path.suffix or 'such'} files: {path}"
            yield Fault("missing-data", problem, f"use one of {', '.join(sorted(_FILE_TYPES))}")
        elif path.suffix in data_files.READABLE:
            yield from _absent_columns(entry, path, formatting)
        break


def _wrong_stage(values: Mapping[str, Any], stage: str) -> Iterator[Fault]:
    """LLaMA-Factory's loader refuses these when it reads the data (`get_dataset` in its data/loader.py)."""
    preference = values.get("ranking") is True
    if preference and stage not in ("rm", "dpo"):
        yield Fault(
            "wrong-stage",
            f'"ranking" is true, and stage {stage} takes no preference pairs',
            "set stage: dpo or rm, or name a set without pairs",
        )
    elif stage in ("rm", "dpo") and not preference:
        yield Fault(
            "wrong-stage",
            f'stage {stage} needs preference pairs, and "ranking" is not true',
            'name a set of pairs, with "ranking": true and the columns chosen and rejected',
        )


def _names(recipe: CheckedRecipe) -> tuple[str, ...]:
    engine = engines.load(recipe.engine)
    if recipe.engine == "llamafactory":
        return engine.dataset_names(recipe.values)
    # Axolotl's datasets come from the registry, which has to be there.
    folder = recipe.locate(recipe.registry_folder or "")
    if not isinstance(recipe.registry, Registry) or folder is None:
        return recipe.evaluation_sets if isinstance(recipe.registry, TunebookError) else ()
    return engine.dataset_names({**recipe.values, engine.registry_key: str(folder)})


def _key_of(recipe: CheckedRecipe, name: str) -> str | None:
    """The key of the recipe that names a dataset."""
    for key in ("dataset", "eval_dataset", "tunebook_eval_datasets"):
        value = recipe.get(key)
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
        if name in (str(part).strip() for part in parts):
            return key
    return "datasets" if recipe.engine == "axolotl" else None


def _to_be_made(recipe: CheckedRecipe, path: Path) -> bool:
    """Whether data belongs to our own registry, whose README says how to make it."""
    return path.resolve().is_relative_to((recipe.home / "datasets_info").resolve())


def _unknown(values: dict[str, Any] | Any, known: Iterable[str], prefix: str) -> Iterator[Fault]:
    names = list(known)
    for key in values:
        if key in names:
            continue
        close = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
        yield Fault(
            "registry-key",
            f'nothing reads the key "{prefix}{key}"',
            f'did you mean "{prefix}{close[0]}"?' if close else f"remove it; the keys are {', '.join(names)}",
            "error" if close else "warning",
        )


def _left_out_columns(values: Any, formatting: str, stage: str) -> Iterator[Fault]:
    """An entry with `columns` has None for each one it does not name, those with a default too."""
    columns = values.get("columns")
    if not isinstance(columns, dict) or values.get("ranking") or "kto_tag" in columns:
        return
    needed = (
        ["messages"] if formatting != "alpaca" else ["prompt"] if stage == "pt" else ["prompt", "response"]
    )
    for column in needed:
        if not columns.get(column):
            default = {"prompt": "instruction", "response": "output", "messages": "conversations"}[column]
            yield Fault(
                "partial-columns",
                f'"columns" leaves out "{column}", so no column is read for it and every row is dropped',
                f'add "{column}": "{default}", or the name it has in the data',
            )


def _absent_columns(entry: DatasetEntry, path: Path, formatting: str) -> Iterator[Fault]:
    columns = entry.values.get("columns")
    if isinstance(columns, dict):
        wanted = {str(column) for key, column in columns.items() if key in _COLUMNS and column}
    else:
        # All three: LLaMA-Factory and our type for Axolotl ask each row for "input" too, empty or not.
        wanted = {"instruction", "input", "output"} if formatting == "alpaca" else {"conversations"}
    if not isinstance(columns, dict) and (entry.values.get("ranking") or entry.values.get("tags")):
        wanted -= {"output"}
    try:
        rows = list(islice(data_files.iter_rows(path), _ROWS_LOOKED_AT))
    except TunebookError as error:
        yield Fault("missing-data", error.problem, error.fix)
        return
    yield from _other_than_text(entry, rows, path, formatting)
    present = {str(column) for row in rows for column in row}
    for column in sorted(wanted - present) if rows else ():
        close = difflib.get_close_matches(column, present, n=1, cutoff=0.6)
        yield Fault(
            "missing-column",
            f"{path.name} has no column {column!r} among {', '.join(sorted(present))}",
            f"did you mean {close[0]!r}?"
            if close
            else 'name the columns that the data has, e.g. "columns": '
            '{"prompt": "instruction", "response": "output"}',
        )


def _other_than_text(
    entry: DatasetEntry, rows: Sequence[Mapping[str, Any]], path: Path, formatting: str
) -> Iterator[Fault]:
    """LLaMA-Factory takes text or a list for an answer; a row with a number or a boolean is dropped."""
    columns = entry.values.get("columns")
    answer = (columns.get("response") if isinstance(columns, dict) else "output") or ""
    wrong = next((row[answer] for row in rows if isinstance(row.get(answer), (bool, int, float))), None)
    if formatting == "alpaca" and wrong is not None and path.suffix != ".csv":
        yield Fault(
            "answer-type",
            f"{path.name}: {answer} holds {json.dumps(wrong)}, which is no text: such rows are dropped",
            "write answers as text",
        )


# Files beside a recipe: batch scripts, DeepSpeed configurations and dataset registries.

SCRIPTS = frozenset({".sh", ".slurm", ".sbatch"})
"""Suffixes of batch scripts."""

_DIRECTIVE = re.compile(r"^#SBATCH\s+(.*)")
_VARIABLE = re.compile(r"\$\{?[A-Za-z_]\w*\}?|\$\(")


def checker_of(path: Path) -> Callable[[Path, str], Iterator[Finding]] | None:
    """Return what checks a file that is no recipe; None for a recipe."""
    if path.suffix in SCRIPTS:
        return check_script
    if path.suffix == ".json":
        if path.name == REGISTRY_FILE:
            return check_registry_file
        return None if nested.is_recipe(read_config(path)[0]) else check_json
    return None


def check_script(path: Path, file: str) -> Iterator[Finding]:
    """`sbatch-variable`: SLURM reads its lines before any shell does."""
    started = False
    for number, line in enumerate(read_text(path).splitlines(), 1):
        directive = _DIRECTIVE.match(line)
        if directive is None:
            started = started or bool(line.strip() and not line.startswith("#"))
            continue
        variable = _VARIABLE.search(directive[1].partition(" #")[0])
        if variable:
            yield _finding(
                file, number, "sbatch-variable", line,
                f"SLURM fills in no variables here: {variable[0]} is used as it is written",
                "write the value out, or give it to sbatch on the command line",
            )  # fmt: skip
        elif started:
            yield _finding(
                file, number, "sbatch-late", line,
                "SLURM reads no #SBATCH line after the first command",
                "move it up, below #!/bin/bash",
            )  # fmt: skip


def check_json(path: Path, file: str) -> Iterator[Finding]:
    """`deepspeed-config`."""
    config, fault = read_config(path)
    if fault is not None:
        yield _finding(file, None, "deepspeed-config", None, fault, "fix the file")
        return
    lines = read_text(path).splitlines()
    for key, message, fix in config_faults(config):
        last = key.rpartition(".")[2]
        number = next((number for number, line in enumerate(lines, 1) if f'"{last}"' in line), None)
        text = None if number is None else lines[number - 1]
        yield _finding(file, number, "deepspeed-config", text, f"{key}: {message}", fix)


def check_registry_file(path: Path, file: str) -> Iterator[Finding]:
    """The rules of a registry, for each of its entries."""
    try:
        registry = load_registry(path)
    except TunebookError as error:
        yield _finding(file, None, "missing-registry", None, error.problem, error.fix)
        return
    lines = read_text(path).splitlines()
    for name in registry.values:
        opening = f"{json.dumps(name, ensure_ascii=False)}:"
        number = next((number for number, line in enumerate(lines, 1) if opening in line), None)
        text = None if number is None else lines[number - 1]
        try:
            entry = registry.entry(name)
        except TunebookError as error:
            yield _finding(file, number, "registry-key", text, error.problem, error.fix)
            continue
        # Which stage will read an entry is not known here, and pretraining needs the least.
        for fault in entry_faults(entry, stage="pt"):
            # Data is made or downloaded for the run that needs it.
            severity: Severity = "hint" if fault.rule == "missing-data" else fault.severity
            yield _finding(file, number, fault.rule, text, f"{name}: {fault.message}", fault.fix, severity)


def _finding(
    file: str,
    line: int | None,
    rule: str,
    text: str | None,
    message: str,
    fix: str | None,
    severity: Severity = "error",
) -> Finding:
    line_text = None if text is None else text.strip()
    return Finding(
        file=file, line=line, rule=rule, severity=severity, message=message, fix=fix, text=line_text
    )
