"""`tunebook estimate` on real recipes of both engines, and what it reads out of them."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tunebook.cli.estimate import estimate
from tunebook.errors import TunebookError
from tunebook.memory.from_recipe import read_run, schedule
from tunebook.recipes.catalog import read_recipe

LLAMAFACTORY = "llamafactory/qwen3-0.6b/qlora_sft_movielens"
AXOLOTL = "axolotl/qwen3-0.6b/qlora_sft_movielens"


def run_json(*arguments):
    done = CliRunner().invoke(estimate, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return json.loads(done.stdout)


def write_recipe(folder, engine, text):
    path = folder / "recipe.yaml"
    # The engine is read from its own keys.
    path.write_text(("model_name_or_path" if engine == "llamafactory" else "base_model") + text)
    return path


def test_the_llamafactory_recipe_gives_the_published_steps_and_sizes():
    found = run_json(LLAMAFACTORY, "--rows", "78271", "--gpu-gb", "24", "--tokens-per-second", "5000")
    assert found["schedule"]["steps"] == 14_676
    assert found["schedule"]["rows_per_step"] == 16
    assert found["schedule"]["seconds_at_most"] == pytest.approx(3 * 78271 * 1024 / 5000)
    assert found["training"]["trainable"] == 10_092_544
    assert found["training"]["adapter_file"] == 10_092_544 * 4
    stock = found["evaluation"]["stock"]
    # The run this recipe is after was seen at 20 to 21 GB; its evaluation logits alone are 15.
    assert (stock["logits"] + stock["logits_float"]) / 1e9 == pytest.approx(14.9, abs=0.1)
    assert found["card"]["fits"]
    assert found["card"]["largest_batch"] > 2


def test_the_twins_agree_on_what_is_trained():
    twins = [run_json(name, "--rows", "100")["training"]["trainable"] for name in (LLAMAFACTORY, AXOLOTL)]
    assert twins[0] == twins[1]


def test_an_overlay_and_an_override_change_the_estimate():
    plain = run_json(LLAMAFACTORY)["training"]["total"]
    longer = run_json(LLAMAFACTORY, "cutoff_len=4096")["training"]["total"]
    smaller = run_json(LLAMAFACTORY, "-o", "gpu_8gb")["training"]["total"]
    assert smaller < plain < longer


def test_the_tables_name_terms_evaluation_steps_and_the_ladder():
    done = CliRunner().invoke(
        estimate, [LLAMAFACTORY, "--gpu-gb", "8", "--rows", "78271"], catch_exceptions=False
    )
    for words in ("weights", "logits in fp32", "answer positions", "14,676 steps", "8 GiB: does not fit",
                  "its evaluation fits only at answer positions", "fused cross-entropy"):  # fmt: skip
        assert words in done.stdout, words


def test_deepspeed_stage_and_offload_are_read_from_its_file(tmp_path):
    zero = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": zero}))
    path = write_recipe(
        tmp_path, "llamafactory",
        ": Qwen/Qwen3-32B\nstage: sft\nfinetuning_type: full\nbf16: true\ncutoff_len: 8192\n"
        "dataset_dir: nowhere\nper_device_train_batch_size: 1\ndeepspeed: ds.json\n",
    )  # fmt: skip
    arguments = read_run(read_recipe(path, tmp_path)).arguments
    assert (arguments["zero_stage"], arguments["offload"]) == (3, ["optimizer", "parameters"])
    assert arguments["dtype"] == "bf16"


def test_full_training_in_bf16_without_deepspeed_is_fp32_under_autocast_as_the_engine_has_it(tmp_path):
    path = write_recipe(
        tmp_path, "llamafactory", ": Qwen/Qwen3-0.6B\nstage: sft\nfinetuning_type: full\nbf16: true\n"
    )  # fmt: skip
    assert read_run(read_recipe(path, tmp_path)).arguments["dtype"] == "fp32_amp"


def test_a_missing_deepspeed_file_is_named(tmp_path):
    path = write_recipe(tmp_path, "llamafactory", ": Qwen/Qwen3-0.6B\nstage: sft\ndeepspeed: gone.json\n")
    with pytest.raises(TunebookError, match=r"deepspeed names gone.json"):
        read_run(read_recipe(path, tmp_path))


def test_axolotls_fused_loss_and_offload_are_read(tmp_path):
    path = write_recipe(
        tmp_path, "axolotl",
        ": Qwen/Qwen3-0.6B\nadapter: lora\ncut_cross_entropy: true\nactivation_offloading: true\n"
        "flash_attention: true\ngradient_checkpointing: true\nsequence_len: 2048\nmicro_batch_size: 2\n",
    )  # fmt: skip
    arguments = read_run(read_recipe(path, tmp_path)).arguments
    assert (arguments["fused_ce"], arguments["attention"], arguments["offload"]) == (
        "cce",
        "flash",
        ["activations"],
    )


def test_steps_are_counted_as_the_trainer_counts_them():
    common = {"micro_batch": 1, "accumulation": 8, "gpus": 4, "seq_len": 10}
    assert schedule(rows=33, epochs=1, max_steps=None, **common).steps == 2
    assert schedule(rows=33, epochs=3, max_steps=None, **common).steps == 6
    assert schedule(rows=33, epochs=3, max_steps=5, **common).tokens == 5 * 32 * 10


def test_the_command_imports_no_torch_and_no_engine():
    code = (
        "import sys; from tunebook.cli.main import cli; "
        f"cli.main(['estimate', '{LLAMAFACTORY}', '--rows', '10', '--json'], standalone_mode=False); "
        "print([name for name in ('torch', 'transformers', 'llamafactory') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_a_stranger_s_recipe_is_estimated_with_no_data_and_no_deepspeed_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = ": /root/models/Qwen2-VL-7B-Instruct\nstage: sft\ndo_train: true\nfinetuning_type: full\ndataset: mine\n"
    path = write_recipe(
        tmp_path, "llamafactory", text + "deepspeed: examples/deepspeed/ds_z3_offload_config.json\n"
    )
    found = run_json(str(path), "--gpus", "8")
    assert [note.partition(":")[0] for note in found["notes"]] == [
        "/root/models/Qwen2-VL-7B-Instruct",
        "examples/deepspeed/ds_z3_offload_config.json is not here",
        "left out",
    ]
    assert found["training"]["host"] > 0
    assert "schedule" not in found
    path = write_recipe(tmp_path, "llamafactory", text + "deepspeed: mine.json\n")
    done = CliRunner().invoke(estimate, [str(path)])
    assert "mine.json, which does not exist" in str(done.exception)


def test_offloading_is_read_from_the_names_of_both_engines_files(tmp_path):
    for name, expected in {
        "ds_z0_config.json": (0, []),
        "ds_z2_offload_config.json": (2, ["optimizer"]),
        "zero1.json": (1, []),
        "zero3_bf16_cpuoffload_params.json": (3, ["parameters"]),
        "deepspeed_zero_stage3.json": (3, []),
        "zero3_bf16_cpuoffload_all.json": (3, ["optimizer", "parameters"]),
    }.items():
        run = read_run(
            read_recipe(write_recipe(tmp_path, "axolotl", f": a/b\ndeepspeed: no/{name}\n"), tmp_path)
        )
        assert (run.arguments["zero_stage"], run.arguments["offload"]) == expected
