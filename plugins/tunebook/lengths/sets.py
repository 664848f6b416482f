"""The sets of rows that a recipe names, and how its engine is asked for them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunebook.data import registry as datasets
from tunebook.data import sources as data_sources
from tunebook.data.rows import TABLE_SUFFIXES
from tunebook.engines.axolotl.datasets import ALPACA_TYPE, alpaca_columns, entry_of_block
from tunebook.engines.schema import load_schema
from tunebook.errors import TunebookError
from tunebook.lengths import asking
from tunebook.lengths.batches import Form
from tunebook.lengths.reading import cached_files
from tunebook.models.source import snapshot
from tunebook.types import DatasetEntry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.lengths.asking import Counted
    from tunebook.lengths.cutting import Rule
    from tunebook.types import EngineName, Recipe

Part = Literal["train", "eval"]

_SPLIT_NAME, _FIRST_ROWS = re.compile(r"\w*"), re.compile(r"\w+\[:(\d+)\]")

_NOTES = {
    "val_size": "val_size: part of the training rows is held out for evaluation",
    "train_on_prompt": "train_on_prompt: prompts are learned too; they are counted apart all the same",
    "predict_with_generate": "predict_with_generate: evaluation rows are shown cut as training rows are",
}
"""Keys of a recipe of LLaMA-Factory, and what they mean for the figures."""
_MEDIA = ("images", "videos", "audios")


@dataclass(slots=True, kw_only=True)
class RowSet:
    """Rows that a recipe trains or evaluates on."""

    name: str
    part: Part
    entry: DatasetEntry
    """The registry entry; where there is none, one with the columns that a block of Axolotl names."""
    files: tuple[Path, ...]
    limit_rows: int | None = None
    """Rows the engine reads, from the first."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """How the engine is asked for it; empty where characters are counted."""
    counted: Counted | None = None
    """What the engine has said; None where characters are counted."""
    notes: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def form(self) -> Form:
        """What is alike in all rows."""
        return self.counted.form if self.counted is not None else Form()

    @property
    def rule(self) -> Rule | None:
        """What the engine does to long rows; None where characters are counted, or where it is not known."""
        return self.counted.rule if self.counted is not None else None

    @property
    def limit(self) -> int | None:
        """Tokens of a row."""
        return self.counted.limit if self.counted is not None else None


@dataclass(slots=True, kw_only=True)
class Plan:
    """What is to be measured, and by what. The last four are None for characters."""

    sets: list[RowSet] = field(default_factory=list)
    engine: EngineName | None
    """None where there is no recipe and no template."""
    settings: Mapping[str, Any] | None = None
    """Of the recipe, for the engine."""
    template: str | None = None
    tokenizer: str | None = None
    """The folder it is read from."""
    counted_by: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def unit(self) -> str:
        """What is counted."""
        return "characters" if self.settings is None else "tokens"

    def ask(self, *, max_rows: int | None = None, whole: bool = False) -> None:
        """Ask the engine how long the rows of all sets are. Characters need no engine.

        Args:
            max_rows: Rows of each set, from the first.
            whole: All rows of the files, whatever the recipe's `max_samples`.

        Raises:
            TunebookError: As `asking.ask`.
        """
        if self.settings is None or self.engine is None or self.tokenizer is None:
            return
        settings = dict(self.settings)
        limits = [max_rows, None if whole else settings.pop("max_samples", None)]
        settings.pop("max_samples", None)
        if any(limits):
            settings["max_samples"] = min(limit for limit in limits if limit is not None)
        limit = None
        if self.engine == "llamafactory":
            default = load_schema("llamafactory")["keys"]["cutoff_len"]["default"]
            limit = int(settings.pop("cutoff_len", default))
        answers = asking.ask(
            asking.Job(
                engine=self.engine,
                want="lengths",
                settings=settings,
                sets=[_whole(rows.request) if whole else rows.request for rows in self.sets],
                data=[asking.contents(rows.files) for rows in self.sets],
                tokenizer=Path(self.tokenizer),
                limit=limit,
            )
        )
        for rows, answer in zip(self.sets, answers, strict=True):
            rows.counted = counted = answer.counted()
            if counted.rule is None:
                rows.notes.append(
                    f"this {self.engine} cuts rows at {counted.limit} tokens in a way that tunebook does not "
                    "know: what is cut is not shown"
                )
            self.template = answer.values["template"]
            self.counted_by = self.counted_by or answer.values["counted_by"]


def _whole(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """A request for all rows of the split, where a block of Axolotl names a part of it."""
    split = str(request.get("block", {}).get("split") or "")
    return (
        {**request, "block": {**request["block"], "split": split.partition("[")[0]}}
        if "[" in split
        else request
    )


def plan_recipe(recipe: Recipe, home: Path, *, characters: bool) -> Plan:
    """Return the sets of a recipe.

    Args:
        recipe: With its overlays merged in.
        home: Where Axolotl's data is looked for that is not below the current folder.
        characters: Measure characters, which needs no tokenizer and no engine.

    Raises:
        TunebookError: The recipe names no data, or data that is not here.
    """
    plan = _plan_llamafactory if recipe.engine == "llamafactory" else _plan_axolotl
    found = plan(recipe.values, home, characters=characters)
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
        TunebookError: The tokenizer is not here.
    """
    if values is None:
        entry = source.entry
        rows = RowSet(name=entry.name, part="train", entry=entry, files=source.files)
        return Plan(engine=None, sets=[rows])
    if "stage" not in values:
        stage = "rm" if source.entry.values.get("ranking") else "sft"
        if data_sources.column(source.entry, "kto_tag"):
            stage = "kto"
        values = {**values, "stage": stage}
    return _llamafactory(values, [("train", source)])


