"""Axolotl, seen from outside: the command that trains a recipe, and what has to be true before it is started.

Axolotl passes over plugins it cannot import, files that have changed and rows without a label, without a
word. We look before it is started, and import nothing of it. Its keys are looked at by `tunebook.checks`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.registry import load_registry
from tunebook.engines.axolotl.cache import prepared_path
from tunebook.engines.axolotl.datasets import block_faults, entry_of_block, render_block
from tunebook.engines.axolotl.evaluation import evaluation_values, start_values
from tunebook.engines.axolotl.plugins import plugin_faults
from tunebook.engines.axolotl.rows import label_fault
from tunebook.engines.axolotl.rules import DIRECTORY_KEY, NAMES_KEY, PLUGIN, evaluation_faults
from tunebook.errors import TunebookError, join_errors
from tunebook.types import Command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NO_TELEMETRY = {"AXOLOTL_DO_NOT_TRACK": "1"}
"""Axolotl reports to its makers unless told not to; runs that we start never do."""


class Axolotl:
    """The engine as its 0.19.0 behaves. Its metrics come from the plugin that the recipe names."""

    registry_key = DIRECTORY_KEY
    cache_key = "dataset_prepared_path"
    uses_startup_hook = False
    device_map_key: str | None = "device_map"
    path_keys: tuple[str, ...] = (DIRECTORY_KEY, "deepspeed", "chat_template_jinja")
    model_keys: tuple[str, ...] = ("base_model", "lora_model_dir", "tokenizer_config")
    set_keys: tuple[str, ...] = (DIRECTORY_KEY, NAMES_KEY, "datasets", "test_datasets")
    packages: tuple[str, ...] = (
        *("axolotl", "torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers"),
        *("safetensors", "deepspeed", "bitsandbytes", "flash-attn", "liger-kernel", "numpy"),
    )

    def train(
        self,
        recipe_file: Path,
        values: Mapping[str, Any],
        *,
        environment: Path,
        gpus: int,
        environ: Mapping[str, str],
    ) -> Command:
        """Return `axolotl train <recipe_file>` of that environment; see `Engine.train`.

        One process is started directly, several by torchrun. Axolotl's own default, `accelerate launch`,
        imports everything twice and reads settings from the user's home.
        """
        return self._command(
            "train", recipe_file, values, environment=environment, gpus=gpus, environ=environ
        )

    def evaluate(
        self,
        recipe_file: Path,
        values: Mapping[str, Any],
        *,
        environment: Path,
        gpus: int,
        environ: Mapping[str, str],
    ) -> Command:
        """Return `axolotl evaluate <recipe_file>`, started as for training."""
        return self._command(
            "evaluate", recipe_file, values, environment=environment, gpus=gpus, environ=environ
        )

    def evaluation(
        self, values: Mapping[str, Any], *, datasets: Sequence[str] | None, home: Path
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the recipe that evaluates, and what its sets are called; see `Engine.evaluation`."""
        located, _ = _locate(values, home)
        directory = Path(str(values.get(DIRECTORY_KEY) or "datasets_info"))
        if not directory.exists() and (home / directory).exists():
            directory = home / directory
        made = evaluation_values(
            located, _blocks(located, "test_datasets"), load_registry(directory), datasets
        )
        return made, self.evaluation_sets(made)

    def evaluation_start(
        self, values: Mapping[str, Any], *, folder: Path, whole_model: str, adapter: str | None
    ) -> dict[str, Any]:
        """Return the recipe of one start; see `Engine.evaluation_start`."""
        made = start_values(values, whole_model=whole_model, adapter=adapter)
        return {**made, "output_dir": str(folder), "dataset_prepared_path": str(folder / "prepared")}

    def _command(
        self,
        verb: str,
        recipe_file: Path,
        values: Mapping[str, Any],
        *,
        environment: Path,
        gpus: int,
        environ: Mapping[str, str],
    ) -> Command:
        programs = environment / "bin"
        # Axolotl starts a bare `torchrun`: it must be this environment's.
        env = {"PATH": f"{programs}{os.pathsep}{environ.get('PATH', os.defpath)}", **NO_TELEMETRY}
        argv = [str(programs / "axolotl"), verb, str(recipe_file)]
        sharded = any(values.get(key) for key in ("deepspeed", "fsdp", "fsdp_config"))
        if values.get("use_ray"):
            return Command(argv=tuple(argv), env=env)
        nodes = environ.get("NNODES", "1")
        processes = environ.get("NPROC_PER_NODE", str(max(1, gpus)))
        if nodes != "1" or processes != "1" or (gpus == 1 and sharded):
            # With underscores: Axolotl does not know the dashed spelling and adds its own.
            options = [f"--nproc_per_node={processes}"]
            if nodes != "1":
                # By fixed ranks: torchrun's elastic meeting needs names that resolve on every node.
                names = {"nnodes": nodes, "node_rank": "NODE_RANK", "master_addr": "MASTER_ADDR"}
                names |= {"master_port": "MASTER_PORT"}
                options += [f"--{name}={environ.get(value, value)}" for name, value in names.items()]
            return Command(argv=(*argv, "--launcher", "torchrun", "--", *options), env=env)
        return Command(argv=(*argv, "--launcher", "python"), env=env)

    def prepare(
        self, values: Mapping[str, Any], *, environment: Path, home: Path
    ) -> tuple[dict[str, Any], list[str]]:
        """Point the recipe at this machine's data and look for what Axolotl would pass over.

        Args:
            values: The resolved recipe.
            environment: The virtual environment of the engine.
            home: Where data is looked for that is not below the current folder.

        Returns:
            The recipe to write, with the tokenised cache named after the data, and notes for the user.

        Raises:
            TunebookError: The run would not do what the recipe says; all faults are named.
        """
        prepared, notes = _locate(values, home)
        faults = plugin_faults(prepared, environment)
        if PLUGIN in (prepared.get("plugins") or []):
            faults += evaluation_faults(prepared, Path.cwd())
        if not faults:
            faults += _data_faults(prepared)
        if faults:
            raise join_errors(faults)
        prepared["dataset_prepared_path"] = prepared_path(prepared, Path.cwd())
        return prepared, notes

    def on_shard(self, values: Mapping[str, Any], shard: Path) -> dict[str, Any]:
        """Return the recipe with the blocks that its entries have in `shard`; see `Engine.on_shard`."""
        directory = values.get(DIRECTORY_KEY)
        if not isinstance(directory, str):
            raise TunebookError(
                "the recipe names no registry, so its data cannot be found in the parts of a split",
                fix=f"name the registry that the split was made from: {DIRECTORY_KEY}: datasets_info",
            )
        registry, parts = load_registry(Path(directory)), load_registry(shard)
        located, _ = _locate(values, Path(directory).absolute().parent)
        for key in ("datasets", "test_datasets"):
            blocks = []
            for block in _blocks(located, key):
                name = entry_of_block(block, registry, directory)
                if name is None:
                    raise TunebookError(
                        f"{key}: no entry of {registry.path} reads {block.get('path')}",
                        fix="add an entry for it, and split that",
                    )
                # What the recipe says beside the location, such as a slice of the split, stays.
                blocks.append({**block, **render_block(parts.entry(name), str(shard))})
            if blocks:
                located[key] = blocks
        located[DIRECTORY_KEY] = str(shard)
        return located

    def dataset_names(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the entries of the evaluation sets, and those that read the data of `datasets:`."""
        directory = values.get(DIRECTORY_KEY)
        if not isinstance(directory, str):
            return ()
        registry = load_registry(Path(directory))
        located, _ = _locate(values, Path(directory).absolute().parent)
        trained = [entry_of_block(block, registry, directory) for block in _blocks(located, "datasets")]
        return tuple(dict.fromkeys([*(name for name in trained if name), *self.evaluation_sets(values)]))

    def evaluation_sets(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the registry entries that the recipe's evaluation sets are."""
        return tuple(values.get(NAMES_KEY) or ())


def _blocks(values: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    blocks = values.get(key)
    return [block for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []


def _locate(values: Mapping[str, Any], home: Path) -> tuple[dict[str, Any], list[str]]:
    """Point data that is not below the current folder at tunebook's own."""
    located, notes = dict(values), []
    for key in ("datasets", "test_datasets"):
        blocks = []
        for block in values.get(key) or []:
            path = block.get("path") if isinstance(block, dict) else None
            if isinstance(path, str) and not Path(path).exists() and (home / path).exists():
                block = {**block, "path": str(home / path)}
                notes.append(f"{key}: {home / path}")
            blocks.append(block)
        if blocks:
            located[key] = blocks
    return located, notes


def _data_faults(values: Mapping[str, Any]) -> Iterator[TunebookError]:
    for key in ("datasets", "test_datasets"):
        for block in _blocks(values, key):
            fault = label_fault(block, Path.cwd())
            if fault:
                yield TunebookError(f"{key}: {fault.problem}", fix=fault.fix)
    if PLUGIN in (values.get("plugins") or []):
        directory = str(values[DIRECTORY_KEY])
        registry = load_registry(Path(directory))
        pairs = zip(values[NAMES_KEY], _blocks(values, "test_datasets"), strict=True)
        for name, block in pairs:
            yield from block_faults(block, registry.entry(name), directory)
