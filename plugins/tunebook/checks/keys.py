"""Keys that the engine does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.checks.names import RENAMED, slip
from tunebook.engines.axolotl.rules import OPTIONS, PLUGIN
from tunebook.engines.schema import versions_with
from tunebook.engines.supported import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tunebook.checks.findings import Finding
    from tunebook.checks.recipe import CheckedRecipe


Spec = dict[str, Any]

# Argument classes each of LLaMA-Factory's commands reads (llamafactory/hparams/parser.py).
GROUPS = {
    "train": frozenset({"model", "data", "training", "finetuning", "generating"}),
    "export": frozenset({"model", "data", "finetuning", "generating"}),
    "chat": frozenset({"model", "data", "finetuning", "generating"}),
    "eval": frozenset({"model", "data", "evaluation", "finetuning"}),
}

# Axolotl rewrites older forms of these before it looks at their keys (mode="before" in its schema), or passes
# them on as they are.
_FREE_FORM = frozenset({"fsdp_config", "special_tokens", "accelerator_config", "deepspeed"})

# With USE_MCA=1 LLaMA-Factory reads Megatron's own arguments as well, which are in no snapshot.
_MEGATRON = frozenset({"tensor_model_parallel_size", "pipeline_model_parallel_size"})


class Known(NamedTuple):
    """The keys a mapping may have."""

    names: dict[str, str]
    """Every spelling -> the key's own name."""
    specs: Mapping[str, Spec]
    open_ended: bool
    """A plugin may add keys that we do not know: then only what looks like a known key is wrong."""


class Entry(NamedTuple):
    """A key of the recipe that the engine knows."""

    path: str
    name: str
    value: Any
    spec: Spec


def top_level(recipe: CheckedRecipe) -> Known:
    """Return the keys that the recipe itself may have."""
    schema = recipe.schema
    if recipe.engine == "llamafactory":
        groups = GROUPS[recipe.command]
        specs = {key: spec for key, spec in schema["keys"].items() if groups & set(spec["groups"])}
        return _known(specs, open_ended=bool(_MEGATRON & set(recipe.values)))
    plugins = recipe.get("plugins", [])
    plugins = [str(plugin) for plugin in plugins] if isinstance(plugins, list) else []
    specs, open_ended = dict(schema["keys"]), False
    for plugin in plugins:
        path = plugin if plugin in schema["plugins"] else f"axolotl.integrations.{plugin}"
        specs |= schema["plugins"].get(path, {})
        open_ended |= plugin != PLUGIN and path not in schema["plugins"]
    if PLUGIN in plugins:
        specs |= {OPTIONS[0]: {"types": ["string"]}, OPTIONS[1]: {"types": ["array"]}}
    return _known(specs, open_ended=open_ended)


def entries(recipe: CheckedRecipe) -> Iterator[Entry]:
    """Yield every key that the engine knows, those of mappings below included."""
    for item in _walk(recipe, recipe.values, top_level(recipe), ""):
        if isinstance(item, Entry):
            yield item


def check_keys(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`unknown-key`, `renamed-key`, `other-command`: keys that are refused, or ignored in silence."""
    for item in _walk(recipe, recipe.values, top_level(recipe), ""):
        if not isinstance(item, Entry):
            yield _unknown(recipe, *item)


def _known(specs: Mapping[str, Spec], *, open_ended: bool) -> Known:
    names = {spelling: key for key, spec in specs.items() for spelling in (key, *spec.get("aliases", ()))}
    return Known(names, specs, open_ended)


class _Stranger(NamedTuple):
    path: str
    key: str
    value: Any
    known: Known


def _walk(
    recipe: CheckedRecipe, values: Mapping[str, Any], known: Known, prefix: str
) -> Iterator[Entry | _Stranger]:
    for key, value in values.items():
        path, name = f"{prefix}{key}", known.names.get(str(key))
        if name is None:
            stranger = _Stranger(path, str(key), value, known)
            if not known.open_ended or slip(stranger.key, known.names):
                yield stranger
            continue
        spec = known.specs[name]
        yield Entry(path, name, value, spec)
        models = spec.get("models")
        if not models or name in _FREE_FORM:
            continue
        below = _together([recipe.schema["models"].get(model, {}) for model in models])
        for number, part in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(part, dict) and below:
                place = f"{path}[{number}]." if isinstance(value, list) else f"{path}."
                yield from _walk(recipe, part, _known(below, open_ended=known.open_ended), place)


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


def _unknown(recipe: CheckedRecipe, path: str, key: str, value: Any, known: Known) -> Finding:
    refused = recipe.engine == "llamafactory"
    version, name = recipe.schema["version"], NAMES[recipe.engine]
    effect = f"{name} {version} refuses it" if refused else f"{name} {version} ignores it in silence"
    spec = recipe.schema["keys"].get(key)
    if refused and spec is not None:
        owner = "eval" if spec["groups"] == ["evaluation"] else "train"
        return recipe.error(
            path,
            "other-command",
            f"{key} is a key of `llamafactory-cli {owner}`; `{recipe.command}` refuses it",
            fix=f"remove it, or give the file to `llamafactory-cli {owner}`",
        )
    renamed = RENAMED[recipe.engine].get(key) if path == key else None
    if renamed is not None:
        to = renamed.to if renamed.to in known.names else ""
        return recipe.error(
            path,
            "renamed-key",
            f"no such key: {renamed.why}; {effect}",
            fix=f"write {to}" if to else f"remove {key}",
            edit=recipe.rename(path, to) if to and renamed.same_value else None,
        )
    meant, had = slip(key, known.names), versions_with(recipe.engine, key) if path == key else ()
    owners = [plugin for plugin, keys in recipe.schema.get("plugins", {}).items() if key in keys]
    if had:
        effect = f"it is a key with {_versions(recipe, had)}; {effect}"
    if owners and not meant:
        fix = f"add {owners[0]} to plugins, or remove {key}"
    else:
        fix = f"did you mean {meant}?" if meant else f"remove {key}"
    return recipe.finding(
        path,
        rule="unknown-key",
        # A key without a value changes nothing where the engine does not refuse it.
        severity="hint" if value is None and not refused else "error",
        message=f"no such key; {effect}",
        fix=fix,
        edit=recipe.rename(path, meant) if meant and not had else None,
    )


def _versions(recipe: CheckedRecipe, had: tuple[str, ...]) -> str:
    """The first and last version with a key: the engine's own, or transformers' by series."""
    own = len(had[-1].split(".")) > 2
    name = NAMES[recipe.engine] if own else "transformers"
    return f"{name} {had[0]}" if len(had) == 1 else f"{name} {had[0]} to {had[-1]}"
