"""Values of a type or a name that the engine does not take, and how to write them."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.checks.keys import entries
from tunebook.checks.names import FORMER, slip
from tunebook.checks.recipe import as_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tunebook.checks.findings import Edit, Finding, Severity
    from tunebook.checks.keys import Entry
    from tunebook.checks.recipe import CheckedRecipe
    from tunebook.types import EngineName


NULL_WORD = "null-word"
"""Rule of a word that means nothing in another language."""

_THOUSANDS = re.compile(r"^[+-]?\d{1,3}(?:,\d{3})+,?$|^\d+,$")
_YES_NO = re.compile(r"^(?:yes|no|on|off|y|n)$", re.IGNORECASE)
# Axolotl rewrites other forms of these before it looks at their types (mode="before" in its schema).
_FREE_FORM = frozenset(
    {
        *("fsdp", "fsdp_config", "special_tokens", "deepspeed", "datasets"),
        *("activation_dtype", "weight_dtype", "image_resize_algorithm"),
    }
)

_NAMES = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "array": "a list",
    "object": "a mapping",
}


def check_values(recipe: CheckedRecipe) -> Iterator[Finding]:
    """The type and the choice of every value, at most one finding for each; and `deprecated-key`."""
    for entry in entries(recipe):
        deprecated = entry.spec.get("deprecated")
        to = next((new for new, old in FORMER.items() if old == entry.path), None)
        if (deprecated or to) and entry.value is not None and entry.name not in _STILL_NAMED:
            yield recipe.hint(
                entry.path,
                "deprecated-key",
                "Axolotl still takes it, and says that a later version will not",
                fix=f"write {to}" if to else str(deprecated).replace("`", "").strip(),
                edit=recipe.rename(entry.path, to) if to else None,
            )
        if recipe.engine == "axolotl" and entry.name in _FREE_FORM:
            continue
        finding = _fault(recipe, entry)
        if finding is not None:
            yield finding


def _fault(recipe: CheckedRecipe, entry: Entry) -> Finding | None:
    types, choices = set(entry.spec.get("types", ())), entry.spec.get("choices")
    value = entry.value
    if not types or "any" in types:
        return None
    if isinstance(value, str) and _THOUSANDS.match(value.strip()) and types & {"integer", "number"}:
        digits = value.replace(",", "").strip()
        return recipe.error(
            entry.path,
            "thousands-separator",
            f"{value!r} is text: a number has no comma",
            fix=f"write {entry.name}: {digits}",
            edit=recipe.rewrite(entry.path, digits),
        )
    if entry.name in ATTENTION_KEYS:
        return None
    if value is None and recipe.engine == "llamafactory" and "null" not in types:
        return _empty(recipe, entry, types)
    if (
        isinstance(value, str)
        and value in _NOTHING
        and value not in (choices or (entry.spec.get("default"),))
    ):
        return _null_word(recipe, entry, value)
    if choices and value is not None and not isinstance(value, (list, dict)):
        return _choice(recipe, entry, types, choices)
    return None if fits(recipe.engine, entry, types) else _wrong_type(recipe, entry, types)


# Keys whose None LLaMA-Factory's parser compares, counts or looks up: it was asked for every key.
_REFUSED_EMPTY = frozenset(
    {
        *(
            "logging_steps",
            "save_steps",
            "seed",
            "warmup_steps",
            "lora_rank",
            "finetuning_type",
            "infer_backend",
        ),
        *("image_max_pixels", "image_min_pixels", "video_max_pixels", "video_min_pixels"),
        *("eval_strategy", "save_strategy", "logging_strategy", "hub_strategy", "lr_scheduler_type", "optim"),
        *("use_apollo", "use_badam", "use_galore"),
    }
)
_STILL_NAMED = frozenset({"fsdp", "fsdp_final_state_dict_type"})
"""Deprecated for a mapping that is more than another name: the engine's own warning says how to write it."""
_NOTHING = ("None", "nil")
"""Words for nothing in Python and Ruby; YAML has `null`, `Null`, `NULL` and `~`."""


