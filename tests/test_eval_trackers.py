"""Figures over training and examples, in the real W&B, offline, and the real TensorBoard."""

# ruff: noqa: F811 - a fixture is imported by name
import json
from dataclasses import asdict

import pytest

from tunebook.errors import TunebookError
from tunebook.evaluation.trackers import refuse_missing, track
from tunebook.types import EvalRecord, Score
from wandb_service import wandb  # noqa: F401

pytest.importorskip("tensorboard")


@pytest.fixture
def results(tmp_path):
    found = []
    for step in (10, 20, 0):
        label = f"node_0@{step}" if step else "qwen3 (base)"
        records = [
            EvalRecord(
                dataset="likes",
                index=index,
                step=step,
                prompt=f"Is {index} liked? | yes",
                prediction="No" if index % 2 else "???",
                reference="No",
                mode="answer",
                scores={
                    "yes_no": Score(
                        values={"accuracy": float(index % 2)},
                        parsed="no" if index % 2 else None,
                        reason=None if index % 2 else "no answer",
                    )
                },
                nll=0.5,
                reference_tokens=2,
            )
            for index in range(30)
        ]
        (tmp_path / f"r{step}.jsonl").write_text("".join(json.dumps(asdict(one)) + "\n" for one in records))
        found.append(
            {
                "dataset": "likes",
                "model": {"label": label, "kind": "adapter", "step": step, "run": "x"},
                "values": {"accuracy": 0.5 + step / 100, "rougeL": 0.25 + step / 100},
                "settings": {"method": None},
                "records": f"r{step}.jsonl",
            }
        )
    return found


def test_tensorboard_shows_figures_by_step_and_examples(results, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # evaluated again: no point stands twice
        told = track(results, tmp_path, ["tensorboard"])
    assert len(told) == 2
    events = EventAccumulator(str(tmp_path / "tensorboard" / "node_0"))
    events.Reload()
    points = [(one.step, round(one.value, 4)) for one in events.Scalars("eval/likes/rougeL")]
    assert points == [(10, 0.35), (20, 0.45)]
    tag = "eval/likes/examples/text_summary"
    assert tag in events.Tags()["tensors"]
    text = events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
    assert text.splitlines()[0] == "row | prompt | reference | prediction | parsed | score | reason"
    assert len(text.splitlines()) == 22
    assert "no answer" in text.splitlines()[2], "unreadable answers come first"


def test_wandb_gets_a_run_for_each_run_of_ours(wandb, results, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    told = track(results, tmp_path, ["wandb"])
    assert len(told) == 2
    wandb.teardown()  # the files are whole
    streams = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(streams) == 2
    names = (b"eval/likes/rougeL", b"eval/likes/accuracy", b"eval node_0", b"eval qwen3 (base)")
    content = b"".join(path.read_bytes() for path in streams)
    assert [name for name in names if name not in content] == []
    tables = [
        json.loads(path.read_text())
        for path in tmp_path.glob("wandb/offline-run-*/files/media/table/**/*.table.json")
    ]
    assert len(tables) == 3
    assert {len(table["data"]) for table in tables} == {20}
    assert tables[0]["data"][0][-1] == "no answer"


def test_a_missing_tracker_is_an_error_before_anything_is_evaluated():
    with pytest.raises(TunebookError, match="--report-to no_such_tracker"):
        refuse_missing(["no_such_tracker"])
