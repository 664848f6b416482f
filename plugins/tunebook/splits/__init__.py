"""Datasets split between nodes: rows found, assigned and copied as raw bytes, proved by a manifest.

See docs/splits.md. `joint_dataset_dir` is for launchers: the folder that one job of all nodes must use.
"""

from __future__ import annotations

from tunebook.splits.manifest import joint_dataset_dir, refuse_whole_sets

__all__ = ["joint_dataset_dir", "refuse_whole_sets"]
