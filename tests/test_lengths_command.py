import json

import pytest
import yaml
from click.testing import CliRunner

from lengths_cases import answer_here, make_registry, make_tokenizer, row
from tunebook.cli.data_lengths import lengths
from tunebook.errors import TunebookError
from tunebook.lengths import asking


def run(*arguments) -> str:
    result = CliRunner().invoke(lengths, [str(argument) for argument in arguments], terminal_width=200)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def engine_here(monkeypatch, tmp_path_factory):
    answer_here(monkeypatch, tmp_path_factory.getbasetemp() / "rows")


@pytest.fixture
def recipe(tmp_path, model):
    """A LLaMA-Factory recipe with two sets of five and two rows."""
    many = [row("the plum " * times, "Yes") for times in (1, 2, 4, 8, 200)]
    folder = make_registry(tmp_path / "data", many=many, few=[row("the brick"), row("a brick", None)])
    path = tmp_path / "recipe.yaml"
    values = {
        "model_name_or_path": str(model),
        "template": "qwen3_nothink",
        "dataset_dir": str(folder),
        "dataset": "many",
        "eval_dataset": "few",
        "cutoff_len": 64,
    }
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.engine
def test_each_set_is_shown_and_all_of_them_together(recipe):
    report = json.loads(run(recipe, "--json"))
    assert [(one["name"], one["part"], one["rows"]) for one in report["sets"]] == [
        ("many", "train", 5),
        ("few", "eval", 1),
    ]
    assert report["sets"][1]["left_out"] == {"the answer is empty": {"rows": 1, "first": [2]}}
    assert report["together"]["rows"] == 6
    assert report["together"]["total"]["max"] == report["sets"][0]["total"]["max"]
    for one in report["sets"]:
        assert one["prompt"]["max"] + one["answer"]["max"] >= one["total"]["max"]
        assert one["total"]["p100"] == one["total"]["max"]
        assert sum(one["histogram"]["counts"]) == one["rows"]
    assert (report["unit"], report["engine"], report["template"]) == (
        "tokens",
        "llamafactory",
        "qwen3_nothink",
    )


@pytest.mark.engine
def test_what_the_limit_of_the_recipe_cuts_is_shown_with_row_numbers(recipe):
    (many, _) = json.loads(run(recipe, "--json"))["sets"]
    assert (many["limit"]["key"], many["limit"]["value"]) == ("cutoff_len", 64)
    assert many["limit"]["losses"] == {
        "cut": {"rows": 1, "first": [5]},
        "header": {"rows": 1, "first": [5]},
    }
    at_limit = next(step for step in many["retention"] if step["limit"] == 64)
    assert (at_limit["whole"], at_limit["header"], at_limit["dropped"]) == (4, 1, 0)
    assert [step["limit"] for step in many["retention"]] == [64, 128, 256, 512]
    assert many["retention"][-1]["whole_share"] == 1.0
    text = run(recipe)
    assert "1 (20.00 %) lose the end of a prompt, where the assistant header is (rows 5)" in text
    assert "suggested limit:" in text


@pytest.mark.engine
def test_the_same_question_starts_no_engine_and_a_changed_row_does(recipe, tmp_path, monkeypatch):
    first = run(recipe, "--json")
    answer, started = asking.start, []

    def start(job: dict) -> None:
        started.append(job)
        answer(job)

    monkeypatch.setattr(asking, "start", start)
    assert run(recipe, "--json") == first
    assert run(recipe, "learning_rate=0.5", "--json") == first
    (many,) = json.loads(run(recipe, "cutoff_len=40", "--dataset", "many", "--json"))["sets"]
    assert (many["limit"]["value"], many["limit"]["losses"]["cut"]["rows"]) == (40, 1)
    assert not started
    rows = json.loads((tmp_path / "data" / "many.json").read_text())
    (tmp_path / "data" / "many.json").write_text(json.dumps([*rows, row("the plum")]))
    assert json.loads(run(recipe, "--json"))["sets"][0]["rows"] == 6
    assert [[one["name"] for one in job["sets"]] for job in started] == [["many"]]


