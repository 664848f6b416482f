"""Logs of nvidia-smi give series and peaks by card, in every form that it writes; other CSV files nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tunebook.errors import TunebookError
from tunebook.runlog import read_run
from tunebook.runlog.gpus import read_gpu_csv

GPUS = Path(__file__).parent / "fixtures" / "gpus"
TEXT = (GPUS / "gpu.csv").read_text("utf-8")


def read_text(tmp_path, text):
    path = tmp_path / "gpu.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_gpu_csv(path, path.name)


@pytest.mark.parametrize("name", ["gpu.csv", "gpu_nounits.csv", "gpu_noheader.csv"])
def test_every_form_gives_the_same_cards_series_and_peaks(name):
    first, second = read_gpu_csv(GPUS / name, name).gpus
    assert (first.index, second.index) == ("0", "1")
    assert first.memory_total_mib == 81559
    assert first.memory_mib.values.tolist() == [4, 40536, 71236, 70012]
    assert first.memory_mib.seconds.tolist() == [0, 1, 2, 3]
    assert second.memory_mib.seconds.tolist() == [0.002, 1.002, 2.002, 3.002]
    assert second.utilization_percent.values.tolist() == [97, 100, 88]  # one sample was [N/A]
    assert second.power_w.values.tolist() == [71.1, 413.55, 689.2, 302.0]
    assert (first.peak_memory_mib.value, second.peak_memory_mib.value) == (71236, 71455)
    assert first.peak_memory_mib.source == name


def test_without_timestamps_the_axis_counts_the_samples():
    log = read_gpu_csv(GPUS / "gpu_no_clock.csv", "gpu.csv")
    (card,) = log.gpus
    assert card.memory_mib.seconds.tolist() == [0, 1, 2, 3]
    assert not card.memory_mib.exact_clock
    assert "counts the samples" in log.notes[0].message


def test_a_loop_that_was_started_again_goes_on_in_the_same_file(tmp_path):
    again = TEXT.replace("23:06", "23:16").replace("40536", "79000")
    first, _ = read_text(tmp_path, TEXT + again).gpus
    assert len(first.memory_mib.values) == 8
    assert first.memory_mib.seconds[4] == 600
    assert first.peak_memory_mib.value == 79000


def test_a_run_folder_with_a_log_tells_peaks_and_a_csv_of_data_nothing(tmp_path):
    (tmp_path / "gpu_0.csv").write_text(TEXT, encoding="utf-8")
    (tmp_path / "data.csv").write_text("question,answer\n1 + 1?,2\n", encoding="utf-8")
    (tmp_path / "train.log").write_text("{'loss': 1.0, 'epoch': 1.0}\n", encoding="utf-8")
    run = read_run(tmp_path)
    assert run.facts["peak_gpu_memory_mib"].value == 71455
    assert [gpu.index for gpu in run.gpus] == ["0", "1"]
    assert run.gpu_hours is None  # that cards were watched does not say how many the run had
    assert read_gpu_csv(tmp_path / "data.csv", "data.csv") is None


def test_a_log_of_nvidia_smi_alone_is_read_and_any_other_csv_refused(tmp_path):
    assert len(read_run(GPUS / "gpu.csv").gpus) == 2
    (tmp_path / "data.csv").write_text("question,answer\n1 + 1?,2\n", encoding="utf-8")
    with pytest.raises(TunebookError, match="is not a run"):
        read_run(tmp_path / "data.csv")


@pytest.mark.parametrize(
    "text",
    [
        "2026/11/20 23:06:29.123, 0, 97, 40536\n",  # noheader and nounits: nothing tells which is which
        "2026/11/20 23:06:29.123, 97 %, 12 %, 40536 MiB, 812 MiB, 81559 MiB\n",
        "97, 40536\n",
        "",
        "\0\0\0\n",
    ],
)
def test_numbers_that_nothing_names_are_not_guessed(tmp_path, text):
    assert read_text(tmp_path, text) is None


def test_a_temperature_is_no_index(tmp_path):
    log = read_text(
        tmp_path,
        "2026/11/20 23:06:29.123, 61, 97 %, 40536 MiB\n2026/11/20 23:06:30.123, 62, 98 %, 40540 MiB\n",
    )
    (card,) = log.gpus
    assert card.memory_mib.values.tolist() == [40536, 40540]


@pytest.mark.parametrize("seed", range(40))
def test_damage_costs_samples_and_makes_none(tmp_path, seed):
    rng = random.Random(seed)
    data = (TEXT * 3).replace("name, ", "name, ").encode()
    whole = {
        (gpu.index, value)
        for gpu in read_text(tmp_path, data).gpus
        for value in gpu.memory_mib.values.tolist()
    }
    at, length = rng.randrange(len(data)), rng.choice([1, 7, 90, 300])
    kind = rng.randrange(3)
    if kind == 0:
        data = data[:at]
    elif kind == 1:
        data = data[:at] + bytes(length) + data[at + length :]
    else:
        lines = data.splitlines(keepends=True)
        data = b"".join(lines[: at % len(lines)] + lines[at % len(lines) + 1 + length % 5 :])
    log = read_text(tmp_path, data)
    for gpu in log.gpus if log else ():
        assert {(gpu.index, value) for value in gpu.memory_mib.values.tolist()} <= whole
