"""Model, tokenizer and template of a LLaMA-Factory recipe, through its own readers and loaders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llamafactory.data.template import ReasoningTemplate, get_template_and_fix_tokenizer
from llamafactory.hparams import get_infer_args
from llamafactory.model import load_model, load_tokenizer

from tunebook.errors import TunebookError
from tunebook.hooks.encoder import Encoded, Message, WeightsToLoad
from tunebook.types import IGNORED

# What only a training needs, and what other fields of `WeightsToLoad` hold.
_NOT_FOR_INFERENCE = frozenset(
    {
        "bf16",
        "fp16",
        "pure_bf16",
        "model_name_or_path",
        "model_revision",
        "adapter_name_or_path",
        "use_unsloth",
    }
)


class LlamaFactoryEncoder:
    """Encodes with `encode_multiturn`, which is what supervised fine-tuning calls."""

    def __init__(self, weights: WeightsToLoad, thinking: bool | None) -> None:
        model, data, _, _ = _arguments(weights)
        self.tokenizer: Any = load_tokenizer(model)["tokenizer"]
        self._template = get_template_and_fix_tokenizer(self.tokenizer, data)
        self._data = data
        reasons = isinstance(self._template, ReasoningTemplate)
        if thinking and not reasons:
            raise TunebookError(
                f"--thinking: the recipe's template {data.template!r} does not think",
                fix="omit it, or name a recipe with another template by --recipe",
            )
        if thinking is not None and reasons:
            self._template.enable_thinking = thinking
        self.thinks = reasons and bool(self._template.enable_thinking)
        self.stop_ids = frozenset(self._template.get_stop_token_ids(self.tokenizer)) - {None}

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """See `Encoder`."""
        pairs = self._pairs([*messages, {"role": "assistant", "content": ""}])
        ids: list[int] = []
        for question, answer in pairs[:-1]:
            ids += question + answer
        return ids + pairs[-1][0]

    def conversation(self, messages: Sequence[Message]) -> Encoded:
        """See `Encoder`; as `SupervisedDatasetProcessor` puts the pairs together, without its limit."""
        ids: list[int] = []
        labels: list[int] = []
        pairs = self._pairs(messages)
        for number, (question, answer) in enumerate(pairs):
            ids += question + answer
            taught = not self._data.mask_history or number == len(pairs) - 1
            labels += [IGNORED] * len(question) + (list(answer) if taught else [IGNORED] * len(answer))
        if self._template.efficient_eos:
            ids.append(self.tokenizer.eos_token_id)
            labels.append(self.tokenizer.eos_token_id)
        return Encoded(ids, labels)

    def _pairs(self, messages: Sequence[Message]) -> list[tuple[list[int], list[int]]]:
        system = messages[0]["content"] if messages[0]["role"] == "system" else None
        turns = [dict(turn) for turn in messages if turn["role"] != "system"]
        # LLaMA-Factory 0.9.4 has neither the attribute nor the argument: it keeps all thoughts.
        last_only = self._data.mask_history and not getattr(self._template, "preserve_thinking", True)
        more = (True,) if last_only else ()
        return list(self._template.encode_multiturn(self.tokenizer, turns, system, None, *more))


def model(weights: WeightsToLoad, encoder: Any) -> Any:
    """The model, by LLaMA-Factory's own loader; an adapter stays unmerged, as it was in training.

    For inference its loader would merge an adapter into the base, which rounds anew.
    """
    arguments, data, finetuning, _ = _arguments(weights._replace(adapter=None))
    # Else it would scale the rotary embedding by 2, whatever the training scaled it by.
    arguments.model_max_length = data.cutoff_len
    loaded = load_model(encoder.tokenizer, arguments, finetuning)
    if weights.adapter is not None:
        from peft import PeftModel

        loaded = PeftModel.from_pretrained(loaded, weights.adapter)
    return loaded.eval()


def _arguments(weights: WeightsToLoad) -> Any:
    given = {key: value for key, value in weights.settings.items() if key not in _NOT_FOR_INFERENCE}
    given["model_name_or_path"] = weights.model
    if weights.revision is not None:
        given["model_revision"] = weights.revision
    given["finetuning_type"] = "full"  # adapters are put on by ourselves
    if weights.compute is not None:
        given["infer_dtype"] = weights.compute
    return get_infer_args(given)
