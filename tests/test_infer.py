"""What `tunebook infer` reads, refuses and goes on with; the answers themselves are in tests/engines."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from test_contract import whole_contract
from tunebook.cli.infer import infer
from tunebook.errors import TunebookError
from tunebook.hooks.infer_job import windows
from tunebook.inference import output
from tunebook.inference.conversations import conversation_of
from tunebook.models import contract
from tunebook.models.source import find_model

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from movie_prompts import Film, alpaca_row

ASKED = [{"role": "user", "content": "Why?"}]
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("row", "messages", "reference"),
    [
        ({"prompt": "Why?"}, ASKED, None),
        ({"question": "Why?", "answer": "So."}, ASKED, None),
        ({"instruction": "Why?", "input": ""}, ASKED, None),
        ({"instruction": "Add.", "input": "1, 2"}, [{"role": "user", "content": "Add.\n1, 2"}], None),
        ({"instruction": "Why?", "system": "Be brief."}, [SYSTEM, *ASKED], None),
        (
            {"instruction": "Why?", "history": [["Hello", "Hi"]]},
            [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, *ASKED],
            None,
        ),
        ({"messages": ASKED}, ASKED, None),
        ({"messages": [SYSTEM, *ASKED, {"role": "assistant", "content": "So."}]}, [SYSTEM, *ASKED], "So."),
        ({"messages": json.dumps(ASKED)}, ASKED, None),
        (
            {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
            ASKED,
            "So.",
        ),
    ],
)
def test_every_usual_shape_of_a_row_is_a_conversation(row, messages, reference):
    assert conversation_of(row, "f, row 1") == (messages, reference)


def test_a_raw_recommendation_is_worded_as_the_training_rows_are():
    history = [Film("Heat (1995)", ("Action", "Crime")), Film("Alien (1979)", ())]
    candidate = Film("Up (2009)", ("Animation",))
    row = {
        "user_id": 7,
        "history_titles": [film.title for film in history],
        "history_genres": [list(film.genres) for film in history],
        "candidate_title": candidate.title,
        "candidate_genres": list(candidate.genres),
    }
    trained = alpaca_row(history, candidate, liked=True)
    wanted = f"{trained['instruction']}\n{trained['input']}"
    assert conversation_of(row, "f, row 1").messages == [{"role": "user", "content": wanted}]


def test_a_system_prompt_of_the_command_takes_the_place_of_the_rows():
    row = {"messages": [SYSTEM, *ASKED]}
    assert conversation_of(row, "f", system="Other.").messages[0]["content"] == "Other."
    assert conversation_of(row, "f", system="").messages == ASKED


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"text": "Why?"}, "none of the known shapes"),
        ({"prompt": 3}, "prompt is a int"),
        ({"messages": []}, "its turns are nothing"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "by 'tool'"),
        ({"messages": [*ASKED, *ASKED]}, "user, user"),
        ({"messages": [*ASKED, {"role": "assistant", "content": None}]}, "turn 2"),
        ({"messages": [*ASKED, SYSTEM]}, "after another turn"),
        ({"messages": "Why?"}, "not a list of turns"),
        ({"messages": [SYSTEM, *ASKED], "system": "x"}, "a system message and a column"),
        (
            {"history_titles": ["a"], "history_genres": [["x"], ["y"]], "candidate_title": "b"},
            "differ in length",
        ),
    ],
)
def test_a_row_that_cannot_be_asked_is_named(row, told):
    with pytest.raises(TunebookError, match=told) as raised:
        conversation_of(row, "f.jsonl, row 3")
    assert raised.value.problem.startswith("f.jsonl, row 3: ")


SETTINGS = {"weights": {"model": "m"}, "max_new_tokens": 8, "system": None}


def test_answers_continue_after_the_last_whole_line(tmp_path):
    path = tmp_path / "out.jsonl"
    assert output.begin(path, SETTINGS, overwrite=False) == ("new", 0)
    part = output.part_of(path)
    part.write_text('{"prediction": "a"}\n{"prediction": "b"}\n{"predic')
    assert output.begin(path, SETTINGS, overwrite=False) == ("unfinished", 2)
    assert part.read_text() == '{"prediction": "a"}\n{"prediction": "b"}\n', "the torn line is dropped"
    output.finish(path)
    assert not part.exists()
    assert output.begin(path, SETTINGS, overwrite=False) == ("finished", 2)


def test_answers_of_other_settings_are_never_mixed(tmp_path):
    path = tmp_path / "out.jsonl"
    output.begin(path, SETTINGS, overwrite=False)
    output.part_of(path).write_text('{"prediction": "a"}\n')
    with pytest.raises(TunebookError, match="max_new_tokens 8 -> 16"):
        output.begin(path, {**SETTINGS, "max_new_tokens": 16}, overwrite=False)
    assert output.part_of(path).read_text() == '{"prediction": "a"}\n', "nothing is lost"
    assert output.begin(path, {**SETTINGS, "max_new_tokens": 16}, overwrite=True) == ("new", 0)


def test_a_file_of_somebody_else_is_not_replaced(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("{}\n")
    with pytest.raises(TunebookError, match="nothing says what made it"):
        output.begin(path, SETTINGS, overwrite=False)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 60))
def test_going_on_sees_the_windows_of_an_unbroken_run(rows, size, done):
    done = min(done, rows)
    whole = list(windows(iter((i, None) for i in range(rows)), size, 0))
    assert [row for _, window in whole for row, _ in window] == list(range(rows))
    left = list(windows(iter((i, None) for i in range(rows)), size, done))
    assert left == [one for one in whole if one[0] + len(one[1]) > done]
    assert {row for _, window in left for row, _ in window} >= set(range(done, rows))


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    return folder


def invoke(*words):
    return CliRunner().invoke(infer, [str(word) for word in words])


def test_the_whole_file_is_read_before_a_model_is_loaded(tmp_path, model):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a"}\n{"prompt": 4}\n')
    done = invoke(model, rows, "--dry-run")
    assert isinstance(done.exception, TunebookError)
    assert "row 2" in done.exception.problem
    rows.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    assert "2 rows" in invoke(model, rows, "--dry-run").output
    rows.write_text('{"prompt": "a", "prediction": "b"}\n')
    assert "'prediction'" in invoke(model, rows, "--dry-run").exception.problem
    rows.write_text("")
    assert "holds no rows" in invoke(model, rows, "--dry-run").exception.problem


def test_options_that_mean_nothing_are_refused(tmp_path, model):
    assert invoke(model).exit_code == 2
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a"}\n')
    done = invoke(model, rows, "--temperature", "0.5")
    assert done.exit_code == 2
    assert "--sample" in done.output


CONTRACT = whole_contract(settings={"template": "qwen3", "enable_thinking": False})


def make_checkpoint(folder, step, adapter=True, **state):
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/models/base"}')
    (folder / contract.FILE).write_text(json.dumps({**CONTRACT, "step": step}))
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, **state}))


def test_a_run_means_the_checkpoint_that_is_asked_for(tmp_path):
    run = tmp_path / "run"
    make_checkpoint(run / "checkpoint-2", 2)
    # The run has been moved since: the state names a folder that is gone.
    make_checkpoint(run / "checkpoint-4", 4, best_model_checkpoint="/elsewhere/run/checkpoint-2")
    (run / "checkpoint-6").mkdir()
    interrupted = find_model(str(run))
    assert interrupted.folder == run / "checkpoint-2"
    assert interrupted.chosen == "step 2, the Trainer's choice of the best"
    assert find_model(str(run), checkpoint="best").folder == run / "checkpoint-2"
    assert find_model(str(run), checkpoint="last").folder == run / "checkpoint-4"
    found = find_model(str(run / "checkpoint-2"))
    assert (found.adapter, found.base, found.engine) == (run / "checkpoint-2", "/models/base", "llamafactory")
    assert found.settings == CONTRACT["settings"]
    with pytest.raises(TunebookError, match="is not whole"):
        find_model(str(run), checkpoint="6")
    with pytest.raises(TunebookError, match="its steps are: 2, 4, 6"):
        find_model(str(run), checkpoint="8")
    with pytest.raises(TunebookError, match="neither best, last nor a step"):
        find_model(str(run), checkpoint="newest")


def test_an_adapter_may_be_put_on_another_base(tmp_path, model):
    make_checkpoint(tmp_path / "adapter", 2)
    found = find_model(str(model), adapter=tmp_path / "adapter")
    assert (found.adapter, found.base) == (tmp_path / "adapter", str(model))
    with pytest.raises(TunebookError, match="holds no adapter"):
        find_model(str(model), adapter=model)


def test_without_a_contract_the_recipe_in_the_run_is_used(tmp_path, model):
    assert find_model(str(model)).engine is None
    (model / "tunebook").mkdir()
    (model / "tunebook" / "recipe.yaml").write_text(
        "base_model: /models/base\nchat_template: chatml\nlearning_rate: 1.0e-4\noutput_dir: x\n"
    )
    found = find_model(str(model))
    assert (found.engine, found.base) == ("axolotl", "/models/base")
    assert found.settings["chat_template"] == "chatml"
    assert "output_dir" not in found.settings
