"""`tunebook merge` on runs of the real LLaMA-Factory, by its command line; and what a kill leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import merge_adapters as made
import pytest
import torch
from engine_cases import OWN_START
from safetensors.torch import save_file

from tunebook.merging.output import tensors_job
from tunebook.merging.plan import plan_merge

pytestmark = pytest.mark.engine


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "tunebook.cli.main", "merge", *map(str, arguments)]


def run_merge(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def trained(recipe, train_many):
    """An adapter and a fully trained model, each with checkpoints of which one is the best."""
    shared = {
        "max_steps": 40,
        "eval_steps": 10,
        "save_steps": 10,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }
    lora = {"finetuning_type": "lora", "lora_rank": 8, "lora_target": "all", **shared}
    runs = train_many([recipe(**lora), recipe(**shared)])
    assert [run.code for run in runs] == [0, 0], runs[0].log[-2000:] + runs[1].log[-2000:]
    return runs


@pytest.fixture(scope="module")
def merged_adapter(trained, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("merged") / "model"
    done = run_merge(f"{trained[0].output}@last", "-o", output)
    assert done.returncode == 0, done.stderr
    assert "within the tolerance" in done.stdout
    return output


def test_a_merged_model_answers_as_base_and_adapter_do(tiny, trained, merged_adapter):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(merged_adapter)
    models = made.with_adapter(tiny, trained[0].output), made.load(merged_adapter)
    for noun in ("plum", "brick", "river", "cactus"):
        turn = [
            {"role": "user", "content": f"Anna saw a {noun} by the river. Is it liked? Answer Yes or No."}
        ]
        prompt = tokenizer.apply_chat_template(
            turn, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        answers = [m.eval().generate(**prompt, max_new_tokens=12, do_sample=False) for m in models]
        assert torch.equal(*answers)
        assert answers[0].shape[1] > prompt["input_ids"].shape[1]


def test_llamafactory_evaluates_the_merged_model_as_it_does_the_adapter(
    recipe, trained, merged_adapter, train_many
):
    evaluation = {"do_train": False, "do_eval": True, "max_steps": None, "eval_strategy": None}
    runs = train_many(
        [
            recipe(**evaluation, finetuning_type="lora", adapter_name_or_path=str(trained[0].output)),
            recipe(**evaluation, model_name_or_path=str(merged_adapter)),
        ]
    )
    losses = [json.loads((run.output / "eval_results.json").read_text())["eval_loss"] for run in runs]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    untrained = trained[1].logged("eval_loss")[0]
    assert abs(losses[0] - untrained) > 0.01  # else the two would agree on a model that has learned nothing


def test_the_merged_model_brings_along_what_belongs_to_it(tiny, trained, merged_adapter):
    names = {path.name for path in merged_adapter.iterdir()}
    assert names >= {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "README.md",
    }
    assert "adapter_config.json" not in names
    card = (merged_adapter / "README.md").read_text()
    assert "lora_rank 8" in card
    assert "template qwen3" in card
    contract = json.loads((merged_adapter / "tunebook_contract.json").read_text())
    assert contract["adapter"] is None
    assert contract["template"]["name"] == "qwen3"
    config = json.loads((merged_adapter / "config.json").read_text())
    assert config["use_cache"] is True
    assert config["vocab_size"] == json.loads((tiny / "config.json").read_text())["vocab_size"]


def test_the_best_checkpoint_of_an_interrupted_run_becomes_a_model(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained[1].output, run)
    for path in [*run.glob("*.safetensors"), run / "trainer_state.json", run / "tunebook_contract.json"]:
        path.unlink(missing_ok=True)  # an engine writes these once it is done
    done = run_merge(run, "-o", tmp_path / "model")
    assert (done.returncode, (tmp_path / "model").exists()) == (2, False)
    assert "has written no final weights" in done.stderr
    # Saving the newest checkpoint was cut off: it is passed over.
    (run / "checkpoint-40" / "trainer_state.json").write_text('{"best_')
    best = trained[1].output / "checkpoint-30" / "trainer_state.json"
    named = Path(json.loads(best.read_text())["best_model_checkpoint"]).name
    done = run_merge(run, "--checkpoint", "best", "-o", tmp_path / "model", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["inputs"][0]["step"] == int(named.split("-")[1])
    assert told["parity"]["figures"]["difference"] == 0
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert not names & {
        "optimizer.pt",
        "scheduler.pt",
        "trainer_state.json",
        "training_args.bin",
        "rng_state.pth",
    }
    expected = made.load(run / named).state_dict()
    for name, tensor in made.load(tmp_path / "model").state_dict().items():
        assert torch.equal(tensor, expected[name])


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """400 MB of bf16 in two shards of one tensor each; no model that could be loaded."""
    folder = tmp_path_factory.mktemp("large")
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(1000, 1000, generator=generator).bfloat16().repeat(100, 1)
    for number in (1, 2):
        save_file({f"weight{number}": block * number}, folder / f"model-0000{number}-of-00002.safetensors")
    table = {f"weight{number}": f"model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    (folder / "config.json").write_text("{}")
    yield folder
    shutil.rmtree(folder)


def test_memory_stays_below_what_the_plan_says(large, tmp_path):
    plan = plan_merge([str(large)] * 2, tmp_path / "soup")
    made_in = tmp_path / "made"
    made_in.mkdir()
    (tmp_path / "job.json").write_text(json.dumps(tensors_job(plan.shards, str(made_in))))
    measure = (
        # Not ru_maxrss, which a process inherits from the one that started it.
        "import sys; from tunebook.hooks import merge; merge.main(sys.argv[1]);"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", measure, tmp_path / "job.json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.split()[-1]) * 1024
    # One tensor in fp32 takes 400 MB, and two and their sum 1.2 GB.
    assert peak <= plan.peak_bytes < 1_000_000_000, (peak, plan.peak_bytes)
    assert [path.stat().st_size for path in sorted(made_in.iterdir())] == [
        shard.bytes for shard in plan.shards
    ]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_leaves_nothing_half(large, tmp_path, number):
    output = tmp_path / "soup"
    process = subprocess.Popen(
        command(large, large, "-o", output, "--no-check"),
        env={**os.environ, **OWN_START},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in tmp_path.glob(".soup.merging-*/made/*.safetensors")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    process.wait(60)
    assert not output.exists()
    left = list(tmp_path.iterdir())
    if number == signal.SIGTERM:
        assert left == []
        return
    # Nobody can clean up after itself once it is killed outright: the next merge does.
    assert len(left) == 1
    done = run_merge(large, large, "-o", output, "--no-check")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [output]
