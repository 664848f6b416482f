"""Differences that forbid averaging several models or adapters; every one is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook import files
from tunebook.errors import TunebookError
from tunebook.models.source import local_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tunebook.merging.adapters import Adapter
    from tunebook.merging.inputs import Input
    from tunebook.merging.tensors import TensorSource

# What a save writes by itself, and what changes no weight.
_OF_A_SAVE = frozenset(
    {
        "_name_or_path",
        "transformers_version",
        "use_cache",
        "torch_dtype",
        "dtype",
        "auto_mapping",
        "peft_version",
    }
)
# Adapters may differ in these: each brings its own scale, and its place in the stack.
_OF_AN_ADAPTER = frozenset(
    {
        *(
            "r",
            "lora_alpha",
            "lora_dropout",
            "rank_pattern",
            "alpha_pattern",
            "use_rslora",
            "init_lora_weights",
        ),
        *("base_model_name_or_path", "revision", "inference_mode", "target_modules", "eva_config"),
        *("megatron_core", "loftq_config", "runtime_config", "ephemeral_gpu_offload", "qalora_group_size"),
    }
)
_SHOWN = 3


def refuse_differences(inputs: Sequence[Input], adapters: Sequence[Adapter] | None) -> list[str]:
    """Refuse inputs whose average would not be a model; return what else the reader should know.

    Args:
        inputs: Two or more.
        adapters: What they change, where they are adapters.

    Raises:
        TunebookError: They differ in kind, base, architecture, tensors or vocabulary.
    """
    kinds = {given.kind for given in inputs}
    if len(kinds) > 1:
        shown = ", ".join(
            f"{given.argument} is a{'n' * (given.kind == 'adapter')} {given.kind}" for given in inputs
        )
        raise TunebookError(
            f"a model and an adapter cannot be averaged: {shown}",
            fix="merge each adapter into its base first",
        )
    differences: list[str] = []
    notes: list[str] = []
    first = inputs[0]
    for number, other in enumerate(inputs[1:], 1):
        pair = f"{first.argument} and {other.argument}"
        found = [
            *_bases(first, other),
            *_settings(first, other),
            *_tensors(first, other, (adapters[0], adapters[number]) if adapters else None),
            *_vocabularies(first.folder, other.folder),
        ]
        differences += [f"{pair}: {line}" for line in found]
        notes += [f"{pair}: {line}" for line in _templates(first.folder, other.folder)]
    if differences:
        raise TunebookError(
            "these cannot be averaged:\n" + "\n".join(f"  {line}" for line in differences),
            fix="average models that were trained from one base, with one architecture and vocabulary",
        )
    return notes


def _bases(first: Input, other: Input) -> list[str]:
    names = [given.origin.base for given in (first, other)]
    if not all(names) or names[0] == names[1]:
        return []
    places = [local_folder(given.origin.base or "", given.origin.revision) for given in (first, other)]
    if places[0] is not None and places[1] is not None and places[0].resolve() == places[1].resolve():
        return []
    return [f"they were trained from {names[0]} and from {names[1]}"]


def _settings(first: Input, other: Input) -> list[str]:
    ignored = _OF_A_SAVE | (_OF_AN_ADAPTER if first.kind == "adapter" else frozenset())
    return _unequal(first.config, other.config, ignored, "")


def _unequal(one: Mapping[str, Any], two: Mapping[str, Any], ignored: frozenset[str], path: str) -> list[str]:
    found = []
    for key in sorted((one.keys() | two.keys()) - ignored):
        a, b = one.get(key), two.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _unequal(a, b, ignored, f"{path}{key}.")
        elif a != b and not (not a and not b and isinstance(a, (dict, list, type(None)))):
            found.append(f"{path}{key} is {a!r} and {b!r}")
    return found


def _tensors(first: Input, other: Input, adapters: tuple[Adapter, Adapter] | None) -> list[str]:
    if adapters is None:
        return _named(first.weights.tensors, other.weights.tensors, "tensors")
    one, two = adapters
    found = _named(dict.fromkeys(one.layers), dict.fromkeys(two.layers), "layers")
    for module in one.layers.keys() & two.layers.keys():
        a, b = one.layers[module], two.layers[module]
        # Ranks may differ.
        if (a.a.shape[1], a.b.shape[0]) != (b.a.shape[1], b.b.shape[0]):
            sizes = [f"{low.b.shape[0]} x {low.a.shape[1]}" for low in (a, b)]
            found.append(f"{module} is adapted as {sizes[0]} and as {sizes[1]}")
    found += _named(one.saved, two.saved, "replaced tensors")
    found += _named(
        {k: v[0] for k, v in one.biases.items()}, {k: v[0] for k, v in two.biases.items()}, "biases"
    )
    found += [
        f"{module} has other trained tokens"
        for module in one.tokens.keys() | two.tokens.keys()
        if (module in one.tokens) != (module in two.tokens) or one.tokens[module][0] != two.tokens[module][0]
    ]
    return found


def _named(
    one: Mapping[str, TensorSource] | Mapping[str, None],
    two: Mapping[str, TensorSource] | Mapping[str, None],
    what: str,
) -> list[str]:
    found = []
    for names, where in ((one.keys() - two.keys(), "first"), (two.keys() - one.keys(), "second")):
        if names:
            shown = ", ".join(sorted(names)[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            found.append(f"{len(names)} {what} are only in the {where}: {shown}")
    for name in sorted(one.keys() & two.keys()):
        a, b = one[name], two[name]
        if a is None or b is None:
            continue
        if a.shape != b.shape:
            found.append(f"{name} has shape {a.shape} and {b.shape}")
        elif a.dtype != b.dtype:
            found.append(f"{name} is stored as {a.dtype} and as {b.dtype}")
    return found


def _vocabularies(first: Path, other: Path) -> list[str]:
    one, two = (folder / "tokenizer.json" for folder in (first, other))
    if not one.is_file() or not two.is_file() or files.sha256_of(one) == files.sha256_of(two):
        return []
    a, b = _tokens(one), _tokens(two)
    if a == b:
        return []
    differing = sorted(token for token in a.keys() | b.keys() if a.get(token) != b.get(token))
    shown = ", ".join(map(repr, differing[:_SHOWN])) + (", ..." if len(differing) > _SHOWN else "")
    return [f"{len(differing)} tokens have other numbers, or none, in one of the two vocabularies: {shown}"]


def _tokens(path: Path) -> dict[str, Any]:
    values = files.read_json(path)
    vocabulary = values.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, list):  # Unigram: pairs of text and score
        vocabulary = {entry[0]: number for number, entry in enumerate(vocabulary)}
    return {**vocabulary, **{token["content"]: token["id"] for token in values.get("added_tokens", [])}}


def _templates(first: Path, other: Path) -> list[str]:
    texts = [
        path.read_text(encoding="utf-8") if (path := folder / "chat_template.jinja").is_file() else None
        for folder in (first, other)
    ]
    return [] if texts[0] == texts[1] else ["their chat templates differ; that of the first is kept"]
