"""What a run left behind is read as it is; what is damaged is said to be, and nothing is made up."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tunebook.errors import TunebookError
from tunebook.runlog import read_run
from tunebook.runlog.evaluations import count_answers, read_examples
from tunebook.runlog.trainer_files import read_trainer_state

RUNS = Path(__file__).parent / "fixtures" / "runs"


@pytest.fixture
def movies(tmp_path):
    return Path(shutil.copytree(RUNS / "movies", tmp_path / "movies"))


def write_state(folder, entries, **facts):
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"global_step": 2, "log_history": entries, "max_steps": 2} | facts)
    (folder / "trainer_state.json").write_text(text, encoding="utf-8")


def test_every_series_of_a_run_is_read_with_its_source():
    run = read_run(RUNS / "movies")
    loss = run.series["loss"]
    assert loss.steps.tolist() == list(range(10, 401, 10))
    assert loss.source == "trainer_state.json"
    assert {
        "learning_rate",
        "grad_norm",
        "train_tokens_per_second",
        "eval_movies_test_loss",
    } - run.series.keys() <= {"eval_movies_test_loss"}
    assert run.engine == "llamafactory"
    assert run.trainer.best_step == 300
    assert run.trainer.best_checkpoint == "checkpoint-300"


def test_our_evaluations_replace_the_engines_log_of_the_same_steps():
    run = read_run(RUNS / "movies")
    training = [one for one in run.evaluations if not one.after_training]
    assert [one.step for one in training] == [100, 200, 300, 400]
    assert {one.source for one in training} == {"tunebook/eval_metrics.jsonl"}
    assert training[2].values["macro_f1"] == 0.8124467178175618
    assert training[2].n == 60
    assert training[2].select_by == "macro_f1"


def test_the_closing_evaluation_is_no_point_of_the_curve():
    run = read_run(RUNS / "movies")
    (closing,) = [one for one in run.evaluations if one.after_training]
    assert closing.step == 300


def test_of_a_step_evaluated_again_after_a_resume_the_later_counts(movies):
    path = movies / "tunebook" / "eval_metrics.jsonl"
    lines = path.read_text("utf-8").splitlines()
    again = json.loads(lines[1])
    again["values"]["macro_f1"] = 0.777
    path.write_text("\n".join([*lines[:2], json.dumps(again), *lines[2:]]) + "\n", encoding="utf-8")
    run = read_run(movies)
    values = {one.step: one.values["macro_f1"] for one in run.evaluations if not one.after_training}
    assert values[200] == 0.777
    assert [note.kind for note in run.notes] == ["resumed"]


def test_a_run_of_the_engine_alone_calls_its_accuracy_token_accuracy():
    run = read_run(RUNS / "plain")
    assert {one.dataset for one in run.evaluations} == {""}
    assert all("accuracy" not in one.values for one in run.evaluations)
    assert run.evaluations[0].values["token_accuracy"] == 0.89
    assert run.settings["per_device_train_batch_size"] == 8
    assert run.settings["optim"] == "adamw_torch_fused"
    assert run.results["train_runtime"] == 6.5676


def test_bare_nan_is_kept_as_nan(tmp_path):
    entries = [
        {"loss": 1.5, "grad_norm": float("nan"), "step": 1},
        {"loss": float("inf"), "grad_norm": 2.0, "step": 2},
    ]
    write_state(tmp_path, entries)
    run = read_run(tmp_path)
    assert math.isnan(run.series["grad_norm"].values[0])
    assert run.series["loss"].values.tolist() == [1.5, math.inf]


def test_an_entry_with_two_datasets_becomes_two_evaluations(tmp_path):
    entry = {"eval_a_loss": 1.0, "eval_a_f1": 0.5, "eval_a_b_loss": 2.0, "eval_a_b_f1": 0.25, "step": 1}
    write_state(tmp_path, [entry])
    found = {one.dataset: dict(one.values) for one in read_run(tmp_path).evaluations}
    assert found == {"a": {"loss": 1.0, "f1": 0.5}, "a_b": {"loss": 2.0, "f1": 0.25}}


def test_the_newest_checkpoint_stands_in_for_a_killed_run(tmp_path):
    write_state(tmp_path / "checkpoint-9", [{"loss": 9.0, "step": 9}])
    write_state(tmp_path / "checkpoint-10", [{"loss": 9.0, "step": 9}, {"loss": 10.0, "step": 10}])
    lines = [{"current_steps": step, "loss": float(step)} for step in range(9, 13)]
    (tmp_path / "trainer_log.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    loss = read_run(tmp_path).series["loss"]
    assert loss.steps.tolist() == [9, 10, 11, 12]
    assert loss.source == "checkpoint-10/trainer_state.json; 2 steps from trainer_log.jsonl"


def test_a_state_file_that_was_cut_off_gives_what_is_whole(tmp_path):
    text = (RUNS / "movies" / "trainer_state.json").read_bytes()
    whole = read_trainer_state(RUNS / "movies" / "trainer_state.json", "s").series["loss"]
    (tmp_path / "trainer_state.json").write_bytes(text[: len(text) // 2])
    run = read_run(tmp_path)
    loss = run.series["loss"]
    assert 5 < len(loss.steps) < len(whole.steps)
    assert loss.values.tolist() == whole.values[: len(loss.values)].tolist()
    assert run.trainer.best_step == 300
    (note,) = run.notes
    assert note.kind == "lost"
    assert "cut off after" in note.message


def test_a_state_file_longer_than_a_block_is_read_to_its_end(tmp_path):
    entries = [{"epoch": step / 7, "loss": 1 / step, "step": step} for step in range(1, 100_001)]
    write_state(tmp_path, entries)
    assert (tmp_path / "trainer_state.json").stat().st_size > 5_000_000
    loss = read_run(tmp_path).series["loss"]
    assert loss.steps.tolist() == list(range(1, 100_001))
    assert loss.values[-1] == 1e-5


def test_damaged_records_are_left_out_and_counted(movies):
    path = movies / "tunebook" / "eval_records-movies_test-300.jsonl"
    path.write_bytes(path.read_bytes()[:-100] + b"\n\0\0\0\n[1, 2]\n")
    read = read_examples(path, "records")
    assert len(read.examples) == 59
    assert "2 records" in read.notes[0].message


def test_answers_are_counted_as_in_the_examples(movies):
    path = movies / "tunebook" / "eval_records-movies_test-300.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    again = (
        lines[3].replace(b'"parsed": "yes"', b'"parsed": null').replace(b'"parsed": "no"', b'"parsed": null')
    )
    assert again != lines[3]
    path.write_bytes(b"".join(lines) + again + lines[5][:-40] + b'\n{"index": 1, "scores": {}}\n')
    scores = [example.scores["yes_no"] for example in read_examples(path, "records").examples]
    counted = count_answers(path, "yes_no")
    assert counted == Counter((score["reference"], score["parsed"]) for score in scores)
    assert sum(counted.values()) == 60
    assert None in {parsed for _, parsed in counted}
    assert not count_answers(path, "gsm8k")


@pytest.mark.parametrize("name", ["run.json", "eval_metrics.jsonl", "recipe.yaml"])
def test_a_damaged_file_of_ours_is_no_reason_to_give_up(movies, name):
    (movies / "tunebook" / name).write_bytes(b'{"a": [\xff')
    run = read_run(movies)
    assert run.series["loss"].steps[-1] == 400
    assert run.evaluations


def test_parameters_are_counted_from_the_headers_of_weights(tmp_path):
    write_state(tmp_path, [{"loss": 1.0, "step": 1}])
    tensors = {
        "a": {"dtype": "BF16", "shape": [3, 4], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [5], "data_offsets": [24, 34]},
    }
    header = json.dumps({"__metadata__": {}, **tensors}).encode()
    (tmp_path / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert read_run(tmp_path).facts["trained_parameters"].value == 17


def test_speed_is_worked_out_where_the_engine_logged_none(tmp_path):
    lines = [
        {
            "current_steps": step,
            "loss": 1.0,
            "elapsed_time": f"{step // 2 // 3600}:{step // 2 // 60 % 60:02d}:{step // 2 % 60:02d}",
        }
        for step in range(2, 8002, 2)
    ]
    (tmp_path / "trainer_log.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    speed = read_run(tmp_path).series["steps_per_second"]
    assert set(speed.values.tolist()) == {2.0}
    assert "elapsed_time" in speed.source


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, "there is no file or folder"),
        (lambda folder: folder.mkdir(), "is empty"),
        (lambda folder: (folder.mkdir(), (folder / "notes.txt").write_text("hello")), "is not a run"),
        (lambda folder: folder.write_text("hello"), "is not a run"),
        (lambda folder: folder.write_text('{"a": 1}'), "is not a run"),
    ],
)
def test_what_is_no_run_is_refused_with_the_step_that_ends_it(tmp_path, make, said):
    make(tmp_path / "x")
    with pytest.raises(TunebookError, match=said) as error:
        read_run(tmp_path / "x")
    assert "output_dir" in error.value.fix


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    write_state(tmp_path, [{"loss": 1.0, "step": 1}])
    read = Path.open

    def refuse(path, *mode, **options):
        if path.name == "trainer_state.json":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *mode, **options)

    # As root, which tests may run as, every file can be read: the system's refusal has to be played.
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(TunebookError, match=r"trainer_state\.json: Permission denied"):
        read_run(tmp_path)


def test_a_text_that_speaks_of_nan_is_no_damage(movies):
    path = movies / "tunebook" / "eval_records-movies_test-300.jsonl"
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for record in records:
        record["prediction"] = 'the log says {"loss": NaN, "x": -Infinity}'
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    read = read_examples(path, "records")
    assert read.notes == []
    assert read.examples[0].prediction == 'the log says {"loss": NaN, "x": -Infinity}'
