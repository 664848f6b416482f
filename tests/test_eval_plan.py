"""What `tunebook eval` decides before an engine is started; no engine is imported."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tunebook import engines
from tunebook.cli.main import cli
from tunebook.errors import TunebookError
from tunebook.evaluation import models
from tunebook.evaluation import plan as plans
from tunebook.evaluation.job import EvalRequest, parse_shard
from tunebook.evaluation.plan import plan_evaluation
from tunebook.evaluation.ranking import markdown, rank
from tunebook.evaluation.records import Candidate, journal_key, result_name, settings_words

ROWS = [{"instruction": f"Is {n} even?", "input": "", "output": "No" if n % 2 else "Yes"} for n in range(6)]


def weights(folder: Path, *, adapter: bool, size: int = 4) -> None:
    """The least that is whole by its own header."""
    folder.mkdir(parents=True, exist_ok=True)
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    name = "adapter_model.safetensors" if adapter else "model.safetensors"
    (folder / name).write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    (folder / ("adapter_config.json" if adapter else "config.json")).write_text("{}")


def checkpoint(run: Path, step: int, *, adapter: bool, **state) -> None:
    folder = run / f"checkpoint-{step}"
    weights(folder, adapter=adapter)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, **state}))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a registry, a base model and two runs, and an environment that seems to have the engine."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    info = {}
    for name, metric in (("likes_train", None), ("likes_eval", "yes_no"), ("likes_test", "yes_no")):
        (data / f"{name}.json").write_text(json.dumps(ROWS))
        info[name] = {"file_name": f"{name}.json"} | ({"metric": metric} if metric else {})
    (data / "dataset_info.json").write_text(json.dumps(info))
    weights(tmp_path / "base", adapter=False)
    for number in (0, 1):
        run = tmp_path / "output" / f"node_{number}"
        for step in (10, 20, 30):
            checkpoint(run, step, adapter=True, best_global_step=20, best_model_checkpoint="checkpoint-20")
        recipe = {
            "model_name_or_path": str(tmp_path / "base"),
            "template": "qwen3",
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            "deepspeed": "zero3.json",
            "packing": True,
            "lora_rank": 8 + number,
            "learning_rate": 1.0e-4 + number,
            "dataset_dir": str(data),
            "dataset": "likes_train",
            "eval_dataset": "likes_eval",
            "cutoff_len": 256,
            "max_samples": 50,
            "output_dir": str(run),
        }
        (run / "tunebook").mkdir()
        (run / "tunebook" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        (run / "tunebook" / "run.json").write_text(
            json.dumps({"recipe": {"name": "llamafactory/demo/lora_sft"}})
        )
    monkeypatch.setattr(plans.paths, "engine_environment", lambda _: Path("/env"))
    monkeypatch.setattr(plans.paths, "has_startup_hook", lambda _: True)
    return tmp_path


def ask(place: Path, *models: str, **changes) -> plans.EvalPlan:
    names = models or ("output/node_0",)
    return plan_evaluation(EvalRequest(models=names, output=place / "results", **changes))


def test_nodes_that_differ_only_in_training_share_one_process(place):
    plan = ask(place, "output/node_0", "output/node_1", checkpoints="all", base=True)
    assert len(plan.groups) == 1
    labels = [candidate.label for candidate in plan.groups[0].candidates]
    assert labels[0] == "base (base)", "the base is first, so that nothing has been put on it yet"
    assert labels[1:] == [f"node_{n}@{step}" for n in (0, 1) for step in (10, 20, 30)]
    assert len({unit.journal for unit in plan.groups[0].units}) == 7
    assert len({unit.name for unit in plan.groups[0].units}) == 7


def test_other_rows_or_another_loading_do_not(place):
    changed = place / "output" / "node_1" / "tunebook" / "recipe.yaml"
    values = yaml.safe_load(changed.read_text())
    changed.write_text(yaml.safe_dump({**values, "cutoff_len": 128}))
    assert len(ask(place, "output/node_0", "output/node_1").groups) == 2


def test_the_evaluation_recipe_says_what_decides_and_nothing_of_training(place):
    values = ask(place).groups[0].values
    assert {
        key: values[key] for key in ("template", "cutoff_len", "eval_dataset", "max_samples", "do_eval")
    } == {
        "template": "qwen3",
        "cutoff_len": 256,
        "eval_dataset": "likes_eval",
        "max_samples": 50,
        "do_eval": True,
    }
    for key in ("do_train", "dataset", "deepspeed", "packing", "learning_rate", "lora_rank", "output_dir"):
        assert key not in values


@pytest.mark.parametrize(
    ("wanted", "steps"),
    [("best", [20]), ("last", [30]), ("all", [10, 20, 30]), ("10,30", [10, 30]), ("checkpoint-10", [10])],
)
def test_checkpoints_are_chosen(place, wanted, steps):
    found = models.choose(place / "output" / "node_0", wanted)
    assert [one.step for one in found.weights] == steps


@pytest.mark.parametrize("given", ["output/node_0@10", "output/node_0/checkpoint-10"])
def test_one_checkpoint_may_be_named(place, given):
    assert [one.label for one in ask(place, given).groups[0].candidates] == ["node_0@10"]


def test_several_checkpoints_of_one_run_may_be_named(place):
    plan = ask(place, "output/node_0@10", "output/node_0@30", "output/node_0@10")
    assert [one.label for one in plan.groups[0].candidates] == ["node_0@10", "node_0@30"]


def test_our_figures_say_which_is_best_where_the_trainer_chose_none(place):
    run = place / "output" / "node_0"
    for step in (10, 20, 30):
        checkpoint(run, step, adapter=True)
        line = {"dataset": "likes_eval", "step": step, "select_by": "accuracy", "values": {"accuracy": -step}}
        with (run / "tunebook" / "eval_metrics.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")
    assert models.choose(run, "best").weights[0].step == 10


def test_a_torn_checkpoint_is_passed_over_and_said(place):
    run = place / "output" / "node_0"
    torn = run / "checkpoint-30" / "adapter_model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    found = models.choose(run, "last")
    assert found.weights[0].step == 20
    assert any("checkpoint-30" in note and "cut off" in note for note in found.notes)


def test_what_is_kept_belongs_to_weights_rows_and_settings(place):
    def journals(**changes) -> list[str]:
        return [unit.journal.name for unit in ask(place, **changes).groups[0].units]

    first = journals()
    assert journals() == first
    assert journals(checkpoints="last") != first
    assert journals(max_samples=3) != first
    assert journals(method="perplexity") != first
    assert journals(overrides=("cutoff_len=128",)) != first
    assert journals(overrides=("preprocessing_num_workers=8",)) == first
    # A further set changes nothing about the first.
    assert journals(datasets=("likes_eval", "likes_test"))[0] == journals(datasets=("likes_eval",))[0]
    weights(place / "output" / "node_0" / "checkpoint-20", adapter=True, size=5)
    assert journals() != first
    again = journals()
    data = place / "data" / "likes_eval.json"
    data.write_text(json.dumps([*ROWS, ROWS[0]]))
    assert journals() != again


def test_the_label_decides_nothing():
    one = Candidate(label="a", kind="full", path="org/model", base="org/model", run=None, step=0)
    two = Candidate(label="b", kind="full", path="org/model", base="org/model", run="x", step=0)
    assert journal_key(one, "set", {}) == journal_key(two, "set", {}) != journal_key(one, "other", {})


def test_names_of_results_never_change():
    # Programs look for these files: this list is a promise.
    base = Candidate(
        label="q (base)", kind="base", path="/m/Qwen3-0.6B", base="/m/Qwen3-0.6B", run=None, step=0
    )
    tuned = Candidate(
        label="node_0@400",
        kind="adapter",
        path="/o/node_0/checkpoint-400",
        base="Qwen/Qwen3-0.6B",
        run="o",
        step=400,
    )
    named = {
        "recipe": "llamafactory/qwen3-0.6b/lora_sft_gsm8k",
        "dataset": "gsm8k_test",
        "digest": "0123456789abcdef",
        "settings": "auto",
    }
    assert result_name(**named, run_label="node_0", candidate=tuned) == (
        "lora_sft_gsm8k.node_0--gsm8k_test--adapter-400--Qwen3-0.6B--auto-01234567"
    )
    assert result_name(**named, run_label="", candidate=base) == (
        "lora_sft_gsm8k--gsm8k_test--base--Qwen3-0.6B--auto-01234567"
    )
    odd = {**named, "dataset": "a+b", "settings": settings_words(method="generate", max_samples=50, shots=0)}
    assert result_name(**odd, run_label="my run/é", candidate=tuned) == (
        "lora_sft_gsm8k.my_run--a+b--adapter-400--Qwen3-0.6B--generate-n50-01234567"
    )
    assert len(result_name(**{**named, "dataset": "x" * 400}, run_label="", candidate=base)) <= 200


FAULTS = {
    "no such run": (("output/node_00",), {}, "there is no such run or model", "did you mean output/node_0"),
    "no such step": (
        ("output/node_0",),
        {"checkpoints": "15"},
        "no whole checkpoint of step 15",
        "it has 10, 20, 30",
    ),
    "odd choice": (
        ("output/node_0",),
        {"checkpoints": "newest"},
        "--checkpoints newest",
        "--checkpoints all",
    ),
    "unknown dataset": (
        ("output/node_0",),
        {"datasets": ("likes_tst",)},
        "no dataset 'likes_tst'",
        "did you mean",
    ),
    "model without recipe": (("base",), {}, "is not the output_dir of a run", "--recipe RECIPE"),
    "no metric": (
        ("output/node_0",),
        {"datasets": ("likes_train",), "method": "generate"},
        "likes_train carries no metric",
        "--method perplexity",
    ),
    "no set": (("output/node_0",), {"overrides": ("eval_dataset=",)}, "has no evaluation set", "--dataset"),
    "not a model": (
        ("data",),
        {"recipe": "output/node_0/tunebook/recipe.yaml"},
        "neither a run nor a model",
        "weights",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_is_refused_with_a_fix(place, fault):
    models, changes, problem, fix = FAULTS[fault]
    with pytest.raises(TunebookError) as caught:
        ask(place, *models, **changes)
    assert problem in caught.value.problem
    assert fix in caught.value.fix


def test_the_faults_of_all_models_are_named_together(place):
    with pytest.raises(TunebookError) as caught:
        ask(place, "output/node_00", "base", "output/node_0", datasets=("likes_tst",))
    problems = [fault.problem for fault in caught.value.faults]
    for part in ("there is no such run", "is not the output_dir of a run", "no dataset 'likes_tst'"):
        assert sum(part in problem for problem in problems) == 1, problems


def test_no_whole_checkpoint_says_why_each_is_none(place):
    run = place / "output" / "node_0"
    for step in (10, 20, 30):
        (run / f"checkpoint-{step}" / "trainer_state.json").unlink()
    with pytest.raises(TunebookError, match="no checkpoint whose weights are whole") as caught:
        ask(place)
    assert caught.value.problem.count("trainer_state.json is missing") == 3


def test_a_missing_engine_is_an_error(place, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(place)
    monkeypatch.setenv("TUNEBOOK_LLAMAFACTORY_ENV", str(place))
    with pytest.raises(TunebookError, match="llamafactory is not installed there"):
        ask(place)


def test_the_hook_switched_off_is_refused(place, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_HOOK", "0")
    with pytest.raises(TunebookError, match="keeps tunebook out of the engine"):
        ask(place)


@pytest.mark.parametrize("text", ["2/2", "a/b", "1", "-1/2"])
def test_a_share_that_is_none_is_refused(text):
    with pytest.raises(TunebookError, match="is not a share"):
        parse_shard(text)


def test_a_dry_run_shows_all_and_writes_nothing(place):
    done = CliRunner().invoke(cli, ["eval", "output/node_0", "--base", "--dry-run", "-o", "results"])
    assert done.exit_code == 0, done.output
    assert "llamafactory-cli train" in done.output
    assert "TUNEBOOK_EVAL_FILE=" in done.output
    assert "# would evaluate: base (base)" in done.output
    assert "lora_sft.node_0--likes_eval--adapter-20--base--auto-" in done.output
    assert "eval_dataset: likes_eval" in done.output
    assert not (place / "results").exists()


def axolotl_values(place: Path, **changes) -> dict:
    return {
        "base_model": "org/base",
        "datasets": [{"path": "x.json", "type": "alpaca"}],
        "test_datasets": [
            {"path": str(place / "data" / "likes_eval.json"), "type": "tunebook.hooks.axolotl_alpaca"}
        ],
        "plugins": ["axolotl.integrations.liger.LigerPlugin", "tunebook.hooks.axolotl.TunebookPlugin"],
        "tunebook_dataset_dir": str(place / "data"),
        "tunebook_eval_datasets": ["likes_eval"],
        "sequence_len": 512,
        "adapter": "qlora",
        "load_in_4bit": True,
        "sample_packing": True,
        "optimizer": "adamw_torch",
        "learning_rate": 1.0e-4,
        "micro_batch_size": 2,
        "deepspeed": "zero3.json",
        "wandb_project": "mine",
        "save_steps": 5,
        **changes,
    }


def test_an_axolotl_recipe_trains_on_nothing(place):
    engine = engines.load("axolotl")
    values, sets = engine.evaluation(axolotl_values(place), datasets=None, home=place)
    assert sets == ("likes_eval",)
    for key in (
        "sample_packing",
        "optimizer",
        "deepspeed",
        "wandb_project",
        "save_steps",
        "dataset_prepared_path",
    ):
        assert key not in values
    assert values["datasets"] == values["test_datasets"], "what is trained on would be tokenised for nothing"
    assert {"sequence_len", "load_in_4bit", "micro_batch_size"} <= set(values)
    started = engine.evaluation_start(
        values, folder=place, whole_model="org/base", adapter="/run/checkpoint-5"
    )
    assert (started["lora_model_dir"], started["adapter"]) == ("/run/checkpoint-5", "qlora")
    full = engine.evaluation_start(values, folder=place, whole_model="/run/checkpoint-5", adapter=None)
    assert (full["base_model"], full["tokenizer_config"]) == ("/run/checkpoint-5", "org/base")
    assert "adapter" not in full
    command = engine.evaluate(Path("r.yaml"), started, environment=Path("/env"), gpus=2, environ={})
    assert command.argv[1:3] == ("evaluate", "r.yaml")
    assert "torchrun" in command.argv


def test_an_axolotl_recipe_takes_other_sets_from_the_registry(place):
    engine = engines.load("axolotl")
    values = axolotl_values(
        place, test_datasets=None, tunebook_eval_datasets=None, plugins=None, val_set_size=0.1
    )
    made, sets = engine.evaluation(values, datasets=["likes_test"], home=place)
    assert sets == ("likes_test",)
    assert made["plugins"] == ["tunebook.hooks.axolotl.TunebookPlugin"]
    assert made["test_datasets"][0]["path"].endswith("likes_test.json")
    with pytest.raises(TunebookError, match="no evaluation set that a registry knows"):
        engine.evaluation(values, datasets=None, home=place)


def result(label: str, step: int, **values) -> dict:
    return {
        "dataset": "set",
        "select_by": "rougeL",
        "larger_is_better": True,
        "n": 10,
        "values": values,
        "records": f"{label}.jsonl",
        "intervals": {"rougeL": [0.1, 0.9]} if "rougeL" in values else {},
        "model": {"label": label, "kind": "adapter", "step": step, "run": "r"},
    }


def test_rouge_is_shown_over_training_and_an_undefined_figure_comes_last():
    results = [
        result("r@10", 10, rougeL=0.5, loss=2.0),
        result("r@30", 30, loss=1.0),
        result("r@20", 20, rougeL=0.75, loss=1.5),
        result("r@40", 40, rougeL=0.5, loss=1.0),
    ]
    ranking = rank(results)[0]
    assert [(one.rank, one.label) for one in ranking.models] == [
        (1, "r@20"),
        (2, "r@10"),
        (2, "r@40"),
        (4, "r@30"),
    ]
    text = markdown(ranking, results)
    assert "| 4 | r@30 | not defined | - | 10 |" in text
    over = text.split("## Over training")[1]
    assert [line.split("|")[2].strip() for line in over.splitlines() if line.startswith("| r@")] == [
        "10",
        "20",
        "30",
        "40",
    ]
    assert "| model | step | rougeL | loss |" in over


def test_a_merged_model_is_not_quantized_by_the_recipe_of_its_adapter(place):
    recipe = str(place / "output" / "node_0" / "tunebook" / "recipe.yaml")
    plan = ask(
        place, "base", recipe=recipe, overrides=("quantization_bit=4", "adapter_name_or_path=some/adapter")
    )
    assert plan.groups[0].values["model_name_or_path"] == str(place / "base")
    assert {"quantization_bit", "adapter_name_or_path"}.isdisjoint(plan.groups[0].values)
    assert any("quantization_bit of the recipe" in note for note in plan.notes)
    assert plan.groups[0].units[0].name.startswith("recipe.base--likes_eval--full--base--auto-")


def test_a_whole_model_comes_after_adapters_of_its_base(place):
    run = place / "output" / "node_1"
    for step in (10, 20, 30):
        folder = run / f"checkpoint-{step}"
        (folder / "adapter_config.json").unlink()
        (folder / "adapter_model.safetensors").unlink()
        weights(folder, adapter=False)
    plan = ask(place, "output/node_1", "output/node_0", base=True)
    assert [one.kind for one in plan.groups[0].candidates] == ["base", "adapter", "full"]


def test_rows_drawn_after_the_training_rows_are_drawn_after_them_again(place):
    engine = engines.load("llamafactory")
    registry = place / "data" / "dataset_info.json"
    values = {
        "model_name_or_path": "base",
        "dataset_dir": str(place / "data"),
        "dataset": "likes_train",
        "eval_dataset": "likes_eval",
    }
    info = json.loads(registry.read_text())
    info["likes_eval"]["num_samples"] = 3
    registry.write_text(json.dumps(info))
    assert "dataset" not in engine.evaluation(values, datasets=None, home=place)[0]
    info["likes_train"]["num_samples"] = 4
    registry.write_text(json.dumps(info))
    made, sets = engine.evaluation(values, datasets=None, home=place)
    assert (made["dataset"], sets) == ("likes_train", ("likes_eval",))
    assert "dataset" not in engine.evaluation(values, datasets=["likes_test"], home=place)[0]
