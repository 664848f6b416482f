"""Evaluation through a server: what is asked, what passes, what is told, and what is kept."""

import json
import signal
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from click.testing import CliRunner
from tokenizers import Tokenizer, processors

from endpoint_server import KEY, Model, hang_up, malformed, running, slow, status
from lengths_cases import answer_here, make_registry, make_tokenizer
from tunebook.cli.main import cli
from tunebook.errors import TunebookError
from tunebook.evaluation.endpoint_client import address
from tunebook.evaluation.questions import read_questions

ROWS = 40
ASKED_AGAIN = 5
NOUNS = ["plum", "brick", "river", "candle"]


def question(number: int) -> str:
    return f"Row {number}: Anna saw a {NOUNS[number % 4]}. Is it liked?"


@pytest.fixture
def recipe(tmp_path, tmp_path_factory, monkeypatch) -> Path:
    """A LLaMA-Factory recipe whose model lies elsewhere; the current folder is a fresh one."""
    monkeypatch.chdir(tmp_path)
    # The rows are the same in all tests, so the engine builds them once.
    answer_here(monkeypatch, tmp_path_factory.getbasetemp() / "rows")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    answers = ["Yes" if number % 4 == 0 else "No" for number in range(ROWS)]
    rows = [
        {"instruction": question(number), "input": "", "output": answer, "system": "Be brief."}
        for number, answer in enumerate(answers)
    ]
    train = [*rows[:2], *({**row, "instruction": f"Train. {row['instruction']}"} for row in rows)]
    columns = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
    make_registry(tmp_path / "data")
    info = {
        "like_eval": {"file_name": "like_eval.json", "columns": columns, "metric": "yes_no"},
        "like_train": {"file_name": "like_train.json", "columns": columns},
        "plain_eval": {"file_name": "like_eval.json", "columns": columns},
    }
    (tmp_path / "data" / "like_eval.json").write_text(json.dumps(rows))
    (tmp_path / "data" / "like_train.json").write_text(json.dumps(train))
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(info))
    values = {
        "model_name_or_path": "someone/elsewhere",
        "template": "qwen3",
        "enable_thinking": False,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "dataset_dir": "data",
        "dataset": "like_train",
        "eval_dataset": "like_eval",
        "cutoff_len": 256,
        "output_dir": "out",
    }
    path = tmp_path / "my_recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


class Done(NamedTuple):
    code: int
    out: str
    err: str


def command(recipe: Path, url: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "tunebook.cli.main", "eval", str(recipe), "--endpoint", url, *options]


def run(recipe: Path, url: str, *options: str, **env: str) -> Done:
    """The command in this process, as `main` ends it."""
    done = CliRunner().invoke(cli, ["eval", str(recipe), "--endpoint", url, *options], env=env)
    error = done.exception
    if isinstance(error, TunebookError):
        return Done(2, done.stdout, f"{done.stderr}error: {error}")
    assert error is None or isinstance(error, SystemExit), done.exc_info
    return Done(done.exit_code, done.stdout, done.stderr)


def run_alone(recipe: Path, url: str, *options: str) -> Done:
    """The command in a process of its own."""
    done = subprocess.run(command(recipe, url, *options), capture_output=True, text=True, timeout=60)
    return Done(done.returncode, done.stdout, done.stderr)


def result(folder: Path = Path("eval_results")) -> dict:
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


def records(folder: Path = Path("eval_results")) -> list[dict]:
    (path,) = folder.glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def asked(model: Model) -> list[dict]:
    """The requests, but for the one that tries what the server takes."""
    return [body for body in model.requests if body["max_tokens"] > 1]


@pytest.mark.engine
def test_every_row_is_asked_greedily_in_the_recipe_s_own_words(recipe):
    model = Model()
    with running(model) as url:
        done = run(recipe, url, "--json")
    assert done.code == 0, done.err
    bodies = asked(model)
    assert len(bodies) == ROWS
    by_question = {body["messages"][-1]["content"]: body for body in bodies}
    assert by_question[question(7)] == {
        "model": "tiny",
        "temperature": 0,
        "max_tokens": by_question[question(7)]["max_tokens"],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": question(7)},
        ],
        "chat_template_kwargs": {"enable_thinking": False},
    }
    found = records()
    assert [record["index"] for record in found] == list(range(ROWS))
    assert all(record["prediction"] == record["reference"] for record in found)
    assert all(record["nll"] is None for record in found)
    values = result()["values"]
    assert values["accuracy"] == 1.0
    # Not known, so not there: a loss of 0 would be the best of all.
    assert "loss" not in values
    assert "perplexity" not in values
    assert "loss and perplexity are not known" in result()["notes"][0]
    printed = json.loads(done.out)
    assert printed["open"] == 0
    assert printed["results"][0]["model"]["kind"] == "endpoint"


