"""A dataset type for Axolotl that reads LLaMA-Factory's alpaca rows as LLaMA-Factory does.

Axolotl's own `type: alpaca` writes "### Instruction:" around a prompt; LLaMA-Factory puts it into the
model's chat template. A block names this module as its type, and the columns as the registry entry does:

    - path: datasets_info/demo/train.json
      type: tunebook.hooks.axolotl_alpaca
      message_property_mappings: {prompt: question, response: answer}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axolotl.prompt_tokenizers import PromptTokenizingStrategy
from axolotl.prompters import UnsupportedPrompter
from axolotl.utils.chat_templates import get_chat_template_from_config

from tunebook.engines.axolotl.datasets import alpaca_columns
from tunebook.types import IGNORED


class AlpacaStrategy(PromptTokenizingStrategy):  # type: ignore[misc]
    """Tokenises one row: the prompt in the chat template, then the answer with what closes its turn.

    Args:
        tokenizer: The engine's.
        template: The chat template, as Jinja.
        options: Passed to the template, e.g. `{"enable_thinking": False}`.
        columns: LLaMA-Factory's names (`prompt`, `query`, `response`, `system`) to the data's.
        sequence_len: The engine's limit. Rows above it are left whole here; the engine drops them.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str,
        options: Mapping[str, Any],
        columns: Mapping[str, str],
        sequence_len: int,
    ) -> None:
        super().__init__(UnsupportedPrompter(), tokenizer, train_on_inputs=False, sequence_len=sequence_len)
        self.template = template
        self.options = dict(options)
        self.columns = dict(columns)

    def tokenize_prompt(self, prompt: Mapping[str, Any]) -> dict[str, list[int]]:
        """Return `input_ids`, `attention_mask` and `labels` of one row.

        Prompt and answer are tokenised separately, as LLaMA-Factory does, so no token spans both.
        The labels begin where a model would begin to generate and end with the turn, line end included.

        Raises:
            ValueError: The row has no answer, or the chat template writes a prompt that its own whole
                conversation does not begin with.
        """
        question, answer = self._messages(prompt)
        start = self._render(question, add_generation_prompt=True)
        whole = self._render([*question, {"role": "assistant", "content": answer}])
        if not whole.startswith(start):
            raise ValueError(
                f"the chat template writes {start[-60:]!r} before an answer, but in a conversation "
                f"{whole[: len(start)][-60:]!r} comes there; set `chat_template_kwargs` to fit the data"
            )
        prompt_ids = self.tokenizer.encode(start, add_special_tokens=False)
        answer_ids = self.tokenizer.encode(whole[len(start) :], add_special_tokens=False)
        return {
            "input_ids": prompt_ids + answer_ids,
            "attention_mask": [1] * (len(prompt_ids) + len(answer_ids)),
            "labels": [IGNORED] * len(prompt_ids) + answer_ids,
        }

    def _messages(self, row: Mapping[str, Any]) -> tuple[list[dict[str, str]], str]:
        answer = row[self.columns["response"]]
        if not isinstance(answer, str) or not answer:
            raise ValueError(
                f"the column {self.columns['response']!r} holds {answer!r}, not an answer: {dict(row)}"
            )
        messages = []
        system = row[self.columns["system"]] if "system" in self.columns else None
        if system:
            messages.append({"role": "system", "content": system})
        parts = [row[self.columns[name]] for name in ("prompt", "query") if name in self.columns]
        messages.append({"role": "user", "content": "\n".join(part for part in parts if part)})
        return messages, answer

    def _render(self, messages: list[dict[str, str]], *, add_generation_prompt: bool = False) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **self.options,
            )
        )


def load(tokenizer: Any, cfg: Any, ds_cfg: Mapping[str, Any]) -> AlpacaStrategy:
    """Make the strategy of one block; called by Axolotl, which found this module by its name."""
    return AlpacaStrategy(
        tokenizer,
        template=get_chat_template_from_config(cfg=cfg, ds_cfg=ds_cfg, tokenizer=tokenizer),
        options=cfg.chat_template_kwargs or {},
        columns=alpaca_columns(ds_cfg.get("message_property_mappings") or {}),
        sequence_len=cfg.sequence_len,
    )
