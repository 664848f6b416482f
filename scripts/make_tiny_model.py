"""Make a tiny model of a real architecture, with a real tokenizer and chat template, from nothing.

For demos and tests on a laptop: the engines load it as they load its large sibling, and it learns a small
task in seconds. The same call gives the same bytes, so a run on it can be repeated.

Example:
  python scripts/make_tiny_model.py --architecture qwen3 -o output/tiny/qwen3
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from movie_prompts import ANSWERS, CANDIDATE, INSTRUCTION, WATCHED
from prepare_demo import GENRES, make_films

VOCABULARY = 1024
"""Entries the byte-pair encoding may have before the chat tokens are added."""

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 16,
    "tie_word_embeddings": True,
    # With the default of 0.02 a network this narrow starts so close to zero that it answers "No" for
    # hundreds of steps before it learns anything.
    "initializer_range": 0.1,
    "dtype": "float32",
}

# The split that Qwen2 and Qwen3 use before byte-pair encoding: contractions, words, single digits,
# punctuation, line ends.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

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

# Gemma has no system role: a system message is refused, as the published template does.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How to build one family's tokenizer and network."""

    tokenizer: Callable[[], Any]
    """Trains the tokenizer and gives it its special tokens and chat template."""
    config_class: str
    """Name of the configuration class in transformers."""
    options: dict[str, Any]
    """What the family's configuration has beyond SIZES."""
    stop: tuple[str, ...]
    """Tokens that end an answer."""


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
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=QWEN_CHAT,
        model_max_length=131_072,
        clean_up_tokenization_spaces=False,
    )


def gemma_tokenizer() -> Any:
    """A BPE tokenizer with byte fallback, spaces as `▁`, and Gemma's turn tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
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
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        chat_template=GEMMA_CHAT,
        model_max_length=8_192,
        clean_up_tokenization_spaces=False,
    )


ARCHITECTURES = {
    "qwen3": Architecture(
        tokenizer=qwen_tokenizer,
        config_class="Qwen3Config",
        options={"num_key_value_heads": 2, "max_position_embeddings": 40_960},
        stop=("<|im_end|>", "<|endoftext|>"),
    ),
    "gemma": Architecture(
        tokenizer=gemma_tokenizer,
        config_class="GemmaConfig",
        options={"num_key_value_heads": 1, "max_position_embeddings": 8_192},
        stop=("<end_of_turn>", "<eos>"),
    ),
    "gemma2": Architecture(
        tokenizer=gemma_tokenizer,
        config_class="Gemma2Config",
        options={
            "num_key_value_heads": 2,
            "max_position_embeddings": 8_192,
            "query_pre_attn_scalar": SIZES["head_dim"],
            "sliding_window": 4_096,
        },
        stop=("<end_of_turn>", "<eos>"),
    ),
}


def build(architecture: str, folder: Path, *, seed: int = 0) -> int:
    """Write tokenizer, configuration and weights of a tiny model into an empty folder.

    Args:
        architecture: A key of ARCHITECTURES.
        folder: Where to write; made where it is missing.
        seed: Of the random weights; the tokenizer does not depend on it.

    Returns:
        The number of parameters.

    Raises:
        ValueError: `Yes` or `No` is not one token, so that the demo's answers would not be either.
    """
    import torch
    import transformers

    plan = ARCHITECTURES[architecture]
    tokenizer = plan.tokenizer()
    for answer in ANSWERS:
        pieces = tokenizer.tokenize(answer)
        if len(pieces) != 1:
            raise ValueError(f"{answer!r} must be one token, not {pieces}")
    config = getattr(transformers, plan.config_class)(
        **SIZES,
        **plan.options,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.convert_tokens_to_ids(plan.stop[0]),
        pad_token_id=tokenizer.pad_token_id,
    )
    # A fork, so that calling this from a test leaves that test's random numbers alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
    # Without one of its own, generation settings are derived from the model configuration, in which an
    # engine has switched the key-value cache off for training.
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.convert_tokens_to_ids(token) for token in plan.stop],
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return int(model.num_parameters())


@click.command()
@click.option(
    "--architecture",
    type=click.Choice(sorted(ARCHITECTURES)),
    default="qwen3",
    show_default=True,
    help="The family whose layers, chat tokens and chat template to use.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the random weights.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder to make; one that exists is replaced.",
)
def main(architecture: str, seed: int, output: Path) -> None:
    r"""Make a tiny model of a real architecture, for demos and tests on a CPU.

    \b
    Example:
      python scripts/make_tiny_model.py --architecture qwen3 -o output/tiny/qwen3
    """
    if output.exists() and any(output.iterdir()) and not (output / "config.json").is_file():
        raise click.UsageError(
            f"{output} holds files, but no model (no config.json): choose another folder, or remove it"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    # Built beside the target and then renamed: whoever finds the folder finds a whole model.
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
        built = Path(scratch) / "new"
        parameters = build(architecture, built, seed=seed)
        if output.exists():
            shutil.move(output, Path(scratch) / "old")
        built.rename(output)
    click.echo(f"{output}: {architecture}, {parameters:,} parameters, random weights of seed {seed}")


if __name__ == "__main__":
    main()
