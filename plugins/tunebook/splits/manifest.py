"""What a split writes besides rows: names of files, each node's `dataset_info.json`, the manifest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from tunebook import __version__, files
from tunebook.data.registry import REGISTRY_FILE
from tunebook.errors import TunebookError
from tunebook.splits.entries import Holdout, SplitDataset, node_registry
from tunebook.splits.plan import PartPlan, SplitOptions
from tunebook.splits.scan import Scanned
from tunebook.splits.staging import MANIFEST, Staging
from tunebook.splits.write import Written, WrittenParts

MANIFEST_FORMAT = 1
JOINT = "joint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What files are called, and whether one for joint jobs is wanted."""

    eval_name: str | None
    """Entry of the hold-out; None for `<name>_eval`."""
    eval_metric: str | None
    """Metric of that entry; None for that of the entry that is split."""
    node_names: bool
    """`training_data_node_<i>` instead of the source's name, with a link to each in OUT itself."""
    joint: bool
    """Write all rows but the hold-out once more, for jobs of all nodes together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Where everything goes, below the folder of the split."""

    dataset: SplitDataset
    options: SplitOptions
    names: Names

    def node_file(self, node: int) -> str:
        """The data file of a node, below the node's folder."""
        if self.names.node_names:
            return f"training_data_node_{node}{PurePath(self.dataset.file_name).suffix}"
        return self.dataset.file_name

    @property
    def eval_name(self) -> str | None:
        """The entry of the hold-out."""
        if not self.options.holds_out:
            return None
        return self.names.eval_name or f"{self.dataset.name}_eval"

    @property
    def eval_file(self) -> str | None:
        """Its file, below each node's folder."""
        if self.eval_name is None:
            return None
        path = PurePath(self.dataset.file_name)
        return str(path.with_name(self.eval_name + path.suffix))

    def part_paths(self, root: Path) -> list[Path]:
        """Files that rows are written to: by node, then the hold-out, which is node 0's first."""
        paths = [root / f"node_{node}" / self.node_file(node) for node in range(self.options.nodes)]
        if self.eval_file is not None:
            paths.append(root / "node_0" / self.eval_file)
        return paths

    def joint_path(self, root: Path) -> Path | None:
        """The file of all rows but the hold-out, where one is wanted."""
        return root / JOINT / self.dataset.file_name if self.names.joint else None

    def registry(self, node: int) -> dict[str, Any]:
        """The `dataset_info.json` of a node."""
        return self.registry_over(self.node_file(node))

    def registry_over(self, file_name: str) -> dict[str, Any]:
        """The same where the rows are in another file."""
        holdout = None
        if self.eval_name is not None and self.eval_file is not None:
            holdout = Holdout(self.eval_name, self.eval_file, self.names.eval_metric)
        return node_registry(self.dataset, file_name, holdout)


def request_of(dataset: SplitDataset, options: SplitOptions, names: Names, memory: int) -> dict[str, Any]:
    """Return what decides the content of a split, as JSON."""
    return {
        "name": dataset.name,
        "sources": [
            {"path": str(source.path.resolve()), "bytes": source.size, "mtime_ns": source.mtime_ns}
            for source in dataset.sources
        ],
        "entry": dict(dataset.values),
        "options": asdict(options),
        "names": asdict(names),
        "memory": memory,
    }


