"""Model, tokenizer and prompt strategy of an Axolotl recipe, through its own readers and loaders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from axolotl.cli.config import load_cfg
from axolotl.loaders import load_tokenizer
from axolotl.loaders.model import ModelLoader
from axolotl.prompt_strategies import load as load_strategy
from axolotl.prompt_strategies.chat_template import ChatTemplateStrategy

from tunebook.errors import TunebookError
from tunebook.hooks.axolotl_alpaca import AlpacaStrategy
from tunebook.hooks.encoder import Encoded, Encoder, Message, WeightsToLoad, before_the_answer
from tunebook.types import IGNORED

_ANSWER = "x"
"""Stands where the answer will be. Chat templates write a line end before it, which tokens do not cross."""


def encoder(weights: WeightsToLoad, thinking: bool | None, scratch: Path) -> Encoder:
    """Load tokenizer and the strategy of the recipe's first dataset.

    Raises:
        TunebookError: That dataset's rows are not conversations.
    """
    cfg = _configuration(weights, scratch)
    tokenizer = load_tokenizer(cfg)
    block = cfg.datasets[0]
    kind = block.get("type")
    strategy = load_strategy(kind, tokenizer, cfg, block) if isinstance(kind, str) else None
    if isinstance(strategy, AlpacaStrategy):
        return _AlpacaEncoder(strategy, cfg, thinking)
    if isinstance(strategy, ChatTemplateStrategy):
        return _ChatEncoder(strategy, cfg, thinking)
    raise TunebookError(
        f"the recipe's first dataset is of type {kind!r}, which is not written with a chat template",
        fix="name by --recipe a recipe whose first dataset is of type `chat_template` or "
        "`tunebook.hooks.axolotl_alpaca`",
    )


def model(weights: WeightsToLoad, scratch: Path) -> Any:
    """The model, by Axolotl's own loader."""
    cfg = _configuration(weights, scratch)
    loaded, _ = ModelLoader(cfg, load_tokenizer(cfg), inference=True).load()
    # As `axolotl inference` does: adapters are loaded in float32. What is quantised stays so.
    if not (cfg.load_in_4bit or cfg.load_in_8bit):
        loaded = loaded.to(dtype=cfg.torch_dtype)
    return loaded.eval()


def _configuration(weights: WeightsToLoad, scratch: Path) -> Any:
    values = {
        **weights.settings,
        "base_model": weights.model,
        # Both are written to by a loader that only reads for us.
        "output_dir": str(scratch / "output"),
        "dataset_prepared_path": str(scratch / "prepared"),
    }
    values.pop("base_model_config", None)
    if weights.revision is not None:
        values["revision_of_model"] = weights.revision
    if weights.adapter is not None:
        values["lora_model_dir"] = weights.adapter
    else:
        values.pop("adapter", None)
    path = scratch / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return load_cfg(str(path))


class _Encoder:
    def __init__(self, cfg: Any, tokenizer: Any, template: str, thinking: bool | None) -> None:
        self.tokenizer = tokenizer
        self.options = dict(cfg.chat_template_kwargs or {})
        self.overridden = thinking is not None
        knows = "enable_thinking" in template
        if thinking is not None:
            if not knows:
                raise TunebookError(
                    "the recipe's chat template has no `enable_thinking`",
                    fix="omit --thinking and --no-thinking",
                )
            self.options["enable_thinking"] = thinking
        self.thinks = knows and self.options.get("enable_thinking", True) is not False
        ids = {tokenizer.convert_tokens_to_ids(token) for token in cfg.eot_tokens or []}
        self.stop_ids = frozenset(ids) - {None}


class _AlpacaEncoder(_Encoder):
    def __init__(self, strategy: AlpacaStrategy, cfg: Any, thinking: bool | None) -> None:
        super().__init__(cfg, strategy.tokenizer, strategy.template, thinking)
        self._strategy = strategy
        strategy.options = self.options

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        text = self._strategy._render([dict(turn) for turn in messages], add_generation_prompt=True)
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def conversation(self, messages: Sequence[Message]) -> Encoded:
        start = self._strategy._render([dict(turn) for turn in messages[:-1]], add_generation_prompt=True)
        whole = self._strategy._render([dict(turn) for turn in messages])
        if not whole.startswith(start):
            raise TunebookError(
                f"the chat template ends its prompt with {start[-40:]!r}, which the "
                "whole conversation does not contain",
                fix="set `chat_template_kwargs` to fit the data",
            )
        prompt = list(self.tokenizer.encode(start, add_special_tokens=False))
        answer = list(self.tokenizer.encode(whole[len(start) :], add_special_tokens=False))
        return Encoded(prompt + answer, [IGNORED] * len(prompt) + answer)


class _ChatEncoder(_Encoder):
    def __init__(self, strategy: ChatTemplateStrategy, cfg: Any, thinking: bool | None) -> None:
        prompter = strategy.prompter
        super().__init__(cfg, strategy.tokenizer, prompter.chat_template, thinking)
        self._strategy = strategy
        prompter.chat_template_kwargs = self.options

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        if self.overridden:
            turns = [dict(turn) for turn in messages]
            return list(self._strategy.prompter.build_prompt(turns, add_generation_prompt=True))
        # Cut out of what training sees: a template may put an empty think block before an answer that it
        # does not put after its generation prompt.
        return before_the_answer(self.conversation([*messages, {"role": "assistant", "content": _ANSWER}]))

    def conversation(self, messages: Sequence[Message]) -> Encoded:
        prompter = self._strategy.prompter
        names = prompter.message_property_mappings
        turns = [{names["role"]: turn["role"], names["content"]: turn["content"]} for turn in messages]
        found = self._strategy._tokenize_single_prompt({prompter.field_messages: turns})
        return Encoded(list(found["input_ids"]), list(found["labels"]))
