import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunebook.data import rows as rows_of_files
from tunebook.data.registry import data_files, load_registry, parse_metrics
from tunebook.data.sources import reference_of
from tunebook.errors import TunebookError
from tunebook.types import DatasetEntry, MetricSpec


def write_registry(folder, **entries):
    (folder / "dataset_info.json").write_text(json.dumps(entries))
    return load_registry(folder)


def entry_of(values) -> DatasetEntry:
    from pathlib import Path

    return DatasetEntry(name="d", registry=Path("dataset_info.json"), values=values, metrics=())


def test_the_metric_may_be_a_name_an_object_or_a_list_of_either():
    options = {"name": "gsm8k", "mode": "generate", "max_new_tokens": 256, "max_samples": 200}
    spec = MetricSpec(name="gsm8k", mode="generate", max_new_tokens=256, max_samples=200)
    assert parse_metrics(None, "d") == ()
    assert parse_metrics("yes_no", "d") == (MetricSpec(name="yes_no"),)
    assert parse_metrics(options, "d") == (spec,)
    assert parse_metrics(["yes_no", options], "d") == (MetricSpec(name="yes_no"), spec)


@pytest.mark.parametrize(
    ("metric", "problem", "fix"),
    [
        (
            {"name": "m", "max_new_token": 8},
            "unknown option 'max_new_token'",
            "did you mean 'max_new_tokens'?",
        ),
        ({"name": "m", "zzz": 8}, "unknown option 'zzz'", "the options are name, mode"),
        ({"mode": "generate"}, "has no name", '"metric": "yes_no"'),
        ("", "has no name", '"metric": "yes_no"'),
        ({"name": "m", "mode": "generation"}, "mode 'generation'", "use answer or generate"),
        ({"name": "m", "max_samples": 0}, "max_samples 0", "a whole number above 0"),
        ({"name": "m", "max_samples": True}, "max_samples True", "a whole number above 0"),
        ({"name": "m", "max_new_tokens": "8"}, "max_new_tokens '8'", "a whole number above 0"),
        (3, "holds 3", "write a name"),
        (["m", "m"], "names 'm' twice", "delete one"),
        (["m", ["n"]], "holds ['n']", "write a name"),
    ],
)
def test_a_metric_of_another_form_is_named_with_its_fix(metric, problem, fix):
    with pytest.raises(TunebookError) as error:
        parse_metrics(metric, "dataset_info.json: d")
    assert problem in error.value.problem
    assert "dataset_info.json: d" in error.value.problem
    assert fix in error.value.fix


def test_all_faults_of_an_entry_are_reported_at_once():
    with pytest.raises(TunebookError, match="3 faults"):
        parse_metrics({"mode": "x", "max_samples": -1}, "d")


def test_an_entry_is_checked_only_when_it_is_asked_for(tmp_path):
    registry = write_registry(
        tmp_path, good={"file_name": "g.json", "metric": "yes_no"}, bad={"metric": 3}, none={}
    )
    assert registry.metrics_of(["good", "none"]) == {"good": (MetricSpec(name="yes_no"),)}
    with pytest.raises(TunebookError, match="bad"):
        registry.metrics_of(["good", "bad"])


def test_an_unknown_dataset_is_answered_with_the_nearest_name(tmp_path):
    registry = write_registry(tmp_path, movielens_train={}, movielens_test={})
    with pytest.raises(TunebookError, match="no dataset 'movielens_tests' in") as error:
        registry.entry("movielens_tests")
    assert "movielens_test" in error.value.fix


def test_a_registry_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(TunebookError, match=r"there is no .*dataset_info\.json"):
        load_registry(tmp_path)
    (tmp_path / "dataset_info.json").write_text('{\n "a": 1,\n}')
    with pytest.raises(TunebookError, match=r"dataset_info.json, line \d: is no JSON"):
        load_registry(tmp_path)
    (tmp_path / "dataset_info.json").write_text("[]")
    with pytest.raises(TunebookError, match="holds a list, not an object"):
        load_registry(tmp_path)


def test_missing_data_is_named_with_the_page_that_says_how_to_make_it(tmp_path):
    registry = write_registry(
        tmp_path, d={"file_name": "sub/d.json"}, hub={"hf_hub_url": "openai/gsm8k"}, none={}
    )
    with pytest.raises(TunebookError, match=r"sub/d\.json is missing") as error:
        data_files(registry.entry("d"))
    assert "README" not in error.value.fix
    (tmp_path / "README.md").touch()
    with pytest.raises(TunebookError) as error:
        data_files(registry.entry("d"))
    assert str(tmp_path / "README.md") in error.value.fix
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.json").touch()
    assert data_files(registry.entry("d")) == [tmp_path / "sub" / "d.json"]
    assert data_files(registry.entry("hub")) == []
    with pytest.raises(TunebookError, match="names no data"):
        data_files(registry.entry("none"))


