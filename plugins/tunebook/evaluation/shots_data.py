"""Evaluation data with examples before each question: a registry that an engine reads by its own loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook import engines, files
from tunebook.data import sources
from tunebook.data.registry import LOCATION_KEYS, REGISTRY_FILE, load_registry
from tunebook.engines.axolotl.datasets import render_block
from tunebook.engines.axolotl.rules import DIRECTORY_KEY, NAMES_KEY
from tunebook.evaluation.questions import QuestionSet, read_questions
from tunebook.evaluation.records import digest
from tunebook.evaluation.shots import choose_shots
from tunebook.files import open_atomic, write_json
from tunebook.lengths.reading import read_rows
from tunebook.lengths.sets import source_of
from tunebook.runs import provenance
from tunebook.types import DatasetEntry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.data.registry import Registry
    from tunebook.evaluation.shots import Shots, ShotsRequest
    from tunebook.types import EngineName


class WithShots(NamedTuple):
    """An evaluation recipe with examples before its questions."""

    values: dict[str, Any]
    shots: Shots
    notes: list[str]


_COLUMNS = ("prompt", "query", "response", "system", "tools", "history")
_CHAT_COLUMNS = ("messages", "system", "tools")


def with_shots(
    request: ShotsRequest,
    trained: Mapping[str, Any],
    values: Mapping[str, Any],
    engine: EngineName,
    *,
    home: Path,
) -> WithShots:
    """Put examples before the questions of an evaluation recipe.

    Args:
        request: Which.
        trained: The training recipe.
        values: Made of it by `Engine.evaluation`.
        engine: Whose recipes they are.
        home: Where data is looked for that is not below the current folder.

    Raises:
        TunebookError: There are too few examples, or data cannot be read.
    """
    loaded = engines.load(engine)
    registry = load_registry(Path(str(values[loaded.registry_key])))
    names = loaded.evaluation_sets(values)
    located = {**trained, loaded.registry_key: values[loaded.registry_key]}
    shots = choose_shots(request, located, loaded, registry, names)
    data = {name: provenance.dataset_facts(registry.entry(name))["sha256"] for name in names}
    entries = {name: dict(registry.entry(name).values) for name in names}
    place = request.folder / digest({"text": shots.text, "data": data, "entries": entries})[:16]
    # The registry is written last: where it is, the rows are.
    if not (place / REGISTRY_FILE).is_file():
        write_registry(registry, names, shots.text, place.absolute())
    made = on_registry(values, engine, place.absolute())
    count = len(shots.examples)
    notes = []
    counted: Sequence[Added | None] = [None] * len(names)
    if _can_be_read(values, engine):
        counted = added_tokens(values, made, engine, names, home)
    for name, added in zip(names, counted, strict=True):
        what = f"{name}: {count} example{'s' * (count > 1)} from {shots.source}"
        if added is None:
            notes.append(f"{what}; their tokens are not known here")
            continue
        tokens = str(added.fewest) if added.fewest == added.most else f"{added.fewest} to {added.most}"
        notes.append(f"{what}: {tokens} tokens more in each prompt")
        if added.newly_cut:
            notes.append(
                f"warning: {name}: with them {added.newly_cut} more rows are above the engine's limit of "
                f"{added.limit} tokens, where they are cut or left out; show fewer, or raise the limit"
            )
    return WithShots(made, shots, notes)


def _can_be_read(values: Mapping[str, Any], engine: EngineName) -> bool:
    # Only the engine knows the rows that val_size holds out.
    return engine != "llamafactory" or bool(values.get("eval_dataset"))


def write_registry(registry: Registry, names: Sequence[str], text: str, folder: Path) -> None:
    """Write the entries of `names` with `text` before the question of each row.

    Args:
        registry: The recipe's own.
        names: The entries that are evaluated on.
        text: The examples.
        folder: Gets `dataset_info.json` and one file of rows for each entry: the same rows in the same
            order, so that whatever the engine draws from them is the same.

    Raises:
        TunebookError: Data is not on this machine, or cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for name in names:
        entry = registry.entry(name)
        kept = {key: value for key, value in entry.values.items() if key not in LOCATION_KEYS}
        _write_rows(entry, text, folder / f"{name}.json")
        entries[name] = {"file_name": f"{name}.json", **kept}
    write_json(folder / REGISTRY_FILE, entries)


