"""What the rules look at: one recipe with its overlays, the place of each value, and the files around it."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunebook import engines, files, paths
from tunebook.checks.findings import Edit, Finding, Severity
from tunebook.checks.names import FORMER
from tunebook.data import registry as datasets
from tunebook.engines import objectives
from tunebook.engines.schema import load_schema, order
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tunebook.checks.document import Place
    from tunebook.engines.objectives import Objective
    from tunebook.types import DatasetEntry, EngineName


EngineCommand = Literal["train", "export", "chat", "eval"]
"""The engine's command a file is for; only LLaMA-Factory has more than `train`."""

# One setting under its names in LLaMA-Factory and in Axolotl; an empty name where an engine has none.
_NAMES: dict[str, tuple[str, str]] = {
    "model": ("model_name_or_path", "base_model"),
    "length": ("cutoff_len", "sequence_len"),
    "batch": ("per_device_train_batch_size", "micro_batch_size"),
    "accumulation": ("gradient_accumulation_steps", "gradient_accumulation_steps"),
    "epochs": ("num_train_epochs", "num_epochs"),
    "scheduler": ("lr_scheduler_type", "lr_scheduler"),
    "optimizer": ("optim", "optimizer"),
    "patience": ("early_stopping_steps", "early_stopping_patience"),
}


