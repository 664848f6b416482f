"""LLaMA-Factory's rows for `row_probe`: its loader, converters, template and row processors.

One row at a time, so that it is known which row is left out, and nothing is written to disk
(llamafactory/data/loader.py: `get_dataset`; processor/*.py: `preprocess_dataset`).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
from llamafactory.data import get_template_and_fix_tokenizer, loader
from llamafactory.data.converter import get_dataset_converter
from llamafactory.data.parser import get_dataset_list
from llamafactory.data.template import TEMPLATES, ReasoningTemplate
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer

from tunebook.errors import TunebookError
from tunebook.hooks.measured_rows import (
    FastTokenizer,
    Measured,
    Rows,
    in_batches,
    prove,
    rows_of,
    stopped,
    swapped,
)
from tunebook.hooks.row_questions import asked, stand_in
from tunebook.lengths.batches import Form
from tunebook.types import IGNORED

_NO_LIMIT = 2**30
_TRIED_ROWS = 64
"""Rows with which our rule is tried at limits that cut them."""
_MEDIA = ("_images", "_videos", "_audios")

# What the engine's log says of a row that it leaves out, and our words.
_SAID = {
    "Invalid role tag": "questions and answers do not take turns",
    "Invalid message count": "the last question has no answer",
}


class Engine:
    """LLaMA-Factory with the settings of one recipe."""

    def __init__(self, job: Mapping[str, Any], folder: Path, *, fast: bool) -> None:
        settings = dict(job["settings"])
        if job["limit"] is not None:
            settings["cutoff_len"] = job["limit"]
        # Preference training prepares its rows as a reward model's (llamafactory/train/dpo/workflow.py).
        stage = str(settings.get("stage", "sft"))
        self.stage = "rm" if stage == "dpo" else stage
        if stage == "ppo":  # whose other keys are about models
            settings["stage"] = "sft"
        self._templates = copy.deepcopy(TEMPLATES)  # the engine writes a recipe's settings into one of them
        try:
            self.model, self.data, self.training = get_train_args(
                {**settings, "output_dir": str(folder / "out"), "report_to": "none"}
            )[:3]
            self.knows_tokenizer = True
            module = self._tokenizer(may_be_missing=job["want"] == "questions")
            self.tokenizer, self.processor = module["tokenizer"], module["processor"]
            self.template = get_template_and_fix_tokenizer(self.tokenizer, self.data)
        except (ValueError, OSError, ImportError) as err:
            raise stopped("LLaMA-Factory refuses the recipe's settings", err) from err
        self.packed = self.stage == "pt" and bool(self.data.packing)
        # Rows are looked at before they are packed. The limit is already that of packed rows.
        self.data.packing = self.data.neat_packing = False
        self.limit = self.data.cutoff_len
        self.media_dir = settings.get("media_dir")
        self.fast = FastTokenizer(self.tokenizer) if fast and self.knows_tokenizer else None
        self.log = _Log()

    def __enter__(self) -> Self:
        self.log.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.log.detach()
        TEMPLATES.update(self._templates)

    def _tokenizer(self, *, may_be_missing: bool) -> dict[str, Any]:
        try:
            module: dict[str, Any] = load_tokenizer(self.model)
        except OSError:
            if not may_be_missing:
                raise
            # It may be on a server's machine only.
            self.knows_tokenizer = False
            return {"tokenizer": stand_in(), "processor": None}
        return module

    def facts(self) -> dict[str, Any]:
        """Return what is the same in all sets."""
        return {
            "template": self.data.template or "the tokenizer's own",
            "stop": list(self.template.stop_words),
            "reasoning": isinstance(self.template, ReasoningTemplate),
        }

    def load(self, one: Mapping[str, Any]) -> LoadedSet:
        """Load the data of a registry entry.

        Args:
            one: `name`, `entry`, `dir` (the registry's folder) and `draw`: entries that are drawn from before
                this one, in the engine's order, or None to take all rows of this one.
        """
        np.random.seed(self.training.seed)  # the engine draws by the global generator
        for earlier in one["draw"] or ():
            self._load(earlier, draw=True)
        return LoadedSet(self, one["name"], *self._load(one, draw=one["draw"] is not None))

    def _load(self, one: Mapping[str, Any], *, draw: bool) -> tuple[Any, Any, list[str]]:
        self.data.dataset_dir = one["dir"]
        self.data.media_dir = self.media_dir or one["dir"]
        (attributes,) = get_dataset_list([one["name"]], {one["name"]: one["entry"]})
        if not draw:
            attributes.num_samples = None
        files: list[str] = []
        read = loader.load_dataset

        def load_dataset(*args: Any, **named: Any) -> Any:
            files.extend(named.get("data_files") or ())
            return read(*args, **named)

        named = {
            "load_dataset": load_dataset,
            "get_dataset_list": lambda *_: [attributes],
            "align_dataset": lambda dataset, *_: dataset,  # converted row by row, later
        }
        with swapped(loader, **named):
            try:
                found = loader._get_merged_dataset(
                    [one["name"]], self.model, self.data, self.training, self.stage, return_dict=True
                )
            except Exception as err:
                raise stopped(f"LLaMA-Factory cannot read the data of {one['name']}", err) from err
        return attributes, found[one["name"]], files


class LoadedSet:
    """One set; see `row_probe.Set`."""

    def __init__(self, engine: Engine, name: str, attributes: Any, dataset: Any, files: list[str]) -> None:
        self.engine, self.name, self.files = engine, name, files
        self.dataset, self.rows = dataset, len(dataset)
        self._attributes = attributes
        self._convert = get_dataset_converter(attributes.formatting, attributes, engine.data)
        self._processor = loader._get_dataset_processor(
            engine.data, engine.stage, engine.template, engine.tokenizer, engine.processor
        )

    def measure(self, start: int, stop: int) -> Rows:
        """See `row_probe.Set`."""
        found = Rows()
        engine = self.engine
        before = engine.fast.compared if engine.fast is not None else 0
        ends = frozenset(engine.template.get_stop_token_ids(engine.tokenizer))
        with _Watched(engine) as watched:
            for number, row, converted in self._converted(start, stop):
                for key in _MEDIA:
                    found.media.update(file for file in converted[key] or () if isinstance(file, str))
                watched.clear()
                made = self._encode(converted, number)
                if made is None:
                    found.skipped.append((number, self._reason(row, converted)))
                    continue
                turns = self._turns(watched, made, converted, number)
                found.note_end(watched.last_answer, ends)
                found.add(number, Measured(turns, 0, _size(made, engine.stage)))
        if engine.fast is not None:
            found.compared = engine.fast.compared - before
        return found

    def rule(self, rows: Rows) -> tuple[dict[str, Any] | None, Form, int]:
        """See `row_probe.Set`."""
        engine = self.engine
        form = Form(closing=rows.closing, after_end=max(0, rows.closing - 1))
        rule: dict[str, Any]
        if engine.packed:
            return {"kind": "packed"}, Form(), engine.limit
        if engine.stage == "pt":
            form, rule = Form(), {"kind": "first", "key": "cutoff_len"}
        else:
            history, row_end = bool(engine.data.mask_history), 0
            if engine.stage == "sft":
                row_end = int(engine.template.efficient_eos)
            form = form._replace(row_end=row_end, last_turn_only=history)
            rule = {"kind": "proportional", "row_end": row_end, "newest_first": history}
        learned = not engine.data.train_on_prompt
        proved = prove(rows, rule, form, engine.limit, learned=learned)
        for share in (0.9, 0.5, 0.2) if proved and rows.numbers else ():
            limit = max(8, int(share * np.median(_totals(rows))))
            with swapped(engine.data, cutoff_len=limit):
                cut = self.measure(0, min(_TRIED_ROWS, self.rows))
            proved = proved and prove(cut, rule, form, limit, learned=learned)
        return rule if proved else None, form, engine.limit

    def questions(self) -> dict[str, Any]:
        """See `row_probe.Set`."""
        engine = self.engine
        found: dict[str, Any] = {"questions": [], "left_out": []}
        stops = frozenset(engine.template.get_stop_token_ids(engine.tokenizer))
        with _Watched(engine) as watched, swapped(engine.data, cutoff_len=_NO_LIMIT):
            for number, row, converted in self._converted(0, self.rows):
                watched.clear()
                made = self._encode(converted, number)
                if made is None:
                    found["left_out"].append([number, self._reason(row, converted)])
                    continue
                messages = self._messages(watched, converted, number)
                ids, labels = made["input_ids"], made["labels"]
                found["questions"].append(
                    {"source_row": number, **asked(engine, ids, labels, messages, stops)}
                )
        return {**found, "limit": engine.limit}

    def _messages(self, watched: _Watched, converted: Mapping[str, Any], number: int) -> list[dict[str, str]]:
        """The messages before the last answer, as the template has encoded them."""
        media = any(converted[key] for key in _MEDIA)
        if converted["_tools"] or media or any(one["role"] == "function" for one in watched.messages):
            raise TunebookError(
                f"{self.name}, row {number}: the row holds tools, tool calls or media, which are not put to "
                "a server",
                fix="evaluate the set inside the engine, or name another with --dataset",
            )
        system = watched.system or self.engine.template.default_system
        roles = {"observation": "tool"}
        messages = [
            {"role": roles.get(one["role"], one["role"]), "content": one["content"]}
            for one in watched.messages[:-1]
        ]
        return [*([{"role": "system", "content": system}] if system else []), *messages]

    def _converted(self, start: int, stop: int) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
        """Yield number, row, and what the engine's converter makes of it."""
        for numbers, columns in in_batches(self.dataset, start, stop):
            for number, row in zip(numbers, rows_of(columns), strict=True):
                self.engine.log.clear()
                try:
                    converted = self._convert(row)
                except Exception as err:
                    raise self._stopped(number, err) from err
                yield number, row, converted

    def _encode(self, converted: Mapping[str, Any], number: int) -> dict[str, list[int]] | None:
        """What the engine's row processor makes of one row; None where it leaves the row out."""
        try:
            made = self._processor.preprocess_dataset({key: [value] for key, value in converted.items()})
        except Exception as err:
            raise self._stopped(number, err) from err
        return {key: values[0] for key, values in made.items()} if any(made.values()) else None

    def _stopped(self, number: int, err: Exception) -> TunebookError:
        return stopped(f"{self.name}, row {number}: LLaMA-Factory stops", err)

    def _turns(
        self, watched: _Watched, made: Mapping[str, list[int]], converted: Mapping[str, Any], number: int
    ) -> list[tuple[int, int]]:
        """The tokens of each prompt and answer, before anything is cut."""
        if self.engine.stage == "pt":  # nothing but text, all of which is learned
            with swapped(self.engine.data, cutoff_len=_NO_LIMIT):
                whole = self._encode(converted, number)
            return [(0, len((whole or made)["input_ids"]))]
        calls = watched.calls
        if self.engine.stage == "rm":  # one prompt and two answers; the longer one decides
            ((prompt, _),) = calls[0]
            turns = [(prompt, max(answer for ((_, answer),) in calls))]
        else:
            turns = calls[0]
        first, answer = turns[0]
        # Answers of one turn get the end of the row before they are cut.
        ended = len(calls[0]) == 1 and self.engine.stage != "sft"
        own_end = int(ended and self.engine.template.efficient_eos)
        return [(first + watched.added, answer + own_end), *turns[1:]]

    def _reason(self, row: Mapping[str, Any], converted: Mapping[str, Any]) -> str:
        """Why the engine leaves a row out: by what it has logged, and by what the answer is."""
        for said in self.engine.log.lines:
            for start, ours in _SAID.items():
                if said.startswith(start):
                    return ours
        if self._attributes.formatting != "alpaca":
            return "there are no messages" if not converted["_prompt"] else "the engine takes it for invalid"
        if self._attributes.ranking or self._attributes.kto_tag:
            return (
                "it has no two answers to compare"
                if self._attributes.ranking
                else "its mark is neither true nor false"
            )
        if not self._attributes.response:
            return "the entry names no response"
        value = row.get(self._attributes.response)
        if value is None:
            return "the answer is empty"
        return f"the answer is a {type(value).__name__}, not text"


class _Watched:
    """Notes what the template is given and what it makes, while rows are encoded."""

    def __init__(self, engine: Engine) -> None:
        self._template = engine.template
        self._stack = ExitStack()
        self.clear()

    def clear(self) -> None:
        """Forget the row before."""
        self.calls: list[list[tuple[int, int]]] = []
        """Of each conversation that was encoded, (prompt, answer) lengths by turns."""
        self.added = 0
        """Tokens that pictures put before the first prompt."""
        self.messages: Sequence[Mapping[str, str]] = ()
        self.system: str | None = None
        self.last_answer: Sequence[int] = ()

    def __enter__(self) -> Self:
        template = self._template
        several, single, encode = template.encode_multiturn, template.encode_oneturn, template._encode
        process = template.mm_plugin.process_token_ids

        def encode_multiturn(*args: Any, **named: Any) -> Any:
            return self._note(several(*args, **named))

        def encode_oneturn(*args: Any, **named: Any) -> Any:
            pair = single(*args, **named)
            self._note([pair])
            return pair

        def encode_messages(tokenizer: Any, messages: Any, system: Any, tools: Any) -> Any:
            self.messages, self.system = messages, system
            return encode(tokenizer, messages, system, tools)

        def process_token_ids(input_ids: Any, *args: Any, **named: Any) -> Any:
            before = len(input_ids)
            made = process(input_ids, *args, **named)
            self.added = len(made[0]) - before
            return made

        replacements: list[tuple[Any, dict[str, Callable[..., Any]]]] = [
            (
                template,
                {
                    "encode_multiturn": encode_multiturn,
                    "encode_oneturn": encode_oneturn,
                    "_encode": encode_messages,
                },
            ),
            (template.mm_plugin, {"process_token_ids": process_token_ids}),
        ]
        for owner, values in replacements:
            self._stack.enter_context(swapped(owner, **values))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _note(self, pairs: Any) -> Any:
        self.calls.append([(len(prompt), len(answer)) for prompt, answer in pairs])
        self.last_answer = pairs[-1][1]
        return pairs


class _Log(logging.Handler):
    """Keeps what the engine says of one row. Its log would be as long as the rows that it leaves out."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._logger = logging.getLogger("llamafactory")
        self._before: list[logging.Handler] = []

    def attach(self) -> None:
        self._before, self._logger.handlers = self._logger.handlers, [self]

    def detach(self) -> None:
        self._logger.handlers = self._before

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage()[:200])

    def clear(self) -> None:
        self.lines.clear()


def _size(made: Mapping[str, list[int]], stage: str) -> tuple[int, int]:
    """Tokens and learned tokens of a row as the engine has cut it; of a pair, of the longer."""
    if stage == "ppo":  # the labels are a reference beside the prompt
        return len(made["input_ids"]) + len(made["labels"]), len(made["labels"])
    found = []
    for start in ("", "chosen_", "rejected_"):
        ids, labels = made.get(f"{start}input_ids"), made.get(f"{start}labels")
        if ids is not None:
            learned = len(ids) if labels is None else len(labels) - labels.count(IGNORED)
            found.append((len(ids), learned))
    return max(found)


def _totals(rows: Rows) -> list[int]:
    totals, place = [], 0
    for turns, tail in zip(rows.turns, rows.tails, strict=True):
        totals.append(sum(rows.pairs[2 * place : 2 * (place + turns)]) + tail)
        place += turns
    return totals or [0]