def test_the_reference_is_the_column_llamafactory_trains_on():
    assert reference_of({"output": "Yes"}, entry_of({})) == "Yes"
    assert reference_of({"answer": "Yes"}, entry_of({"columns": {"response": "answer"}})) == "Yes"
    chat = {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "No"}]}
    assert reference_of(chat, entry_of({"formatting": "sharegpt"})) == "No"
    tags = {"role_tag": "role", "content_tag": "content", "assistant_tag": "assistant"}
    chat = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "No"}]}
    entry = entry_of({"formatting": "openai", "columns": {"messages": "messages"}, "tags": tags})
    assert reference_of(chat, entry) == "No"


def test_the_reference_of_a_pair_is_its_chosen_answer():
    pair = {"ranking": True, "columns": {"prompt": "q", "chosen": "good", "rejected": "bad"}}
    assert reference_of({"q": "?", "good": "Yes", "bad": "No"}, entry_of(pair)) == "Yes"
    chat = {"good": {"from": "gpt", "value": "Yes"}, "bad": {"from": "gpt", "value": "No"}}
    assert reference_of(chat, entry_of({**pair, "formatting": "sharegpt"})) == "Yes"
    with pytest.raises(TunebookError, match="name no chosen"):
        reference_of({}, entry_of({"ranking": True, "columns": {"prompt": "q"}}))


@pytest.mark.parametrize(
    ("row", "values", "problem"),
    [
        ({"response": "Yes"}, {}, "no column 'output' among response"),
        ({"output": "Yes"}, {"columns": {"prompt": "q"}}, "its columns name no response"),
        ({"output": True}, {}, "LLaMA-Factory drops such rows"),
        ({"output": None}, {}, "LLaMA-Factory drops such rows"),
        ({"conversations": []}, {"formatting": "sharegpt"}, "holds no messages"),
        (
            {"conversations": [{"from": "human", "value": "?"}]},
            {"formatting": "sharegpt"},
            "the last message is of",
        ),
    ],
)
def test_a_row_without_an_answer_is_named(row, values, problem):
    with pytest.raises(TunebookError, match=problem):
        reference_of(row, entry_of(values))


ROWS = st.lists(
    st.dictionaries(st.text(max_size=3), st.text(max_size=30) | st.integers(), max_size=3), max_size=12
)


@settings(max_examples=60)
@given(ROWS, st.sampled_from([None, 1]), st.booleans(), st.integers(1, 40))
def test_rows_are_read_alike_however_they_are_written_and_cut(rows, indent, escape, chunk):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_of_files, "_CHUNK_CHARACTERS", chunk)
        array, lines = Path(folder) / "array.json", Path(folder) / "lines.jsonl"
        array.write_text(json.dumps(rows, indent=indent, ensure_ascii=escape), encoding="utf-8")
        lines.write_text(
            "\n".join(json.dumps(row, ensure_ascii=escape) for row in rows) + "\n", encoding="utf-8"
        )
        assert list(rows_of_files.iter_rows(array)) == rows
        assert list(rows_of_files.iter_rows(lines)) == rows


def test_csv_rows_may_hold_line_breaks_and_long_documents(tmp_path):
    import csv

    with (tmp_path / "d.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["prompt", "response"])
        writer.writeheader()
        writer.writerows([{"prompt": "a\nb", "response": "Yes"}, {"prompt": "x" * 500_000, "response": "No"}])
    rows = list(rows_of_files.iter_rows(tmp_path / "d.csv"))
    assert [row["response"] for row in rows] == ["Yes", "No"]
    assert rows[0]["prompt"] == "a\nb"


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("d.json", '[{"a": 1}, {"a": }]', "row 2: is no JSON"),
        ("d.json", '[{"a": 1}, {"a": 2}', "row 3: is no JSON"),
        ("d.json", '[{"a": 1}, {"a": "cut', "row 2: is no JSON"),
        ("d.jsonl", '{"a": 1}\n{"a": 2\n', "row 2: is no JSON"),
        ("d.jsonl", '{"a": 1}\n[2]\n', "row 2: is a list, not an object"),
    ],
)
def test_a_broken_row_is_named_with_its_number(tmp_path, name, text, problem):
    (tmp_path / name).write_text(text)
    with pytest.raises(TunebookError, match=problem):
        list(rows_of_files.iter_rows(tmp_path / name))


def test_a_broken_row_is_found_without_reading_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_of_files, "_CHUNK_CHARACTERS", 100)
    (tmp_path / "d.jsonl").write_text('{"a": oops}\n' + '{"a": 1}\n' * 1000)
    with (tmp_path / "d.jsonl").open() as stream:
        with pytest.raises(TunebookError, match="row 1"):
            list(rows_of_files._json_values(stream, tmp_path / "d.jsonl"))
        assert len(stream.read()) > 8000
