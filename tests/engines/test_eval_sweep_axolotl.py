"""`tunebook eval` through the unmodified Axolotl."""

from pathlib import Path

import pytest
from api_server import ask, comparable, served
from axolotl_cases import LORA, run_many
from eval_runs import TIMES, by_label, evaluate, files_of, in_training, kill_within, records_of, tear

from tunebook.evaluation import job
from tunebook.evaluation.job import EvalRequest
from tunebook.evaluation.plan import plan_evaluation
from tunebook.evaluation.run import start_of
from tunebook.recipes import engine_yaml

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.axolotl


@pytest.fixture(scope="session")
def runs(axolotl_recipe, tmp_path_factory) -> dict[str, Path]:
    """Trainings with checkpoints at steps 4 and 8, recorded as `tunebook train` records them."""
    short = {"max_steps": 8, "eval_steps": 4, "save_steps": 4}
    recipes = {
        "full": axolotl_recipe("sums_train", "sums_eval", "like_odd", **short),
        "lora": axolotl_recipe("like_train", "like_eval", **short, **LORA, learning_rate=1.0e-2),
    }
    made = run_many(
        tmp_path_factory.mktemp("made"), [{"verb": "train", "recipe": one} for one in recipes.values()]
    )
    found = {}
    for name, run in zip(recipes, made, strict=True):
        assert run.code == 0, run.log[-3000:]
        output = run.output.rename(run.output.with_name(name))
        (output / "tunebook" / "recipe.yaml").write_text(
            recipes[name].read_text().replace(str(run.output), str(output))
        )
        found[name] = output
    return found


@pytest.fixture(scope="session")
def everything(runs, tmp_path_factory):
    """All checkpoints of two runs, and the base."""
    folder = tmp_path_factory.mktemp("everything")
    told, _ = evaluate(runs["full"], runs["lora"], "--checkpoints", "all", "--base", "-o", folder)
    return folder, told


@pytest.mark.parametrize("step", [4, 8])
@pytest.mark.parametrize(
    ("run", "dataset"), [("full", "sums_eval"), ("full", "like_odd"), ("lora", "like_eval")]
)
def test_a_checkpoint_gives_the_figures_that_it_gave_in_training(everything, runs, run, dataset, step):
    _, told = everything
    result = by_label(told)[f"{run}@{step}", dataset]
    wanted = in_training(runs[run], dataset, step)
    assert set(wanted) - TIMES == set(result["values"])
    for name in set(wanted) - TIMES:
        assert result["values"][name] == pytest.approx(wanted[name], abs=1e-9), name


@pytest.mark.parametrize(("run", "dataset"), [("full", "sums_eval"), ("lora", "like_eval")])
def test_the_base_gives_what_it_gave_before_training(everything, runs, run, dataset):
    """Axolotl evaluates once before the first step; a fresh adapter changes nothing yet."""
    _, told = everything
    got = by_label(told)["qwen3 (base)", dataset]["values"]
    wanted = in_training(runs[run], dataset, 0)
    assert {name: got[name] for name in got} == pytest.approx({name: wanted[name] for name in got}, abs=1e-9)


def test_the_training_rows_are_left_out_and_axolotl_s_table_is_not_made(everything):
    folder, told = everything
    assert told["failures"] == []
    assert len(told["results"]) == 9
    assert not list(folder.rglob("eval_summary.csv"))
    logs = "".join(path.read_text() for path in folder.glob(".journal/jobs/*/engine.log"))
    assert "Starting train set evaluation" in logs  # the call that is replaced
    assert "Starting eval set evaluation" not in logs
    assert len(list(folder.glob(".journal/jobs/*"))) == 2


def test_killed_in_the_midst_it_comes_out_the_same(everything, runs, tmp_path):
    whole, _ = everything
    arguments = (runs["full"], "--checkpoints", "all", "-o", tmp_path)
    assert kill_within(*arguments, folder=tmp_path, after=4_000) > 0
    assert not files_of(tmp_path)
    tear(tmp_path, seed=1)
    _, said = evaluate(*arguments)
    assert "batches are kept from an earlier start" in said
    made = {name: content for name, content in files_of(tmp_path).items() if not name.startswith("ranking")}
    assert len(made) == 8
    for name, content in made.items():
        assert content == (whole / name).read_bytes(), name


def test_two_ranks_give_what_one_gives(everything, runs, tmp_path):
    whole, _ = everything
    out = tmp_path / "results"
    # Axolotl puts rank 1 on the second GPU, whether there is one or not: so the start is not `tunebook eval`'s.
    plan = plan_evaluation(EvalRequest(models=(str(runs["full"]),), checkpoints="8", output=out))
    start = start_of(plan.groups[0], gpus=0)
    start.job.write()
    start.recipe_file.write_text(engine_yaml.dump(start.values))
    work = [{"verb": "evaluate", "recipe": start.recipe_file}]
    (done,) = run_many(tmp_path, work, ranks=2, **{job.VARIABLE: str(start.job.path)})
    assert done.code == 0, done.log[-3000:]
    evaluate(runs["full"], "--checkpoints", "8", "-o", out)
    assert not list(out.glob(".journal/jobs/*/engine.log")), "the last call started an engine"
    ranks = {path.name for path in out.glob(".journal/*/part-*.jsonl")}
    assert ranks == {"part-0-0.jsonl", "part-0-1.jsonl"}
    made = {name for name in files_of(out) if not name.startswith("ranking")}
    assert len(made) == 4
    for name in made:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_server_gives_what_the_engine_gives(everything, runs, tmp_path):
    """Served by the other engine: no server of Axolotl's runs without a GPU."""
    folder, told = everything
    cli = ROOT / ".venv" / "bin" / "llamafactory-cli"
    with served(cli, runs["full"] / "checkpoint-8", tmp_path / "api.log") as url:
        asked, _ = ask(runs["full"], url, "--dataset", "sums_eval", "-o", tmp_path)
    (result,) = asked["results"]
    local = records_of(folder, by_label(told)["full@8", "sums_eval"])
    assert comparable(records_of(tmp_path, result)) == comparable(local)
    assert result["settings"]["server"]["other_prompt_tokens"] == 0


def test_a_set_that_the_recipe_does_not_name_a_batch_of_one_and_an_example_before_each(runs, tmp_path):
    arguments = (runs["lora"], "--dataset", "like_odd", "--checkpoints", "8")
    told, _ = evaluate(*arguments, "--batch-size", "1", "-o", tmp_path)
    result = by_label(told)["lora@8", "like_odd"]
    assert (result["n"], result["metric"]) == (41, ["yes_no"])
    other, _ = evaluate(*arguments, "--batch-size", "8", "-o", tmp_path)
    shown, said = evaluate(*arguments, "--shots", "1", "-o", tmp_path / "shown")
    shots = shown["results"][0]["settings"]["shots"]
    assert (shots["n"], shots["source"]) == (1, "like_train")
    assert "like_odd: 1 example from like_train: " in said
    folders = (tmp_path, tmp_path, tmp_path / "shown")
    results = (result, other["results"][0], shown["results"][0])
    rows = (records_of(folder, one) for folder, one in zip(folders, results, strict=True))
    for one, eight, after in zip(*rows, strict=True):
        assert one["prediction"] == eight["prediction"]
        assert one["nll"] == pytest.approx(eight["nll"], abs=1e-5)
        assert after["prompt"].replace(shots["text"], "") == one["prompt"] != after["prompt"]
        assert after["reference"] == one["reference"]
