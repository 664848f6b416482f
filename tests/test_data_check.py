"""`tunebook data check`: each fault is found where it was put, and whole data is left in peace."""

import codecs
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from lengths_cases import answer_here, make_tokenizer
from tunebook.checks.data_audit import answers, audit
from tunebook.checks.data_audit.findings import RULES, Ledger
from tunebook.cli.main import data
from tunebook.errors import TunebookError

QUESTIONS = [f"Did case {number} end with a verdict?" for number in range(40)]


def rows(count=40, start=0):
    return [
        {"instruction": question, "input": "", "output": "Yes" if number % 3 else "No"}
        for number, question in enumerate(QUESTIONS[start : start + count])
    ]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_registry(tmp_path, {"cards": {"file_name": "cards.jsonl", "metric": "yes_no"}})
    return tmp_path


def write_registry(folder, entries):
    (folder / "dataset_info.json").write_text(json.dumps(entries))


def write(path, found):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")
    return path


def run(*arguments):
    result = CliRunner().invoke(data, ["check", *arguments, "--dataset-dir", ".", "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def findings(*arguments):
    """By rule: the finding, and whether the exit status says the data is clean."""
    result = run(*arguments)
    found = {one["rule"]: one for audited in json.loads(result.stdout) for one in audited["findings"]}
    grave = [one for one in found.values() if one["severity"] != "hint"]
    assert result.exit_code == (1 if grave else 0)
    return found


def row_numbers(finding):
    return [place["row"] for place in finding["places"]]


def test_of_whole_data_only_the_balance_is_shown(place):
    write(place / "cards.jsonl", rows())
    found = findings("cards")
    assert set(found) == {"class-balance"}
    assert "'yes' 26 (65.0%), 'no' 14 (35.0%)" in found["class-balance"]["message"]
    # Always yes: precision 0.65, recall 1 for yes, nothing for no.
    assert "accuracy 0.650 and macro-F1 0.394" in found["class-balance"]["message"]


def changed(number, **values):
    found = rows()
    found[number] |= values
    return found


@pytest.mark.parametrize(
    ("found", "rule", "numbers"),
    [
        ([*rows(), rows()[4]], "duplicate-row", [41]),
        (
            [*rows(), {**rows()[4], "instruction": " DID case 4  end with a verdict?\n"}],
            "near-duplicate-row",
            [41],
        ),
        ([*rows(), {**rows()[4], "output": "No"}], "conflicting-answers", [41]),
        (changed(6, output=""), "empty-answer", [7]),
        (changed(6, output="  \n"), "empty-answer", [7]),
        (changed(6, output=None), "empty-answer", [7]),
        (changed(6, output=True), "not-text", [7]),
        (changed(6, instruction=" "), "empty-prompt", [7]),
        (changed(6, output="Perhaps"), "unreadable-reference", [7]),
        (changed(6, instruction="CafÃ© or not?"), "mojibake", [7]),
        (changed(6, instruction="itâ€™s"), "mojibake", [7]),
        (changed(6, instruction="\ufffd"), "mojibake", [7]),
        ([*rows()[:5], {"instruction": "?"}, *rows()[5:]], "missing-column", [6]),
    ],
)
def test_a_broken_row_is_found_where_it_is(place, found, rule, numbers):
    write(place / "cards.jsonl", found)
    assert row_numbers(findings("cards")[rule]) == numbers
    assert set(findings("cards")) == {rule, "class-balance"}


def test_an_entry_without_columns_needs_an_input_somewhere(place):
    without = [{key: value for key, value in row.items() if key != "input"} for row in rows()]
    write(place / "cards.jsonl", [*without[:39], rows()[39]])
    assert set(findings("cards")) == {"class-balance"}
    write(place / "cards.jsonl", without)
    assert "no row has the column 'input'" in findings("cards")["missing-column"]["message"]
    columns = {"prompt": "instruction", "response": "output"}
    write_registry(place, {"cards": {"file_name": "cards.jsonl", "columns": columns, "metric": "yes_no"}})
    assert set(findings("cards")) == {"class-balance"}


def test_a_repeated_row_names_the_one_it_repeats(place):
    write(place / "cards.jsonl", [*rows(), rows()[4]])
    assert findings("cards")["duplicate-row"]["places"][0]["same_as"] == "row 5"


def test_answers_of_one_class_do_not_conflict(place):
    write(place / "cards.jsonl", [*rows(), {**rows()[4], "output": "yes."}])
    assert set(findings("cards")) == {"near-duplicate-row", "class-balance"}


def test_a_set_with_one_class_cannot_teach(place):
    write(place / "cards.jsonl", [row for row in rows() if row["output"] == "No"])
    assert "every answer is 'no'" in findings("cards")["single-class"]["message"]


def test_classes_of_training_data_without_a_metric_are_shown(place):
    write(place / "train.jsonl", rows())
    assert "'yes' 26 (65.0%)" in findings("train.jsonl")["class-balance"]["message"]
    write(place / "train.jsonl", [{**row, "output": row["instruction"]} for row in rows()])
    assert findings("train.jsonl") == {}


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_bytes_that_are_not_utf_8_are_reported_with_line_and_byte(place, suffix):
    text = {
        ".jsonl": "".join(json.dumps(row) + "\n" for row in rows()),
        ".json": "[" + ",\n".join(json.dumps(row) for row in rows()) + "]",
        ".csv": "instruction,output\n" + "".join(f"{row['instruction']},{row['output']}\n" for row in rows()),
    }[suffix]
    lines = text.encode().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"verdict", b"verdi\xe9t")
    (place / f"cards{suffix}").write_bytes(b"".join(lines))
    write_registry(
        place, {"cards": {"file_name": f"cards{suffix}", "metric": "yes_no"} | csv_columns(suffix)}
    )
    found = findings("cards")["bad-encoding"]
    assert [where["line"] for where in found["places"]] == [3]
    at = b"".join(lines).index(b"\xe9")
    assert f"e9 at byte {at} of the file" in found["message"]


def csv_columns(suffix):
    return {"columns": {"prompt": "instruction", "response": "output"}} if suffix == ".csv" else {}


def test_bad_bytes_are_found_across_blocks(place, monkeypatch):
    monkeypatch.setattr("tunebook.checks.data_audit.audit._BLOCK", 7)
    write(place / "cards.jsonl", changed(3, instruction="漢字かな混じり文é" * 9))
    assert set(findings("cards")) == {"class-balance"}
    content = (place / "cards.jsonl").read_bytes()
    (place / "cards.jsonl").write_bytes(content + b'{"instruction": "\xff", "output": "Yes"}\n')
    assert [where["line"] for where in findings("cards")["bad-encoding"]["places"]] == [41]


@given(size=st.integers(1, 12), bad=st.sets(st.integers(1, 9), min_size=1))
def test_bad_lines_are_the_same_whatever_the_blocks(size, bad):
    """Also where a block ends within a character that is whole."""
    lines = [
        f"{number} 漢字é😀 ".encode() + b"\xe6\xbc!" * (number in bad) + b"\n" for number in range(1, 10)
    ]
    ledger = Ledger(kept=20)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "_BLOCK", size)
        path = Path(folder) / "x.jsonl"
        path.write_bytes(b"".join(lines))
        audit.check_bytes(path, ledger)
    (found,) = ledger.findings("x")
    assert [place.line for place in found.places] == sorted(bad)
    first = sum(map(len, lines[: min(bad) - 1])) + lines[min(bad) - 1].index(b"\xe6\xbc!")
    assert f"e6 bc at byte {first} of the file" in found.message


