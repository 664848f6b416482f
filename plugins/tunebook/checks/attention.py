"""Names of attention kernels: those of other tools, and those that are not what they seem."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tunebook.checks.findings import Finding
    from tunebook.checks.subject import Subject

ATTENTION_KEYS = frozenset({"flash_attn", "attn_implementation"})
"""The engines' keys for the kernel; their values are looked at here alone."""

# What other tools call the values of LLaMA-Factory's `flash_attn`.
_LLAMAFACTORY: dict[Any, str] = {
    "flash_attention_2": "fa2", "flash_attn_2": "fa2", "flash": "fa2", "flash_attention": "fa2",
    "eager": "disabled", "none": "disabled", "sdp": "sdpa", False: "disabled", True: "auto",
}  # fmt: skip
# CANONICAL_ATTN_IMPLS of axolotl/utils/schemas/enums.py, and what other tools call them.
_OF_AXOLOTL = (
    *("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4"),
    *("flash_attention_torch", "flex_attention", "xformers", "sage", "fp8"),
)
_AXOLOTL: dict[Any, str] = {
    "flash": "flash_attention_2", "fa2": "flash_attention_2", "flash_attn_2": "flash_attention_2",
    "flash_attention": "flash_attention_2", "fa3": "flash_attention_3", "flex": "flex_attention",
    "sdp": "sdpa", "disabled": "eager", False: "eager",
}  # fmt: skip
_GEMMA_2 = re.compile(r"gemma-?2[-_ ](?!b)|gemma2")


def check_attention(subject: Subject) -> Iterator[Finding]:
    """`attention-name`, `soft-capping`."""
    if subject.engine == "axolotl":
        value = subject.values.get("attn_implementation")
        # A name with a slash is a kernel on a hub.
        if value is not None and value not in _OF_AXOLOTL and "/" not in str(value):
            yield _unknown(subject, "attn_implementation", value, _AXOLOTL, _OF_AXOLOTL)
        return
    value = subject.values.get("flash_attn")
    names = tuple(subject.schema["keys"]["flash_attn"]["choices"])
    if value is not None and (value not in names or isinstance(value, bool)):
        yield _unknown(subject, "flash_attn", value, _LLAMAFACTORY, names)
        return
    model = f"{subject.get('model_name_or_path', '')} {subject.model_config.get('model_type', '')}".lower()
    if value == "fa3" and "gpt" not in model:
        yield subject.finding(
            "flash_attn",
            rule="attention-name",
            severity="error",
            message="fa3 is among the names, and refused while any model but gpt-oss is loaded",
            fix="write flash_attn: fa2",
            edit=subject.rewrite("flash_attn", "fa2"),
        )
    if _GEMMA_2.search(model) and value == "sdpa":
        yield subject.finding(
            "flash_attn",
            rule="soft-capping",
            severity="warning",
            message="PyTorch's attention has no soft-capping, which Gemma 2 is trained with",
            fix="write flash_attn: fa2, or disabled",
        )


def _unknown(
    subject: Subject, key: str, value: Any, others: Mapping[Any, str], names: tuple[str, ...]
) -> Finding:
    to = others.get(value.lower() if isinstance(value, str) else value)
    engine = "LLaMA-Factory" if subject.engine == "llamafactory" else "Axolotl"
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return subject.finding(
        key,
        rule="attention-name",
        severity="error",
        message=f"{shown} is none of {engine}'s names for attention: {', '.join(names)}",
        fix=f"write {key}: {to}" if to else f"choose one of {', '.join(names)}",
        edit=subject.rewrite(key, to) if to else None,
    )
