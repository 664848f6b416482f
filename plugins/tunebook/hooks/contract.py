"""Writes `tunebook_contract.json` beside every adapter and model that a training saves.

What the engine was told is noted when it has read its recipe: LLaMA-Factory through the start-up hook, in
every stage; Axolotl through our plugin. Everything else is read from model and tokenizer once training
begins, so that what cannot be read fails there and not at the first checkpoint. Whether a dataset carries a
metric does not matter: a model without one has to be served right, too.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from transformers.trainer_callback import TrainerCallback

from tunebook import files
from tunebook.models import contract
from tunebook.types import EngineName


class Told(NamedTuple):
    """What an engine was told for one training."""

    engine: EngineName
    settings: dict[str, Any]
    """The recipe's keys that a contract keeps."""
    arguments: Any
    """As the engine has read them: LLaMA-Factory's argument records by name, or Axolotl's cfg."""


_told: dict[str, Told] = {}
"""By output folder: several trainings may follow each other in one process."""


def note(output_dir: str, told: Told) -> None:
    """Remember what an engine was told to train into `output_dir`."""
    _told[str(Path(output_dir).absolute())] = told


def bind_llamafactory(parser: ModuleType) -> None:
    """Wrap `get_train_args` of `llamafactory.hparams.parser`, which reads the recipe of every stage."""
    read = parser.get_train_args

    @functools.wraps(read)
    def get_train_args(args: Any = None) -> Any:
        found = read(args)
        model, data, training, finetuning = found[:4]
        # A list of command-line words: no recipe, so the records themselves.
        given = args if isinstance(args, Mapping) else _changed(model, data, training, finetuning)
        settings = contract.kept_settings("llamafactory", given)
        records = {"model": model, "data": data, "finetuning": finetuning}
        note(training.output_dir, Told("llamafactory", settings, records))
        return found

    parser.get_train_args = get_train_args  # type: ignore[attr-defined]


def _changed(*records: Any) -> dict[str, Any]:
    """The fields of argument records that do not hold their defaults, where JSON can hold them."""
    return {
        field.name: getattr(record, field.name)
        for record in records
        for field in fields(record)
        if getattr(record, field.name) != field.default
        and isinstance(getattr(record, field.name), (str, int, float, bool, list))
    }


class WritesContract(TrainerCallback):  # type: ignore[misc]
    """Gathers the contract as training begins; writes it with each checkpoint and at the end."""

    def __init__(self) -> None:
        self._contract: dict[str, Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """Read everything from model and tokenizer, on the first rank."""
        told = _told.get(str(Path(args.output_dir).absolute()))
        if told is None or not state.is_world_process_zero:
            return
        from tunebook.hooks.contract_facts import gather

        self._contract = gather(told, args, given["model"], given["processing_class"])

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Beside the checkpoint that was just saved."""
        self._write(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """In the output folder, where the engine is about to save what it has trained."""
        chosen = args.load_best_model_at_end and state.best_model_checkpoint
        self._write(Path(args.output_dir), state.best_global_step if chosen else state.global_step)

    def _write(self, folder: Path, step: int) -> None:
        if self._contract is not None:
            files.write_json(folder / contract.FILE, {**self._contract, "step": step})