def test_rows_after_one_that_was_left_out_keep_their_numbers(place):
    write(place / "cards.jsonl", [*rows()[:5], {"instruction": "?"}, *rows()[5:], rows()[30]])
    where = findings("cards")["duplicate-row"]["places"][0]
    assert (where["row"], where["same_as"]) == (42, "row 32")


def test_marks_and_nulls_are_reported(place):
    content = write(place / "cards.jsonl", rows()).read_bytes()
    (place / "cards.jsonl").write_bytes(codecs.BOM_UTF8 + content)
    assert set(findings("cards")) == {"byte-order-mark", "class-balance"}
    (place / "cards.jsonl").write_bytes(content.replace(b"case 7", b"case\x007"))
    found = findings("cards")
    assert [where["line"] for where in found["nul-character"]["places"]] == [8]
    (place / "cards.jsonl").write_bytes(content.decode().encode("utf-16"))
    assert "it is UTF-16" in findings("cards")["bad-encoding"]["message"]


def test_a_file_that_is_cut_within_a_character_is_reported(place):
    content = write(place / "cards.jsonl", rows()).read_bytes()
    (place / "cards.jsonl").write_bytes(content + '{"a": "é'.encode()[:-1])
    assert "the file is cut at byte" in findings("cards")["bad-encoding"]["message"]


