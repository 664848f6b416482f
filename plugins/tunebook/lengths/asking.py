"""Asks the installed engine how it builds the rows of a recipe. It is asked once: what it said is kept.

The engine runs in its own environment (`tunebook.hooks.row_probe`). The answer lies in the cache under a key
of everything that decides it: data, entry, tokenizer, the settings that are about rows, installed versions.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tunebook import __version__, paths
from tunebook.engines.axolotl.engine import TRAINING_ONLY
from tunebook.engines.schema import load_schema
from tunebook.errors import TunebookError
from tunebook.inference.output import run_module
from tunebook.lengths import batches
from tunebook.lengths.batches import Form, Skipped
from tunebook.lengths.cutting import rule_of
from tunebook.models.source import snapshot
from tunebook.runs import token_cache

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tunebook.lengths.batches import Batch
    from tunebook.lengths.cutting import Rule
    from tunebook.types import EngineName

Want = Literal["lengths", "questions"]

_ANSWER = "answer.json"
_KEPT_ANSWERS = 64
_PACKAGES = ("transformers", "tokenizers", "datasets", "fastokens")
_CODE: dict[EngineName, tuple[str, ...]] = {
    "llamafactory": ("llamafactory/data",),
    "axolotl": ("axolotl/prompt_strategies", "axolotl/utils/data"),
}
"""Where the engines' own code for rows lies: a checkout of an engine changes under one version."""
_TOKENIZER_SUFFIXES = frozenset({".json", ".jinja", ".model", ".txt", ".py", ".tiktoken"})
_TOKENIZER_KEYS = ("model_name_or_path", "model_revision", "cache_dir", "base_model", "tokenizer_config")
_PLACES = ("dir", "path")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")

# Of LLaMA-Factory's keys for models, those that are about weights: it may refuse them where there is no GPU.
# The other groups that decide no row are `training`, `finetuning` and `generating`.
_WEIGHTS = (
    *("adapter_", "quantization_", "use_unsloth", "use_kt", "kt_", "vllm_", "sglang_", "infer_", "export_"),
    *("flash_attn", "shift_attn", "rope_scaling", "mixture_of_depths", "enable_liger_kernel", "resize_vocab"),
    *("upcast_", "moe_", "use_v1_kernels", "disable_gradient_checkpointing", "print_param_status"),
)
_ELSEWHERE = frozenset(
    {
        *("dataset", "eval_dataset", "dataset_dir", "val_size", "tokenized_path", "streaming", "buffer_size"),
        *("mix_strategy", "interleave_probs", "overwrite_cache", "eval_on_each_dataset", "deepspeed"),
        *("preprocessing_num_workers", "preprocessing_batch_size"),
    }
)
"""Keys about data that each set of a job says for itself, or that decide no row's tokens."""


