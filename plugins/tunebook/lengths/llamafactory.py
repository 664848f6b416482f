"""Measures rows as LLaMA-Factory builds them for supervised fine-tuning, from its template and tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.lengths import model_files
from tunebook.lengths.batches import Batch, Form, Skipped, pack
from tunebook.lengths.conversations import LeftOut, converter
from tunebook.lengths.counting import Counter
from tunebook.lengths.templates import Message, Template, Thinking, closing, load_template, pieces

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.types import DatasetEntry

_CUTOFF = 2048  # llamafactory/hparams/data_args.py
_REMEMBERED_CHARACTERS = 256
_REMEMBERED_TEXTS = 100_000

# Keys with which the engine does something to the tokens that is not done here.
_REFUSED = {
    "split_special_tokens": "special tokens in a text would be taken apart",
    "new_special_tokens_config": "the tokens that the file adds are not read",
    "init_special_tokens": "the tokens that it adds are not read",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The keys of a recipe that decide what a row becomes."""

    template: Template
    thinking: Thinking
    cutoff: int
    """Tokens of a row; with packing one less than `cutoff_len`, as in the engine."""


class LlamaFactoryMeasure:
    """Measures rows of one registry entry.

    Args:
        entry: Of the registry.
        settings: Of the recipe.
        tokenizer: With the template's stop words added; see `prepare`.
        counter: Of the same tokenizer; shared between the sets of a recipe.
    """

    def __init__(
        self, entry: DatasetEntry, settings: Settings, tokenizer: model_files.ModelTokenizer, counter: Counter
    ) -> None:
        self.settings = settings
        self._convert = converter(entry, multimodal=settings.template.multimodal)
        self._bos = int("bos_token" in tokenizer.special)
        self._counter = counter
        self._known: dict[str, int] = {"": 0}
        self.form = _form(settings, tokenizer)

    def __call__(self, rows: Sequence[Mapping[str, Any]], first: int) -> Batch:
        """Return the lengths of `rows`; see `Measure`."""
        numbers: list[int] = []
        made: list[list[list[str | int]]] = []
        skipped: list[Skipped] = []
        for number, row in enumerate(rows, first):
            try:
                conversation = self._convert(row)
            except TunebookError as err:
                raise TunebookError(f"row {number}: {err.problem}", fix=err.fix) from err
            if isinstance(conversation, LeftOut):
                skipped.append(Skipped(number, conversation.reason))
                continue
            numbers.append(number)
            made.append(self._pieces(conversation.messages, conversation.system))
        texts = [piece for row in made for message in row for piece in message if isinstance(piece, str)]
        sizes = iter(self._count(texts))
        turns = []
        for messages in made:
            lengths = [
                sum(next(sizes) if isinstance(piece, str) else piece for piece in message)
                for message in messages
            ]
            turns.append(list(zip(lengths[::2], lengths[1::2], strict=True)))
        return pack(numbers, turns, [0] * len(turns), skipped)

    def _pieces(self, messages: Sequence[Message], system: str) -> list[list[str | int]]:
        return pieces(
            self.settings.template,
            messages,
            system=system,
            thinking=self.settings.thinking,
            bos_tokens=self._bos,
            eos_tokens=1,  # the engine gives a tokenizer without EOS one
        )

    def _count(self, texts: Sequence[str]) -> list[int]:
        """Count each text once; short ones, such as a system message in every row, are remembered."""
        known = self._known
        new = list(dict.fromkeys(text for text in texts if text not in known))
        counts = dict(zip(new, self._counter(new), strict=True)) if new else {}
        found = [known[text] if text in known else counts[text] for text in texts]
        if len(known) < _REMEMBERED_TEXTS:
            known.update((text, size) for text, size in counts.items() if len(text) <= _REMEMBERED_CHARACTERS)
        return found