def test_lines_that_are_not_rows_are_left_out_and_reported(place):
    lines = [json.dumps(row) for row in rows()]
    lines[2], lines[9] = '{"instruction": "x", ', "[1, 2]"
    (place / "cards.jsonl").write_text("\n".join(lines))
    found = findings("cards")["broken-row"]
    assert [where["line"] for where in found["places"]] == [3, 10]
    assert found["count"] == 2


def test_a_broken_array_is_reported_and_what_came_before_is_checked(place):
    write_registry(place, {"cards": {"file_name": "cards.json", "metric": "yes_no"}})
    content = json.dumps([*rows(), rows()[0]])
    (place / "cards.json").write_text(content[:-3])
    found = findings("cards")
    assert found["broken-row"]["places"][0]["row"] == 41
    assert "the rest was not read" in found["broken-row"]["message"]
    assert "40 answers" in found["class-balance"]["message"]


def test_a_ragged_row_of_csv_is_reported(place):
    write_registry(place, {"cards": {"file_name": "cards.csv", "metric": "yes_no"} | csv_columns(".csv")})
    (place / "cards.csv").write_text("instruction,output\na,Yes\nb, of course,No\nc,No\nd\n")
    found = findings("cards")
    assert row_numbers(found["ragged-row"]) == [2]
    assert row_numbers(found["empty-answer"]) == [4]


def test_nothing_usable_is_no_clean_data(place):
    (place / "cards.jsonl").write_text("")
    assert set(findings("cards")) == {"no-rows"}


def test_leaks_between_training_and_evaluation_are_reported_with_both_rows(place):
    write(place / "train.jsonl", rows(30))
    evaluation = rows(10, start=25)
    evaluation[1] |= {"output": "No" if evaluation[1]["output"] == "Yes" else "Yes"}
    write(place / "cards.jsonl", evaluation)
    found = findings("train.jsonl", "--against", "cards")
    kinds = {"leaked-row": found["leaked-row"]["count"], "leaked-prompt": found["leaked-prompt"]["count"]}
    assert sum(kinds.values()) == 5
    assert found["leaked-row"]["severity"] == "error"
    places = found["leaked-row"]["places"] + found["leaked-prompt"]["places"]
    assert {(where["row"], where["same_as"]) for where in places} == {
        (number, f"row {number + 25} of train") for number in range(1, 6)
    }


def test_sets_without_a_shared_row_do_not_leak(place):
    write(place / "train.jsonl", rows(20))
    write(place / "cards.jsonl", rows(20, start=20))
    assert set(findings("train.jsonl", "--against", "cards")) == {"class-balance"}


def test_a_recipe_has_its_sets_compared(place):
    write(place / "train.jsonl", rows(30))
    write(place / "cards.jsonl", rows(11, start=29))
    write_registry(
        place,
        {
            "trained": {"file_name": "train.jsonl"},
            "cards": {"file_name": "cards.jsonl", "metric": "yes_no"},
            "far": {"hf_hub_url": "some/where"},
        },
    )
    recipe = "model_name_or_path: x\ndataset_dir: .\ndataset: trained, far\neval_dataset: cards\n"
    (place / "recipe.yaml").write_text(recipe)
    result = run("recipe.yaml")
    assert [audited["dataset"] for audited in json.loads(result.stdout)] == ["trained", "cards"]
    found = findings("recipe.yaml")
    assert found.keys() & {"leaked-row", "leaked-prompt"}
    assert "far: not on this machine" in result.stderr
    (place / "recipe.yaml").write_text(recipe.replace("eval_dataset: cards", "eval_dataset: trained"))
    assert findings("recipe.yaml")["leaked-row"]["count"] == 30