_AXOLOTL_ROWS = ("train_on_inputs", "rl")
"""Of the keys about training only, those that decide rows too."""
_AXOLOTL_WEIGHTS = (
    *("lora_", "peft_", "adapter", "load_in_", "bf16", "fp16", "tf32", "float16", "bfloat16", "gpu_"),
    *("flash_", "attn_", "sdp_", "flex_", "xformers_", "eager_", "sage_", "liger_", "cut_cross_"),
    *("learning_rate", "micro_batch_size", "batch_size", "gradient_", "dataloader_", "eval_batch_size"),
    *("plugins", "tunebook_"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What an engine is asked."""

    engine: EngineName
    want: Want
    settings: Mapping[str, Any]
    """The recipe's keys that decide rows; see `llamafactory_settings`."""
    sets: Sequence[Mapping[str, Any]]
    """For LLaMA-Factory `name`, `entry`, `dir` and `draw`, for Axolotl `name`, `path`, `block` and `part`."""
    data: Sequence[Any]
    """For each set what changes when its data does; see `contents`."""
    tokenizer: Path | None
    """The folder of the tokenizer; None where it is not on this machine."""
    limit: int | None = None
    """LLaMA-Factory's `cutoff_len` where lengths are wanted. Another limit changes none of them, so it is no
    part of the key. None where the settings hold the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """How long the rows of one set are, as the engine builds them."""

    rows: int
    """Rows of the data, with those that the engine leaves out."""
    files: tuple[str, ...]
    """Their names, in the order in which the engine reads them; none where it does not say."""
    form: Form
    rule: Rule | None
    """None where the engine cuts rows in a way that we do not know."""
    limit: int
    skipped: Sequence[Skipped]
    numbers: Any
    turns: Any
    pairs: Any
    tails: Any
    """As `batches.in_parts` takes them."""

    def batches(self) -> Iterator[Batch]:
        """Yield the lengths of all rows that the engine does not leave out, in order."""
        return batches.in_parts(self.numbers, self.turns, self.pairs, self.tails)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an engine has said of one set."""

    folder: Path
    values: Mapping[str, Any]
    limit: int | None
    """Of the job."""

    def counted(self) -> Counted:
        """Return the lengths of its rows."""
        one = self.values
        with np.load(self.folder / "rows.npz") as arrays:
            values = {name: arrays[name] for name in ("numbers", "turns", "pairs", "tails")}
            skipped = arrays["skipped"].tolist()
        return Counted(
            rows=one["rows"],
            files=tuple(Path(file).name for file in one["files"]),
            form=Form(**one["form"]),
            rule=rule_of(one["rule"]) if one["rule"] is not None else None,
            limit=one["limit"] if self.limit is None else self.limit - one["limit_taken"],
            skipped=[Skipped(row, one["reasons"][reason]) for row, reason in skipped],
            **values,
        )


class EngineError(TunebookError):
    """The engine stops at the data or at the settings: a training would stop there too."""


def ask(job: Job) -> list[Answer]:
    """Return what the engine says of each set; it is started once, for those that it has not been asked for.

    Raises:
        EngineError: The engine stops at the data or the settings.
        TunebookError: The engine is not installed.
    """
    environment = _environment(job.engine)
    base = paths.cache() / "rows"
    shared = _ingredients(job, environment)
    folders = []
    for one, data in zip(job.sets, job.data, strict=True):
        # The same data in another folder gives the same rows.
        request = {key: value for key, value in one.items() if key not in _PLACES}
        folders.append(Path(token_cache.keyed(base, {**shared, "set": request, "data": data})))
    missing = [place for place, folder in enumerate(folders) if not _is_there(folder)]
    if missing:
        _start(job, missing, folders)
        _forget_old(base, folders)
    answers = []
    for folder in folders:
        os.utime(folder)
        values = json.loads((folder / _ANSWER).read_text(encoding="utf-8"))
        answers.append(Answer(folder=folder, values=values, limit=job.limit))
    return answers


def _start(job: Job, places: Sequence[int], folders: Sequence[Path]) -> None:
    base = folders[0].parent
    base.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".asked-", dir=base))
    try:
        start(
            {
                "engine": job.engine,
                "want": job.want,
                "settings": dict(job.settings),
                "sets": [job.sets[place] for place in places],
                "limit": job.limit,
                "folder": str(made),
            }
        )
        problem = made / "problem.json"
        if problem.is_file():
            raise EngineError(**json.loads(problem.read_text(encoding="utf-8")))
        for number, place in enumerate(places):
            shutil.rmtree(folders[place], ignore_errors=True)  # its pictures have changed since
            (made / str(number)).rename(folders[place])
    finally:
        shutil.rmtree(made, ignore_errors=True)


def start(job: Mapping[str, Any]) -> None:
    """Run the engine on a job, in its environment."""
    run_module("tunebook.hooks.row_probe", job, job["engine"])