def _plan_llamafactory(values: Mapping[str, Any], home: Path, *, characters: bool) -> Plan:  # noqa: ARG001
    registry = datasets.load_registry(Path(str(values.get("dataset_dir", "data"))))
    wanted: list[tuple[Part, str]] = [("train", name) for name in _names(values.get("dataset"))]
    wanted += [("eval", name) for name in _names(values.get("eval_dataset"))]
    sources = [(part, source_of(registry.entry(name))) for part, name in wanted]
    if characters:
        limit = values.get("max_samples")
        sets = [
            RowSet(name=one.entry.name, part=part, entry=one.entry, files=one.files, limit_rows=limit)
            for part, one in sources
        ]
        plan = Plan(sets=sets, engine="llamafactory")
    else:
        plan = _llamafactory(values, sources)
    plan.notes += [note for key, note in _NOTES.items() if values.get(key)]
    if values.get("tokenized_path") and Path(str(values["tokenized_path"])).exists():
        plan.notes.append("tokenized_path exists: the engine reads that, whatever the recipe says otherwise")
    return plan


def _llamafactory(values: Mapping[str, Any], sources: Sequence[tuple[Part, data_sources.Source]]) -> Plan:
    folder = llamafactory_tokenizer(values)
    settings = asking.llamafactory_settings(values)
    sets = []
    for part, source in sources:
        samples = source.entry.values.get("num_samples")
        rows = RowSet(
            name=source.entry.name,
            part=part,
            entry=source.entry,
            files=source.files,
            limit_rows=values.get("max_samples"),
            request=llamafactory_request(source),
        )
        if samples:
            rows.notes.append(f"num_samples: the engine draws {samples} of these rows")
        sets.append(rows)
    return Plan(
        sets=sets,
        engine="llamafactory",
        settings={**settings, "model_name_or_path": str(folder)},
        template=values.get("template"),
        tokenizer=str(folder),
    )


def llamafactory_tokenizer(values: Mapping[str, Any]) -> Path:
    """Return the folder of the tokenizer that a recipe of LLaMA-Factory names.

    Raises:
        TunebookError: It is not on this machine.
    """
    cache = values.get("cache_dir")
    return asking.tokenizer_folder(
        str(values.get("model_name_or_path")),
        revision=str(values.get("model_revision") or "main"),
        cache_dir=str(cache) if cache else None,
        key="model_name_or_path",
    )