@pytest.mark.engine
def test_the_engine_of_a_recipe_says_which_rows_it_leaves_out_and_where_it_stops(place, monkeypatch):
    answer_here(monkeypatch, place / "cache")
    talk = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]
    write(
        place / "talks.jsonl",
        [{"conversations": talk}, {"conversations": [*talk, talk[0], talk[0], talk[1]]}],
    )
    write(place / "cards.jsonl", [*rows(3), {"instruction": "?", "input": "", "output": None}])
    entries = {
        "talks": {"file_name": "talks.jsonl", "formatting": "sharegpt"},
        "cards": {"file_name": "cards.jsonl"},
    }
    write_registry(place, entries)
    make_tokenizer(place / "model")
    recipe = "model_name_or_path: model\ntemplate: chatml\ndataset_dir: .\ndataset: cards, talks\n"
    (place / "recipe.yaml").write_text(recipe)
    found = findings("recipe.yaml")
    assert row_numbers(found["left-out-row"]) == [2]
    assert "questions and answers do not take turns" in found["left-out-row"]["message"]
    assert row_numbers(found["empty-answer"]) == [4]
    write(place / "cards.jsonl", [row | {"instruction": 5} for row in rows(3)])
    stops = findings("recipe.yaml")["engine-stops"]
    assert "cards, row 1: LLaMA-Factory stops: TypeError" in stops["message"]
    (place / "recipe.yaml").write_text(recipe.replace("path: model", "path: nobody/nothing"))
    assert "the engine was not asked which rows it leaves out" in run("recipe.yaml").stderr


def test_chats_are_read_by_their_turns(place):
    def chat(question, answer):
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}

    found = [
        chat("a?", "Yes"),
        chat("b?", "No"),
        chat("a?", "Yes"),
        {"messages": [chat("c?", "")["messages"][0]]},
    ]
    write(place / "chats.jsonl", found)
    told = findings("chats.jsonl")
    assert row_numbers(told["duplicate-row"]) == [3]
    assert row_numbers(told["empty-answer"]) == [4]


def test_rows_of_several_files_are_told_apart(place):
    (place / "parts").mkdir()
    write(place / "parts" / "a.jsonl", rows(20))
    write(place / "parts" / "b.jsonl", [*rows(10, start=20), rows()[3]])
    write_registry(place, {"cards": {"file_name": "parts", "metric": "yes_no"}})
    where = findings("cards")["duplicate-row"]["places"][0]
    assert (where["file"], where["row"], where["same_as"]) == ("b.jsonl", 11, "row 4 of a.jsonl")


def test_a_finding_names_so_many_rows_and_counts_all(place):
    write(place / "cards.jsonl", rows() * 2)
    found = findings("cards", "--show", "3")["duplicate-row"]
    assert found["count"] == 40
    assert row_numbers(found) == [41, 42, 43]


def test_people_get_lines(place):
    write(place / "cards.jsonl", [*rows(), rows()[4]])
    result = CliRunner().invoke(data, ["check", "cards", "--dataset-dir", "."])
    assert "cards: warning [duplicate-row] 1 row: the same as an earlier row" in result.stdout
    assert "cards.jsonl: row 41 (as row 5)" in result.stdout
    assert "1 set, 41 rows: 1 warning" in result.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "no dataset 'nothing'"),
        ("gone.jsonl", r"there is no file gone\.jsonl"),
        ("gone.yaml", "no such recipe"),
    ],
)
def test_what_is_not_there_is_wrong_use(place, name, message):
    with pytest.raises(TunebookError, match=message):
        run(name)


@given(keys=st.lists(st.integers(0, 9)), others=st.lists(st.integers(0, 9)))
def test_repeats_are_what_a_plain_search_finds(keys, others):
    array, other_array = np.array(keys, dtype=np.uint64), np.array(others, dtype=np.uint64)
    wanted = [(row, keys.index(key)) for row, key in enumerate(keys) if keys.index(key) < row]
    assert list(answers.repeats(array).pairs(len(keys))) == wanted
    wanted = [(row, others.index(key)) for row, key in enumerate(keys) if key in others]
    assert list(answers.found_in(array, other_array).pairs(len(keys))) == wanted


def test_every_rule_is_explained():
    page = (Path(__file__).parents[1] / "docs" / "data-check.md").read_text()
    more = {"no-rows", "single-class", "absent-class", "class-balance", "leaked-row", "leaked-prompt"}
    assert all(f"| `{rule}` |" in page for rule in RULES.keys() | more)
