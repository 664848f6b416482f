"""The sets of rows that a recipe names, each with the way to measure it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunebook import data_sources, datasets
from tunebook.engines.axolotl_datasets import ALPACA_TYPE, alpaca_columns, entry_of_block
from tunebook.errors import TunebookError
from tunebook.lengths import llamafactory
from tunebook.lengths.characters import CharacterMeasure
from tunebook.lengths.conversations import needed_columns
from tunebook.lengths.counting import Counter
from tunebook.lengths.cutting import Drop, First, Proportional
from tunebook.table_files import READABLE
from tunebook.types import DatasetEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.lengths.batches import Measure
    from tunebook.lengths.cutting import Rule
    from tunebook.types import Recipe

Part = Literal["train", "eval"]

_SEQUENCE_LEN = 512  # axolotl/utils/schemas/config.py
_SLICE = re.compile(r"\w+(?:\[:(\d+)\])?")


@dataclass(slots=True, kw_only=True)
class RowSet:
    """Rows that a recipe trains or evaluates on."""

    name: str
    part: Part
    entry: DatasetEntry
    """The registry entry; where there is none, one with the columns that a block of Axolotl names."""
    files: tuple[Path, ...]
    limit_rows: int | None
    """Rows the engine reads, from the first."""
    columns: tuple[str, ...]
    """Without one of these the engine stops."""
    measure: Measure
    rule: Rule | None
    """What the engine does to long rows; None where characters are measured."""
    limit: int | None
    """Tokens of a row."""
    notes: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.files)


@dataclass(slots=True, kw_only=True)
class Plan:
    """What is to be measured, and by what. Template, tokenizer and counter are None for characters."""

    sets: list[RowSet] = field(default_factory=list)
    engine: str | None
    """None where there is no recipe and no template."""
    template: str | None = None
    tokenizer: str | None = None
    """The folder it was read from."""
    counter: Counter | None = None
    notes: list[str] = field(default_factory=list)


def plan_recipe(recipe: Recipe, home: Path, *, characters: bool) -> Plan:
    """Return the sets of a recipe.

    Args:
        recipe: With its overlays merged in.
        home: Where Axolotl's data is looked for that is not below the current folder.
        characters: Measure characters, which needs no tokenizer.

    Raises:
        TunebookError: The recipe names no data, data that is not here, or what cannot be measured.
    """
    if recipe.engine == "llamafactory":
        found = _plan_llamafactory(recipe.values, characters=characters)
    else:
        found = _plan_axolotl(recipe.values, home, characters=characters)
    if not found.sets:
        raise TunebookError(f"{recipe.path} names no data", fix="name a dataset in it")
    return found


def plan_source(source: data_sources.Source, values: Mapping[str, Any] | None) -> Plan:
    """Return one registry entry or file as a plan.

    Args:
        source: The rows.
        values: `model_name_or_path`, `template` and whatever else a recipe of LLaMA-Factory says; None to
            measure characters.

    Raises:
        TunebookError: The tokenizer is not here, or the rows cannot be measured.
    """
    if values is None:
        plan = Plan(engine=None)
        plan.sets.append(_character_set(source.entry.name, "train", source.entry, source.files, None))
        return plan
    maker = _LlamaFactorySets(values)
    return maker.plan([maker.make(source, "train")])


class _LlamaFactorySets:
    """Makes the sets of one recipe of LLaMA-Factory, which share a tokenizer."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.settings = llamafactory.read_settings(values)
        self.model = llamafactory.prepare(values, self.settings.template)
        self.counter = Counter(self.model.tokenizer)
        self.max_samples = values.get("max_samples")

    def make(self, source: data_sources.Source, part: Part) -> RowSet:
        measure = llamafactory.LlamaFactoryMeasure(source.entry, self.settings, self.model, self.counter)
        return RowSet(
            name=source.entry.name,
            part=part,
            entry=source.entry,
            files=source.files,
            limit_rows=self.max_samples,
            columns=tuple(needed_columns(source.entry)),
            measure=measure,
            rule=Proportional(measure.form.row_end, self.settings.thinking.mask_history),
            limit=self.settings.cutoff,
            notes=_sampling_notes(source.entry),
        )

    def plan(self, sets: list[RowSet]) -> Plan:
        return Plan(
            sets=sets,
            engine="llamafactory",
            template=self.settings.template.name,
            tokenizer=str(self.model.folder),
            counter=self.counter,
        )


def _plan_llamafactory(values: Mapping[str, Any], *, characters: bool) -> Plan:
    registry = datasets.load_registry(Path(str(values.get("dataset_dir", "data"))))
    wanted: list[tuple[Part, str]] = [("train", name) for name in _names(values.get("dataset"))]
    wanted += [("eval", name) for name in _names(values.get("eval_dataset"))]
    sources = [(part, data_sources.of_entry(registry.entry(name))) for part, name in wanted]
    if characters:
        limit = values.get("max_samples")
        sets = [_character_set(one.entry.name, part, one.entry, one.files, limit) for part, one in sources]
        plan = Plan(sets=sets, engine="llamafactory")
    else:
        maker = _LlamaFactorySets(values)
        plan = maker.plan([maker.make(source, part) for part, source in sources])
    if values.get("val_size"):
        plan.notes.append("val_size: part of the training rows below is held out for evaluation")
    if values.get("tokenized_path") and Path(str(values["tokenized_path"])).exists():
        plan.notes.append("tokenized_path exists: the engine reads that, whatever the recipe says otherwise")
    return plan


def _plan_axolotl(values: Mapping[str, Any], home: Path, *, characters: bool) -> Plan:
    from tunebook.lengths import (  # with jinja2, which LLaMA-Factory's rows need not
        axolotl,
        axolotl_tokenizer,
    )

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
            files, rows = _axolotl_files(block, home)
            entry = _entry_of_block(values, block)
            name = entry.name if entry is not None else Path(str(block.get("path"))).stem
            read_as = _as_entry(name, block)
            if model is None or plan.counter is None:
                plan.sets.append(_character_set(name, part, read_as, files, rows))
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


def _axolotl_files(block: Mapping[str, Any], home: Path) -> tuple[tuple[Path, ...], int | None]:
    """The local files of a block, and how many rows of them are read."""
    name = str(block.get("path"))
    path = next((place for place in (Path(name), home / name) if place.exists()), None)
    if path is None:
        raise TunebookError(
            f"datasets: {name} is not on this machine",
            fix="download it to a file and name that, or make it as datasets_info/README.md says",
        )
    split = str(block.get("split") or "train")
    found = _SLICE.fullmatch(split)
    if found is None:
        raise TunebookError(
            f"datasets: {name}: the split {split!r} is not measured", fix="use train or train[:N]"
        )
    rows = int(found[1]) if found[1] else None
    if path.is_file():
        return (path,), rows
    part = split.partition("[")[0]
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


def _character_set(
    name: str, part: Part, entry: DatasetEntry, files: tuple[Path, ...], limit_rows: int | None
) -> RowSet:
    return RowSet(
        name=name, part=part, entry=entry, files=files, limit_rows=limit_rows, columns=(),
        measure=CharacterMeasure(entry), rule=None, limit=None,
    )  # fmt: skip


def _sampling_notes(entry: DatasetEntry) -> list[str]:
    samples = entry.values.get("num_samples")
    return [f"num_samples: the engine draws {samples} of these rows"] if samples else []


def _names(value: Any) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else ()
    return list(dict.fromkeys(str(part).strip() for part in parts))
