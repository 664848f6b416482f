"""Real tokenizers of small vocabulary: the families' own splits, chat tokens and chat templates."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from movie_prompts import ANSWERS, CANDIDATE, INSTRUCTION, WATCHED
from prepare_demo import GENRES, make_films

VOCABULARY = 1024
"""Entries the byte-pair encoding may have before the chat tokens are added."""

# The split that Qwen2 and Qwen3 use before byte-pair encoding: contractions, words, single digits,
# punctuation, line ends.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

QWEN_ROLES = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
GEMMA_ROLES = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}

# Renders system, user and assistant turns as Qwen3 does; tools, which nothing here needs, are left out.
QWEN_CHAT = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' and loop.last and '<think>' not in message['content'] %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{{- message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}
"""

# Gemma 1 and 2 have no system role: a system message is refused, as their published templates do.
GEMMA_CHAT = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' }}
{{- message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<start_of_turn>model\\n' }}
{%- endif %}
"""

# Gemma 3 has none either, but takes a system message and puts it before the first question.
GEMMA3_CHAT = """\
{{- bos_token }}
{%- set system = messages[0]['content'] + '\\n\\n' if messages[0]['role'] == 'system' else '' %}
{%- for message in messages if message['role'] != 'system' %}
{{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' }}
{{- (system if loop.first else '') + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<start_of_turn>model\\n' }}
{%- endif %}
"""


def corpus() -> Iterator[str]:
    """Text to train a tokenizer on: recommendation prompts like the demo's, and small sums.

    Frequent words become one token each: the genres, `Yes` and `No`, and the frame of the question.
    """
    rng = random.Random("tiny-model-corpus")
    for film in make_films():
        yield f"{film.title} | {', '.join(film.genres)}\n"
    for genre in GENRES:
        yield from [f" {genre}, {genre}\n"] * 200
    for answer in ANSWERS:
        yield from [answer, f" {answer}"] * 400
    yield from [f"{INSTRUCTION}\n{WATCHED}\n{CANDIDATE}\n"] * 100
    for _ in range(400):
        first, second = rng.randint(2, 99), rng.randint(2, 99)
        yield (
            f"Anna has {first} apples and buys {second} more. How many apples does she have now?\n"
            f"She has {first} + {second} = <<{first}+{second}={first + second}>>{first + second} apples.\n"
            f"#### {first + second}\n"
        )


def qwen_tokenizer() -> Any:
    """A byte-level BPE tokenizer that splits and names its chat tokens as Qwen3's does."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    # In Qwen3's own tokenizer these are added tokens, but not special ones: decoding keeps them.
    tokenizer.add_tokens(
        [
            AddedToken(text, normalized=False, special=False)
            for text in (
                "<tool_call>",
                "</tool_call>",
                "<tool_response>",
                "</tool_response>",
                "<think>",
                "</think>",
            )
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **QWEN_ROLES,
        chat_template=QWEN_CHAT,
        model_max_length=131_072,
        clean_up_tokenization_spaces=False,
    )


def gemma_tokenizer(chat_template: str = GEMMA_CHAT) -> Any:
    """A BPE tokenizer with byte fallback, spaces as `▁`, and Gemma's turn tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token=GEMMA_ROLES["unk_token"], byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    # Gemma's own splits at a space that its normalizer has already replaced, so that merges cross words.
    # A vocabulary this small would be eaten up by such merges: here a word ends at the next `▁` or line.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("▁", behavior="merged_with_next"),
            pre_tokenizers.Split("\n", behavior="isolated"),
            pre_tokenizers.Punctuation(),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY + len(specials) + len(fallback),
        special_tokens=[*specials, *fallback],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A",
        pair="<bos> $A <bos> $B",
        special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **GEMMA_ROLES,
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        chat_template=chat_template,
        model_max_length=8_192,
        clean_up_tokenization_spaces=False,
    )


def gemma3_tokenizer() -> Any:
    """Gemma's, with the chat template of Gemma 3."""
    return gemma_tokenizer(GEMMA3_CHAT)
