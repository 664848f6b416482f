"""Keys that the engine does not know."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.checks.renamed import RENAMED
from tunebook.engines.axolotl.rules import OPTIONS, PLUGIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tunebook.checks.findings import Finding
    from tunebook.checks.subject import Subject

Spec = dict[str, Any]

# Argument classes each of LLaMA-Factory's commands reads (llamafactory/hparams/parser.py).
GROUPS = {
    "train": frozenset({"model", "data", "training", "finetuning", "generating"}),
    "export": frozenset({"model", "data", "finetuning", "generating"}),
    "chat": frozenset({"model", "data", "finetuning", "generating"}),
    "eval": frozenset({"model", "data", "evaluation", "finetuning"}),
}

# Axolotl rewrites older forms of these before it looks at their keys (mode="before" in its schema), or hands
# them on as they are.
_FREE_FORM = frozenset({"fsdp_config", "special_tokens", "accelerator_config", "deepspeed"})

# With USE_MCA=1 LLaMA-Factory reads Megatron's own arguments as well, which are in no snapshot.
_MEGATRON = frozenset({"tensor_model_parallel_size", "pipeline_model_parallel_size"})

_SURE, _LIKELY = 0.8, 0.6


class Known(NamedTuple):
    """The keys a mapping may have."""

    names: dict[str, str]
    """Every spelling -> the key's own name."""
    specs: Mapping[str, Spec]
    open_ended: bool
    """Somebody else may add keys we do not know: then only what looks like a known key is wrong."""


class Entry(NamedTuple):
    """A key of the recipe that the engine knows."""

    path: str
    name: str
    value: Any
    spec: Spec


def top_level(subject: Subject) -> Known:
    """Return the keys that the recipe itself may have."""
    schema = subject.schema
    if subject.engine == "llamafactory":
        groups = GROUPS[subject.command]
        specs = {key: spec for key, spec in schema["keys"].items() if groups & set(spec["groups"])}
        return _known(specs, open_ended=bool(_MEGATRON & set(subject.values)))
    plugins = subject.get("plugins", [])
    plugins = [str(plugin) for plugin in plugins] if isinstance(plugins, list) else []
    specs, open_ended = dict(schema["keys"]), False
    for plugin in plugins:
        path = plugin if plugin in schema["plugins"] else f"axolotl.integrations.{plugin}"
        specs |= schema["plugins"].get(path, {})
        open_ended |= plugin != PLUGIN and path not in schema["plugins"]
    if PLUGIN in plugins:
        specs |= {OPTIONS[0]: {"types": ["string"]}, OPTIONS[1]: {"types": ["array"]}}
    return _known(specs, open_ended=open_ended)


def entries(subject: Subject) -> Iterator[Entry]:
    """Yield every key that the engine knows, those of mappings below included."""
    for item in _walk(subject, subject.values, top_level(subject), ""):
        if isinstance(item, Entry):
            yield item


def check_keys(subject: Subject) -> Iterator[Finding]:
    """`unknown-key`, `renamed-key`, `other-command`: keys that are refused, or passed over in silence."""
    for item in _walk(subject, subject.values, top_level(subject), ""):
        if not isinstance(item, Entry):
            yield _unknown(subject, *item)


def _known(specs: Mapping[str, Spec], *, open_ended: bool) -> Known:
    names = {spelling: key for key, spec in specs.items() for spelling in (key, *spec.get("aliases", ()))}
    return Known(names, specs, open_ended)


class _Stranger(NamedTuple):
    path: str
    key: str
    value: Any
    known: Known


def _walk(
    subject: Subject, values: Mapping[str, Any], known: Known, prefix: str
) -> Iterator[Entry | _Stranger]:
    for key, value in values.items():
        path, name = f"{prefix}{key}", known.names.get(str(key))
        if name is None:
            stranger = _Stranger(path, str(key), value, known)
            if not known.open_ended or _closest(stranger.key, known, _SURE):
                yield stranger
            continue
        spec = known.specs[name]
        yield Entry(path, name, value, spec)
        models = spec.get("models")
        if not models or name in _FREE_FORM:
            continue
        below = _together([subject.schema["models"].get(model, {}) for model in models])
        for number, part in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(part, dict) and below:
                place = f"{path}[{number}]." if isinstance(value, list) else f"{path}."
                yield from _walk(subject, part, _known(below, open_ended=known.open_ended), place)


def _together(models: Sequence[Mapping[str, Spec]]) -> dict[str, Spec]:
    """The keys of a mapping that may be any of `models`: each takes what it takes in one of them."""
    merged: dict[str, Spec] = {}
    for model in models:
        for key, spec in model.items():
            other = merged.get(key)
            if other is None:
                merged[key] = spec
                continue
            both = {**other, **spec, "types": sorted({*other["types"], *spec["types"]})}
            if "choices" in other and "choices" in spec:
                both["choices"] = [*other["choices"], *spec["choices"]]
            else:
                both.pop("choices", None)
            merged[key] = both
    return merged


def _unknown(subject: Subject, path: str, key: str, value: Any, known: Known) -> Finding:
    refused = subject.engine == "llamafactory"
    version = subject.schema["version"]
    effect = (
        f"LLaMA-Factory {version} refuses it" if refused else f"Axolotl {version} passes over it in silence"
    )
    spec = subject.schema["keys"].get(key)
    if refused and spec is not None:
        owner = "eval" if spec["groups"] == ["evaluation"] else "train"
        return subject.finding(
            path,
            rule="other-command",
            severity="error",
            message=f"{key} is a key of `llamafactory-cli {owner}`; `{subject.command}` refuses it",
            fix=f"remove it, or give the file to `llamafactory-cli {owner}`",
        )
    renamed = RENAMED[subject.engine].get(key) if path == key else None
    if renamed is not None:
        return subject.finding(
            path,
            rule="renamed-key",
            severity="error",
            message=f"no such key: {renamed.why}; {effect}",
            fix=f"write {renamed.to}" if renamed.to else f"remove {key}",
            edit=subject.rename(path, renamed.to) if renamed.to and renamed.same_value else None,
        )
    close = _closest(key, known, _LIKELY)
    sure = close and difflib.SequenceMatcher(None, key, close).ratio() >= _SURE
    return subject.finding(
        path,
        rule="unknown-key",
        # A key without a value changes nothing where nobody refuses it.
        severity="hint" if value is None and not refused else "error",
        message=f"no such key; {effect}",
        fix=f"did you mean {close}?" if close else f"remove {key}",
        edit=subject.rename(path, close) if close and sure else None,
    )


def _closest(key: str, known: Known, cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(key, known.names, n=1, cutoff=cutoff)), None)
