"""Figures over training and telling examples, for W&B and TensorBoard; from the command, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.scoring.examples import COLUMNS, markdown, telling_rows
from tunebook.types import EvalRecord, Score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Result = Mapping[str, Any]

PROJECT = "tunebook-eval"
"""W&B's project, unless WANDB_PROJECT names one."""


def track(results: Sequence[Result], folder: Path, trackers: Sequence[str]) -> list[str]:
    """Send results to trackers: one tracker run for each run of ours, its checkpoints by step.

    Args:
        results: As `finalise.as_data` makes them.
        folder: Of their records; TensorBoard's files are written below it.
        trackers: `wandb`, `tensorboard`.

    Returns:
        Where each can be seen.

    Raises:
        TunebookError: A tracker's package is not installed.
    """
    runs: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda one: one["model"]["step"]):
        runs.setdefault(result["model"]["label"].rpartition("@")[0] or result["model"]["label"], []).append(
            result
        )
    where = []
    for name, members in runs.items():
        if "wandb" in trackers:
            where.append(_to_wandb(name, members, folder))
        if "tensorboard" in trackers:
            where.append(_to_tensorboard(name, members, folder))
    return where


def refuse_missing(trackers: Sequence[str]) -> None:
    """Check that the packages are there, before hours of evaluation.

    Raises:
        TunebookError: One is not.
    """
    for tracker in trackers:
        try:
            __import__(tracker)
        except ImportError as err:
            raise TunebookError(
                f"--report-to {tracker}: the package {tracker} is not installed beside tunebook",
                fix=f"pip install {tracker}",
            ) from err


def figures_of(result: Result) -> dict[str, float]:
    """Return a result's figures by the names that trackers show them under."""
    return {f"eval/{result['dataset']}/{name}": value for name, value in result["values"].items()}


def _examples(result: Result, folder: Path) -> list[tuple[Any, ...]]:
    lines = (folder / result["records"]).read_text(encoding="utf-8").split("\n")
    records = []
    for line in filter(None, lines):
        values = json.loads(line)
        scores = {name: Score(**score) for name, score in values.pop("scores").items()}
        records.append(EvalRecord(scores=scores, **values))
    return telling_rows(records)


def _to_wandb(name: str, results: Sequence[Result], folder: Path) -> str:
    import os

    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=f"eval {name}",
        job_type="eval",
        dir=os.environ.get("WANDB_DIR", str(folder)),
        config={"model": dict(results[0]["model"]), "settings": dict(results[0]["settings"])},
        reinit="finish_previous",
    )
    run.define_metric("train/global_step")
    run.define_metric("eval/*", step_metric="train/global_step")
    for result in results:
        table = wandb.Table(
            columns=list(COLUMNS),
            data=[[_plain(cell) for cell in row] for row in _examples(result, folder)],
        )
        step = result["model"]["step"]
        run.log(
            {**figures_of(result), f"eval/{result['dataset']}/examples": table, "train/global_step": step}
        )
    run.summary.update(figures_of(results[-1]))
    where = run.url or str(Path(run.dir).parent)
    run.finish()
    return f"W&B: {where}"


def _plain(cell: Any) -> Any:
    return "" if cell is None else cell if isinstance(cell, int | float) else str(cell)


def _to_tensorboard(name: str, results: Sequence[Result], folder: Path) -> str:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    target = folder / "tensorboard" / name.replace("/", "_").replace(" ", "_")
    # After a second evaluation the same points would be there twice.
    for old in target.glob("events.out.tfevents.*"):
        old.unlink()
    writer = EventFileWriter(str(target))
    for result in results:
        step = result["model"]["step"]
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in figures_of(result).items()]
        text = markdown(_examples(result, folder))
        # As `SummaryWriter.add_text` of torch writes it.
        tensor = TensorProto(
            dtype="DT_STRING",
            string_val=[text.encode()],
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        )
        about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        tag = f"eval/{result['dataset']}/examples/text_summary"
        values.append(Summary.Value(tag=tag, metadata=about, tensor=tensor))
        writer.add_event(Event(step=step, summary=Summary(value=values)))
    writer.close()
    return f"TensorBoard: {target}"