def on_registry(values: Mapping[str, Any], engine: EngineName, folder: Path) -> dict[str, Any]:
    """Return an evaluation recipe that reads what `write_registry` wrote.

    Args:
        values: As `Engine.evaluation` gives them.
        engine: Whose they are.
        folder: Of `write_registry`.
    """
    if engine == "llamafactory":
        return {**values, "dataset_dir": str(folder)}
    entries = files.read_json(folder / REGISTRY_FILE)
    blocks = []
    for name in values[NAMES_KEY]:
        entry = DatasetEntry(name=name, registry=folder / REGISTRY_FILE, values=entries[name], metrics=())
        blocks.append(render_block(entry, str(folder)))
    # Axolotl needs something to train on, and gets what is evaluated, as without examples.
    return {**values, "datasets": blocks[:1], "test_datasets": blocks, DIRECTORY_KEY: str(folder)}


class Added(NamedTuple):
    """What examples add to the prompts of a set."""

    fewest: int
    """Tokens."""
    most: int
    newly_cut: int
    """Rows that fit into the engine's length limit without the examples, and do not with them."""
    limit: int


def added_tokens(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    engine: EngineName,
    names: Sequence[str],
    home: Path,
) -> list[Added | None]:
    """Return what the examples add to sets; None where the model's tokenizer is not on this machine.

    Args:
        before: The evaluation recipe without them.
        after: The same with them.
        engine: Whose recipes they are.
        names: The sets.
        home: Where data is looked for that is not below the current folder.
    """
    plain = read_questions(before, engine, names, home=home)
    shown = read_questions(after, engine, names, home=home, may_be_empty=True)
    return [_added(one, other) for one, other in zip(plain, shown, strict=True)]


def _added(plain: QuestionSet, shown: QuestionSet) -> Added | None:
    if plain.tokenizer is None:
        return None
    # Axolotl leaves out what is too long, so rows are paired by their source and not by their numbers.
    grown = {one.source_row: one.prompt_tokens for one in shown.questions}
    added = [
        (grown[one.source_row] or 0) - (one.prompt_tokens or 0)
        for one in plain.questions
        if one.source_row in grown
    ]
    lost = len(plain.questions) - len(shown.questions) + shown.over_limit - plain.over_limit
    return Added(min(added, default=0), max(added, default=0), lost, plain.length_limit)


def _write_rows(entry: DatasetEntry, text: str, path: Path) -> None:
    """As one JSON array: for JSONL and CSV the engines guess types, and dates would not be text."""
    read = _CHAT_COLUMNS if sources.is_chat(entry) else _COLUMNS
    keys = [name for key in read if (name := sources.column(entry, key))]
    with open_atomic(path) as stream:
        between = "[\n"
        for row in read_rows(source_of(entry).files, keys, entry.name):
            kept = {key: row.get(key) for key in keys}
            stream.write(between + json.dumps(_with_text(kept, entry, text), ensure_ascii=False))
            between = ",\n"
        stream.write("\n]\n" if between != "[\n" else "[]\n")


def _with_text(row: dict[str, Any], entry: DatasetEntry, text: str) -> dict[str, Any]:
    if not sources.is_chat(entry):
        prompt, query = sources.column(entry, "prompt"), sources.column(entry, "query")
        # The first that holds anything begins the question.
        column = next((name for name in (prompt, query) if name and row.get(name)), prompt or query)
        if column:
            row[column] = text + str(row.get(column) or "")
        return row
    column = sources.column(entry, "messages") or ""
    messages = row.get(column)
    if isinstance(messages, list):
        role, content = sources.tag(entry, "role_tag") or "", sources.tag(entry, "content_tag") or ""
        asked = [at for at, one in enumerate(messages) if one.get(role) == sources.tag(entry, "user_tag")]
        if asked:
            changed = [dict(one) for one in messages]
            changed[asked[-1]][content] = text + str(changed[asked[-1]].get(content) or "")
            row[column] = changed
    return row
