"""The sizes of a causal language model, as memory depends on them, and how readers put them together."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tunebook import files, paths
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A weight matrix of a decoder layer."""

    name: str
    """The module's own name, e.g. `q_proj`: what LoRA targets are matched with."""
    inputs: int
    outputs: int
    bias: bool = False
    copies: int = 1
    """Experts that hold such a matrix."""

    @property
    def weights(self) -> int:
        """Elements of the matrices, biases left out."""
        return self.inputs * self.outputs * self.copies

    @property
    def params(self) -> int:
        """Elements of the matrices and their biases."""
        return self.weights + (self.outputs * self.copies if self.bias else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Equal decoder layers."""

    count: int
    linears: tuple[Linear, ...]
    other_params: int
    """Norms, routers and the like, per layer."""
    query_width: int
    """Elements per token of all query heads."""
    key_width: int
    """Elements per token of all key heads; the values have as many."""
    mlp_width: int
    """Elements per token between the projections of the feed-forward part; active experts together."""
    gated: bool
    attention: bool = True
    """False for linear attention, whose memory does not grow with the square of the length."""

    @property
    def params(self) -> int:
        """Parameters of one layer."""
        return sum(linear.params for linear in self.linears) + self.other_params

    def live_elements(self, hidden: int) -> int:
        """Elements per token of one layer's tensors in its backward pass, attention scores left out."""
        mlp = (4 if self.gated else 3) * self.mlp_width
        return 8 * hidden + 3 * self.query_width + 4 * self.key_width + mlp


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A causal language model as memory sees it. Vision and audio towers are left out."""

    model_type: str
    hidden: int
    vocab: int
    heads: int
    tied: bool
    """Whether the output head is the embedding matrix."""
    blocks: tuple[Block, ...]
    embedding_params: int
    """Token embeddings."""
    head_params: int
    """The output head; 0 where it is tied."""
    final_params: int
    max_positions: int | None

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return sum(block.count for block in self.blocks)

    @property
    def linear_params(self) -> int:
        """Weights that quantisation reaches: the matrices of all layers, not embeddings, head and norms."""
        return sum(block.count * linear.weights for block in self.blocks for linear in block.linears)

    @property
    def params(self) -> int:
        """All parameters, a tied matrix once."""
        layers = sum(block.count * block.params for block in self.blocks)
        return layers + self.embedding_params + self.head_params + self.final_params

    @property
    def largest_matrix(self) -> int:
        """Elements of the largest single matrix of a layer."""
        return max(linear.inputs * linear.outputs for block in self.blocks for linear in block.linears)


def first(config: Mapping[str, Any], *names: str) -> Any:
    """Return the first of the keys that is there and not null; KeyError names the first otherwise."""
    for name in names:
        if config.get(name) is not None:
            return config[name]
    raise KeyError(names[0])


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config of the language model inside a composite one, or the config itself."""
    inner = config.get("text_config") or config.get("llm_config")
    if not isinstance(inner, dict) or "hidden_size" not in inner:
        return config
    # A composite model may leave the kind of its text part to the library's default.
    kind = inner.get("model_type") or f"{config.get('model_type', '')}_text"
    tied = inner.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return {**inner, "model_type": kind, **({} if tied is None else {"tie_word_embeddings": tied})}


def left_out(config: Mapping[str, Any], shape: Shape) -> list[str]:
    """Return what a reader of an estimate has to know about this kind of model, a line each."""
    said = []
    towers = [name for name in ("vision", "audio") if f"{name}_config" in config]
    if towers:
        said.append(f"left out: the {' and '.join(towers)} tower, and its tokens beyond the length limit")
    inner = text_part(config)
    if any(inner.get(key) for key in ("num_experts", "num_local_experts", "n_routed_experts")):
        said.append("mixture of experts: the weights of all experts count, the activations of those asked")
    linear_layers = sum(block.count for block in shape.blocks if not block.attention)
    if linear_layers:
        said.append(f"hybrid: {linear_layers} of {shape.layers} layers have linear attention")
    return said


def linear(name: str, inputs: int, outputs: int, bias: bool = False, copies: int = 1) -> Linear:
    """Short for `Linear`, whose arguments have to be named."""
    return Linear(name=name, inputs=inputs, outputs=outputs, bias=bias, copies=copies)


def attention_widths(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the number of heads and the widths of all queries and of all keys."""
    heads = int(first(config, "num_attention_heads", "n_head", "num_heads"))
    hidden = int(first(config, "hidden_size", "n_embd"))
    head_dim = int(config.get("head_dim") or hidden // heads)
    return heads, heads * head_dim, int(config.get("num_key_value_heads") or heads) * head_dim


def build(
    kind: str,
    config: Mapping[str, Any],
    *,
    blocks: list[Block],
    heads: int,
    tied_default: bool,
    norm_params: int,
    head_bias: bool = False,
) -> Shape:
    """Put a shape together from its blocks; blocks of no layer are left out."""
    hidden = int(first(config, "hidden_size", "n_embd"))
    vocab = int(first(config, "padded_vocab_size", "vocab_size"))
    tied = bool(config.get("tie_word_embeddings", tied_default))
    return Shape(
        model_type=kind,
        hidden=hidden,
        vocab=vocab,
        heads=heads,
        tied=tied,
        blocks=tuple(block for block in blocks if block.count),
        embedding_params=vocab * hidden,
        head_params=0 if tied else vocab * hidden + (vocab if head_bias else 0),
        final_params=norm_params,
        max_positions=config.get("max_position_embeddings") or config.get("seq_length"),
    )


# Finds a model's `config.json`: in its folder, in the local hub cache, or in a small shipped table.

_TABLE = Path(__file__).with_name("known_models.json")


def find_config(model: str) -> dict[str, Any]:
    """Return the `config.json` of a model, without the network.

    Args:
        model: A folder, a `config.json`, or a hub name.

    Raises:
        TunebookError: There is none, or it is no JSON object.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        path /= "config.json"
    if path.suffix == ".json" and (path.is_file() or Path(model).is_dir()):
        return _read(path)
    cached = _cached(model)
    if cached is not None:
        return _read(cached)
    name = known_as(model)
    if name is None:
        raise TunebookError(
            f"{model}: its config.json is neither here nor in the table of known models",
            fix="download the model's config.json and give it with --config PATH",
        )
    return _table()[name]


def known_as(model: str) -> str | None:
    """Return the model of the table whose sizes `model` has, by the last part of its name; None for none.

    What a maker or a mirror adds for another training of the same sizes is left out of account. Weights that
    are stored in 4 bits are none of these.

    >>> known_as("unsloth/Meta-Llama-3.1-8B-Instruct"), known_as("/models/Qwen2.5-7B-Instruct/")
    ('meta-llama/Llama-3.1-8B', 'Qwen/Qwen2.5-7B')
    >>> known_as("Qwen/Qwen2.5-7B-Instruct-AWQ"), known_as("Qwen/Qwen2.5-7B-Instruct-1M")
    (None, None)
    """
    exact = {name.lower(): name for name in _table()}
    same = {_size_name(name): name for name in reversed(_table())}
    return exact.get(model.lower()) or same.get(_size_name(model))


# Of the name of a model: the same sizes, trained on.
_SAME_SIZES = re.compile(
    r"-(?:instruct|base|chat|it|hf|thinking|2507|coder|math|v1\.0|intermediate-step-.*)(?=-|$)"
)


def _size_name(model: str) -> str:
    last = model.rstrip("/").rsplit("/", 1)[-1].lower().removeprefix("meta-")
    return _SAME_SIZES.sub("", last)


def _table() -> dict[str, dict[str, Any]]:
    return cast("dict[str, dict[str, Any]]", files.read_json(_TABLE))


def _cached(model: str) -> Path | None:
    """Return the newest `config.json` that the hub client has kept for `model`."""
    hub = Path(os.environ.get("HF_HUB_CACHE") or paths.hub_home() / "hub")
    found = list(hub.glob(f"models--{model.replace('/', '--')}/snapshots/*/config.json"))
    return max(found, key=lambda path: path.stat().st_mtime) if found else None


def _read(path: Path) -> dict[str, Any]:
    try:
        config = files.read_json(path)
    except OSError as err:
        raise TunebookError(
            f"{path}: {err.strerror}", fix="give the model's folder, or --config PATH"
        ) from err
    except ValueError as err:
        raise TunebookError(f"{path}: is no JSON: {err}", fix="download it again") from err
    if not isinstance(config, dict):
        raise TunebookError(f"{path}: holds no JSON object", fix="give the model's own config.json")
    return config
