"""Engines, seen from outside: which command to run, in which environment. No engine is imported.

An engine is an object with the methods of `Engine`. They start and write nothing; `prepare` reads files.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.types import Command, EngineName


class Engine(Protocol):
    """What an engine does with a recipe, decided from its values only."""

    registry_key: str
    """Recipe key that names the folder of the dataset registry."""
    cache_key: str
    """Recipe key that names the folder of tokenised rows."""
    uses_startup_hook: bool
    """Whether our metrics reach the engine by the start-up hook of its environment."""
    device_map_key: str | None
    """Recipe key that spreads a model over GPUs; None where our hook does that."""
    path_keys: tuple[str, ...]
    """Recipe keys that name a file or folder of this machine."""
    model_keys: tuple[str, ...]
    """Recipe keys that name a model: a folder of this machine, or a name on a hub."""
    set_keys: tuple[str, ...]
    """Recipe keys that name evaluation sets and where they are."""
    packages: tuple[str, ...]
    """Distributions whose versions decide what a run computes."""

    def train(
        self,
        recipe_file: Path,
        values: Mapping[str, Any],
        *,
        environment: Path,
        gpus: int,
        environ: Mapping[str, str],
    ) -> Command:
        """Return the engine's own command that trains `recipe_file`.

        Args:
            recipe_file: The resolved recipe.
            values: What it holds.
            environment: The virtual environment that has the engine.
            gpus: How many are to be used; 0 for the CPU.
            environ: The caller's environment variables, which win where they say how to start.

        Raises:
            TunebookError: The engine cannot be started in this way.
        """
        ...

    def evaluation(
        self, values: Mapping[str, Any], *, datasets: Sequence[str] | None, home: Path
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Turn a training recipe into one that evaluates: training off; same loader, template and rows.

        Args:
            values: The resolved training recipe.
            datasets: Registry entries to evaluate on; None for the recipe's own sets.
            home: Where data is looked for that is not below the current folder.

        Returns:
            What decides the answers of a model, all of it and little else; and the names of the sets, in
            the order in which the engine evaluates them.

        Raises:
            TunebookError: There is nothing to evaluate on.
        """
        ...

    def evaluation_start(
        self, values: Mapping[str, Any], *, folder: Path, whole_model: str, adapter: str | None
    ) -> dict[str, Any]:
        """Complete what `evaluation` gave to a recipe that the engine runs.

        Args:
            values: From `evaluation`.
            folder: The engine's `output_dir` of this start.
            whole_model: The model that the first subject is, or that its adapter is put on.
            adapter: Any adapter that belongs on that model; None for fully trained models.
        """
        ...

    def evaluate(
        self,
        recipe_file: Path,
        values: Mapping[str, Any],
        *,
        environment: Path,
        gpus: int,
        environ: Mapping[str, str],
    ) -> Command:
        """Return the engine's own command that evaluates by `recipe_file`; as `train`."""
        ...

    def prepare(
        self, values: Mapping[str, Any], *, environment: Path, folders: Sequence[Path]
    ) -> tuple[dict[str, Any], list[str]]:
        """Find, on this machine, what the engine would ignore in silence.

        Args:
            values: The resolved recipe.
            environment: The virtual environment that has the engine.
            folders: Where data is looked for that is not below the current folder.

        Returns:
            The recipe to write, and what the user should know, a line each.

        Raises:
            TunebookError: The run would not do what the recipe says; all faults are named.
        """
        ...

    def on_shard(self, values: Mapping[str, Any], shard: Path) -> dict[str, Any]:
        """Return the recipe with its data read from `shard`, a registry folder with the same entries.

        Raises:
            TunebookError: The recipe's data is in no entry of the registry.
        """
        ...

    def training_sets(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the registry entries that the recipe trains on."""
        ...

    def dataset_names(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return every registry entry that a recipe names, each once."""
        ...

    def evaluation_sets(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the registry entries that a recipe evaluates on."""
        ...


_ENGINES: dict[EngineName, str] = {
    "llamafactory": "tunebook.engines.llamafactory.engine:LlamaFactory",
    "axolotl": "tunebook.engines.axolotl.engine:Axolotl",
}


def load(name: EngineName) -> Engine:
    """Import and return the engine of that name."""
    module, _, attribute = _ENGINES[name].partition(":")
    engine: Engine = getattr(importlib.import_module(module), attribute)()
    return engine