def read_settings(values: Mapping[str, Any]) -> Settings:
    """Return what a recipe says about its rows.

    Raises:
        TunebookError: It is not for supervised fine-tuning, names no template or an unknown one, or has keys
            that change tokens in ways not known here.
    """
    stage = values.get("stage", "sft")
    if stage != "sft":
        raise TunebookError(
            f"stage is {stage!r}: only rows of supervised fine-tuning are measured", fix="set stage: sft"
        )
    for key, why in _REFUSED.items():
        if values.get(key):
            raise TunebookError(f"{key} is set: {why}", fix=f"measure without it: {key}=")
    if values.get("use_fast_tokenizer") is False:
        raise TunebookError(
            "use_fast_tokenizer is false: slow tokenizers are not read here",
            fix="set use_fast_tokenizer: true",
        )
    name = values.get("template")
    if not isinstance(name, str):
        raise TunebookError(
            "the recipe names no template: LLaMA-Factory would guess one from the tokenizer",
            fix="set `template` to the model's, e.g. template=qwen3",
        )
    template = load_template(name)
    if isinstance(values.get("default_system"), str):
        template = _with_system(template, values["default_system"])
    return Settings(
        template=template,
        thinking=Thinking(
            enable_thinking=values.get("enable_thinking", True),
            mask_history=bool(values.get("mask_history")),
            preserve_thinking=bool(values.get("preserve_thinking")),
        ),
        cutoff=int(values.get("cutoff_len", _CUTOFF))
        - bool(values.get("packing") or values.get("neat_packing")),
    )


def prepare(values: Mapping[str, Any], template: Template) -> model_files.ModelTokenizer:
    """Return the recipe's tokenizer with the tokens that the engine adds for its template.

    Raises:
        TunebookError: It is not on this machine.
    """
    cache = values.get("cache_dir")
    folder = model_files.find_folder(
        str(values.get("model_name_or_path")),
        revision=str(values.get("model_revision") or "main"),
        cache_dir=str(cache) if cache else None,
        key="model_name_or_path",
    )
    tokenizer = model_files.load(folder)
    _add_recipe_tokens(values, tokenizer)
    stop_words = list(template.stop_words)
    if template.replace_eos:
        tokenizer.special["eos_token"] = stop_words[0]
    elif "eos_token" not in tokenizer.special:
        tokenizer.special["eos_token"] = "<|endoftext|>"  # noqa: S105 - as the engine does
    tokenizer.add_special([tokenizer.special["eos_token"], *stop_words])
    return tokenizer


def _add_recipe_tokens(values: Mapping[str, Any], tokenizer: model_files.ModelTokenizer) -> None:
    for key in ("add_tokens", "add_special_tokens"):
        found = values.get(key)
        tokens = [token.strip() for token in found.split(",")] if isinstance(found, str) else found or []
        if key == "add_special_tokens":
            tokenizer.add_special(map(str, tokens))
        elif tokens:
            from tokenizers import AddedToken

            tokenizer.tokenizer.add_tokens([AddedToken(str(token)) for token in tokens])


def _with_system(template: Template, system: str) -> Template:
    from dataclasses import replace

    return replace(template, default_system=system)


def _form(settings: Settings, tokenizer: model_files.ModelTokenizer) -> Form:
    """Count what closes an answer, and what of it stands behind the token that ends the turn."""
    template = settings.template
    ends = {*template.stop_words, tokenizer.special["eos_token"]}
    tokens: list[str] = []
    for slot in closing(template):
        if isinstance(slot, str):
            tokens += tokenizer.tokenizer.encode(slot, add_special_tokens=False).tokens
        else:
            tokens.append(tokenizer.special["eos_token"] if "special" in slot else slot["token"])
    last = next((place for place, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return Form(
        closing=len(tokens),
        after_end=len(tokens) - 1 - last if tokens else 0,
        row_end=int(template.efficient_eos),
        last_turn_only=settings.thinking.mask_history,
    )
