"""How the runs of a study were set up: data, hyper-parameters under one name for both engines, versions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.report.study_records import Table
from tunebook.report.study_results import number_of
from tunebook.report.study_words import listed, optional

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tunebook.report.records import RunReport

UNKNOWN = "not written down"
_DEFAULT = "engine's default"
_NOT_USED = "not used"
_WITHOUT = {"quantisation": "none", "training rows": "all", "most steps": "by epochs"}
"""What it means that a recipe does not have a setting, where both engines mean the same."""
_WIDE = 6
"""More runs than this are rows of a table, and their settings columns."""

# What readers ask for, with the key of LLaMA-Factory (or of the Trainer and PEFT) and of Axolotl.
_SETTINGS: dict[str, tuple[str, ...]] = {
    "training rows": ("max_samples",),
    "epochs": ("num_train_epochs", "num_epochs"),
    "most steps": ("max_steps",),
    "learning rate": ("learning_rate",),
    "schedule": ("lr_scheduler_type", "lr_scheduler"),
    "schedule options": ("lr_scheduler_kwargs",),
    "warm-up share": ("warmup_ratio",),
    "warm-up steps": ("warmup_steps",),
    "rows per device and step": ("per_device_train_batch_size", "micro_batch_size"),
    "gradient accumulation": ("gradient_accumulation_steps",),
    "optimizer": ("optim", "optimizer"),
    "weight decay": ("weight_decay",),
    "gradient clipping": ("max_grad_norm",),
    "LoRA rank": ("lora_rank", "lora_r", "r"),
    "LoRA alpha": ("lora_alpha",),
    "LoRA dropout": ("lora_dropout",),
    "LoRA targets": ("lora_target", "lora_target_modules", "lora_target_linear", "target_modules"),
    "quantisation": ("quantization_bit", "load_in_4bit", "load_in_8bit"),
    "bf16": ("bf16",),
    "fp16": ("fp16",),
    "longest sequence": ("cutoff_len", "sequence_len"),
    "packing": ("packing", "sample_packing"),
    "seed": ("seed",),
}


class Settings(NamedTuple):
    """The settings that all runs share, and those in which they differ; None where there are none."""

    shared: Table | None
    different: Table | None


def runs_table(runs: Sequence[RunReport]) -> Table:
    """What was trained how on what, one row a run."""
    return Table(
        columns=("run", "engine", "model", "method", "trained on", "trained parameters"),
        rows=tuple(
            (
                run.name,
                run.engine or UNKNOWN,
                run.model or UNKNOWN,
                run.method or UNKNOWN,
                training_data(run) or UNKNOWN,
                optional(number_of(run, "Trained parameters")),
            )
            for run in runs
        ),
        numeric=frozenset({"trained parameters"}),
    )


def training_data(run: RunReport) -> str | None:
    """The training sets by their names in the registry, where the run wrote these down."""
    return ", ".join(_registered(run)) or run.trained_on


def same_training_data(one: RunReport, other: RunReport) -> bool | None:
    """Whether two runs learned from the same rows: by the files' hashes, else by name; None if not known."""
    hashes = [_hashes(run) for run in (one, other)]
    if all(hashes):
        return hashes[0] == hashes[1]
    if one.trained_on is None or other.trained_on is None:
        return None
    return training_data(one) == training_data(other)


def _registered(run: RunReport) -> list[str]:
    datasets = (run.provenance or {}).get("datasets", {})
    evaluated = {row.dataset for row in run.evaluations}
    return [name for name in datasets if name not in evaluated]


def _hashes(run: RunReport) -> set[str]:
    datasets = (run.provenance or {}).get("datasets", {})
    found = [datasets[name].get("sha256") for name in _registered(run)]
    return {one for one in found if one} if all(found) else set()


