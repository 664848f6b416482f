"""Measures rows as Axolotl builds them: our alpaca type, its `chat_template`, `alpaca` and `input_output`.

Any other type is refused. A block's rows are read as Axolotl reads them, whatever a registry entry says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.engines.axolotl.datasets import ALPACA_TYPE, CONVERSATION_TYPE, alpaca_columns
from tunebook.errors import TunebookError
from tunebook.lengths import axolotl_turns
from tunebook.lengths.axolotl_rows import ROLES, alpaca_texts, conversation_reader, text_of
from tunebook.lengths.axolotl_tokenizer import chat_template_text
from tunebook.lengths.batches import Batch, Form, pack
from tunebook.lengths.chat_template import ChatTemplate

if TYPE_CHECKING:
    from tunebook.lengths.counting import Counter
    from tunebook.lengths.model_files import ModelTokenizer

Row = Mapping[str, Any]

_REFUSED_BLOCK_KEYS = (
    *("split_thinking", "message_field_training", "message_field_training_detail", "drop_system_message"),
    *("shards", "preprocess_shards", "data_files", "revision", "input_transform", "input_format"),
)


class Rendered(NamedTuple):
    """A row as texts that are tokenised apart."""

    texts: list[str]
    learned: list[bool]
    """Which of the texts are answers."""


class AxolotlMeasure:
    """Measures rows of one block of `datasets:` or `test_datasets:`.

    Args:
        values: The recipe.
        block: Of it.
        tokenizer: As `prepare` returns it.
        counter: Of the same tokenizer; shared between the blocks of a recipe.
        limit: Tokens of a row; `type: alpaca` cuts prompts and answers at it before anything else does.

    Raises:
        TunebookError: The block's type is not known here, or has keys that are not.
    """

    def __init__(
        self, values: Row, block: Row, tokenizer: ModelTokenizer, counter: Counter, limit: int
    ) -> None:
        kinds: dict[Any, Callable[[], Callable[[Sequence[Row], int], Batch]]] = {
            ALPACA_TYPE: self._own_alpaca,
            CONVERSATION_TYPE: self._conversations,
            "alpaca": self._alpaca,
            "input_output": self._segments,
        }
        kind = block.get("type")
        if not isinstance(kind, str) or kind not in kinds:
            raise TunebookError(
                f"a block of type {kind!r} is not measured",
                fix=f"the types that are: {', '.join(kinds)}; or measure with --chars",
            )
        refused = [key for key in _REFUSED_BLOCK_KEYS if block.get(key)]
        if refused:
            raise TunebookError(
                f"a block with {', '.join(refused)} is not measured", fix="measure with --chars"
            )
        self.values, self.block, self.tokenizer, self.counter, self.limit = (
            values,
            block,
            tokenizer,
            counter,
            limit,
        )
        self.form = Form()
        self.columns: tuple[str, ...] = ()
        """Without one of these the engine stops."""
        self._measure = kinds[kind]()

    def __call__(self, rows: Sequence[Row], first: int) -> Batch:
        """Return the lengths of `rows`; see `Measure`."""
        return self._measure(rows, first)

    def _template(self) -> ChatTemplate:
        text = chat_template_text(self.values, self.block, self.tokenizer)
        return ChatTemplate(text, self.tokenizer.special, self.values.get("chat_template_kwargs") or {})

    def _own_alpaca(self) -> Callable[[Sequence[Row], int], Batch]:
        """Our type: prompt and answer are tokenised apart, so that fastokens can count them."""
        columns = alpaca_columns(self.block.get("message_property_mappings") or {})
        self.columns = tuple(columns.values())
        template = self._template()
        whole = template.render([{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}])
        self.form = self._form(whole.rpartition("!")[2])

        def render(row: Row) -> Rendered:
            answer = row.get(columns.get("response", ""))
            if not isinstance(answer, str) or not answer:
                raise TunebookError(
                    f"the column {columns.get('response')!r} holds {answer!r}, not an answer: our type stops",
                    fix="fill in or delete the row",
                )
            system = row.get(columns["system"]) if "system" in columns else None
            parts = [row.get(columns[key]) for key in ("prompt", "query") if key in columns]
            question = [
                *([{"role": "system", "content": system}] if system else []),
                {"role": "user", "content": "\n".join(text_of(part) for part in parts if part)},
            ]
            start = template.render(question, add_generation_prompt=True)
            full = template.render([*question, {"role": "assistant", "content": answer}])
            if not full.startswith(start):
                raise TunebookError(
                    "the chat template writes a prompt that its own whole conversation does not begin with",
                    fix="set `chat_template_kwargs` to fit the data, e.g. {enable_thinking: false}",
                )
            return Rendered([start, full[len(start) :]], [False, True])

        return self._apart(render)

    def _segments(self) -> Callable[[Sequence[Row], int], Batch]:
        """`type: input_output`: texts that say themselves whether they are learned."""
        everything = bool(self.values.get("train_on_inputs"))

        def render(row: Row) -> Rendered:
            segments = row.get("segments")
            if not isinstance(segments, list):
                raise TunebookError(
                    "the row has no list of `segments`", fix="see Axolotl's type input_output"
                )
            return Rendered(
                [text_of(segment.get("text")) for segment in segments],
                [bool(segment.get("label")) or everything for segment in segments],
            )

        return self._apart(render)

    def _apart(self, render: Callable[[Row], Rendered]) -> Callable[[Sequence[Row], int], Batch]:
        def measure(rows: Sequence[Row], first: int) -> Batch:
            made = [_numbered(render, row, number) for number, row in enumerate(rows, first)]
            sizes = iter(self.counter([text for row in made for text in row.texts]))
            turns, tails = [], []
            for row in made:
                found, tail = axolotl_turns.merge([(next(sizes), learned) for learned in row.learned])
                turns.append(found)
                tails.append(tail)
            return pack(range(first, first + len(rows)), turns, tails, [])

        return measure

    def _alpaca(self) -> Callable[[Sequence[Row], int], Batch]:
        """`type: alpaca`: no chat template; prompt and answer are cut one by one, and the answer gets EOS."""
        special, limit = self.tokenizer, self.limit
        eos = special.special.get("eos_token")
        if eos is None:
            raise TunebookError(
                "the tokenizer has no EOS, which type: alpaca puts behind answers", fix="set special_tokens"
            )
        bos = special.special.get("bos_token")
        self.form = Form(closing=1)
        self.columns = ("instruction", "output")

        def measure(rows: Sequence[Row], first: int) -> Batch:
            texts = [
                text
                for number, row in enumerate(rows, first)
                for text in _numbered(alpaca_texts, row, number)
            ]
            sizes = self.counter(texts)
            added = int(special.adds_bos) + int(special.adds_eos)
            turns = []
            for place in range(0, len(texts), 2):
                (prompt, answer), answer_text = sizes[place : place + 2], texts[place + 1]
                prompt = min(prompt + added, limit)
                if answer_text:
                    has_end = special.adds_eos or answer_text.endswith(eos)
                    answer += added
                    if answer < limit and not has_end:
                        answer += 1
                    answer = min(answer, limit)
                    # Axolotl takes off a BOS that tokenising put there, or that the text begins with.
                    answer -= int(bos is not None and (special.adds_bos or answer_text.startswith(bos)))
                turns.append([(prompt, answer)])
            return pack(range(first, first + len(rows)), turns, [0] * len(turns), [])

        return measure

    def _conversations(self) -> Callable[[Sequence[Row], int], Batch]:
        """`type: chat_template`: tokenised as one text, so answers are found by their characters."""
        template = self._template()
        turns_of = conversation_reader(self.block, template.text)
        learning, eos, eot = self._learning(template.text)
        self.form = Form(closing=1)

        def measure(rows: Sequence[Row], first: int) -> Batch:
            found, tails = [], []
            for number, row in enumerate(rows, first):
                turns = _numbered(turns_of, row, number)
                text = _numbered(template.render, turns, number)
                encoded = self.tokenizer.tokenizer.encode(text, add_special_tokens=False)
                learned = axolotl_turns.labelled(
                    turns, template, text, encoded.ids, encoded.offsets, learning, eos=eos, eot=eot
                )
                lengths, tail = axolotl_turns.runs(learned)
                found.append(lengths)
                tails.append(tail)
            return pack(range(first, first + len(rows)), found, tails, [])

        return measure

    def _learning(self, template: str) -> tuple[axolotl_turns.Learning, int | None, frozenset[int]]:
        roles = self.block.get("roles_to_train", ["assistant"])
        on_eos = self.block.get("train_on_eos", "turn")
        on_eot = self.block.get("train_on_eot") or on_eos
        if not roles and not on_eos:
            raise TunebookError(
                "a block without roles_to_train and train_on_eos is not measured", fix="set roles_to_train"
            )
        encoder, eos_text = self.tokenizer.tokenizer, self.tokenizer.special.get("eos_token")
        named = self.values.get("eot_tokens")
        ends = (
            [eos_text]
            if named is None and eos_text
            else [token for token in named or [] if token in template]
        )
        ids = [encoder.encode(token, add_special_tokens=False).ids for token in ends]
        aliases = self.block.get("roles") or {}
        by_source = {source: role for role, sources in aliases.items() for source in sources} or ROLES
        learning = axolotl_turns.Learning(
            roles=frozenset(by_source.get(role, role) for role in roles or ()),
            everything=bool(self.values.get("train_on_inputs")),
            on_eos=on_eos,
            on_eot=on_eot,
        )
        eos = encoder.token_to_id(eos_text) if eos_text else None
        return learning, eos, frozenset(one[0] for one in ids if len(one) == 1)

    def _form(self, closing: str) -> Form:
        tokens = self.tokenizer.tokenizer.encode(closing, add_special_tokens=False).tokens
        end = self.tokenizer.special.get("eos_token")
        last = tokens.index(end) if end in tokens else len(tokens) - 1
        return Form(closing=len(tokens), after_end=max(0, len(tokens) - 1 - last))


def _numbered(function: Callable[..., Any], argument: Any, number: int) -> Any:
    try:
        return function(argument)
    except TunebookError as err:
        raise TunebookError(f"row {number}: {err.problem}", fix=err.fix) from err
