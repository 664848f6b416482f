"""Console logs and event files give the same numbers as the state file of the same run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunebook.runlog import read_run
from tunebook.runlog.console import read_console, steps_by_epochs
from tunebook.runlog.tensorboard import read_events

FIXTURES = Path(__file__).parent / "fixtures"


def state_of(run):
    return read_run(FIXTURES / "runs" / run).series


def read_text(tmp_path, text):
    path = tmp_path / "train.log"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_console(path, path.name)


def test_a_console_log_of_transformers_5_has_the_steps_and_values_of_the_state_file():
    console = read_console(FIXTURES / "logs" / "llamafactory.log", "train.log").series
    state = state_of("plain")
    for name in ("loss", "grad_norm", "learning_rate", "eval_loss"):
        assert console[name].steps.tolist() == state[name].steps.tolist()
        # It prints four significant digits.
        assert np.allclose(console[name].values, state[name].values, rtol=6e-4)


def test_a_console_log_of_transformers_4_has_its_numbers_whole():
    console = read_console(FIXTURES / "logs" / "transformers4.log", "train.log").series
    assert console["loss"].steps.tolist() == list(range(4, 33, 4))
    assert console["eval_loss"].steps.tolist() == [16, 32]


def test_bars_glued_to_a_line_and_interleaved_ranks_lose_nothing(tmp_path):
    text = (
        "Total optimization steps = 20\n  Num Epochs = 2\n"
        "\r 10%|#         | 2/20 [00:01<00:09]\r      \r\x1b[A{'loss': '2.5', 'grad_norm': 'nan', 'epoch': '0.2'}\r"
        " 20%|##        | 4/20 [00:02<00:08]{'loss': nan, 'grad_norm': inf, 'epoch': 0.4}\n"
        "[rank1]: {'device': 'cuda:1'} {'loss': 1.{'loss': '0.5', 'epoch': '0.6'}\n"
    )
    console = read_text(tmp_path, text)
    assert console.series["loss"].steps.tolist() == [2, 4, 6]
    assert np.array_equal(console.series["loss"].values, [2.5, np.nan, 0.5], equal_nan=True)
    assert np.array_equal(console.series["grad_norm"].values, [np.nan, np.inf], equal_nan=True)


def test_an_overlap_after_a_restart_is_kept_once_and_said(tmp_path):
    head = "Num update steps per epoch = 10\n"
    first = [f"{{'loss': {epoch}, 'epoch': {epoch / 10}}}\n" for epoch in range(2, 12, 2)]
    again = [f"{{'loss': {epoch + 100}, 'epoch': {epoch / 10}}}\n" for epoch in range(6, 16, 2)]
    console = read_text(tmp_path, head + "".join(first + again))
    assert console.series["loss"].steps.tolist() == [2, 4, 6, 8, 10, 12, 14]
    assert console.series["loss"].values.tolist() == [2, 4, 106, 108, 110, 112, 114]
    assert "resumed" in [note.kind for note in console.notes]


def test_steps_are_right_where_max_steps_makes_the_announced_epochs_wrong(tmp_path):
    text = (
        "***** Running training *****\n  Num examples = 700\n  Num Epochs = 1\n"
        "  Total train batch size (w. parallel, distributed & accumulation) = 8\n"
        "  Total optimization steps = 10\n"
        "{'loss': 3.0, 'epoch': 0.06}\n 50%|#####     | 5/10 [00:01<00:01]\n"
        "{'loss': 2.0, 'epoch': 0.11}\n100%|##########| 10/10 [00:02<00:00]\n"
    )
    assert read_text(tmp_path, text).series["loss"].steps.tolist() == [5, 10]


def test_steps_come_from_the_progress_bar_where_the_start_of_the_log_is_missing(tmp_path):
    text = (
        "{'loss': 3.0, 'epoch': 0.06}\n 50%|#####     | 5/10 [00:01<00:01]\n"
        "{'loss': 2.0, 'epoch': 0.11}\n100%|##########| 10/10 [00:02<00:00]\n"
    )
    assert read_text(tmp_path, text).series["loss"].steps.tolist() == [5, 10]


def test_a_log_without_any_step_count_says_so(tmp_path):
    console = read_text(tmp_path, "{'loss': 3.0, 'epoch': 0.06}\n{'loss': 2.0, 'epoch': 0.11}\n")
    assert console.series["loss"].steps.tolist() == [1, 2]
    assert "counts the entries" in console.notes[0].message


def test_lines_longer_than_a_chunk_do_not_stop_the_reading(tmp_path):
    console = read_text(tmp_path, b"\r".join([b"x" * 1000] * 20_000) + b"\n{'loss': 1.0, 'epoch': 1.0}\n")
    assert console.series["loss"].values.tolist() == [1.0]


def test_a_text_that_no_trainer_printed_is_no_log(tmp_path):
    assert read_text(tmp_path, "{'device': 'cuda:1'}\n{'epoch': 3}\nnothing\n") is None


def test_event_files_give_the_values_of_the_state_file():
    (path, _) = sorted((FIXTURES / "runs" / "movies").rglob("events.out.*"))
    events = read_events(path, "events").series
    state = state_of("movies")
    for name in ("loss", "grad_norm", "eval_macro_f1"):
        assert events[name].steps.tolist() == state[name].steps.tolist()
        assert np.allclose(events[name].values, state[name].values, rtol=1e-6)


def test_event_files_are_read_as_tensorboard_reads_them():
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (path, _) = sorted((FIXTURES / "runs" / "movies").rglob("events.out.*"))
    peer = accumulators.EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
    ours = read_events(path, "events").series
    for tag in peer.Tags()["scalars"]:
        kind, _, name = tag.partition("/")
        series = ours[name if kind == "train" else f"{kind}_{name}"]
        # An evaluation logs the epoch of its step again; the values are the same.
        assert dict(zip(series.steps.tolist(), series.values.tolist(), strict=True)) == {
            event.step: event.value for event in peer.Scalars(tag)
        }


def test_an_event_file_that_was_cut_off_gives_what_is_whole(tmp_path):
    (path, _) = sorted((FIXTURES / "runs" / "movies").rglob("events.out.*"))
    whole = read_events(path, "events").series["loss"]
    cut = tmp_path / "events.out.tfevents.1"
    cut.write_bytes(path.read_bytes()[:-5000])
    events = read_events(cut, "events")
    kept = len(events.series["loss"].values)
    assert 0 < kept < len(whole.values)
    assert events.series["loss"].values.tolist() == whole.values[:kept].tolist()
    assert "cut off" in events.notes[0].message


def test_a_console_log_continues_where_the_newest_checkpoint_ends(tmp_path):
    state = {"global_step": 2, "max_steps": 4, "log_history": [{"loss": 9.0, "step": 2}]}
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2" / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    log = "Num update steps per epoch = 4\n{'loss': '8.9', 'epoch': '0.5'}\n{'loss': '7', 'epoch': '1.0'}\n"
    (tmp_path / "train.log").write_text(log, encoding="utf-8")
    loss = read_run(tmp_path).series["loss"]
    assert loss.steps.tolist() == [2, 4]
    assert loss.values.tolist() == [9.0, 7.0]


@given(
    per_epoch=st.integers(20, 200_000),
    interval=st.sampled_from([1, 5, 10, 25, 100, 500]),
    n=st.integers(3, 400),
    restart=st.booleans(),
)
def test_steps_are_found_again_from_epochs_of_four_digits(per_epoch, interval, n, restart):
    steps = np.arange(1, n + 1) * interval
    if restart:
        back = n // 2
        steps = np.concatenate([steps, steps[back:] + 0])
        if (steps[n - 1] - steps[n]) < 3 + 2e-3 * steps[n - 1] or n - back < 3:
            return
    printed = np.array([float(f"{step / per_epoch:.4g}") for step in steps])
    assert steps_by_epochs(printed, per_epoch).tolist() == steps.tolist()


def test_every_line_of_a_dense_log_has_a_step_of_its_own(tmp_path):
    head = "Num update steps per epoch = 1000000\n"
    lines = [
        f"{{'loss': '{'nan' if step % 1000 == 0 else 1}', 'epoch': '{step / 1e6:.4g}'}}\n"
        for step in range(1, 30_001)
    ]
    loss = read_text(tmp_path, head + "".join(lines)).series["loss"]
    assert loss.steps.tolist() == list(range(1, 30_001))
    assert int(np.isnan(loss.values).sum()) == 30
