"""Make a tiny model of a real architecture, with a real tokenizer and chat template, from nothing.

For demos and tests on a laptop: the engines load it as they load its large sibling, and it learns a small
task in seconds. The same call gives the same bytes, so a run on it can be repeated.

Example:
  python scripts/make_tiny_model.py --architecture qwen3 -o output/tiny/qwen3
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from movie_prompts import ANSWERS
from tiny_tokenizers import gemma3_tokenizer, gemma_tokenizer, qwen_tokenizer
from tiny_vision import seeing_qwen_tokenizer, with_eyes, write_processor

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 16,
    "tie_word_embeddings": True,
    # With the default of 0.02 a network this narrow gives one and the same answer for hundreds of steps
    # before it learns anything.
    "initializer_range": 0.1,
    "dtype": "float32",
}


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
    sees: bool = False
    """The model reads pictures too; `options` and SIZES are then those of its text part."""


ARCHITECTURES = {
    "qwen3": Architecture(
        tokenizer=qwen_tokenizer,
        config_class="Qwen3Config",
        options={"num_key_value_heads": 2, "max_position_embeddings": 40_960},
        stop=("<|im_end|>", "<|endoftext|>"),
    ),
    # SmolLM2's and Llama's; the chat template is ChatML, as SmolLM2 has it.
    "llama": Architecture(
        tokenizer=qwen_tokenizer,
        config_class="LlamaConfig",
        options={"num_key_value_heads": 2, "max_position_embeddings": 8_192},
        stop=("<|im_end|>", "<|endoftext|>"),
    ),
    # At every size it sees pictures, and three of four layers are linear attention.
    "qwen3_5": Architecture(
        tokenizer=seeing_qwen_tokenizer,
        config_class="Qwen3_5Config",
        options={
            "num_key_value_heads": 2,
            "max_position_embeddings": 262_144,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "layer_types": ["linear_attention", "full_attention"],
        },
        stop=("<|im_end|>", "<|endoftext|>"),
        sees=True,
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
    # The text model alone, as Gemma 3 has it at 270M and 1B; the larger ones see pictures too.
    "gemma3": Architecture(
        tokenizer=gemma3_tokenizer,
        config_class="Gemma3TextConfig",
        options={
            "num_key_value_heads": 1,
            "max_position_embeddings": 32_768,
            "query_pre_attn_scalar": SIZES["head_dim"],
            "sliding_window": 512,
            # One layer of each kind; the family's rule would make the first five layers local.
            "layer_types": ["sliding_attention", "full_attention"],
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
    options = {
        **SIZES,
        **plan.options,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.convert_tokens_to_ids(plan.stop[0]),
        "pad_token_id": tokenizer.pad_token_id,
    }
    if plan.sees:
        options = with_eyes(options, tokenizer)
    config = getattr(transformers, plan.config_class)(**options)
    reader = transformers.AutoModelForImageTextToText if plan.sees else transformers.AutoModelForCausalLM
    # A fork, so that calling this from a test leaves that test's random numbers alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = reader.from_config(config)
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
    if plan.sees:
        write_processor(folder)
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
    """Make a tiny model of a real architecture, for demos and tests on a CPU.

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
