"""Write down the keys that an installed engine accepts, so that a recipe can be checked without the engine.

Run it in the engine's environment. It adds the installed version to the engine's file in the package, which
holds every version side by side; a test holds the installed one equal to what this script makes. The file of
LLaMA-Factory has its own keys alone: those of transformers' TrainingArguments are in another, by series.

Versions other than the installed one need no environment of their own: unpack them without their dependencies
and put them first.

Example:
  .venv-axolotl/bin/python scripts/snapshot_schema.py axolotl
  .venv/bin/python scripts/snapshot_schema.py llamafactory
  uv pip install --target old --no-deps llamafactory==0.9.4 transformers==4.57.1 tokenizers==0.22.1
  PYTHONPATH=old .venv/bin/python scripts/snapshot_schema.py llamafactory
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import json
import pkgutil
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import click

from tunebook.engines import schema as stored

_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_JSON = (str, int, float, bool, type(None))

Spec = dict[str, Any]
"""What one key takes: `types`, and where there are any `choices`, `default`, `aliases` and `models`, the
names of the mappings that it or its items may hold."""


class Schema:
    """Collects keys and the models they refer to.

    Args:
        fields_of: The named fields of a class, as (annotation, rest of the spec); None for no model.
    """

    def __init__(self, fields_of: Callable[[type], Mapping[str, tuple[Any, Spec]] | None]) -> None:
        self.fields_of = fields_of
        self.models: dict[str, dict[str, Spec]] = {}

    def keys(self, model: type) -> dict[str, Spec]:
        """Every key of a model, sorted; the models below it are collected."""
        fields = self.fields_of(model) or {}
        return {name: self._spec(annotation) | rest for name, (annotation, rest) in sorted(fields.items())}

    def _spec(self, annotation: Any) -> Spec:
        kinds, choices, models = set(), [], []
        for part in self._parts(annotation):
            if isinstance(part, type) and issubclass(part, enum.Enum):
                choices += [choice.value for choice in part if isinstance(choice.value, _JSON)]
            elif typing.get_origin(part) is typing.Literal:
                choices += list(typing.get_args(part))
            elif isinstance(part, type) and self.fields_of(part) is not None:
                models.append(part.__name__)
                kinds.add("object")
                if part.__name__ not in self.models:
                    self.models[part.__name__] = {}  # first, since models may hold themselves
                    self.models[part.__name__] = self.keys(part)
            else:
                kinds.add(self._kind(part))
                models += self._spec_of_items(part).get("models", [])
        kinds |= {_SCALARS[type(choice)] for choice in choices}
        patterns = [
            pattern for part in self._annotated(annotation) if (pattern := getattr(part, "pattern", None))
        ]
        spec: Spec = {"types": sorted(kinds)}
        loose = [self._kind(part) for part in self._parts(annotation)]
        if choices and "any" not in loose and loose.count("string") <= len(patterns):
            spec["choices"] = list(dict.fromkeys(choices))
        if patterns:
            spec["patterns"] = patterns
        if models:
            spec["models"] = sorted(set(models))
        return spec

    def _spec_of_items(self, annotation: Any) -> Spec:
        items = [self._spec(part) for part in typing.get_args(annotation)]
        return {"models": [name for item in items for name in item.get("models", [])]}

    def _parts(self, annotation: Any) -> Iterator[Any]:
        if typing.get_origin(annotation) in (typing.Union, types.UnionType):
            for part in typing.get_args(annotation):
                yield from self._parts(part)
        elif typing.get_origin(annotation) is typing.Annotated:
            yield from self._parts(typing.get_args(annotation)[0])
        else:
            yield annotation

    def _annotated(self, annotation: Any) -> Iterator[Any]:
        """What is said of the parts beside their types, such as the pattern of a text."""
        if typing.get_origin(annotation) in (typing.Union, types.UnionType):
            for part in typing.get_args(annotation):
                yield from self._annotated(part)
        elif typing.get_origin(annotation) is typing.Annotated:
            yield from typing.get_args(annotation)[1:]

    def _kind(self, part: Any) -> str:
        origin = typing.get_origin(part) or part
        if origin in _SCALARS:
            return _SCALARS[origin]
        if origin in (list, tuple, set):
            return "array"
        if origin is dict:
            return "object"
        if isinstance(part, type) and issubclass(part, enum.Enum):
            return "literal"
        return "literal" if origin is typing.Literal else "any"


def pydantic_fields(model: type) -> Mapping[str, tuple[Any, Spec]] | None:
    """The fields of a pydantic model, with defaults and aliases."""
    fields = getattr(model, "model_fields", None)
    if fields is None:
        return None
    found = {}
    for name, field in fields.items():
        rest: Spec = {}
        if field.is_required():
            rest["required"] = True
        elif isinstance(field.default, (*_JSON, list)) and field.default is not None:
            rest["default"] = field.default
        aliases = {alias for alias in (field.alias, field.validation_alias) if isinstance(alias, str)} - {
            name
        }
        if aliases:
            rest["aliases"] = sorted(aliases)
        if field.deprecated:
            rest["deprecated"] = str(field.deprecated)
        found[name] = (field.annotation, rest)
    return found


def axolotl_schema() -> dict[str, Any]:
    """Every key of Axolotl's configuration, and those that its own plugins add."""
    from axolotl.utils.schemas.config import AxolotlInputConfig

    schema = Schema(pydantic_fields)
    keys = schema.keys(AxolotlInputConfig)
    plugins = {name: schema.keys(model) for name, model in sorted(_axolotl_plugins())}
    return {"keys": keys, "models": dict(sorted(schema.models.items())), "plugins": plugins}


