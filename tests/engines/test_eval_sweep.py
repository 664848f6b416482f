"""`tunebook eval` through the unmodified LLaMA-Factory."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from eval_runs import (
    TIMES,
    TUNEBOOK,
    by_label,
    evaluate,
    files_of,
    in_training,
    kill_within,
    parts,
    records_of,
    tear,
)

pytestmark = pytest.mark.engine

LORA = {"finetuning_type": "lora", "lora_rank": 4, "learning_rate": 1.0e-2}
SUMS = {"dataset": "sums_train", "eval_dataset": "sums_eval,like_odd", "eval_on_each_dataset": True}


@pytest.fixture(scope="session")
def runs(recipe, train_many) -> dict[str, Path]:
    """Trainings with checkpoints at steps 10 and 20, recorded as `tunebook train` records them."""
    short = {"max_steps": 20, "eval_steps": 10, "save_steps": 10}
    recipes = {
        "full": recipe(**short),
        "lora": recipe(**short, **LORA, **SUMS),
        "qlora": recipe(**short, **LORA, quantization_bit=4, eval_dataset="like_odd"),
        "node_0": recipe(**short, **LORA, additional_target="embed_tokens", seed=1),
        "node_1": recipe(**short, **LORA, dataset="coin_train", seed=1),
    }
    found = {}
    for name, run in zip(recipes, train_many(list(recipes.values())), strict=True):
        assert run.code == 0, run.log[-3000:]
        output = run.output.rename(run.output.with_name(name))
        (output / "tunebook" / "recipe.yaml").write_text(
            yaml.safe_dump({**recipes[name], "output_dir": str(output)})
        )
        found[name] = output
    return found


@pytest.fixture(scope="session")
def everything(runs, tmp_path_factory):
    """All checkpoints of two runs, and the base."""
    folder = tmp_path_factory.mktemp("everything")
    told, said = evaluate(
        runs["full"], runs["lora"], runs["qlora"], "--checkpoints", "all", "--base", "-o", folder
    )
    return folder, told, said


@pytest.mark.parametrize("step", [10, 20])
@pytest.mark.parametrize(
    ("run", "dataset"),
    [("full", "like_eval"), ("lora", "sums_eval"), ("lora", "like_odd"), ("qlora", "like_odd")],
)
def test_a_checkpoint_gives_the_figures_that_it_gave_in_training(everything, runs, run, dataset, step):
    _, told, _ = everything
    result = by_label(told)[f"{run}@{step}", dataset]
    wanted = in_training(runs[run], dataset, step)
    assert set(wanted) - TIMES == set(result["values"])
    for name in set(wanted) - TIMES:
        # Of four bits the last digits differ: see docs/eval.md.
        exact = 1e-9 if run != "qlora" else 1e-3
        assert result["values"][name] == pytest.approx(wanted[name], abs=exact), name
    assert result["mode"] == ("generate" if dataset == "sums_eval" else "answer")


def test_every_model_is_there_and_ranked(everything):
    folder, told, _ = everything
    models = {"full@10", "full@20", "lora@10", "lora@20", "qlora@10", "qlora@20"}
    models |= {"qwen3 (base)", "qwen3 (base, 4 bit)"}
    assert {label for label, _ in by_label(told)} == models
    assert told["failures"] == []
    assert told["open"] == 0
    for ranking in told["rankings"]:
        values = [model["value"] for model in ranking["models"]]
        assert values == sorted(values, reverse=ranking["larger_is_better"])
        text = (folder / f"ranking-{ranking['dataset']}.md").read_text()
        assert f"By `{ranking['figure']}`" in text
        assert all(model["label"] in text for model in ranking["models"])


def test_the_base_is_the_base(everything, runs):
    """Scored after or before adapters, bare or through PEFT: it gives one thing."""
    _, told, _ = everything
    base = by_label(told)["qwen3 (base)", "like_odd"]["values"]
    assert base["loss"] != by_label(told)["lora@10", "like_odd"]["values"]["loss"]
    assert base["perplexity"] > by_label(told)["lora@20", "like_odd"]["values"]["perplexity"]


def test_records_are_whole_and_can_be_compared(everything):
    folder, told, _ = everything
    first, second = (by_label(told)[f"full@{step}", "like_eval"] for step in (10, 20))
    assert [one["index"] for one in records_of(folder, first)] == list(range(101))
    stem = lambda result: folder / result["records"].replace(".jsonl", ".json")  # noqa: E731
    for names in ([folder / one["records"] for one in (first, second)], [stem(first), stem(second)]):
        done = subprocess.run(
            [TUNEBOOK, "compare", *names, "--json"], capture_output=True, text=True, check=True
        )
        compared = json.loads(done.stdout)["sets"][0]
        assert compared["dataset"] == "like_eval"
        assert compared["n"] == 101


def test_started_again_it_loads_nothing_and_leaves_the_same_bytes(everything, runs):
    folder, told, _ = everything
    before = files_of(folder)
    logs = {path: path.stat().st_mtime_ns for path in folder.glob(".journal/jobs/*/engine.log")}
    again, _said = evaluate(
        runs["full"], runs["lora"], runs["qlora"], "--checkpoints", "all", "--base", "-o", folder
    )
    assert again == told
    assert files_of(folder) == before
    assert {path: path.stat().st_mtime_ns for path in folder.glob(".journal/jobs/*/engine.log")} == logs


def test_killed_again_and_again_it_comes_out_the_same(everything, runs, tmp_path):
    whole, _, _ = everything
    arguments = (runs["lora"], "--checkpoints", "all", "-o", tmp_path)
    reached = [kill_within(*arguments, folder=tmp_path, after=after) for after in (3_000, 9_000)]
    assert 0 < reached[0] < reached[1]
    assert not files_of(tmp_path)
    tear(tmp_path, seed=4)
    _told, said = evaluate(*arguments)
    assert "batches are kept from an earlier start" in said
    made = {name: content for name, content in files_of(tmp_path).items() if not name.startswith("ranking")}
    assert len(made) == 8
    for name, content in made.items():
        assert content == (whole / name).read_bytes(), name


def test_one_row_at_a_time_or_eight_the_answers_are_the_same(runs, tmp_path):
    told = [
        by_label(evaluate(runs["lora"], "--checkpoints", "20", "--batch-size", size, "-o", tmp_path)[0])
        for size in (1, 8)
    ]
    assert parts(tmp_path) > 0
    for key in told[0]:
        one, eight = (records_of(tmp_path, results[key]) for results in told)
        assert [r["prediction"] for r in one] == [r["prediction"] for r in eight]
        for left, right in zip(one, eight, strict=True):
            assert left["nll"] == pytest.approx(right["nll"], abs=1e-5)
            for metric, score in left["scores"].items():
                other = right["scores"][metric]
                assert (score["parsed"], score["reason"]) == (other["parsed"], other["reason"])
                assert score["values"] == pytest.approx(other["values"], abs=1e-4)
        # The loss is averaged over the recipe's batches, whatever is computed together.
        assert told[0][key]["values"]["loss"] == pytest.approx(told[1][key]["values"]["loss"], abs=1e-5)


def test_two_ranks_give_what_one_gives(everything, runs, tmp_path):
    whole, _, _ = everything
    arguments = (runs["lora"], "--checkpoints", "20", "-o", tmp_path)
    evaluate(*arguments, FORCE_TORCHRUN="1", NPROC_PER_NODE="2")
    ranks = {path.name for path in tmp_path.glob(".journal/*/part-*.jsonl")}
    assert ranks == {"part-0-0.jsonl", "part-0-1.jsonl"}
    made = {name for name in files_of(tmp_path) if not name.startswith("ranking")}
    assert len(made) == 4
    for name in made:
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes(), name


def test_shares_of_an_array_give_what_one_process_gives(everything, runs, tmp_path):
    whole, _, _ = everything
    arguments = (runs["lora"], "--checkpoints", "10", "-o", tmp_path)
    told, said = evaluate(*arguments, "--shard", "0/2")
    assert told["open"] == 2
    assert "2 results wait for other shares" in said
    told, _ = evaluate(*arguments, "--shard", "1/2")
    assert told["open"] == 0
    for path in tmp_path.glob("*.json*"):
        path.unlink()
    evaluate(*arguments)
    assert len(list(tmp_path.glob(".journal/jobs/*"))) == 2, "the last call started an engine"
    for path in tmp_path.glob("*.json*"):
        assert path.read_bytes() == (whole / path.name).read_bytes(), path.name


def test_nodes_share_one_process_and_an_adapter_leaves_no_trace(runs, tmp_path):
    told, _said = evaluate(runs["node_0"], runs["node_1"], "--checkpoints", "20,10", "--base", "-o", tmp_path)
    assert len(list(tmp_path.glob(".journal/jobs/*"))) == 1
    found = by_label(told)
    assert len(found) == 5
    for node in ("node_0", "node_1"):
        for step in (10, 20):
            wanted = in_training(runs[node], "like_eval", step)
            got = found[f"{node}@{step}", "like_eval"]["values"]
            assert got == pytest.approx(wanted, abs=1e-9)


def test_batches_by_tokens_and_a_device_map_give_the_same_answers(everything, runs, tmp_path):
    _, told, _ = everything
    ways = ("--batch-tokens", "900", "--device-map", "auto")
    found, _ = evaluate(f"{runs['lora']}@20", *ways, "-o", tmp_path)
    for dataset in ("sums_eval", "like_odd"):
        mine, theirs = (by_label(one)["lora@20", dataset] for one in (found, told))
        assert mine["settings"]["batch_tokens"] == 900
        for name, value in theirs["values"].items():
            assert mine["values"][name] == pytest.approx(value, abs=1e-5), name
        # Every row is in one range of lengths; nothing here is long.
        assert [(one["name"], one["n"]) for one in mine["by_prompt_length"]] == [("<512", mine["n"])]
    log = next(tmp_path.glob(".journal/jobs/*/engine.log")).read_text()
    # Told before it starts: rows of so many tokens that no more than 900 are computed together.
    rows, tokens = re.search(r"generation: at most (\d+) x ([\d,]+) tokens, keys and values", log).groups()
    assert 1 < int(rows) * int(tokens.replace(",", "")) <= 900


def test_other_sets_fewer_rows_and_another_method(runs, tmp_path):
    told, _ = evaluate(
        runs["full"],
        "--dataset",
        "sums_eval",
        "--dataset",
        "coin_eval",
        "--max-samples",
        "20",
        "-o",
        tmp_path,
    )
    found = by_label(told)
    assert {dataset for _, dataset in found} == {"sums_eval", "coin_eval"}
    assert {one["n"] for one in found.values()} == {20}
    assert {one["dataset"]: one["metric"] for one in found.values()} == {
        "sums_eval": ["gsm8k"],
        "coin_eval": ["yes_no"],
    }
    told, _ = evaluate(runs["full"], "--dataset", "sums_eval", "--method", "perplexity", "-o", tmp_path)
    result = next(iter(by_label(told).values()))
    assert (result["n"], result["metric"], result["mode"]) == (48, [], "answer")
    assert {"loss", "perplexity", "token_accuracy"} <= set(result["values"])


def test_one_broken_checkpoint_does_not_cost_the_others(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["lora"], run)
    config = run / "checkpoint-10" / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 4', '"r": 5'))
    told, _said = evaluate(run, "--checkpoints", "all", "--dataset", "like_odd", "-o", tmp_path / "o", code=1)
    assert set(by_label(told)) == {("run@20", "like_odd")}
    # What had been put on the base for the broken one is gone.
    assert by_label(told)["run@20", "like_odd"]["values"] == pytest.approx(
        in_training(runs["lora"], "like_odd", 20), abs=1e-9
    )
    assert [failure["label"] for failure in told["failures"]] == ["run@10"]
    assert "size mismatch" in told["failures"][0]["reason"]


def test_what_the_rows_do_not_allow_is_said_in_the_words_of_the_command(runs, tmp_path):
    done = subprocess.run(
        [TUNEBOOK, "eval", runs["lora"], "--dataset", "sums_eval", "--method", "answer", "-o", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "its predictions are free text" in done.stderr
    assert "leave --method answer out" in done.stderr
    assert not list(tmp_path.glob("*.json"))


def test_a_model_s_folder_is_asked_as_a_recipe_says(everything, runs, tmp_path):
    _, told, _ = everything
    got, _ = evaluate(
        runs["full"] / "checkpoint-10" / ".." / "checkpoint-10" / ".",
        "-o",
        tmp_path,
    )
    assert set(by_label(got)) == {("full@10", "like_eval")}
    model = tmp_path / "soup"
    shutil.copytree(runs["full"] / "checkpoint-10", model)
    recipe = runs["full"] / "tunebook" / "recipe.yaml"
    got, _ = evaluate(model, "--recipe", recipe, "-o", tmp_path)
    assert by_label(got)["soup", "like_eval"]["values"] == pytest.approx(
        by_label(told)["full@10", "like_eval"]["values"], abs=1e-9
    )