@dataclass(frozen=True, kw_only=True)
class CheckedRecipe:
    """One recipe under check. Not slotted: what it reads from disk is cached on it."""

    engine: EngineName
    command: EngineCommand
    file: str
    """The recipe's file, as the user gave it."""
    values: Mapping[str, Any]
    """Overlays and overrides merged in."""
    places: Mapping[str, Place]
    """Of each value, in whichever file set it last; none for an override."""
    overridden: frozenset[str]
    """Dotted keys that were set on the command line."""
    folders: tuple[Path, ...]
    """Where relative paths are looked for, in this order."""
    home: Path
    """The folder that holds our `recipes/` and `datasets_info/`."""
    gpus: int
    """GPUs that the arithmetic is for."""

    @property
    def partial(self) -> bool:
        """Whether the file is an overlay, which a recipe completes."""
        return Path(self.file).parent.name == "overlays"

    @functools.cached_property
    def schema(self) -> Mapping[str, Any]:
        """The engine's snapshot."""
        return load_schema(self.engine)

    def since(self, version: str) -> bool:
        """Whether the engine's version that the recipe is held against is `version` or a later one."""
        return order(self.schema["version"]) >= order(version)

    def transformers(self, version: str) -> bool:
        """Whether transformers' version that the recipe is held against is `version` or a later one."""
        return order(self.schema["transformers"]) >= order(version)

    def name(self, setting: str) -> str:
        """Return the engine's own key of a setting that both engines have.

        Raises:
            KeyError: There is no such setting.
        """
        return _NAMES[setting][0 if self.engine == "llamafactory" else 1]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value the recipe gives `key`, under any of its names; `default` where it gives none."""
        value = next(
            (self.values[name] for name in self._names(key) if self.values.get(name) is not None), None
        )
        return default if value is None else value

    def _names(self, key: str) -> Iterator[str]:
        """The names that the engine itself reads as `key`, that one first."""
        yield key
        yield from self.schema["keys"].get(key, {}).get("aliases", ())
        if self.engine == "axolotl" and key in FORMER:
            yield FORMER[key]

    def effective(self, key: str) -> Any:
        """Return the recipe's value of `key`, or the engine's default."""
        return self.get(key, self.schema["keys"].get(key, {}).get("default"))

    def setting(self, setting: str) -> Any:
        """Return the value of a setting under this engine's name, or the engine's default."""
        return self.effective(self.name(setting))

    def number(self, key: str) -> float | None:
        """Return `key` as a number, number-like text included; None where it is none."""
        return as_number(self.effective(key))

    def finding(
        self,
        key: str | None,
        *,
        rule: str,
        severity: Severity,
        message: str,
        fix: str | None,
        edit: Edit | None = None,
    ) -> Finding:
        """Return a finding at the place of `key`, or of the nearest mapping around it."""
        place = self._place(key)
        return Finding(
            file="command line" if key in self.overridden else self.file if place is None else place.file,
            line=None if place is None else place.line,
            key=key,
            rule=rule,
            severity=severity,
            message=message,
            fix=fix,
            text=None if place is None else place.text,
            edit=edit if place is not None else None,
        )

    def error(
        self, key: str | None, rule: str, message: str, *, fix: str | None, edit: Edit | None = None
    ) -> Finding:
        """Return a finding that stops the run, or makes it another run than the recipe says."""
        return self.finding(key, rule=rule, severity="error", message=message, fix=fix, edit=edit)

    def warning(
        self, key: str | None, rule: str, message: str, *, fix: str | None, edit: Edit | None = None
    ) -> Finding:
        """Return a finding that may well spoil the run."""
        return self.finding(key, rule=rule, severity="warning", message=message, fix=fix, edit=edit)

    def hint(
        self, key: str | None, rule: str, message: str, *, fix: str | None, edit: Edit | None = None
    ) -> Finding:
        """Return a finding that is for information."""
        return self.finding(key, rule=rule, severity="hint", message=message, fix=fix, edit=edit)

    def rename(self, key: str, to: str) -> Edit | None:
        """Return the edit that writes another key; None where it is there already or `key` is in no file."""
        place = self.places.get(key)
        if (
            place is None
            or place.key_span is None
            or f"{key.rpartition('.')[0]}.{to}".lstrip(".") in self.places
        ):
            return None
        return Edit(line=place.line, start=place.key_span[0], end=place.key_span[1], text=to)

    def rewrite(self, key: str, to: str) -> Edit | None:
        """Return the edit that writes another scalar; None where there is no scalar on one line."""
        place = self.places.get(key)
        if place is None or place.value_span is None:
            return None
        return Edit(line=place.value_line, start=place.value_span[0], end=place.value_span[1], text=to)

    def locate(self, path: str) -> Path | None:
        """Return the file or folder a recipe's path means; None where there is none."""
        found = Path(path).expanduser()
        if found.exists():
            return found
        if found.is_absolute():
            return None
        return next((folder / found for folder in self.folders if (folder / found).exists()), None)

    def interpolated(self, key: str | None) -> bool:
        """Whether the value of `key`, or of what is around it, is text that waits for a value: `${NAME}`."""
        place = self._place(key)
        return place is not None and "${" in (place.raw or "")

    @functools.cached_property
    def registry_folder(self) -> str | None:
        """The recipe's `dataset_dir`, as written; None where the registry is not a local folder."""
        value = self.effective(engines.load(self.engine).registry_key)
        local = isinstance(value, str) and value and value != "ONLINE" and not value.startswith("REMOTE:")
        return value if local else None

    @functools.cached_property
    def registry(self) -> datasets.Registry | TunebookError | None:
        """The registry, the error that reading it gave, or None where there is none to read."""
        if self.registry_folder is None:
            return None
        folder = self.locate(self.registry_folder)
        try:
            return datasets.load_registry(folder or Path(self.registry_folder))
        except TunebookError as error:
            return error

    def entries(self, names: tuple[str, ...]) -> list[DatasetEntry]:
        """Return the registry entries of those `names` that can be read; another rule reports the rest."""
        found = []
        for name in names:
            try:
                if isinstance(self.registry, datasets.Registry):
                    found.append(self.registry.entry(name))
            except TunebookError:
                continue
        return found

    @functools.cached_property
    def evaluation_sets(self) -> tuple[str, ...]:
        """Names of the registry entries the recipe evaluates on."""
        return engines.load(self.engine).evaluation_sets(self.values)

    @functools.cached_property
    def objective(self) -> Objective | None:
        """What the recipe trains for; None for supervised fine-tuning."""
        return objectives.objective(self.engine, self.values)

    @functools.cached_property
    def evaluates(self) -> bool:
        """Whether the recipe names anything to evaluate on."""
        if self.engine == "llamafactory":
            return bool(self.get("eval_dataset") or as_number(self.get("val_size")))
        return bool(self.get("test_datasets") or as_number(self.get("val_set_size")))

    @functools.cached_property
    def model_config(self) -> Mapping[str, Any]:
        """The local model's `config.json`; empty where the model is not on this machine."""
        name = self.get(self.name("model"))
        folder = self.locate(name) if isinstance(name, str) and name else None
        if folder is None or not (folder / "config.json").is_file():
            return {}
        return _read_json(folder / "config.json")

    @functools.cached_property
    def environment(self) -> Path | None:
        """The engine's environment, which `tunebook train` would use; None where there is none."""
        try:
            return paths.engine_environment(self.engine)
        except TunebookError:
            return None

    def installed(self, distribution: str) -> str:
        """Return the version of a distribution in the engine's environment; empty where it is not there."""
        return "" if self.environment is None else _installed(self.environment, distribution)

    @functools.cached_property
    def zero_stage(self) -> int:
        """The DeepSpeed ZeRO stage of the recipe; 0 where it uses none or its file cannot be read."""
        config = self.deepspeed
        stage = config.get("zero_optimization", {}).get("stage") if config else None
        if isinstance(stage, int):
            return stage
        name = self.get("deepspeed")
        named = re.search(r"z(?:ero)?[-_]?([0-3])", name) if isinstance(name, str) and not config else None
        return int(named[1]) if named else 0

    @functools.cached_property
    def deepspeed(self) -> Mapping[str, Any]:
        """The recipe's DeepSpeed configuration; empty where it has none or its file cannot be read."""
        value = self.get("deepspeed")
        if isinstance(value, dict):
            return value
        path = self.locate(value) if isinstance(value, str) and value else None
        if path is None or not path.is_file():
            return {}
        config = _read_json(path)
        return config if isinstance(config.get("zero_optimization", {}), dict) else {}

    def _place(self, key: str | None) -> Place | None:
        while key:
            named = next((name for name in self._names(key) if name in self.places), None)
            if named is not None:
                return self.places[named]
            if key in self.overridden:
                return None
            key = re.sub(r"(?:\.[^.\[\]]*|\[\d+\]|^[^.\[\]]*)$", "", key)
        return None


def _read_json(path: Path) -> Mapping[str, Any]:
    """What a file holds; empty where that is no JSON object."""
    try:
        held = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


@functools.cache
def _installed(environment: Path, distribution: str) -> str:
    """Kept for all files checked together: reading it is the dearest part of a check."""
    return paths.installed_versions(environment, [distribution]).get(distribution, "")


def is_no_hub_name(value: str) -> bool:
    """Whether a model of this name can only be a folder; on a hub it is `name` or `owner/name`."""
    return value.startswith(("/", ".", "~")) or value.count("/") > 1


# Numbers as recipes hold them: YAML and the engines take some text for numbers.


def as_number(value: Any) -> float | None:
    """Return a number, or text that reads as one, as a float; None for anything else, true and false too."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None
