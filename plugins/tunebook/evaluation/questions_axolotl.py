"""Evaluation rows as Axolotl's chat template and our own alpaca type render them."""

from __future__ import annotations

from bisect import bisect_right
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data import registry
from tunebook.engines.axolotl.datasets import ALPACA_TYPE, CONVERSATION_TYPE, alpaca_columns
from tunebook.engines.axolotl.rules import DIRECTORY_KEY, NAMES_KEY
from tunebook.errors import TunebookError
from tunebook.evaluation.questions import Asked
from tunebook.lengths import axolotl_tokenizer
from tunebook.lengths.axolotl_rows import conversation_reader, text_of
from tunebook.lengths.axolotl_sets import block_files
from tunebook.lengths.axolotl_turns import content_span
from tunebook.lengths.chat_template import ChatTemplate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.lengths.conversations import LeftOut

_SEQUENCE_LEN = 512  # axolotl/utils/schemas/config.py


class AxolotlReader:
    """Reads the rows of one block of `test_datasets`; see `Reader`.

    Args:
        values: The recipe.
        name: The entry of `tunebook_eval_datasets` that names the block.
        home: Where data is looked for that is not below the current folder.

    Raises:
        TunebookError: The rows are of a type that is not known here, or cannot be read.
    """

    chosen: list[int] | None = None
    row_end = 0

    def __init__(self, values: Mapping[str, Any], name: str, home: Path) -> None:
        names = list(values.get(NAMES_KEY) or ())
        registry.load_registry(Path(str(values.get(DIRECTORY_KEY)))).entry(name)
        block = dict((values.get("test_datasets") or [])[names.index(name)])
        kinds = {ALPACA_TYPE: self._own_alpaca, CONVERSATION_TYPE: self._conversation}
        if block.get("type") not in kinds:
            raise TunebookError(
                f"{name}: rows of type {block.get('type')!r} have no messages that a server can be sent",
                fix=f"describe the data by a registry entry: the types are {', '.join(kinds)}",
            )
        self.files, self.limit = block_files(block, home)
        self.tokenizer: Any = None
        self._template: ChatTemplate | None = None
        # It may be on the server's machine alone; then messages are all that is known.
        with suppress(TunebookError):
            self.tokenizer = axolotl_tokenizer.prepare(values)
        if self.tokenizer is not None:
            self._template = ChatTemplate(
                axolotl_tokenizer.chat_template_text(values, block, self.tokenizer),
                self.tokenizer.special,
                values.get("chat_template_kwargs") or {},
            )
        self.length_limit = int(
            values.get("eval_sequence_len") or values.get("sequence_len") or _SEQUENCE_LEN
        )
        self._shortest = int(values.get("min_sample_len") or 2)
        self._drops = str(values.get("excess_length_strategy") or "drop").lower() == "drop"
        self.columns: tuple[str, ...] = ()
        self._read = kinds[block["type"]](block)

    def read(self, row: Mapping[str, Any]) -> Asked | LeftOut:
        """Return a row as the engine builds it; see `Reader`."""
        asked: Asked = self._read(row)
        return asked

    def too_long(self, tokens: int) -> str | None:
        """Return why Axolotl drops a row; see `Reader`."""
        if self._drops and tokens > self.length_limit:
            return f"longer than sequence_len = {self.length_limit}, where Axolotl drops rows"
        return f"shorter than {self._shortest} tokens" if tokens < self._shortest else None

    def _own_alpaca(self, block: Mapping[str, Any]) -> Any:
        columns = alpaca_columns(block.get("message_property_mappings") or {})
        self.columns = tuple(columns.values())
        template = self._template
        closing = ""
        if template is not None:
            whole = template.render([{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}])
            closing = whole.rpartition("!")[2]

        def read(row: Mapping[str, Any]) -> Asked:
            answer = row.get(columns.get("response", ""))
            if not isinstance(answer, str) or not answer:
                raise TunebookError(
                    f"the column {columns.get('response')!r} holds {answer!r}, not an answer",
                    fix="fill in or delete the row",
                )
            system = row.get(columns["system"]) if "system" in columns else None
            parts = [row.get(columns[key]) for key in ("prompt", "query") if key in columns]
            messages = [
                *([{"role": "system", "content": text_of(system)}] if system else []),
                {"role": "user", "content": "\n".join(text_of(part) for part in parts if part)},
            ]
            if template is None:
                return _unrendered(messages, answer)
            start = template.render(messages, add_generation_prompt=True)
            full = template.render([*messages, {"role": "assistant", "content": answer}])
            if not full.startswith(start):
                raise TunebookError(
                    "the chat template writes a prompt that its own whole conversation does not begin with",
                    fix="set `chat_template_kwargs` to fit the data, e.g. {enable_thinking: false}",
                )
            said = full[len(start) :]
            return Asked(messages, [start], said, said.removesuffix(closing))

        return read

    def _conversation(self, block: Mapping[str, Any]) -> Any:
        template = self._template
        turns_of = conversation_reader(block, template.text if template is not None else "")

        def read(row: Mapping[str, Any]) -> Asked:
            turns = turns_of(row)
            place = max((at for at, turn in enumerate(turns) if turn["role"] == "assistant"), default=-1)
            if place < 1:
                raise TunebookError("the conversation holds no answer to a question", fix="delete the row")
            messages = [
                {"role": turn["role"], "content": text_of(turn.get("content", ""))} for turn in turns[:place]
            ]
            if template is None:
                return _unrendered(messages, text_of(turns[place].get("content", "")))
            text = template.render(turns)
            span = content_span(turns, place, template, text)
            # The engine tokenises a conversation as one text; its prompt ends where a token begins.
            encoded = self.tokenizer.tokenizer.encode(text, add_special_tokens=False)
            first = bisect_right([end for _, end in encoded.offsets], span.start)
            start = encoded.offsets[first][0] if first < len(encoded.offsets) else len(text)
            return Asked(messages, [text[:start]], text[start:], text[start : span.end])

        return read


def _unrendered(messages: list[dict[str, str]], answer: str) -> Asked:
    """A row whose chat template is not known; its prompt is shown message by message."""
    shown = "\n".join(f"{one['role']}: {one['content']}" for one in messages)
    return Asked(messages, [shown], answer, answer)
