"""LoRA targets and Axolotl plugins: names that are passed over where they are wrong."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from tunebook.engines.axolotl.rules import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.checks.findings import Finding
    from tunebook.checks.subject import Subject

_MODULES = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj", "gate_proj", "up_proj", "down_proj"),
    *(
        "gate_up_proj",
        "query_key_value",
        "dense",
        "dense_h_to_4h",
        "dense_4h_to_h",
        "W_pack",
        "c_attn",
        "c_proj",
    ),
    *(
        "fc1",
        "fc2",
        "lm_head",
        "embed_tokens",
        "in_proj",
        "x_proj",
        "dt_proj",
        "wqkv",
        "wo",
        "w1",
        "w2",
        "w3",
    ),
)
_SURE = 0.85


def check_adapters(subject: Subject) -> Iterator[Finding]:
    """`lora-target`, `plugin-path`."""
    key = "lora_target" if subject.engine == "llamafactory" else "lora_target_modules"
    value = subject.get(key)
    named = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    if subject.engine == "axolotl" and isinstance(value, str):
        named = []  # a regular expression
    for number, part in enumerate(named):
        name = str(part).strip().rpartition(".")[2]
        close = difflib.get_close_matches(name, _MODULES, n=1, cutoff=_SURE)
        if name in _MODULES or not close or not name.isidentifier():
            continue
        path = f"{key}[{number}]" if isinstance(value, list) else key
        right = ",".join(
            close[0] if str(other).strip() == str(part).strip() else str(other) for other in named
        )
        yield subject.finding(
            path,
            rule="lora-target",
            severity="warning",
            message=f"few models have a module {name}, and one that is not found is left untrained",
            fix=f"did you mean {close[0]}?",
            edit=subject.rewrite(path, close[0] if isinstance(value, list) else right),
        )
    if subject.engine == "axolotl":
        yield from _plugins(subject)


def _plugins(subject: Subject) -> Iterator[Finding]:
    plugins = subject.get("plugins", [])
    known = [*subject.schema["plugins"], PLUGIN]
    for number, plugin in enumerate(plugins if isinstance(plugins, list) else []):
        path, name = f"plugins[{number}]", str(plugin)
        if name in known or f"axolotl.integrations.{name}" in known:
            continue
        if "." not in name:
            yield subject.finding(
                path, rule="plugin-path", severity="error", message=f"{name!r} names no class",
                fix="write package.module.Class",
            )  # fmt: skip
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if close:
            yield subject.finding(
                path,
                rule="plugin-path",
                severity="error",
                message=f"no such plugin: {name}; Axolotl goes on without a plugin it cannot import",
                fix=f"did you mean {close[0]}?",
                edit=subject.rewrite(path, close[0]),
            )