@pytest.mark.engine
def test_the_order_of_results_does_not_depend_on_concurrency(recipe):
    texts = []
    for number, concurrency in enumerate(("1", "7")):
        model = Model()
        model.seconds = 0.01
        with running(model) as url:
            done = run(recipe, url, "--concurrency", concurrency, "--label", "x", "-o", f"out{number}")
        assert done.code == 0, done.err
        assert model.most_busy <= int(concurrency)
        texts.append([path.read_text() for path in sorted(Path(f"out{number}").glob("*.jsonl"))])
        if concurrency == "7":
            assert model.most_busy > 2
    assert texts[0] == texts[1]


@pytest.mark.engine
def test_failures_that_may_pass_are_tried_again_and_never_become_a_wrong_answer(recipe):
    model = Model()
    model.faults = {
        question(0): [status(500), status(503)],
        question(1): [hang_up, hang_up],
        question(2): [malformed],
        question(3): [status(429, {"Retry-After": "2"})],
        question(4): [status(429, {"Retry-After": formatdate(time.time() + 3, usegmt=True)})],
        question(5): [slow(3)],
    }
    with running(model) as url:
        done = run(recipe, url, "--timeout", "1")
    assert done.code == 0, done.err
    assert result()["values"]["accuracy"] == 1.0
    waits = {}
    for text, at in model.times:
        waits.setdefault(text, []).append(at)
    assert waits[question(3)][1] - waits[question(3)][0] >= 2
    assert "requests had to be sent again" in done.err


@pytest.mark.engine
def test_rows_without_an_answer_leave_no_result_and_are_asked_again(recipe):
    model = Model()
    model.faults = {question(number): [status(500)] * 2 for number in (3, 9)}
    model.faults[question(11)] = [status(400, body={"error": {"message": "prompt is too long"}})]
    with running(model) as url:
        done = run_alone(recipe, url, "--retries", "1")
        assert done.code == 1
        assert not list(Path("eval_results").glob("*.json*"))
        assert "like_eval, row 11: no answer: status 400: prompt is too long" in done.err
        assert "3 of 40 rows have no answer" in done.err
        again = done.err.rpartition("to continue: ")[2].strip()
        assert again == f"tunebook eval {recipe} --endpoint {url} --retries 1"
        model.requests.clear()
        done = run(recipe, url, "--retries", "1")
    assert done.code == 0, done.err
    assert "37 of 40 answers are kept" in done.err
    assert {body["messages"][-1]["content"] for body in asked(model)} >= {question(at) for at in (3, 9, 11)}
    assert len(asked(model)) == 3 + ASKED_AGAIN
    assert result()["values"]["accuracy"] == 1.0


@pytest.mark.engine
def test_a_server_that_has_gone_is_given_up_early(recipe):
    model = Model()
    with running(model) as url:
        model.faults = {question(number): [status(500)] for number in range(ROWS)}
        done = run(recipe, url, "--retries", "0", "--concurrency", "2")
    assert done.code == 1
    assert "given up: 20 questions in a row got no answer" in done.err
    assert len(asked(model)) < 24
    done = run(recipe, url, "--retries", "1")
    assert done.code == 2
    assert "fix: start the server" in done.err


