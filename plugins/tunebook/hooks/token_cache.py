"""Keeps LLaMA-Factory's tokenised rows whole and right, inside its process.

LLaMA-Factory writes `tokenized_path` file by file, and reads whatever is there at the next start: half of
it after a crash, rows of other data after a change. A folder that tunebook has named is written under another
name and renamed when it is whole; and before it is read or written, its name is held against this run.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from tunebook.engines.llamafactory import cache
from tunebook.errors import TunebookError
from tunebook.files import write_json
from tunebook.hooks.ranks import say
from tunebook.runs.token_cache import is_ours

# With one of these LLaMA-Factory has replaced the model's name by a folder before we see it.
_OTHER_HUBS = ("USE_MODELSCOPE_HUB", "USE_OPENMIND_HUB")


def bind(loader: ModuleType) -> None:
    """Wrap `get_dataset` of `llamafactory.data.loader`, before the workflows import it from there."""
    if hasattr(loader, "get_dataset"):
        loader.get_dataset = _wrap(loader.get_dataset)  # type: ignore[attr-defined]


def _wrap(stock: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(stock)
    def get_dataset(
        template: Any,
        model_args: Any,
        data_args: Any,
        training_args: Any,
        stage: str,
        *rest: Any,
        **named: Any,
    ) -> Any:
        path = data_args.tokenized_path
        if path is None or not is_ours(path):
            return stock(template, model_args, data_args, training_args, stage, *rest, **named)
        found = None
        if training_args.should_save:
            try:
                found = _ingredients(stage, model_args, data_args, training_args)
                _hold_against(Path(path), found)
            except TunebookError as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
                sys.exit(2)
        try:
            with _whole(Path(path), found) as data_args.tokenized_path:
                return stock(template, model_args, data_args, training_args, stage, *rest, **named)
        finally:
            data_args.tokenized_path = path

    return get_dataset


@contextmanager
def _whole(folder: Path, found: Mapping[str, Any] | None) -> Iterator[str | None]:
    """Give the `tokenized_path` to use: the folder where it can be read, else one to write that becomes it.

    Args:
        folder: The rows' folder.
        found: What they are made from, in the process that writes them; None in the others.
    """
    seen = _seen_by_all(folder.is_dir())
    if seen == {True}:
        say(f"tokenised rows: read from {folder}")
        yield str(folder)
        return
    if True in seen:
        say(f"tokenised rows: made anew, since not every node has {folder}; share the folder of --cache")
        yield None
        return
    temporary = folder.with_name(f".{folder.name}.{os.uname().nodename}-{os.getpid()}.tmp")
    try:
        yield str(temporary)
        if found is not None:
            _keep(temporary, folder, found)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _seen_by_all(here: bool) -> set[bool]:
    """What the processes of a job see. LLaMA-Factory hangs where one reads rows and another makes them."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return {here}
    seen: list[bool] = [here] * distributed.get_world_size()
    distributed.all_gather_object(seen, here)
    return set(seen)


def _ingredients(stage: str, model_args: Any, data_args: Any, training_args: Any) -> dict[str, Any]:
    def setting(key: str) -> Any:
        if key == "stage":
            return stage
        owner = next(args for args in (data_args, model_args, training_args) if hasattr(args, key))
        return getattr(owner, key)

    return cache.ingredients(
        setting,
        packing=bool(data_args.packing),
        cutoff_len=data_args.cutoff_len,
        versions={name: version(name) for name in cache.PACKAGES},
    )


def _hold_against(folder: Path, found: Mapping[str, Any]) -> None:
    """Refuse a folder whose name says that its rows are not this run's, and one that nobody finished.

    Raises:
        TunebookError: It is either.
    """
    marker = folder / cache.MARKER
    if folder.is_dir() and not marker.is_file():
        raise TunebookError(f"{folder} holds rows that were not written to the end", fix=f"delete {folder}")
    if cache.folder_for(str(folder), found) == str(folder) or any(os.environ.get(hub) for hub in _OTHER_HUBS):
        return
    changed = "; the data or the settings have changed since it was named"
    if marker.is_file():
        # As written and read again, so that both are of JSON's types.
        old, new = json.loads(marker.read_text(encoding="utf-8")), json.loads(json.dumps(found, default=str))
        changed = f"; it differs in {', '.join(cache.differences(old, new))}"
    raise TunebookError(
        f"{cache.KEY}: {folder} is for other rows than this run's{changed}",
        fix=f"start the run with `tunebook train`, which names the right folder, or remove {cache.KEY}",
    )


def _keep(temporary: Path, folder: Path, found: Mapping[str, Any]) -> None:
    write_json(temporary / cache.MARKER, found)
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # another run was faster, with the same rows
            raise
    say(f"tokenised rows: kept in {folder}")