def llamafactory_request(
    source: data_sources.Source, draw: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Return how LLaMA-Factory is asked for the rows of an entry; see `asking.Job`.

    Args:
        source: The entry with its files.
        draw: Requests for the entries that are drawn from before this one; None to take all rows of it.
    """
    entry = source.entry
    values = {key: value for key, value in entry.values.items() if key != "metric"}
    if not source.registered:
        values["file_name"] = str(source.files[0].absolute())
    folder = str(entry.registry.parent.absolute())
    request: dict[str, Any] = {"name": entry.name, "entry": values, "dir": folder, "draw": draw}
    if any(data_sources.column(entry, key) for key in _MEDIA):
        request["media"] = folder  # as a part of the key: pictures are looked for here
    return request


def _plan_axolotl(values: Mapping[str, Any], home: Path, *, characters: bool) -> Plan:
    plan = Plan(engine="axolotl")
    if not characters:
        folder = axolotl_tokenizer(values)
        plan.settings = axolotl_settings(values, folder)
        plan.template = str(values.get("chat_template") or "tokenizer_default")
        plan.tokenizer = str(folder)
    parts: dict[str, Part] = {"datasets": "train", "test_datasets": "eval"}
    for key, part in parts.items():
        for block in values.get(key) or []:
            files, rows = block_files(block, home)
            entry = _entry_of_block(values, block)
            name = entry.name if entry is not None else Path(str(block.get("path"))).stem
            split = str(block.get("split") or "train")
            if characters and not (_SPLIT_NAME.fullmatch(split) or _FIRST_ROWS.fullmatch(split)):
                raise TunebookError(
                    f"datasets: {name}: only the engine knows the rows of the split {split!r}",
                    fix="use train or train[:N], or count tokens",
                )
            plan.sets.append(
                RowSet(
                    name=name,
                    part=part,
                    entry=entry or _as_entry(name, block),
                    files=files,
                    limit_rows=rows,
                    request={} if characters else axolotl_request(name, block, part, home),
                )
            )
    return plan


def axolotl_tokenizer(values: Mapping[str, Any]) -> Path:
    """Return the folder of the tokenizer that a recipe of Axolotl names.

    Raises:
        TunebookError: It is not on this machine.
    """
    key = "tokenizer_config" if values.get("tokenizer_config") else "base_model"
    revision = str(values.get("revision_of_model") or "main")
    return asking.tokenizer_folder(str(values.get(key)), revision=revision, cache_dir=None, key=key)


def axolotl_settings(values: Mapping[str, Any], tokenizer: Path | None) -> dict[str, Any]:
    """Return the keys of a recipe of Axolotl that may decide its rows; see `asking.axolotl_settings`.

    Args:
        values: The recipe.
        tokenizer: The folder of its tokenizer; None where that is not on this machine.
    """
    model = str(values.get("base_model"))
    here = Path(model).expanduser().is_dir() or snapshot(
        model, str(values.get("revision_of_model") or "main")
    )
    return asking.axolotl_settings(
        {
            **values,
            "base_model": model if here else None,
            "tokenizer_config": None if tokenizer is None else str(tokenizer),
        }
    )


def axolotl_request(name: str, block: Mapping[str, Any], part: Part, home: Path) -> dict[str, Any]:
    """Return how Axolotl is asked for the rows of a block; see `asking.Job`."""
    path = str(block.get("path"))
    place = next((place for place in (Path(path), home / path) if place.exists()), None)
    rest = {key: value for key, value in block.items() if key != "path"}
    return {
        "name": name,
        "path": path if place is None else str(place.absolute()),
        "block": rest,
        "part": part,
    }


def block_files(block: Mapping[str, Any], home: Path) -> tuple[tuple[Path, ...], int | None]:
    """Return the local files of a block of an Axolotl recipe, and how many rows of them are read.

    Raises:
        TunebookError: They are not on this machine.
    """
    name = str(block.get("path"))
    path = next((place for place in (Path(name), home / name) if place.exists()), None)
    split = str(block.get("split") or "train")
    found = _FIRST_ROWS.fullmatch(split)
    rows = int(found[1]) if found else None
    part = _SPLIT_NAME.match(split)[0]  # type: ignore[index]
    if path is None:
        if Path(name).suffix:
            raise TunebookError(
                f"datasets: there is no {name}", fix="make it, or name the file that is there"
            )
        return cached_files(name, subset=block.get("name"), split=part, key="datasets"), rows
    if path.is_file():
        return (path,), rows
    files = sorted(file for file in path.iterdir() if file.suffix in TABLE_SUFFIXES)
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


def _names(value: Any) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else ()
    return list(dict.fromkeys(str(part).strip() for part in parts))