@pytest.mark.engine
def test_a_killed_evaluation_continues_to_the_same_results(recipe):
    whole = Model()
    with running(whole) as url:
        assert run(recipe, url, "--label", "x", "-o", "whole").code == 0
    model = Model()
    model.seconds = 0.05
    with running(model) as url:
        process = subprocess.Popen(
            command(recipe, url, "--label", "x", "--concurrency", "2", "-o", "killed"),
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while len(asked(model)) < 12 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = len(asked(model))
        assert 12 <= before < ROWS
        model.seconds = 0
        done = run(recipe, url, "--label", "x", "-o", "killed")
    assert done.code == 0, done.err
    # The two that were under way are asked twice at the most.
    assert len(asked(model)) <= ROWS + 2 + ASKED_AGAIN
    assert "answers are kept from an earlier start" in done.err
    one, two = (next(Path(folder).glob("*.jsonl")) for folder in ("whole", "killed"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.engine
def test_a_server_with_other_weights_under_the_same_name_is_noticed(recipe):
    model = Model()
    honest = model.answer
    model.faults = {question(7): [status(400)]}
    with running(model) as url:
        assert run(recipe, url).code == 1
        model.answer = lambda text: "Yes" if honest(text) == "No" else "No"
        done = run(recipe, url)
        assert done.code == 2
        assert "gives other answers than before to all 5 rows that were asked again" in done.err
        assert "--label" in done.err
        assert not list(Path("eval_results").glob("*.json"))
        # One row apart: said, and no reason to stop.
        model.answer = lambda text: "No" if text == question(0) else honest(text)
        done = run(recipe, url)
        assert done.code == 0, done.err
        assert "of 5 kept rows that were asked again, 1 have other answers now (rows 0)" in done.err


@pytest.mark.engine
def test_the_key_goes_to_the_server_and_nowhere_else(recipe):
    model = Model()
    model.key = KEY
    with running(model) as url:
        done = run(recipe, url, "--json", OPENAI_API_KEY=KEY)
        assert done.code == 0, done.err
        assert KEY not in done.out + done.err
        for path in Path("eval_results").rglob("*"):
            assert path.is_dir() or KEY.encode() not in path.read_bytes()
        wrong = run(recipe, url, "-o", "other", "--api-key-env", "MY_KEY", MY_KEY="sk-wrong-9")
        assert wrong.code == 2
        assert "401" in wrong.err
        assert "--api-key-env" in wrong.err
        assert "[redacted]" in wrong.err
        assert "sk-wrong-9" not in wrong.err
        none = run(recipe, url, "-o", "other")
        assert none.code == 2
        assert "it is not set" in none.err


@pytest.mark.engine
def test_the_model_is_the_server_s_only_one_or_has_to_be_named(recipe):
    model = Model()
    model.models = ["tiny", "other"]
    with running(model) as url:
        done = run(recipe, url)
        assert done.code == 2
        assert "offers tiny, other" in done.err
        done = run(recipe, url, "--model", "tinny")
        assert done.code == 2
        assert "`tinny` does not exist" in done.err
        assert run(recipe, url, "--model", "other").code == 0
    assert {body["model"] for body in asked(model)} == {"other"}


@pytest.mark.engine
def test_a_server_that_refuses_template_options_is_asked_without_and_it_is_said(recipe):
    model = Model()
    model.refuses_template_options = True
    with running(model) as url:
        done = run(recipe, url)
    assert done.code == 0, done.err
    assert "refuses chat_template_kwargs" in done.err
    assert "{'enable_thinking': False} has to be set where it is started" in done.err
    assert not any("chat_template_kwargs" in body for body in asked(model))
    assert result()["settings"]["endpoint"]["chat_template_kwargs"] is None
    model.requests.clear()
    with running(model) as url:
        done = run(recipe, url, "--no-template-options", "-o", "other")
    assert done.code == 0, done.err
    assert len(model.requests) == ROWS + 1


@pytest.mark.engine
def test_cut_answers_and_thoughts_are_kept_separate(recipe):
    model = Model()
    said = {question(0): "thinks", question(1): "cut"}
    honest = model.answer
    model.answer = lambda text: said.get(text) or honest(text)
    with running(model) as url:
        assert run(recipe, url).code == 0
    found = records()
    assert found[0]["prediction"] == "Yes"
    assert found[1]["scores"]["yes_no"]["reason"] == "cut by max_new_tokens"
    assert result()["values"]["generation_cut_rate"] == 1 / ROWS
    assert result()["settings"]["server"]["with_reasoning"] == 1
    journal = next(Path("eval_results/.journal").rglob("part-*.jsonl")).read_text()
    assert "It is a plum." in journal


@pytest.mark.engine
def test_prompts_of_another_length_than_the_engine_s_are_noticed(recipe, tmp_path):
    values = yaml.safe_load(recipe.read_text())
    values["model_name_or_path"] = str(make_tokenizer(tmp_path / "model"))
    recipe.write_text(yaml.safe_dump(values))
    model = Model()
    with running(model) as url:
        done = run(recipe, url)
    assert done.code == 0, done.err
    assert "40 of 40 prompts have another number of tokens at the server" in done.err
    assert result()["settings"]["server"]["other_prompt_tokens"] == ROWS


@pytest.mark.axolotl
def test_an_axolotl_recipe_is_asked_without_its_tokenizer_or_with(recipe, tmp_path):
    rows = json.loads((tmp_path / "data" / "like_eval.json").read_text())
    chats = [
        {
            "conversations": [
                {"from": "system", "value": row["system"]},
                {"from": "human", "value": row["instruction"]},
                {"from": "gpt", "value": row["output"]},
            ]
        }
        for row in rows
    ]
    (tmp_path / "data" / "chat_eval.json").write_text(json.dumps(chats))
    info = json.loads((tmp_path / "data" / "dataset_info.json").read_text())
    info["chat_eval"] = {"file_name": "chat_eval.json", "formatting": "sharegpt", "metric": "yes_no"}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(info))
    values = {
        "base_model": "someone/elsewhere",
        "chat_template_kwargs": {"enable_thinking": False},
        "datasets": [{"path": "data/like_train.json", "type": "tunebook.hooks.axolotl_alpaca"}],
        "tunebook_dataset_dir": "data",
        "sequence_len": 256,
        "learning_rate": 1.0e-4,
        "output_dir": "out",
    }
    recipe.write_text(yaml.safe_dump(values))
    sets = ("--dataset", "like_eval", "--dataset", "chat_eval")
    local = make_tokenizer(tmp_path / "model")
    asked_for = []
    for more in ((), (f"tokenizer_config={local}",)):
        model = Model()
        with running(model) as url:
            done = run(recipe, url, *sets, *more, "-o", f"out{len(more)}")
            assert done.code == 0, done.err
            assert ("tokenizer is not on this machine" in done.err) == (not more)
            refused = run(recipe, url, *sets, *more, "--completions", "-o", f"text{len(more)}")
            assert refused.code == (0 if more else 2)
        bodies = [body for body in asked(model) if "messages" in body]
        asked_for.append(sorted(json.dumps(body, sort_keys=True) for body in bodies))
        assert len(bodies) == 2 * ROWS
        assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body in bodies)
    assert asked_for[0] == asked_for[1]
    assert "name its folder: tokenizer_config=FOLDER" in run(recipe, url, *sets, "--completions").err


@pytest.mark.engine
def test_results_go_to_trackers_too(recipe):
    with running(Model()) as url:
        done = run(recipe, url, "--report-to", "tensorboard")
    assert done.code == 0, done.err
    assert list(Path("eval_results").rglob("events.out.tfevents.*"))


@pytest.mark.engine
def test_compare_takes_the_results_of_two_servers(recipe):
    results = []
    for label in ("one", "two"):
        model = Model()
        if label == "two":
            model.answer = lambda text: "No"
        with running(model) as url:
            assert run(recipe, url, "--label", label, "-o", label).code == 0
        results.append(str(next(Path(label).glob("*.json"))))
    done = CliRunner().invoke(cli, ["compare", *results])
    assert done.exit_code == 0, done.output
    assert "accuracy" in done.output


@pytest.mark.engine
def test_completions_send_the_rendered_prompt(recipe):
    model = Model()
    with running(model) as url:
        done = run(recipe, url, "--completions", "template=qwen3_nothink")
    assert done.code == 0, done.err
    prompts = {body["prompt"] for body in asked(model)}
    assert (
        f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{question(5)}<|im_end|>\n"
        "<|im_start|>assistant\n"
    ) in prompts
    assert asked(model)[0]["stop"] == ["<|im_end|>"]


@pytest.mark.engine
def test_completions_leave_the_bos_to_a_tokenizer_that_puts_it_there(recipe, tmp_path):
    values = yaml.safe_load(recipe.read_text())
    for adds in (True, False):
        local = make_tokenizer(tmp_path / f"model-{adds}", bos_token="<|endoftext|>")
        if adds:
            tokenizer = Tokenizer.from_file(str(local / "tokenizer.json"))
            bos = ("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))
            tokenizer.post_processor = processors.TemplateProcessing(
                single="<|endoftext|> $A", special_tokens=[bos]
            )
            tokenizer.save(str(local / "tokenizer.json"))
        recipe.write_text(yaml.safe_dump({**values, "model_name_or_path": str(local), "template": "llama3"}))
        model = Model()
        with running(model) as url:
            done = run(recipe, url, "--completions", "-o", f"out-{adds}")
        assert done.code == 0, done.err
        assert all(body["prompt"].startswith("<|endoftext|>") != adds for body in asked(model))


@pytest.mark.engine
def test_a_set_without_a_metric_cannot_be_judged_through_a_server(recipe):
    with running(Model()) as url:
        done = run(recipe, url, "--dataset", "plain_eval")
    assert done.code == 2
    assert "plain_eval: carries no metric" in done.err or "none of its sets has a metric" in done.err


@pytest.mark.engine
def test_shots_are_training_rows_that_are_not_asked_and_come_before_the_question(recipe):
    model = Model()
    with running(model) as url:
        done = run(recipe, url, "--shots", "2")
    assert done.code == 0, done.err
    # The first two training rows are evaluation rows.
    text = f"Train. {question(0)}\nYes\n\nTrain. {question(1)}\nNo\n\n"
    assert {body["messages"][-1]["content"] for body in asked(model)} == {
        text + question(number) for number in range(ROWS)
    }
    told = result()["settings"]["shots"]
    assert (told["n"], told["source"], told["text"]) == (2, "like_train", text)
    assert "2 examples from like_train" in done.err
    assert "2shot" in next(Path("eval_results").glob("*.json")).name


@pytest.mark.engine
def test_shots_of_a_file_are_counted_by_the_model_s_own_tokenizer(recipe, tmp_path):
    values = yaml.safe_load(recipe.read_text())
    values["model_name_or_path"] = str(make_tokenizer(tmp_path / "model"))
    plain = read_questions(values, "llamafactory", ["like_eval"], home=tmp_path)[0].questions
    values["cutoff_len"] = limit = max(one.tokens for one in plain)
    recipe.write_text(yaml.safe_dump(values))
    shots = tmp_path / "shots.jsonl"
    shots.write_text('{"question": "Is {water} wet?", "answer": "Yes"}\n')
    model = Model()
    with running(model) as url:
        done = run(
            recipe, url, "--shots-file", str(shots), "--shots-template", r"Q: {question}\nA: {answer}\n"
        )
    assert done.code == 0, done.err
    assert asked(model)[0]["messages"][-1]["content"].startswith("Q: Is {water} wet?\nA: Yes\nRow ")
    from tunebook.lengths import counter

    tokens = counter(tmp_path / "model")(["Q: Is {water} wet?\nA: Yes\n"])[0]
    assert f"like_eval: 1 example from {shots}: {tokens} tokens more in each prompt" in done.err
    assert f"with them {ROWS} more rows are above the engine's limit of {limit} tokens" in done.err


@pytest.mark.parametrize(
    ("line", "problem", "fix"),
    [
        (
            {"question": "a", "answer": "b", "one_shot_example": "c"},
            "row 1: an example has no key 'one_shot_example'",
            "write question and answer",
        ),
        ({"question": "a", "anwser": "b"}, "an example has no key 'anwser'", "did you mean 'answer'?"),
        ({"question": "a"}, "answer is None, not a text", '{"question"'),
        ({"question": "a", "answer": 5}, "answer is 5, not a text", '{"question"'),
    ],
)
def test_a_misspelt_key_of_a_shots_file_is_an_error(recipe, tmp_path, line, problem, fix):
    shots = tmp_path / "shots.jsonl"
    shots.write_text(json.dumps(line))
    done = run(recipe, "http://127.0.0.1:9", "--shots-file", str(shots))
    assert done.code == 2
    assert problem in done.err
    assert fix in done.err


@pytest.mark.engine
def test_a_dry_run_with_examples_shows_them_and_leaves_nothing(recipe):
    done = run(recipe, "http://127.0.0.1:9", "--dry-run", "--shots", "1")
    assert done.code == 0, done.err
    assert f"[user] Train. {question(0)}\nYes\n\n{question(0)}" in done.out
    assert not Path("eval_results").exists()


def test_options_that_say_how_a_model_is_loaded_are_refused(recipe):
    done = run(recipe, "http://127.0.0.1:9", "--base")
    assert done.code == 2
    assert "--base says how a model is loaded" in done.err
    done = run(recipe, "http://127.0.0.1:9", "--device-map", "auto")
    assert "--device-map says how a model is loaded" in done.err
    done = CliRunner().invoke(cli, ["eval", str(recipe), "--retries", "1"])
    assert done.exit_code == 2
    assert "--retries is about a server: it needs --endpoint URL" in done.stderr
    done = run(recipe, "http://127.0.0.1:9", "--shots", "1", "--shots-template", "{question}")
    assert done.code == 2
    assert "holds {answer} 0 times" in done.err


@pytest.mark.engine
def test_a_dry_run_shows_the_first_question_and_asks_nothing(recipe):
    done = run(recipe, "http://127.0.0.1:9", "--dry-run")
    assert done.code == 0, done.err
    assert f"[user] {question(0)}" in done.out
    assert not Path("eval_results").exists()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("localhost:8000", "http://localhost:8000/v1"),
        ("https://host/", "https://host/v1"),
        ("http://host/proxy/v1/", "http://host/proxy/v1"),
        ("http://host/v1/chat/completions", "http://host/v1"),
    ],
)
def test_addresses_are_taken_in_every_usual_form(given, wanted):
    assert address(given) == wanted


@pytest.mark.parametrize("given", ["ftp://host", "http://me:secret@host/v1", "http://", "http://host?key=1"])
def test_addresses_that_are_none_or_hold_a_secret_are_refused(given):
    with pytest.raises(TunebookError) as error:
        address(given)
    assert "secret" not in str(error.value)