@pytest.mark.engine
def test_overrides_and_row_limits_hold(recipe):
    (one,) = json.loads(run(recipe, "cutoff_len=9999", "--dataset", "many", "--json"))["sets"]
    assert one["limit"]["losses"] == {}
    (one,) = json.loads(run(recipe, "--max-samples", 3, "--dataset", "many", "--json"))["sets"]
    assert one["rows"] == 3
    (one,) = json.loads(run(recipe, "max_samples=2", "--dataset", "many", "--json"))["sets"]
    assert one["rows"] == 2


@pytest.mark.engine
def test_keys_that_change_what_the_figures_mean_are_noted(recipe):
    assert json.loads(run(recipe, "--json"))["notes"] == []
    assert "note: val_size: part of the training rows" in run(recipe, "val_size=0.1", "eval_dataset=")
    (note,) = json.loads(run(recipe, "train_on_prompt=true", "--json"))["notes"]
    assert note.startswith("train_on_prompt: prompts are learned too")


def test_characters_need_no_tokenizer(recipe, tmp_path):
    report = json.loads(run(recipe, "model_name_or_path=nobody/nothing", "--chars", "--json"))
    assert report["unit"] == "characters"
    assert report["sets"][0]["prompt"]["max"] == len("the plum " * 200)
    assert report["sets"][0]["answer"]["max"] == len("Yes")
    assert report["sets"][0]["retention"] == []
    assert "characters" in run("many", "--dataset-dir", tmp_path / "data", "--chars")


def test_conversations_are_counted_by_who_speaks(tmp_path):
    talk = [
        {"from": "system", "value": "12"},
        {"from": "human", "value": "345"},
        {"from": "gpt", "value": "6"},
    ]
    entry = {"file_name": "talk.jsonl", "formatting": "sharegpt"}
    folder = make_registry(tmp_path, talk=entry)
    (folder / "talk.jsonl").write_text(json.dumps({"conversations": talk}))
    (one,) = json.loads(run("talk", "--dataset-dir", folder, "--chars", "--json"))["sets"]
    assert (one["prompt"]["max"], one["answer"]["max"]) == (5, 1)


@pytest.mark.engine
def test_a_data_set_is_measured_with_a_model_and_a_template(recipe, model, tmp_path):
    from_recipe = json.loads(run(recipe, "--dataset", "many", "--json"))["sets"][0]
    options = ("--dataset-dir", tmp_path / "data", "--model", model, "--template", "qwen3_nothink", "--json")
    assert json.loads(run("many", *options))["sets"][0]["total"] == from_recipe["total"]


@pytest.mark.engine
def test_the_page_needs_nothing_else(recipe, tmp_path):
    run(recipe, "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 6  # two sets and both together, for a light and a dark page
    assert "<script" not in page
    assert "src=" not in page
    assert "lose the end of a prompt" in page


@pytest.mark.axolotl
def test_an_axolotl_recipe_is_measured_by_its_own_rule(tmp_path, model):
    folder = make_registry(tmp_path / "data", rows=[row("the plum"), row("the plum " * 50)])
    values = {
        "base_model": str(model),
        "datasets": [{"path": str(folder / "rows.json"), "type": "tunebook.hooks.axolotl_alpaca"}],
        "sequence_len": 64,
    }
    (model / "config.json").write_text('{"model_type": "llama"}')
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    (one,) = json.loads(run(path, "--json"))["sets"]
    assert one["limit"]["losses"] == {"dropped": {"rows": 1, "first": [2]}}
    (one,) = json.loads(run(path, "excess_length_strategy=truncate", "--json"))["sets"]
    assert one["limit"]["losses"].keys() == {"cut", "header", "answer", "end", "all"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nothing"], "no recipe 'nothing'"),
        (["many"], "whose tokens are to be counted?"),
        (["many", "--model", "nobody/nothing", "--template", "qwen3"], "is not on this machine"),
    ],
)
def test_what_is_missing_is_named(recipe, tmp_path, arguments, problem):
    with pytest.raises(TunebookError, match=problem):
        run(*arguments, "--dataset-dir", tmp_path / "data")


def test_without_the_engine_the_error_says_how_to_get_it(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_LLAMAFACTORY_ENV", str(tmp_path))
    with pytest.raises(TunebookError, match="llamafactory is not installed there") as caught:
        run(recipe, "--json")
    assert "count characters with --chars" in (caught.value.fix or "")


def test_a_set_that_the_recipe_has_not_is_an_error(recipe):
    with pytest.raises(TunebookError, match="there is no set 'lots'"):
        run(recipe, "--dataset", "lots")