def data_table(runs: Sequence[RunReport]) -> Table | None:
    """The data sets with their size and hash, each once; None where no run wrote them down."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        for name, facts in ((run.provenance or {}).get("datasets") or {}).items():
            use = "training" if name in _registered(run) else "evaluation"
            key = (
                name,
                use,
                _whole(facts.get("rows")),
                _whole(facts.get("bytes")),
                facts.get("sha256") or UNKNOWN,
            )
            rows.setdefault(key, []).append(run.name)
    if not rows:
        return None
    everywhere = all(len(used) == len(runs) for used in rows.values())
    columns = ("data set", "used for", "rows", "bytes", "sha256")
    return Table(
        columns=columns if everywhere else (*columns, "runs"),
        rows=tuple(key if everywhere else (*key, listed(used, limit=4)) for key, used in rows.items()),
        numeric=frozenset({"rows", "bytes"}),
    )


def _whole(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else UNKNOWN


def settings_tables(runs: Sequence[RunReport]) -> Settings:
    """The settings readers ask for, shared ones apart from those that differ."""
    shared: list[tuple[str, ...]] = []
    different: dict[str, list[str]] = {}
    for label in _SETTINGS:
        values = [setting(run, label) for run in runs]
        if not any(any(one.key in _SETTINGS[label] for one in run.settings) for run in runs):
            continue
        if len(set(values)) == 1:
            shared.append((label, values[0]))
        else:
            different[label] = values
    return Settings(
        Table(columns=("setting", "value"), rows=tuple(shared)) if shared else None,
        _different(runs, different) if different else None,
    )


def _different(runs: Sequence[RunReport], different: dict[str, list[str]]) -> Table:
    if len(runs) <= _WIDE:
        columns = ("setting", *(run.name for run in runs))
        return Table(columns=columns, rows=tuple((label, *values) for label, values in different.items()))
    return Table(
        columns=("run", *different),
        rows=tuple(
            (run.name, *(values[place] for values in different.values())) for place, run in enumerate(runs)
        ),
    )


def different_settings(one: RunReport, other: RunReport) -> list[str]:
    """In what two runs differ, e.g. `learning rate (0.001, 0.002)`.

    What one of them did not use, or did not write down, is left out.
    """
    found = []
    for label in _SETTINGS:
        values = setting(one, label), setting(other, label)
        if values[0] != values[1] and not {UNKNOWN, _NOT_USED} & set(values):
            found.append(f"{label} ({values[0]}, {values[1]})")
    return found


def setting(run: RunReport, label: str) -> str:
    """One setting as a text, whatever the engine calls it."""
    known = {one.key: one.value for one in run.settings}
    for key in _SETTINGS[label]:
        value = known.get(key)
        # By identity: a seed of 0 and a dropout of 0.0 are settings, though Python takes them for False.
        if value is not None and not (value is False and label == "quantisation"):
            return _text(value, key)
    if label == "training rows" and (parts := _parts(known.get("datasets"))):
        return parts
    if label.startswith("LoRA") and run.method and "LoRA" not in run.method:
        return _NOT_USED
    # Without its recipe a run may have set what its model card does not list.
    return _WITHOUT.get(label, _DEFAULT) if run.recipe_text is not None else UNKNOWN


def _parts(datasets: object) -> str | None:
    """The parts of the data that an Axolotl configuration asks for, e.g. `train[:64]`."""
    entries = datasets if isinstance(datasets, list) else []
    splits = [str(entry.get("split", "")) for entry in entries if isinstance(entry, dict)]
    return ", ".join(split for split in splits if "[" in split) or None


def _text(value: Any, key: str) -> str:
    if key == "quantization_bit" or key.startswith("load_in_"):
        return f"{value if key == 'quantization_bit' else key[8]} bits"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    if isinstance(value, str):
        return ", ".join(part.strip() for part in value.split(","))
    return json.dumps(value, ensure_ascii=False)


def hardware(runs: Sequence[RunReport]) -> list[str]:
    """What the runs were made on, one sentence for each kind of machine."""
    kinds: dict[str, list[str]] = {}
    for run in runs:
        gpus = (run.provenance or {}).get("gpus")
        if gpus is None:
            kind = "hardware that was not written down"
        else:
            kind = f"a machine with {listed(gpus)}" if gpus else "a CPU, with no NVIDIA GPU in the machine"
        kinds.setdefault(kind, []).append(run.name)
    if len(kinds) == 1:
        kind = next(iter(kinds))
        return [f"{'All runs were' if len(runs) > 1 else 'The run was'} made on {kind}."]
    return [f"Made on {kind}: {listed(named)}." for kind, named in kinds.items()]


def versions_table(runs: Sequence[RunReport]) -> Table | None:
    """Versions of the software, one column for each set of versions; None where no run wrote them down."""
    kinds: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run in runs:
        versions = (run.provenance or {}).get("versions") or {}
        if versions:
            kinds.setdefault(tuple(sorted(versions.items())), []).append(run.name)
    if not kinds:
        return None
    packages = _in_order(name for kind in kinds for name, _ in kind)
    columns = ["version"] if len(kinds) == 1 else [listed(named, limit=3) for named in kinds.values()]
    return Table(
        columns=("package", *columns),
        rows=tuple((name, *(dict(kind).get(name, "not installed") for kind in kinds)) for name in packages),
    )


def _in_order(names: Iterable[str]) -> list[str]:
    """Python, tunebook and the engines before what they stand on."""
    first = ("python", "tunebook", "llamafactory", "axolotl", "torch", "transformers")
    return sorted(set(names), key=lambda name: (first.index(name) if name in first else len(first), name))
