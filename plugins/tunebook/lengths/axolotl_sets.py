"""The sets of rows that an Axolotl recipe names, each with the way to measure it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data import registry as datasets
from tunebook.data.tables import READABLE
from tunebook.engines.axolotl.datasets import ALPACA_TYPE, alpaca_columns, entry_of_block
from tunebook.errors import TunebookError
from tunebook.lengths import axolotl, axolotl_tokenizer
from tunebook.lengths.counting import Counter
from tunebook.lengths.cutting import Drop, First
from tunebook.lengths.hub_sets import cached_files
from tunebook.lengths.sets import Part, Plan, RowSet, character_set
from tunebook.types import DatasetEntry

if TYPE_CHECKING:
    from tunebook.lengths.cutting import Rule

_SEQUENCE_LEN = 512  # axolotl/utils/schemas/config.py
_SLICE = re.compile(r"\w+(?:\[:(\d+)\])?")


def plan_axolotl(values: Mapping[str, Any], home: Path, *, characters: bool) -> Plan:
    """Return the sets of an Axolotl recipe; see `plan_recipe`."""
    plan = Plan(engine="axolotl")
    model = None
    if not characters:
        model = axolotl_tokenizer.prepare(values)
        plan.counter = Counter(model.tokenizer)
        plan.template = str(values.get("chat_template") or "tokenizer_default")
        plan.tokenizer = str(model.folder)
    parts: dict[str, Part] = {"datasets": "train", "test_datasets": "eval"}
    for key, part in parts.items():
        for block in values.get(key) or []:
            files, rows = block_files(block, home)
            entry = _entry_of_block(values, block)
            name = entry.name if entry is not None else Path(str(block.get("path"))).stem
            read_as = _as_entry(name, block)
            if model is None or plan.counter is None:
                plan.sets.append(character_set(name, part, read_as, files, rows))
                continue
            limit = int(
                (values.get("eval_sequence_len") if part == "eval" else None)
                or values.get("sequence_len")
                or _SEQUENCE_LEN
            )
            measure = axolotl.AxolotlMeasure(
                values, block, model, plan.counter, int(values.get("sequence_len") or _SEQUENCE_LEN)
            )
            plan.sets.append(
                RowSet(
                    name=name, part=part, entry=entry or read_as, files=files, limit_rows=rows,
                    columns=measure.columns, measure=measure, rule=_axolotl_rule(values), limit=limit,
                )
            )  # fmt: skip
    return plan


def _axolotl_rule(values: Mapping[str, Any]) -> Rule:
    strategy = str(values.get("excess_length_strategy") or "drop").lower()
    return First() if strategy == "truncate" else Drop(shortest=int(values.get("min_sample_len") or 2))


def block_files(block: Mapping[str, Any], home: Path) -> tuple[tuple[Path, ...], int | None]:
    """Return the local files of a block of an Axolotl recipe, and how many rows of them are read.

    Raises:
        TunebookError: They are not on this machine.
    """
    name = str(block.get("path"))
    path = next((place for place in (Path(name), home / name) if place.exists()), None)
    split = str(block.get("split") or "train")
    found = _SLICE.fullmatch(split)
    if found is None:
        raise TunebookError(
            f"datasets: {name}: the split {split!r} is not measured", fix="use train or train[:N]"
        )
    rows = int(found[1]) if found[1] else None
    part = split.partition("[")[0]
    if path is None:
        if Path(name).suffix:
            raise TunebookError(
                f"datasets: there is no {name}", fix="make it, or name the file that is there"
            )
        return cached_files(name, subset=block.get("name"), split=part, key="datasets"), rows
    if path.is_file():
        return (path,), rows
    files = sorted(file for file in path.iterdir() if file.suffix in READABLE)
    named = [file for file in files if file.stem == part]
    if not (named or files):
        raise TunebookError(f"datasets: {path} holds no data that can be read here", fix="name one file")
    return tuple(named or files), rows


def _entry_of_block(values: Mapping[str, Any], block: Mapping[str, Any]) -> DatasetEntry | None:
    directory = values.get("tunebook_dataset_dir")
    if not isinstance(directory, str) or not Path(directory).is_dir():
        return None
    registry = datasets.load_registry(Path(directory))
    name = entry_of_block(block, registry, directory)
    return registry.entry(name) if name is not None else None


def _as_entry(name: str, block: Mapping[str, Any]) -> DatasetEntry:
    """A block's columns as an entry names them, to measure characters by."""
    values: dict[str, Any]
    if block.get("type") == ALPACA_TYPE:
        values = {"columns": alpaca_columns(block.get("message_property_mappings") or {})}
    elif block.get("type") == "chat_template":
        mapping = block.get("message_property_mappings") or {"role": "role", "content": "content"}
        values = {
            "formatting": "sharegpt",
            "columns": {"messages": block.get("field_messages") or "messages"},
            "tags": {"role_tag": mapping.get("role"), "content_tag": mapping.get("content")},
        }
    else:
        values = {}  # the columns of Axolotl's own alpaca; other types have no entry that says the same
    return DatasetEntry(name=name, registry=Path(name), values=values, metrics=())