def _empty(recipe: CheckedRecipe, entry: Entry, types: set[str]) -> Finding:
    default = entry.spec.get("default")
    severity: Severity
    instead = "" if default is None else f", and not for {_shown(default)}, its default"
    if entry.name in _REFUSED_EMPTY:
        problem, severity = "the key has no value, and LLaMA-Factory refuses that", "error"
    elif types & {"integer", "number"}:
        problem, severity = f"the key has no value: LLaMA-Factory takes it for none{instead}", "warning"
    else:
        problem, severity = f"the key has no value, which counts as none{instead}", "hint"
    return recipe.finding(
        entry.path,
        rule="wrong-type",
        severity=severity,
        message=problem,
        fix=f"give it one, or remove {entry.name}",
    )


def _null_word(recipe: CheckedRecipe, entry: Entry, word: str) -> Finding:
    """`adapter_name_or_path: None` names a folder called None."""
    return recipe.error(
        entry.path,
        NULL_WORD,
        f"{word} is text to YAML, the name of something",
        fix=f"remove {entry.name}, or write {entry.name}: null",
        edit=recipe.rewrite(entry.path, "null") if "null" in entry.spec["types"] else None,
    )


def _wrong_type(recipe: CheckedRecipe, entry: Entry, types: set[str]) -> Finding:
    value, place = entry.value, recipe.places.get(entry.path)
    wanted = " or ".join(_NAMES.get(name, name) for name in sorted(types - {"null"}))
    if value is None:
        return recipe.error(
            entry.path,
            "wrong-type",
            f"the key has no value, and {wanted} is wanted",
            fix=f"give it one, or remove {entry.name}",
        )
    if isinstance(value, str) and place is not None and place.quoted:
        plain = _unquoted(value, types)
        if plain is not None:
            return _quoted(recipe, entry, plain, boolean="boolean" in types)
    if isinstance(value, bool) and "string" in types and place is not None and place.raw is not None:
        return _boolean_word(recipe, entry, place.raw)
    if not isinstance(value, (bool, dict, list)) and "string" in types and place is not None:
        severe = recipe.engine == "axolotl"
        return recipe.finding(
            entry.path,
            rule="wrong-type",
            severity="error" if severe else "warning",
            message=f"YAML reads {place.raw} as the number {value}, and text is wanted",
            fix=f"put it in quotes: {entry.name}: '{place.raw}'",
            edit=recipe.rewrite(entry.path, f"'{place.raw}'"),
        )
    whole = isinstance(value, float) and types & {"integer"} and value == int(value)
    return recipe.error(
        entry.path,
        "wrong-type",
        f"{_shown(value)} is {_kind(value)}, and {wanted} is wanted"
        + (
            "; LLaMA-Factory finds out after it has loaded data and model"
            if recipe.engine == "llamafactory"
            else ""
        ),
        fix=f"write {entry.name}: {int(value)}" if whole else f"give {entry.name} {wanted}",
        edit=recipe.rewrite(entry.path, str(int(value))) if whole else None,
    )


def _quoted(recipe: CheckedRecipe, entry: Entry, plain: str, *, boolean: bool) -> Finding:
    return recipe.error(
        entry.path,
        "quoted-value",
        f"{entry.value!r} in quotes is text, and nothing converts it"
        + (": as text it counts as true" if boolean else ""),
        fix=f"write {entry.name}: {plain}",
        edit=recipe.rewrite(entry.path, plain),
    )


class _OtherName(NamedTuple):
    """What to write instead of a value that is none of the choices."""

    to: str
    problem: str
    severity: Severity = "error"