def finish(
    staging: Staging,
    outputs: Outputs,
    scanned: Scanned,
    plans: Sequence[PartPlan],
    written: WrittenParts,
) -> dict[str, Any]:
    """Write each node's registry, the links and the manifest, and publish; return the manifest."""
    options, dataset, root = outputs.options, outputs.dataset, staging.folder
    paths = outputs.part_paths(root)
    _write_registries(root, outputs, paths, complete=not scanned.n_bad)
    parts = [
        {
            "file": str(path.relative_to(root)),
            "rows": plan.rows,
            "row_bytes": plan.bytes,
            "tokens": plan.tokens,
            **_content(file),
        }
        for path, plan, file in zip(paths, plans, written.parts, strict=True)
    ]
    joint = outputs.joint_path(root)
    manifest = {
        "format": MANIFEST_FORMAT,
        "tunebook": __version__,
        "name": dataset.name,
        "eval_name": outputs.eval_name,
        "seed": options.seed,
        "rows": scanned.rows,
        "sources": [
            {
                "path": str(source.path.resolve()),
                **_content(Written(source.size, scanned.hashes[str(source.path)])),
            }
            for source in dataset.sources
        ],
        "skipped_rows": scanned.n_bad,
        "skipped": [bad._asdict() for bad in scanned.bad],
        "nodes": parts[: options.nodes],
        "eval": parts[-1] if options.holds_out else None,
        "joint": {"file": str(joint.relative_to(root)), **_content(written.joint)}
        if joint is not None and written.joint is not None
        else None,
        "spread": spread(plans[: options.nodes]),
        "notes": [*dataset.notes, *scanned.notes],
        "request": dict(staging.request),
    }
    files.write_json(root / MANIFEST, manifest)
    staging.publish()
    return manifest


def _write_registries(root: Path, outputs: Outputs, paths: Sequence[Path], *, complete: bool) -> None:
    """Write the registry of each node and, where there can be one, of a joint job; link the files they name.

    Args:
        root: The folder of the split.
        outputs: Names.
        paths: Of the parts.
        complete: No row of the source was left out.
    """
    for node in range(outputs.options.nodes):
        folder = root / f"node_{node}"
        files.write_json(folder / REGISTRY_FILE, outputs.registry(node))
        if outputs.eval_file is not None and node:
            _link(paths[-1], folder / outputs.eval_file)
        if outputs.names.node_names:
            _link(paths[node], root / paths[node].name)
    # In a joint job each node gets all rows, and the engine's sampler divides them.
    if outputs.names.joint:
        file_name = outputs.dataset.file_name
        if outputs.eval_file is not None:
            _link(paths[-1], root / JOINT / outputs.eval_file)
    elif outputs.eval_file is None and complete:
        sources = [source.path.resolve() for source in outputs.dataset.sources]
        file_name = str(sources[0] if len(sources) == 1 else sources[0].parent)
    else:
        return
    files.write_json(root / JOINT / REGISTRY_FILE, outputs.registry_over(file_name))


def _content(file: Written) -> dict[str, int | str]:
    return {"bytes": file.bytes, "xxh3_128": file.digest}


def spread(plans: Sequence[PartPlan]) -> dict[str, float | None]:
    """Return how far the nodes differ: (largest - smallest) / mean, of rows, bytes and tokens."""

    def relative(values: Sequence[int]) -> float:
        return (max(values) - min(values)) * len(values) / max(1, sum(values))

    tokens = [plan.tokens for plan in plans if plan.tokens is not None]
    return {
        "rows": relative([plan.rows for plan in plans]),
        "bytes": relative([plan.bytes for plan in plans]),
        "tokens": relative(tokens) if tokens else None,
    }


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; where the file system cannot, copy it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def refuse_whole_sets(out: Path, trained: Sequence[str]) -> None:
    """Refuse independent nodes that would each read all of a dataset: one of which `out` is no split.

    Args:
        out: The folder of a finished split, or one of its parts.
        trained: The registry entries that are trained on.

    Raises:
        TunebookError: There is such a dataset.
    """
    folder = out if (out / MANIFEST).is_file() else out.parent
    try:
        split = files.read_json(folder / MANIFEST)["request"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    whole = [name for name in trained if name != split]
    if whole:
        raise TunebookError(
            f"{folder} is a split of {split!r}, and the recipe trains on {', '.join(map(repr, whole))}"
            f"{' too' if split in trained else ''}: each node would train on all of it",
            fix=f"split {whole[0]!r}, or train on {split!r} only",
        )


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
        manifest = files.read_json(out / MANIFEST)
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