def _axolotl_plugins() -> Iterator[tuple[str, type]]:
    """The path that a recipe gives each of Axolotl's own plugins, and its options model."""
    from axolotl import integrations
    from axolotl.integrations.base import BasePlugin

    for found in pkgutil.iter_modules(integrations.__path__):
        if not found.ispkg:
            continue
        package = f"{integrations.__name__}.{found.name}"
        try:
            module = importlib.import_module(package)
        except ImportError as error:
            click.echo(f"left out: {package}: {error}", err=True)
            continue
        for name, plugin in inspect.getmembers(module, inspect.isclass):
            if issubclass(plugin, BasePlugin) and plugin is not BasePlugin:
                path = plugin().get_input_args()
                if path:
                    place, _, model = path.rpartition(".")
                    yield f"{package}.{name}", getattr(importlib.import_module(place), model)


def dataclass_fields(model: type) -> Mapping[str, tuple[Any, Spec]] | None:
    """The fields of a dataclass that a recipe can set, with defaults; None for other classes."""
    if not dataclasses.is_dataclass(model):
        return None
    hints = typing.get_type_hints(model)
    found = {}
    for field in dataclasses.fields(model):
        if not field.init:
            continue
        default = field.default.value if isinstance(field.default, enum.Enum) else field.default
        known = default is not None and isinstance(default, _JSON)
        found[field.name] = (hints[field.name], {"default": default} if known else {})
    return found


# Asserted by LLaMA-Factory in `__post_init__` and while a model is loaded, where no annotation shows it.
_ASSERTED: dict[str, list[Any]] = {
    "quantization_bit": [2, 3, 4, 5, 6, 8],
    "ref_model_quantization_bit": [4, 8],
    "reward_model_quantization_bit": [4, 8],
}


def transformers_schema() -> dict[str, Any]:
    """The keys that LLaMA-Factory's recipes have from transformers."""
    from transformers import Seq2SeqTrainingArguments
    from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy, SchedulerType
    from transformers.training_args import OptimizerNames

    keys = Schema(dataclass_fields).keys(Seq2SeqTrainingArguments)
    # Annotated as text as well, but TrainingArguments refuses any other.
    enums: dict[str, type[enum.Enum]] = {
        "optim": OptimizerNames,
        "lr_scheduler_type": SchedulerType,
        "eval_strategy": IntervalStrategy,
        "logging_strategy": IntervalStrategy,
        "save_strategy": SaveStrategy,
        "hub_strategy": HubStrategy,
    }
    for key, names in enums.items():
        keys[key]["choices"] = [choice.value for choice in names]
    return {"keys": {key: spec | {"groups": ["training"]} for key, spec in keys.items()}}


