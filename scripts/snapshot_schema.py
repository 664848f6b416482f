"""Write down the keys that an installed engine accepts, so that a recipe can be checked without the engine.

Run it in the engine's environment. The file is named after the engine's version and lies in the package;
a test holds it equal to what this script makes.

Example:
  .venv-axolotl/bin/python scripts/snapshot_schema.py axolotl
  .venv/bin/python scripts/snapshot_schema.py llamafactory
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
from pathlib import Path
from typing import Any

import click

SCHEMAS = Path(__file__).resolve().parents[1] / "plugins" / "tunebook" / "engines" / "schemas"

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
        spec: Spec = {"types": sorted(kinds)}
        if choices and not {"any", "string"} & {self._kind(part) for part in self._parts(annotation)}:
            spec["choices"] = list(dict.fromkeys(choices))
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


def llamafactory_schema() -> dict[str, Any]:
    """Every key of LLaMA-Factory's commands, its templates, and the models each one is made for.

    A key's `groups` are the argument classes it stands in: `train` reads all but `evaluation`; `export`,
    `chat` and `api` read `model`, `data`, `finetuning` and `generating`; `eval` reads the rest.
    """
    from llamafactory import hparams
    from llamafactory.data.template import TEMPLATES, ReasoningTemplate
    from llamafactory.extras.constants import DEFAULT_TEMPLATE, SUPPORTED_MODELS
    from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy, SchedulerType
    from transformers.training_args import OptimizerNames

    schema = Schema(dataclass_fields)
    keys: dict[str, Spec] = {}
    for group in ("model", "data", "training", "finetuning", "generating", "evaluation"):
        for key, spec in schema.keys(getattr(hparams, f"{group.capitalize()}Arguments")).items():
            keys.setdefault(key, spec | {"groups": []})["groups"].append(group)
    # Annotated as text as well, but TrainingArguments refuses any other.
    enums: dict[str, type[enum.Enum]] = {
        "optim": OptimizerNames,
        "lr_scheduler_type": SchedulerType,
        "eval_strategy": IntervalStrategy,
        "logging_strategy": IntervalStrategy,
        "save_strategy": SaveStrategy,
        "hub_strategy": HubStrategy,
    }
    asserted = _ASSERTED | {key: [choice.value for choice in names] for key, names in enums.items()}
    for key, choices in asserted.items():
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


ENGINES = {"axolotl": axolotl_schema, "llamafactory": llamafactory_schema}


def snapshot(engine: str) -> tuple[Path, str]:
    """Return where the snapshot of the installed engine belongs, and its text."""
    release = version(engine)
    content = {"engine": engine, "version": release, **ENGINES[engine]()}
    return SCHEMAS / f"{engine}-{release}.json", _text(content)


def _text(content: Mapping[str, Any]) -> str:
    """Indented down to the keys, one key a line, so that a change of version reads well as a diff."""
    lines = []
    for name, value in content.items():
        if not isinstance(value, dict):
            lines.append(f'  "{name}": {json.dumps(value)}')
            continue
        entries = [f'    "{key}": {json.dumps(entry)}' for key, entry in value.items()]
        if name in ("models", "plugins"):
            entries = [
                f'    "{key}": {{\n'
                + ",\n".join(f'      "{inner}": {json.dumps(spec)}' for inner, spec in entry.items())
                + "\n    }"
                for key, entry in value.items()
            ]
        lines.append(f'  "{name}": {{\n' + ",\n".join(entries) + "\n  }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


@click.command()
@click.argument("engine", type=click.Choice(sorted(ENGINES)))
def main(engine: str) -> None:
    r"""Write the snapshot of the ENGINE that is installed in this environment.

    \b
    Example:
      .venv-axolotl/bin/python scripts/snapshot_schema.py axolotl
    """
    path, text = snapshot(engine)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    click.echo(f"{path}: {len(json.loads(text)['keys'])} keys")


if __name__ == "__main__":
    main()
