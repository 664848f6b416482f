"""The sets of rows that a recipe names, each with the way to measure it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunebook.data import registry as datasets
from tunebook.data import sources as data_sources
from tunebook.errors import TunebookError
from tunebook.lengths import llamafactory
from tunebook.lengths.characters import CharacterMeasure
from tunebook.lengths.columns import needed_columns
from tunebook.lengths.counting import Counter
from tunebook.lengths.cutting import Proportional
from tunebook.lengths.hub_sets import cached_files
from tunebook.types import DatasetEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.lengths.batches import Measure
    from tunebook.lengths.cutting import Rule
    from tunebook.types import Recipe

Part = Literal["train", "eval"]

_NOTES = {
    "val_size": "val_size: part of the training rows is held out for evaluation",
    "train_on_prompt": "train_on_prompt: prompts are learned too; they are told apart all the same",
    "predict_with_generate": "predict_with_generate: evaluation rows are shown cut as training rows are",
}
"""Keys of a recipe of LLaMA-Factory, and what they mean for the figures."""


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
        from tunebook.lengths.axolotl_sets import plan_axolotl  # with jinja2, which is not needed elsewhere

        found = plan_axolotl(recipe.values, home, characters=characters)
    if not found.sets:
        raise TunebookError(f"{recipe.path} names no data", fix="name a dataset in it")
    return found


def source_of(entry: DatasetEntry) -> data_sources.Source:
    """Return the files of an entry: its own, or those in which an engine has cached a dataset of the hub.

    Raises:
        TunebookError: They are not on this machine.
    """
    hub = entry.values.get("hf_hub_url")
    if not isinstance(hub, str):
        return data_sources.of_entry(entry)
    files = cached_files(
        hub,
        subset=entry.values.get("subset"),
        split=str(entry.values.get("split") or "train"),
        key=entry.name,
    )
    return data_sources.Source(entry=entry, files=files, registered=True)


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
        plan.sets.append(character_set(source.entry.name, "train", source.entry, source.files, None))
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
    sources = [(part, source_of(registry.entry(name))) for part, name in wanted]
    if characters:
        limit = values.get("max_samples")
        sets = [character_set(one.entry.name, part, one.entry, one.files, limit) for part, one in sources]
        plan = Plan(sets=sets, engine="llamafactory")
    else:
        maker = _LlamaFactorySets(values)
        plan = maker.plan([maker.make(source, part) for part, source in sources])
    plan.notes += [note for key, note in _NOTES.items() if values.get(key)]
    if values.get("tokenized_path") and Path(str(values["tokenized_path"])).exists():
        plan.notes.append("tokenized_path exists: the engine reads that, whatever the recipe says otherwise")
    return plan


def character_set(
    name: str, part: Part, entry: DatasetEntry, files: tuple[Path, ...], limit_rows: int | None
) -> RowSet:
    """Return rows to be measured in characters."""
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
