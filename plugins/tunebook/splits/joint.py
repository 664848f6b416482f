"""Which data one job of several nodes is given: the whole, never each node's own part."""

from __future__ import annotations

import json
from pathlib import Path

from tunebook.data.registry import REGISTRY_FILE
from tunebook.errors import TunebookError
from tunebook.splits.outputs import JOINT
from tunebook.splits.workshop import MANIFEST


def joint_dataset_dir(out: Path) -> Path:
    """Return the `dataset_dir` that every node of one joint job must use; it has all rows but the hold-out.

    In a joint job the trainer's sampler divides each epoch by the number of all processes and takes for
    granted that they hold the same rows. Given its own part, each node would train on 1/N of that part, and
    most rows would be seen by nobody.

    Raises:
        TunebookError: `out` is no finished split, was made without `--joint` where that is needed, or its
            source has changed since.
    """
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise TunebookError(
            f"{out} holds no finished split", fix="make one with `tunebook data split`"
        ) from err
    folder = out / JOINT
    if not (folder / REGISTRY_FILE).is_file():
        raise TunebookError(
            f"{out}: one joint job cannot train on its parts: each node would see 1/N of its own",
            fix="split again with --joint, or run one job a node",
        )
    if manifest["joint"] is None:
        for source in manifest["sources"]:
            path = Path(source["path"])
            if not path.is_file() or path.stat().st_size != source["bytes"]:
                raise TunebookError(
                    f"{path} is missing or has changed since {out} was made from it", fix="split it again"
                )
    return folder
