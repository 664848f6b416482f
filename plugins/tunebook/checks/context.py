"""Context length, rope scaling and remote code against the model."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from tunebook.checks.number_like import as_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.checks.findings import Finding
    from tunebook.checks.subject import Subject

# `max_position_embeddings` of models that are often trained and need not be on this machine.
_CONTEXT: dict[str, int] = {
    **{f"Qwen/Qwen3-{size}": 40_960 for size in ("0.6B", "1.7B", "4B", "8B", "14B", "32B", "30B-A3B")},
    **{f"Qwen/Qwen3-4B-{kind}-2507": 262_144 for kind in ("Instruct", "Thinking")},
    **{f"Qwen/Qwen3-30B-A3B-{kind}-2507": 262_144 for kind in ("Instruct", "Thinking")},
    **{f"Qwen/Qwen2.5-{size}-Instruct": 32_768 for size in ("0.5B", "1.5B", "3B", "7B", "14B", "32B", "72B")},
    **{
        f"google/gemma-{size}": 8_192
        for size in ("2b", "2b-it", "7b", "7b-it", "2-2b-it", "2-9b-it", "2-27b-it")
    },
    "google/gemma-3-1b-it": 32_768,
}
_INTO_CONFIG = "write the scaling into the model's config.json and remove rope_scaling"
_INFERENCE_FACTOR = 2.0  # llamafactory/model/model_utils/rope.py, where the model is not to be trained

# Architectures whose code is in transformers; what a name on a hub begins with.
_IN_TRANSFORMERS = re.compile(
    r"^(?:qwen(?:1\.5|2|2\.5|3|3\.5|3\.6)?-(?!vl|audio|omni)|(?:meta-)?llama-[23]|gemma-|mistral-|mixtral-|smollm|phi-4-mini|olmo-2)",
    re.IGNORECASE,
)


def check_context(subject: Subject) -> Iterator[Finding]:
    """`context-too-long`, `rope-at-inference`, `rope-not-needed`, `trust-remote-code`."""
    length = as_number(subject.setting("length"))
    limit = _limit(subject)
    if subject.engine == "llamafactory":
        yield from _rope(subject, length, limit)
    elif (
        limit
        and length
        and length > limit
        and not subject.get("overrides_of_model_config")
        and not subject.get("model_config")
    ):
        yield _too_long(subject, int(length), limit)
    yield from _remote_code(subject)


def _limit(subject: Subject) -> int | None:
    own = subject.model_config.get("max_position_embeddings")
    return own if isinstance(own, int) else _CONTEXT.get(str(subject.get(subject.name("model"))))


def _rope(subject: Subject, length: float | None, limit: int | None) -> Iterator[Finding]:
    scaling = subject.get("rope_scaling")
    if scaling and limit and length and length <= limit:
        yield subject.finding(
            "rope_scaling",
            rule="rope-not-needed",
            severity="warning",
            message=f"the model reads {limit:,} tokens as it is, and cutoff_len is {int(length):,}",
            fix="remove rope_scaling",
        )
    elif scaling and subject.installed("transformers").startswith("5."):
        yield subject.finding(
            "rope_scaling",
            rule="rope-length-type",
            severity="error",
            message="LLaMA-Factory multiplies the model's length by a float, which the configs of "
            f"transformers {subject.installed('transformers')} refuse: the model is not loaded",
            fix=_INTO_CONFIG,
        )
    elif scaling and subject.command == "train":
        factor = (
            f"{math.ceil(length / limit)}" if limit and length else "ceil(cutoff_len / the model's length)"
        )
        if factor != f"{_INFERENCE_FACTOR:g}":
            yield subject.finding(
                "rope_scaling",
                rule="rope-at-inference",
                severity="warning",
                message=f"LLaMA-Factory trains with factor {factor}, infers with {_INFERENCE_FACTOR:g}, "
                "and with vLLM refuses",
                fix=_INTO_CONFIG,
            )
    elif not scaling and limit and length and length > limit and subject.command == "train":
        yield _too_long(subject, int(length), limit)


def _too_long(subject: Subject, length: int, limit: int) -> Finding:
    return subject.finding(
        subject.name("length"),
        rule="context-too-long",
        severity="warning",
        message=f"{length:,} tokens are more than the {limit:,} that the model was made for",
        fix=f"set {subject.name('length')}: {limit}, or take a model for longer texts",
    )


def _remote_code(subject: Subject) -> Iterator[Finding]:
    if subject.values.get("trust_remote_code") is not True:
        return
    config = subject.model_config
    name = str(subject.get(subject.name("model"), "")).rpartition("/")[2]
    needless = "auto_map" not in config if config else bool(_IN_TRANSFORMERS.match(name))
    if needless:
        yield subject.finding(
            "trust_remote_code",
            rule="trust-remote-code",
            severity="hint",
            message="this model's code is in transformers; true runs whatever code its repository holds",
            fix="remove trust_remote_code",
        )