def llamafactory_schema() -> dict[str, Any]:
    """Every key of LLaMA-Factory's commands but transformers', its templates, and the models of each.

    A key's `groups` are the argument classes it stands in: `train` reads all but `evaluation`; `export`,
    `chat` and `api` read `model`, `data`, `finetuning` and `generating`; `eval` reads the rest.
    """
    from llamafactory import hparams
    from llamafactory.data.template import TEMPLATES, ReasoningTemplate
    from llamafactory.extras.constants import DEFAULT_TEMPLATE, SUPPORTED_MODELS

    schema = Schema(dataclass_fields)
    keys: dict[str, Spec] = {}
    for group in ("model", "data", "training", "finetuning", "generating", "evaluation"):
        model = getattr(hparams, f"{group.capitalize()}Arguments")
        own = {
            name
            for part in model.__mro__
            if part.__module__.startswith("llamafactory.")
            for name in vars(part).get("__annotations__", {})
        }
        for key, spec in schema.keys(model).items():
            if key in own:
                keys.setdefault(key, spec | {"groups": []})["groups"].append(group)
    for key, choices in _ASSERTED.items():
        keys[key]["choices"] = choices
    made_for: dict[str, set[str]] = {}
    for name, sources in SUPPORTED_MODELS.items():
        for path in sources.values() if name in DEFAULT_TEMPLATE else ():
            made_for.setdefault(path, set()).add(DEFAULT_TEMPLATE[name])
    return {
        "keys": dict(sorted(keys.items())),
        "templates": {
            name: {"thinking": isinstance(template, ReasoningTemplate)}
            for name, template in sorted(TEMPLATES.items())
        },
        "models_of_templates": {path: sorted(names) for path, names in sorted(made_for.items())},
        "models": dict(sorted(schema.models.items())),
    }


PARTS: dict[str, tuple[str, ...]] = {
    "axolotl": ("axolotl",),
    "llamafactory": ("llamafactory", "transformers"),
}
"""The files that describe an engine."""


def snapshot(part: str) -> tuple[str, dict[str, Any]]:
    """Return the installed version, as the file of `part` names it, and its sections."""
    if part == "axolotl":
        return version("axolotl"), axolotl_schema()
    if part == "transformers":
        return stored.series(version("transformers")), transformers_schema()
    from llamafactory.extras.env import VERSION  # a checkout on the path has no metadata

    return VERSION, llamafactory_schema()


def merge(held: Mapping[str, Any], release: str, sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file holds with one version added or replaced."""
    versions = {name: stored.select(held, name) for name in held.get("versions", ())} | {release: sections}
    names = sorted(versions, key=stored.order)
    merged: dict[str, Any] = {"versions": names}
    for section in dict.fromkeys(part for one in versions.values() for part in one):
        deep = section in stored.DEEP
        groups = sorted({key for one in versions.values() for key in one.get(section, {})})
        merged[section] = {}
        for group in groups:
            parts = {name: versions[name].get(section, {}).get(group) for name in names}
            if deep:
                inner = sorted({key for part in parts.values() for key in part or ()})
                merged[section][group] = {
                    key: _by_version({name: (part or {}).get(key) for name, part in parts.items()})
                    for key in inner
                }
            else:
                merged[section][group] = _by_version(parts)
    return merged


def _by_version(values: Mapping[str, Any]) -> Any:
    """The value itself where all versions have the same, else each value with the versions that have it."""
    every = list(values.values())
    if all(value == every[0] for value in every):
        return every[0]
    found: dict[str, list[str]] = {}
    for name, value in values.items():
        if value is not None:
            found.setdefault(json.dumps(value), []).append(name)
    return {stored.VERSIONED: [{"in": names, "is": json.loads(text)} for text, names in found.items()]}


def text_of(content: Mapping[str, Any]) -> str:
    """Indented down to the keys, one key a line, so that a change of version reads well as a diff."""
    lines = []
    for name, value in content.items():
        if not isinstance(value, dict):
            lines.append(f'  "{name}": {json.dumps(value)}')
            continue
        entries = [f'    "{key}": {json.dumps(entry)}' for key, entry in value.items()]
        if name in stored.DEEP:
            entries = [
                f'    "{key}": {{\n'
                + ",\n".join(f'      "{inner}": {json.dumps(spec)}' for inner, spec in entry.items())
                + "\n    }"
                for key, entry in value.items()
            ]
        lines.append(f'  "{name}": {{\n' + ",\n".join(entries) + "\n  }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


@click.command()
@click.argument("engine", type=click.Choice(sorted(PARTS)))
def main(engine: str) -> None:
    r"""Add the ENGINE that is installed in this environment to its file.

    \b
    Example:
      .venv-axolotl/bin/python scripts/snapshot_schema.py axolotl
    """
    for part in PARTS[engine]:
        release, sections = snapshot(part)
        path = stored.FOLDER / f"{part}.json"
        held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text_of(merge(held, release, sections)), encoding="utf-8")
        click.echo(f"{path}: {release}, {len(sections['keys'])} keys")


if __name__ == "__main__":
    main()
