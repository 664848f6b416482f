"""Evaluation rows as LLaMA-Factory draws, converts and renders them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunebook.data import registry as datasets
from tunebook.errors import TunebookError
from tunebook.evaluation.questions import Asked
from tunebook.lengths import llamafactory
from tunebook.lengths.columns import needed_columns
from tunebook.lengths.conversations import LeftOut, converter
from tunebook.lengths.measuring import engine_rows
from tunebook.lengths.sets import source_of
from tunebook.lengths.templates import texts, without_thoughts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROLES = {"user": "user", "assistant": "assistant", "observation": "tool"}
_SEED = 42  # transformers.TrainingArguments


class LlamaFactoryReader:
    """Reads the rows of one evaluation set; see `Reader`.

    Args:
        values: The recipe.
        name: One of its `eval_dataset`.

    Raises:
        TunebookError: The rows cannot be known outside the engine, or not be read here.
    """

    def __init__(self, values: Mapping[str, Any], name: str) -> None:
        _refuse_unknown_rows(values)
        registry = datasets.load_registry(Path(str(values.get("dataset_dir", "data"))))
        source = source_of(registry.entry(name))
        self.settings = llamafactory.read_settings(values)
        self.files, self.columns = source.files, tuple(needed_columns(source.entry))
        self.limit: int | None = values.get("max_samples")
        self.chosen: list[int] | None = drawn_rows(values, registry, name)
        self.length_limit = self.settings.cutoff
        self.row_end = int(self.settings.template.efficient_eos)
        self.tokenizer = _tokenizer(values, self.settings)
        self._convert = converter(source.entry, multimodal=self.settings.template.multimodal)

    def read(self, row: Mapping[str, Any]) -> Asked | LeftOut:
        """Return a row as the engine builds it; see `Reader`."""
        found = self._convert(row)
        if isinstance(found, LeftOut):
            return found
        template, thinking = self.settings.template, self.settings.thinking
        special = self.tokenizer.special if self.tokenizer is not None else {}
        slots = texts(template, found.messages, system=found.system, thinking=thinking, special=special)
        messages = without_thoughts(template, found.messages, thinking)
        system = found.system or template.default_system
        reference = messages[-1].text
        learns_thought = template.kind == "reasoning" and thinking.enable_thinking
        if learns_thought and slots[-1][0] == template.empty_thought:
            reference = template.empty_thought + reference
        return Asked(
            [
                *([{"role": "system", "content": system}] if system else []),
                *({"role": _ROLES[one.role], "content": one.text} for one in messages[:-1]),
            ],
            [piece for slot in slots[:-1] for piece in slot if piece],
            "".join(slots[-1]),
            reference,
        )

    def too_long(self, tokens: int) -> str | None:  # noqa: ARG002
        """Return None: LLaMA-Factory cuts rows, and leaves none out; see `Reader`."""
        return None


def drawn_rows(values: Mapping[str, Any], registry: datasets.Registry, name: str) -> list[int] | None:
    """Return the rows that `num_samples` draws for an evaluation set; None where it has none.

    The engine draws by numpy's global generator, for the training sets first: an entry's rows depend on
    those before it (llamafactory/data/loader.py: `_load_single_dataset`).
    """
    if not registry.entry(name).values.get("num_samples"):
        return None
    generator = np.random.RandomState(int(values.get("seed", _SEED)))
    trained, evaluated = (_names(values.get(key)) for key in ("dataset", "eval_dataset"))
    for place, one in enumerate([*trained, *evaluated]):
        entry = registry.entry(one)
        wanted = entry.values.get("num_samples")
        if not wanted:
            continue
        source = source_of(entry)
        rows = sum(1 for _ in engine_rows(source.files, (), one))
        drawn: list[int] = generator.permutation(rows)[:wanted].tolist()
        if len(drawn) < wanted:
            drawn += generator.choice(rows, wanted - len(drawn)).tolist()
        if one == name and place >= len(trained):
            return drawn
    raise ValueError(f"the recipe does not evaluate on {name}")


def _tokenizer(values: Mapping[str, Any], settings: llamafactory.Settings) -> Any:
    try:
        return llamafactory.prepare(values, settings.template)
    except TunebookError:
        return None  # the model may be on the server's machine alone


def _refuse_unknown_rows(values: Mapping[str, Any]) -> None:
    if not values.get("eval_dataset"):
        raise TunebookError(
            "the recipe names no eval_dataset"
            + (": val_size holds rows out inside the engine alone" if values.get("val_size") else ""),
            fix="name a set of the registry with --dataset",
        )
    for key in ("streaming", "packing", "neat_packing", "train_on_prompt"):
        if values.get(key):
            raise TunebookError(
                f"`{key}: true` applies to the evaluation rows too: no answer can be told from its prompt",
                fix=f"evaluate with {key}=false",
            )


def _names(value: Any) -> Sequence[str]:
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else ()
    return [str(part).strip() for part in parts]
