"""Axolotl's rows for `row_probe`: its loaders and prompt strategies, whatever the `type` of a block.

The strategy and the loaded data are taken where Axolotl puts both together, and the strategy is called with
the batches that Axolotl gives it (axolotl/datasets.py: `TokenizedPromptDataset.process`). Rows of preference
training are texts, which Axolotl measures by its own rule (axolotl/utils/data/rl.py: `_drop_long_sequences`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from axolotl.datasets import TokenizedPromptDataset
from axolotl.loaders import load_tokenizer
from axolotl.utils.config import normalize_cfg_datasets, normalize_config, validate_config
from axolotl.utils.data import rl, sft
from axolotl.utils.data.utils import handle_long_seq_in_dataset
from axolotl.utils.dict import DictDefault
from datasets import Dataset

from tunebook.errors import TunebookError
from tunebook.hooks.measured_rows import (
    FastTokenizer,
    Measured,
    Rows,
    in_batches,
    prove,
    rows_of,
    runs,
    stopped,
    swapped,
)
from tunebook.hooks.row_questions import asked, stand_in
from tunebook.lengths.batches import Form
from tunebook.types import IGNORED

_ALONE = {"learning_rate": 1e-4, "micro_batch_size": 1, "gradient_accumulation_steps": 1}
"""Keys that Axolotl wants in any recipe, and that decide nothing here."""
_NOTHING: Any = None
_CHAT = """\
{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}"""
"""In the place of a chat template that is on another machine, to find the messages."""


class Engine:
    """Axolotl with the settings of one recipe."""

    def __init__(self, job: Mapping[str, Any], folder: Path, *, fast: bool) -> None:
        self.settings, self._folder = dict(job["settings"]), folder
        self.max_rows = self.settings.pop("max_samples", None)
        self._fast_wanted = fast
        self._may_be_missing = job["want"] == "questions"
        self._made: tuple[Any, FastTokenizer | None] | None = None
        self.knows_tokenizer = True
        self.tokenizer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def facts(self) -> dict[str, Any]:
        """Return what is the same in all sets."""
        return {"template": str(self.settings.get("chat_template") or "tokenizer_default")}

    def load(self, one: Mapping[str, Any]) -> LoadedSet:
        """Load the data of a block.

        Args:
            one: `name`, `path`, `block` (the rest of it) and `part`.
        """
        cfg = self._configuration({**one["block"], "path": one["path"]})
        if self._made is None:
            self._made = self._load_tokenizer(cfg)
        self.tokenizer, fast = self._made
        return LoadedSet(self, one["name"], cfg, one["part"], fast)

    def _configuration(self, block: Mapping[str, Any]) -> Any:
        given = {
            **_ALONE,
            **self.settings,
            "datasets": [dict(block)],
            # Both are written to by loaders that only read for us.
            "output_dir": str(self._folder / "out"),
            "dataset_prepared_path": str(self._folder / "prepared"),
        }
        if given.get("base_model") is None:  # only its tokenizer is on this machine, or not even that
            model = self._folder / "model"
            model.mkdir(exist_ok=True)
            (model / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
            given["base_model"] = str(model)
            given["tokenizer_config"] = given.get("tokenizer_config") or str(model)
        try:
            cfg = validate_config(DictDefault(given))
            # Keys of plugins, which are not loaded: a `type` of one may read them.
            cfg = DictDefault({**given, **cfg.to_dict()})
            normalize_config(cfg)
            normalize_cfg_datasets(cfg)
        except Exception as err:
            raise stopped("Axolotl refuses the recipe's settings", err) from err
        cfg.is_preprocess = True  # or rows of before would be read from the cache of `datasets`
        return cfg

    def _load_tokenizer(self, cfg: Any) -> tuple[Any, FastTokenizer | None]:
        try:
            tokenizer = load_tokenizer(cfg)
        except Exception as err:
            if not self._may_be_missing:
                raise stopped("Axolotl cannot load the tokenizer", err) from err
            self.knows_tokenizer = False
            tokenizer = stand_in()
            tokenizer.chat_template = _CHAT
            return tokenizer, None
        return tokenizer, FastTokenizer(tokenizer) if self._fast_wanted else None


class LoadedSet:
    """One set; see `row_probe.Set`."""

    files: Sequence[str] = ()

    def __init__(self, engine: Engine, name: str, cfg: Any, part: str, fast: FastTokenizer | None) -> None:
        self.engine, self.name, self.cfg, self._fast = engine, name, cfg, fast
        limit = (cfg.eval_sequence_len if part == "eval" else None) or cfg.sequence_len
        self.limit = int(limit)
        self._strategy, self._dataset = _NOTHING, _NOTHING
        self._pairs: list[Measured] | None = None
        self._load(part)
        self.rows = len(self._dataset if self._pairs is None else self._pairs)

    def _load(self, part: str) -> None:
        try:
            if self.cfg.rl:
                self._load_pairs()
                return
            with swapped(TokenizedPromptDataset, process=lambda *given: self._take(*given)):
                made, _ = sft._load_and_process_single_dataset(
                    dataset_config=DictDefault(self.cfg.datasets[0]),
                    cfg=self.cfg,
                    tokenizer=self.engine.tokenizer,
                    split="test" if part == "eval" else "train",
                    seed=self.cfg.seed,
                )
        except TunebookError:
            raise
        except Exception as err:
            raise stopped(f"Axolotl cannot read the data of {self.name}", err) from err
        if self._dataset is None:  # rows that come tokenised, or from a strategy that does it all
            if "input_ids" not in (made.column_names or ()):
                raise TunebookError(
                    f"{self.name}: Axolotl tokenises these rows only while it trains",
                    fix="count characters with --chars",
                )
            self._dataset = self._first(made)

    def _take(self, wrapper: Any, dataset: Any) -> Any:
        self._strategy, self._dataset = wrapper.prompt_tokenizer, self._first(dataset)
        return Dataset.from_dict({"input_ids": [[0]]})

    def _first(self, dataset: Any) -> Any:
        limit = self.engine.max_rows
        return dataset if limit is None else dataset.select(range(min(limit, len(dataset))))

    def _load_pairs(self) -> None:
        """Let Axolotl make the texts of preference training, and measure what it holds against its limit."""
        self._pairs = []
        counting = _CountingTokenizer(self.engine.tokenizer)
        judge = rl._drop_long_sequences

        def measure(sample: Mapping[str, Any], rl: Any, tokenizer: Any, sequence_len: int) -> bool:  # noqa: ARG001
            assert self._pairs is not None
            counting.lengths.clear()
            stays = judge(sample, rl=rl, tokenizer=counting, sequence_len=sequence_len)
            if len(counting.lengths) < 2:
                raise TunebookError(
                    f"{self.name}: with rl: {self.cfg.rl} answers are made in training: rows have no length",
                    fix="count characters with --chars",
                )
            prompt, answer = counting.lengths[0], max(counting.lengths[1:])
            kept = (prompt + answer, answer) if stays else (0, 0)
            self._pairs.append(Measured([(prompt, answer)], 0, kept))
            return True

        self.cfg.excess_length_strategy, strategy = None, self.cfg.excess_length_strategy
        self.cfg.dataset_num_proc = None
        with swapped(
            rl,
            _drop_long_sequences=measure,
            load_tokenizer=lambda _: self.engine.tokenizer,
            save_preprocessed_dataset=lambda *_, **__: None,
        ):
            rl._load_split(self.cfg, "train")
        self.cfg.excess_length_strategy = strategy
        if self.engine.max_rows is not None:
            self._pairs = self._pairs[: self.engine.max_rows]

    def measure(self, start: int, stop: int) -> Rows:
        """See `row_probe.Set`."""
        found = Rows()
        before = self._fast.compared if self._fast is not None else 0
        if self._pairs is not None:
            for number, pair in enumerate(self._pairs[start:stop], start + 1):
                found.add(number, pair)
            return found
        ends = self._ends()
        for number, ids, labels in self._encoded(start, stop, found):
            if not ids:
                found.skipped.append((number, "nothing in it becomes a token"))
                continue
            turns, tail = runs(labels, IGNORED)
            if turns:
                found.note_end(ids[: len(ids) - tail][-turns[-1][1] :], ends)
            found.add(number, Measured(turns, tail, None))
        if self._fast is not None:
            found.compared = self._fast.compared - before
        return found

    def _ends(self) -> frozenset[int]:
        tokenizer = self.engine.tokenizer
        named = [tokenizer.convert_tokens_to_ids(token) for token in self.cfg.eot_tokens or ()]
        return frozenset([tokenizer.eos_token_id, *named]) - {None}

    def _encoded(
        self, start: int, stop: int, found: Rows
    ) -> Iterator[tuple[int, Sequence[int], Sequence[int]]]:
        """Yield number, tokens and labels of each row that the block's type makes."""
        for numbers, columns in in_batches(self._dataset, start, stop):
            if self._strategy is None:
                ids = columns["input_ids"]
                yield from zip(numbers, ids, columns.get("labels", ids), strict=True)
                continue
            numbers, columns = self._filtered(numbers, columns, found)
            if self._strategy.supports_batched:
                yield from self._encode_batch(numbers, columns, found)
                continue
            for number, row in zip(numbers, rows_of(columns), strict=True):
                made = self._call(row, number)
                yield number, made["input_ids"], made.get("labels", made["input_ids"])

    def _filtered(
        self, numbers: list[int], columns: dict[str, list[Any]], found: Rows
    ) -> tuple[list[int], dict[str, list[Any]]]:
        keeps = getattr(self._strategy, "filter_rows", None)
        if not keeps:
            return numbers, columns
        stays = [bool(keeps(row)) for row in rows_of(columns)]
        found.skipped += [
            (number, "the block's type filters it out")
            for number, stay in zip(numbers, stays, strict=True)
            if not stay
        ]
        kept = {
            name: [value for value, stay in zip(values, stays, strict=True) if stay]
            for name, values in columns.items()
        }
        return [number for number, stay in zip(numbers, stays, strict=True) if stay], kept

    def _encode_batch(
        self, numbers: list[int], columns: dict[str, list[Any]], found: Rows
    ) -> Iterator[tuple[int, Sequence[int], Sequence[int]]]:
        """Encode rows together, as Axolotl does; one by one where they become more or fewer."""
        if not numbers:
            return
        try:
            made = self._strategy.tokenize_prompt(columns)
        except Exception as err:
            for number, row in zip(numbers, rows_of(columns), strict=True):
                self._call({name: [value] for name, value in row.items()}, number)
            raise stopped(f"{self.name}, rows {numbers[0]} to {numbers[-1]}: Axolotl stops", err) from err
        ids = made.get("input_ids", [])
        places = numbers
        if len(ids) != len(numbers):
            places = []
            for number, row in zip(numbers, rows_of(columns), strict=True):
                one = self._call({name: [value] for name, value in row.items()}, number)
                several = len(one.get("input_ids", []))
                places += [number] * several
                if not several:
                    found.skipped.append((number, "the block's type makes no row of it"))
        if len(places) != len(ids):
            raise TunebookError(
                f"{self.name}: rows {numbers[0]} to {numbers[-1]} become {len(ids)} rows together, and "
                f"{len(places)} one by one: it is not known which is which",
                fix="count characters with --chars",
            )
        yield from zip(places, ids, made.get("labels", ids), strict=True)

    def _call(self, row: Mapping[str, Any], number: int) -> Any:
        try:
            return self._strategy.tokenize_prompt(row)
        except Exception as err:
            raise stopped(f"{self.name}, row {number}: Axolotl stops", err) from err

    def rule(self, rows: Rows) -> tuple[dict[str, Any] | None, Form, int]:
        """See `row_probe.Set`."""
        form = Form(closing=rows.closing, after_end=max(0, rows.closing - 1))
        shortest = int(self.cfg.min_sample_len or 2)
        if self._pairs is not None:
            rule: dict[str, Any] = {"kind": "drop", "shortest": 0}
            known = (self.cfg.excess_length_strategy or "drop").lower() != "truncate"
            return rule if known and prove(rows, rule, form, self.limit) else None, form, self.limit
        truncates = (self.cfg.excess_length_strategy or "drop").lower() == "truncate"
        rule = {"kind": "first" if truncates else "drop", "shortest": shortest}
        return rule if self._proved(rule, form) else None, form, self.limit

    def _proved(self, rule: Mapping[str, Any], form: Form) -> bool:
        """Let Axolotl cut rows of many lengths, and look whether it does as our rule says."""
        sample, labels = Rows(), []
        for number in range(40):
            turns, tail = [(number % 7, 1 + number % 5)] * (1 + number % 3), number % 4
            sample.add(number, Measured(turns, tail, None))
            row = [label for pair in turns for label in (*[IGNORED] * pair[0], *[1] * pair[1])]
            labels.append([*row, *[IGNORED] * tail])
        ids = [[number] * len(row) for number, row in enumerate(labels)]
        dataset = Dataset.from_dict({"input_ids": ids, "attention_mask": ids, "labels": labels})
        # `raise` stops where the others drop.
        drops = {"excess_length_strategy": None} if rule["kind"] == "drop" else {}
        for limit in (8, 20):
            cut = handle_long_seq_in_dataset(dataset, limit, DictDefault({**self.cfg, **drops}))
            left = {row["input_ids"][0]: row["labels"] for row in cut}
            sample.kept = array("i")
            for number in sample.numbers:
                row = left.get(number, [])
                sample.kept.extend((len(row), len(row) - row.count(IGNORED)))
            if not prove(sample, rule, form, limit):
                return False
        return True

    def questions(self) -> dict[str, Any]:
        """See `row_probe.Set`."""
        found: dict[str, Any] = {"questions": [], "left_out": []}
        read = self._messages_reader()
        rows = Rows()
        messages = {
            number: row
            for numbers, columns in in_batches(self._dataset, 0, self.rows)
            for number, row in zip(numbers, rows_of(columns), strict=True)
        }
        shortest = int(self.cfg.min_sample_len or 2)
        drops = (self.cfg.excess_length_strategy or "drop").lower() != "truncate"
        for number, ids, labels in self._encoded(0, self.rows, rows):
            if self.engine.knows_tokenizer:
                if drops and len(ids) > self.limit:
                    why = f"longer than sequence_len = {self.limit}, where Axolotl drops rows"
                    found["left_out"].append([number, why])
                    continue
                if len(ids) < shortest:
                    found["left_out"].append([number, f"shorter than {shortest} tokens"])
                    continue
            said, answer = read(messages[number], number)
            try:
                question = asked(self.engine, ids, labels, said, self._ends())
            except TunebookError as err:
                raise TunebookError(f"{self.name}, row {number}: {err.problem}", fix=err.fix) from err
            if not self.engine.knows_tokenizer:  # nor its chat template
                shown = "\n".join(f"{one['role']}: {one['content']}" for one in said)
                question |= {"prompt": shown, "shown": shown, "reference": answer}
            found["questions"].append({"source_row": number, **question})
        found["left_out"] += [[number, why] for number, why in rows.skipped]
        return {**found, "limit": self.limit}

    def _messages_reader(self) -> Any:
        """A function from a row and its number to the messages before the last answer, and that answer."""
        conversation = getattr(self._strategy, "get_conversation_thread", None)
        pair: Any = getattr(self._strategy, "_messages", None)
        if conversation is None and pair is None:
            raise TunebookError(
                f"{self.name}: rows of type {self.cfg.datasets[0].type!r} have no messages that a server can "
                "be sent",
                fix="describe the data by a registry entry: its type is then chat_template or ours",
            )

        def read(row: Mapping[str, Any], number: int) -> tuple[list[dict[str, str]], str]:
            if conversation is None:
                messages, answer = pair(row)
                return list(messages), answer
            turns = conversation({key: value for key, value in row.items() if value is not None})
            place = max((at for at, turn in enumerate(turns) if turn["role"] == "assistant"), default=0)
            said = [{"role": turn["role"], "content": turn.get("content")} for turn in turns[: place + 1]]
            if row.get("tools") or any(not isinstance(one["content"], str) for one in said):
                raise TunebookError(
                    f"{self.name}, row {number}: the row holds tools, tool calls or media, which are not put "
                    "to a server",
                    fix="evaluate the set inside the engine, or name another with --dataset",
                )
            if place < 1:
                raise TunebookError(
                    f"{self.name}, row {number}: the conversation holds no answer to a question",
                    fix="delete the row",
                )
            return said[:-1], said[-1]["content"]

        return read


class _CountingTokenizer:
    """In the place of a tokenizer: notes how many tokens each text has."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.lengths: list[int] = []

    def __call__(self, text: str, **named: Any) -> Any:
        made = self._tokenizer(text, **named)
        self.lengths.append(len(made["input_ids"]))
        return made