def llamafactory_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a recipe of LLaMA-Factory that may decide what its rows become.

    Keys that we do not know are among them: the engine says what it makes of them.
    """
    keys = load_schema("llamafactory")["keys"]
    about_rows = {"data", "model"}
    return {
        key: value
        for key, value in values.items()
        if key in ("stage", "seed")
        or (
            key not in _ELSEWHERE
            and not key.startswith(_WEIGHTS)
            and (key not in keys or about_rows & set(keys[key]["groups"]))
        )
    }


def axolotl_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a recipe of Axolotl that may decide what its rows become; as for LLaMA-Factory."""
    return {
        key: value
        for key, value in values.items()
        if key in _AXOLOTL_ROWS or not (key in TRAINING_ONLY or key.startswith(_AXOLOTL_WEIGHTS))
    }


def contents(files: Iterable[Path]) -> list[list[str]]:
    """Return names and contents of data files, as a part of a key."""
    return [[file.name, token_cache.content(file)] for file in files]


def tokenizer_folder(model: str, *, revision: str, cache_dir: str | None, key: str) -> Path:
    """Return the folder on this machine that holds a model's tokenizer.

    Args:
        model: A local folder, or a name on the Hugging Face hub whose files are in the cache.
        revision: Branch, tag or commit on the hub.
        cache_dir: The recipe's own cache folder; None for the hub client's.
        key: The recipe's key that names the model, for messages.

    Raises:
        TunebookError: There is no tokenizer here.
    """
    local = Path(model).expanduser()
    if local.is_dir():
        if any((local / name).is_file() for name in _TOKENIZERS):
            return local.absolute()
        raise TunebookError(
            f"{key}: {local} holds no tokenizer",
            fix=f"name a folder that holds {_TOKENIZERS[0]}, or count characters with --chars",
        )
    found = snapshot(model, revision, cache_dir)
    if found is not None and any((found / name).is_file() for name in _TOKENIZERS):
        return found
    raise TunebookError(
        f"{key}: the tokenizer of {model} is not on this machine",
        fix=f"download it: `hf download {model} --include '*.json' '*.jinja'`, or name a local folder: "
        f"{key}=PATH, or count characters with --chars",
    )


def _environment(engine: EngineName) -> Path:
    try:
        return paths.engine_environment(engine)
    except TunebookError as err:
        raise TunebookError(
            f"tokens are counted by the engine itself, and {err.problem}",
            fix=f"{err.fix}; or count characters with --chars",
        ) from err


def _ingredients(job: Job, environment: Path) -> dict[str, Any]:
    """What decides the rows of all sets of a job."""
    files = sorted(job.tokenizer.iterdir()) if job.tokenizer is not None else ()
    return {
        "tunebook": __version__,
        "versions": paths.installed_versions(environment, [job.engine, *_PACKAGES]),
        "code": _code(environment, job.engine),
        "want": job.want,
        "tokenizer": contents(
            file for file in files if file.suffix in _TOKENIZER_SUFFIXES and file.is_file()
        ),
        "settings": {key: value for key, value in job.settings.items() if key not in _TOKENIZER_KEYS},
    }


def _code(environment: Path, engine: EngineName) -> list[list[Any]]:
    found = []
    for folder in _CODE[engine]:
        for file in sorted(environment.glob(f"lib/python3*/site-packages/{folder}/**/*.py")):
            status = file.stat()
            found.append([file.name, status.st_size, status.st_mtime_ns])
    return found


def _is_there(folder: Path) -> bool:
    """Whether a set was asked for before, and no picture of a row has changed since."""
    try:
        media = json.loads((folder / _ANSWER).read_text(encoding="utf-8")).get("media", {})
        times = [(Path(name).stat(), before) for name, before in media.items()]
    except FileNotFoundError:
        return False
    return all([status.st_size, status.st_mtime_ns] == before for status, before in times)


def _forget_old(base: Path, used: Sequence[Path]) -> None:
    kept = sorted(
        set(base.glob("tunebook-*")) - set(used), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for path in kept[_KEPT_ANSWERS:]:
        shutil.rmtree(path, ignore_errors=True)