_ON_GPU = _OtherName(
    "auto", "is none of its names: every name but cpu is taken for auto, which uses the GPU", "hint"
)
_OTHER_NAMES: Mapping[tuple[str, str], _OtherName] = {
    ("quantization_method", "bitsandbytes"): _OtherName(
        "bnb", "is no name of LLaMA-Factory's, which then quantises nothing and says nothing"
    ),
    ("export_device", "gpu"): _ON_GPU,
    ("export_device", "cuda"): _ON_GPU,
}


def _choice(recipe: CheckedRecipe, entry: Entry, types: set[str], choices: list[Any]) -> Finding | None:
    value, place = entry.value, recipe.places.get(entry.path)
    if value in choices and not isinstance(value, bool):
        return None
    if any(re.match(pattern, str(value)) for pattern in entry.spec.get("patterns", ())):
        return None
    if recipe.engine == "llamafactory" and entry.name == "pref_loss" and recipe.get("stage") == "dpo":
        return None  # of `dpo-loss`, which knows what every name does
    if isinstance(value, str) and place is not None and place.quoted:
        plain = _unquoted(value, types - {"string"})
        if plain is not None and plain in map(str, choices):
            return _quoted(recipe, entry, plain, boolean=False)
    kinds = types - {"string"} if all(isinstance(choice, str) for choice in choices) else types
    scalars = kinds - {"null"}
    if scalars and not (kinds <= {"integer", "null"}) and fits(recipe.engine, entry, kinds):
        return None
    if isinstance(value, bool) and place is not None and place.raw is not None and place.raw in choices:
        return _boolean_word(recipe, entry, place.raw)
    if value is False and "no" in choices and place is not None and place.raw is not None:
        return _boolean_word(recipe, entry, "no")
    text = str(value)
    other = _OTHER_NAMES.get((entry.name, text))
    if other is not None:
        return recipe.finding(
            entry.path,
            rule="bad-choice",
            severity=other.severity,
            message=other.problem,
            fix=f"write {entry.name}: {other.to}",
            edit=recipe.rewrite(entry.path, other.to),
        )
    words = {str(choice).lower(): str(choice) for choice in choices}
    close = words.get(text.lower()) or slip(text, words.values())
    listed = ", ".join(map(str, choices))
    edit: Edit | None = recipe.rewrite(entry.path, close) if close and text.lower() in words else None
    return recipe.error(
        entry.path,
        "bad-choice",
        f"{_shown(value)} is none of: {listed if len(choices) <= 12 else f'{len(choices)} names'}",
        fix=f"did you mean {close}?" if close else f"choose one of {listed}",
        edit=edit,
    )


def _boolean_word(recipe: CheckedRecipe, entry: Entry, raw: str) -> Finding:
    return recipe.error(
        entry.path,
        "boolean-word",
        f"YAML reads this as {str(entry.value).lower()}, and text is wanted",
        fix=f"put it in quotes: {entry.name}: '{raw}'",
        edit=recipe.rewrite(entry.path, f"'{raw}'"),
    )


def _unquoted(value: str, types: set[str]) -> str | None:
    """What a quoted value is to be written as, where it reads as a wanted type."""
    if "boolean" in types and (value.lower() in {"true", "false"} or _YES_NO.match(value)):
        return "true" if value.lower() in {"true", "yes", "on", "y"} else "false"
    number = as_number(value)
    if number is not None and "number" in types:
        return value if "." in value or "e" not in value.lower() else repr(number)
    if number is not None and "integer" in types and number == int(number):
        return str(int(number))
    return None


