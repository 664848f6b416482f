"""The model that LLaMA-Factory's own server has loaded answers as it did inside the engine, row by row."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from api_server import ask, comparable, served
from eval_runs import evaluate, records_of

pytestmark = pytest.mark.engine

STEP = 60


@pytest.fixture(scope="module")
def trained(recipe, train) -> Path:
    """A run that evaluates by generated answers, recorded as `tunebook train` records it."""
    values = recipe(
        dataset="sums_train", eval_dataset="sums_eval", max_steps=STEP, eval_steps=STEP, save_steps=STEP
    )
    run = train(values)
    assert run.code == 0, run.log[-3000:]
    file = run.output / "tunebook" / "recipe.yaml"
    file.write_text(yaml.safe_dump({**values, "output_dir": str(run.output)}))
    return run.output


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    cli = Path(sys.executable).parent / "llamafactory-cli"
    log = tmp_path_factory.mktemp("server") / "api.log"
    with served(cli, trained / f"checkpoint-{STEP}", log) as url:
        yield url


def test_greedy_answers_equal_those_of_the_evaluation_in_training(trained, server, tmp_path):
    told, said = ask(trained, server, "-o", tmp_path)
    (result,) = told["results"]
    path = trained / "tunebook" / f"eval_records-sums_eval-{STEP}.jsonl"
    local = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({record["prediction"] for record in local}) > 5, "the model says too little to compare by"
    assert comparable(records_of(tmp_path, result)) == comparable(local)
    lines = (trained / "tunebook" / "eval_metrics.jsonl").read_text().splitlines()
    wanted = json.loads(lines[-1])
    unknown = {"loss", "perplexity", "token_accuracy", "generation_seconds"}
    assert result["values"] == {
        name: value for name, value in wanted["values"].items() if name not in unknown
    }
    assert result["model"]["base"] == "sums"
    # The server counts the tokens of the engine's own prompts.
    counted = result["settings"]["server"]
    assert (counted["compared"], counted["other_prompt_tokens"]) == (48, 0)
    assert "warning" not in said


def test_with_examples_before_the_questions_too(trained, server, tmp_path):
    local, said = evaluate(trained, "--shots", "2", "-o", tmp_path / "local")
    served, also_said = ask(trained, server, "--shots", "2", "-o", tmp_path / "served")
    one = records_of(tmp_path / "local", local["results"][0])
    two = records_of(tmp_path / "served", served["results"][0])
    assert comparable(one) == comparable(two)
    assert "Dan has" in one[0]["prompt"].partition("####")[0]
    assert one[0]["prompt"].count("####") == 2
    line = next(line for line in said.splitlines() if "tokens more in each prompt" in line)
    assert line in also_said
    assert local["results"][0]["settings"]["shots"] == served["results"][0]["settings"]["shots"]
    # The rows are the same ones: only what stands before the question is more.
    plain = trained / "tunebook" / f"eval_records-sums_eval-{STEP}.jsonl"
    assert [json.loads(text)["reference"] for text in plain.read_text().splitlines()] == [
        record["reference"] for record in one
    ]
    added = int(line.split(": ")[-1].split()[0])
    journals = [next((tmp_path / name).rglob("rows.jsonl")).read_text().splitlines() for name in ("served",)]
    first = json.loads(journals[0][0])
    whole = next(text for text in (trained / "tunebook").glob("eval_records-*.jsonl")).read_text()
    assert first["prompt_tokens"] > added > 0
    assert len(json.loads(whole.splitlines()[0])["prompt"]) < len(first["prompt"])