def _kind(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a mapping",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# Which values an engine takes for which types.
#
# LLaMA-Factory converts nothing: a quoted number stays text, and fails, or is taken for true, much later.
# Axolotl's pydantic converts what reads as the type, but no number to text.

_PYDANTIC_BOOLEANS = frozenset(["0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes"])

# Split at commas by LLaMA-Factory, so that a list does as well (`split_arg` in its argument classes).
_SPLIT = frozenset(
    {
        *("dataset", "eval_dataset", "interleave_probs", "freeze_trainable_modules", "freeze_extra_modules"),
        *("lora_target", "oft_target", "additional_target", "galore_target", "apollo_target"),
    }
)


def fits(engine: EngineName, entry: Entry, types: set[str]) -> bool:
    """Whether `engine` takes the value of `entry` for one of `types`, JSON Schema's names."""
    return _fits_llamafactory(entry, types) if engine == "llamafactory" else _fits_axolotl(entry, types)


def _fits_llamafactory(entry: Entry, types: set[str]) -> bool:
    value = entry.value
    if value is None:
        # Passed on as None, where the engine's own code has tests for most keys.
        return True
    if isinstance(value, bool):
        return "boolean" in types
    if isinstance(value, int):
        return bool({"integer", "number"} & types)
    if isinstance(value, float):
        return "number" in types
    if isinstance(value, str):
        return "string" in types
    if isinstance(value, list):
        return "array" in types or entry.name in _SPLIT
    return "object" in types or not isinstance(value, dict)


def _fits_axolotl(entry: Entry, types: set[str]) -> bool:
    value = entry.value
    if value is None:
        return "null" in types
    number = as_number(value)
    if "boolean" in types and (isinstance(value, bool) or number in (0, 1)):
        return True
    if "boolean" in types and isinstance(value, str) and value.lower() in _PYDANTIC_BOOLEANS:
        return True
    if {"integer", "number"} & types and isinstance(value, bool):
        return True
    if number is not None and ("number" in types or ("integer" in types and number == int(number))):
        return True
    if isinstance(value, str):
        return "string" in types
    if isinstance(value, list):
        return "array" in types
    return "object" in types if isinstance(value, dict) else False


# Names of attention kernels: those of other tools, and those that are not what they seem.

ATTENTION_KEYS = frozenset({"flash_attn", "attn_implementation"})
"""The engines' keys for the kernel; only this rule looks at their values."""

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


def check_attention(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`attention-name`, `soft-capping`."""
    if recipe.engine == "axolotl":
        value = recipe.values.get("attn_implementation")
        # A name with a slash is a kernel on a hub.
        if value is not None and value not in _OF_AXOLOTL and "/" not in str(value):
            yield _unknown(recipe, "attn_implementation", value, _AXOLOTL, _OF_AXOLOTL)
        return
    value = recipe.values.get("flash_attn")
    names = tuple(recipe.schema["keys"]["flash_attn"]["choices"])
    if value is not None and (value not in names or isinstance(value, bool)):
        yield _unknown(recipe, "flash_attn", value, _LLAMAFACTORY, names)
        return
    model = f"{recipe.get('model_name_or_path', '')} {recipe.model_config.get('model_type', '')}".lower()
    if value == "fa3" and "gpt" not in model:
        yield recipe.error(
            "flash_attn",
            "attention-name",
            "fa3 is among the names, and refused while any model but gpt-oss is loaded",
            fix="write flash_attn: fa2",
            edit=recipe.rewrite("flash_attn", "fa2"),
        )
    if _GEMMA_2.search(model) and value == "sdpa":
        yield recipe.warning(
            "flash_attn",
            "soft-capping",
            "PyTorch's attention has no soft-capping, which Gemma 2 is trained with",
            fix="write flash_attn: fa2, or disabled",
        )


def _unknown(
    recipe: CheckedRecipe, key: str, value: Any, others: Mapping[Any, str], names: tuple[str, ...]
) -> Finding:
    to = (
        others.get(value.lower() if isinstance(value, str) else value)
        if isinstance(value, Hashable)
        else None
    )
    engine = "LLaMA-Factory" if recipe.engine == "llamafactory" else "Axolotl"
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return recipe.error(
        key,
        "attention-name",
        f"{shown} is none of {engine}'s names for attention: {', '.join(names)}",
        fix=f"write {key}: {to}" if to else f"choose one of {', '.join(names)}",
        edit=recipe.rewrite(key, to) if to else None,
    )
