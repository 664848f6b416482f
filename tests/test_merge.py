"""What `tunebook merge` decides before anything is computed; no torch is needed."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from merge_cases import LAYERS, MODEL, make_adapter, make_model
from test_contract import whole_contract
from tunebook.cli.main import cli
from tunebook.errors import TunebookError
from tunebook.merging import record
from tunebook.merging import run as parity
from tunebook.merging.output import shard_index, write_contract
from tunebook.merging.plan import plan_merge


@pytest.fixture
def base(tmp_path):
    return make_model(tmp_path / "base")


def plan(tmp_path, *arguments, **options):
    return plan_merge([str(argument) for argument in arguments], tmp_path / "out", **options)


def test_only_what_the_adapter_names_changes(base, tmp_path):
    found = plan(tmp_path, make_adapter(tmp_path / "adapter", base))
    changed = {tensor.name for tensor in found.tensors if not tensor.is_copy}
    assert changed == LAYERS.keys()
    assert {tensor.name for tensor in found.tensors} == MODEL.keys()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({}, 2.0),
        ({"use_rslora": True}, 4 / 2**0.5),
        ({"alpha_pattern": {"layers.1.self_attn.q_proj": 10}}, 5.0),
        ({"alpha_pattern": {"1.self_attn": 10}}, 2.0),
    ],
)
def test_the_scale_is_that_of_peft(base, tmp_path, settings, scale):
    found = plan(tmp_path, make_adapter(tmp_path / "adapter", base, **settings))
    (tensor,) = [t for t in found.tensors if t.name == "model.layers.1.self_attn.q_proj.weight"]
    assert tensor.made_of[0].low_rank.scale == pytest.approx(scale)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is IA3"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "it adapts parameters of experts"),
        ({"init_lora_weights": "pissa_niter_16"}, "whose weights were changed at its start"),
        ({"rank_pattern": {"q_proj": 4}}, "has rank 2 in its tensors and 4 in adapter_config.json"),
        ({"use_dora": True}, "has no lora_magnitude_vector"),
        ({"use_novelty": 3}, "use_novelty is 3, which this version does not know"),
    ],
)
def test_an_adapter_that_the_formula_does_not_fit_is_refused(base, tmp_path, settings, message):
    with pytest.raises(TunebookError) as error:
        plan(tmp_path, make_adapter(tmp_path / "adapter", base, **settings))
    assert message in str(error.value).replace("\n", " ")


def test_all_layers_that_the_base_lacks_are_counted(base, tmp_path):
    strange = {
        f"base_model.model.experts.{n}.lora_{part}.weight": ("F32", shape)
        for n in (1, 2)
        for part, shape in (("A", [2, 4]), ("B", [8, 2]))
    }
    with pytest.raises(TunebookError, match=r"no experts.1.weight, experts.2.weight \(2 of 4 tensors"):
        plan(tmp_path, make_adapter(tmp_path / "adapter", base, strange))


def test_a_quantised_base_is_refused(tmp_path):
    base = make_model(tmp_path / "base", quantization_config={"quant_method": "gptq"})
    with pytest.raises(TunebookError, match="quantised \\(gptq\\)"):
        plan(tmp_path, make_adapter(tmp_path / "adapter", base))
    packed = make_model(tmp_path / "packed", {**MODEL, **dict.fromkeys(LAYERS, ("U8", [8, 4]))})
    with pytest.raises(TunebookError, match="stored as U8"):
        plan(tmp_path, make_adapter(tmp_path / "other", packed))


def test_an_output_layer_that_an_adapter_changes_is_written_separately(base, tmp_path):
    head = {"base_model.model.lm_head.weight": ("BF16", [10, 4])}
    found = plan(tmp_path, make_adapter(tmp_path / "adapter", base, head))
    assert "lm_head.weight" in {tensor.name for tensor in found.tensors}
    assert found.config["tie_word_embeddings"] is False
    # Both replaced by the same bytes: they stay one.
    both = {**head, "base_model.model.model.embed_tokens.weight": ("BF16", [10, 4])}
    found = plan(tmp_path, make_adapter(tmp_path / "both", base, both))
    assert "lm_head.weight" not in {tensor.name for tensor in found.tensors}
    assert found.config["tie_word_embeddings"] is True


def test_a_resized_vocabulary_is_in_the_configuration(base, tmp_path):
    rows = {
        f"base_model.model.{name}.weight": ("BF16", [12, 4]) for name in ("model.embed_tokens", "lm_head")
    }
    found = plan(tmp_path, make_adapter(tmp_path / "adapter", base, rows))
    assert found.config["vocab_size"] == 12
    only = {"base_model.model.model.embed_tokens.weight": ("BF16", [12, 4])}
    with pytest.raises(TunebookError, match="to 12 rows, and not lm_head"):
        plan(tmp_path, make_adapter(tmp_path / "only", base, only))


def test_every_difference_is_named(tmp_path):
    one = make_model(tmp_path / "one", hidden_size=4)
    two = make_model(
        tmp_path / "two",
        {"model.embed_tokens.weight": ("BF16", [12, 4]), "model.norm.weight": ("BF16", [4])},
        hidden_size=8,
        vocab_size=12,
        use_cache=False,
    )
    for folder, word in ((one, "plum"), (two, "pear")):
        values = {"model": {"vocab": {word: 0}}, "added_tokens": []}
        (folder / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(TunebookError) as error:
        plan(tmp_path, one, two)
    told = str(error.value)
    assert "hidden_size is 4 and 8" in told
    assert "vocab_size is 10 and 12" in told
    assert "model.embed_tokens.weight has shape (10, 4) and (12, 4)" in told
    assert "2 tensors are only in the first" in told
    assert "1 tensors are only in the second: model.norm.weight" in told
    assert "2 tokens have other numbers" in told
    assert "use_cache" not in told


def test_adapters_of_two_bases_are_not_averaged(base, tmp_path):
    other = make_model(tmp_path / "other")
    adapters = [make_adapter(tmp_path / str(n), b) for n, b in enumerate((base, other))]
    with pytest.raises(TunebookError, match="they were trained from"):
        plan(tmp_path, *adapters)


def test_stacked_adapters_have_the_sum_of_ranks_and_a_scale_of_one(base, tmp_path):
    adapters = [make_adapter(tmp_path / str(rank), base, rank=rank) for rank in (2, 3)]
    found = plan(tmp_path, *adapters, weights=[0.25, 0.75])
    config = found.adapter_config
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (5, 5, False)
    stacked = {t.name.rsplit(".", 2)[1]: t for t in found.tensors if ".layers.0." in t.name}
    assert stacked["lora_A"].shape == (5, 4)
    assert [factor for _, factor in stacked["lora_B"].made_of.parts] == [0.25 * 4 / 2, 0.75 * 4 / 3]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5], "1 numbers for 2 models"),
        ([1, 2], "sum to 3\nfix: .*0.333333,0.666667"),
        ([1.5, -0.5], "from 0 to 1"),
    ],
)
def test_weights_that_are_no_shares_are_refused(base, tmp_path, weights, message):
    with pytest.raises(TunebookError) as error:
        plan(tmp_path, base, base, weights=weights)
    assert re.search(message, str(error.value))


def test_files_are_filled_up_to_the_limit_in_order(base, tmp_path):
    found = plan(tmp_path, base, max_shard_bytes=130)
    assert [shard.name for shard in found.shards] == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = shard_index(found.shards)
    assert index["metadata"]["total_size"] == 80 + 64 + 64
    assert index["weight_map"].keys() == MODEL.keys()
    for shard in found.shards:
        length = int.from_bytes(shard.header[:8], "little")
        assert len(shard.header) == 8 + length
        assert length % 8 == 0
        offsets = [v["data_offsets"] for k, v in json.loads(shard.header[8:]).items() if k != "__metadata__"]
        assert offsets[0][0] == 0
        assert offsets[-1][1] == shard.bytes - len(shard.header)


def test_damaged_weights_are_refused(base, tmp_path):
    file = base / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(TunebookError, match=r"is cut off: \d+ of \d+ bytes"):
        plan(tmp_path, base)
    file.write_bytes(whole[:20])
    with pytest.raises(TunebookError, match="is cut off in its header"):
        plan(tmp_path, base)
    file.rename(base / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00002-of-00002.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(TunebookError, match=r"model-00002-of-00002.safetensors: is missing"):
        plan(tmp_path, base)


def checkpoint(run: Path, step: int, best: int | None = None) -> Path:
    folder = make_model(run / f"checkpoint-{step}")
    state = {"global_step": step, "log_history": []}
    if best is not None:
        state |= {
            "best_metric": 0.5,
            "best_global_step": best,
            "best_model_checkpoint": f"/gone/checkpoint-{best}",
        }
    (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


def test_an_unfinished_run_is_merged_only_when_a_checkpoint_is_asked_for(tmp_path):
    run = tmp_path / "run"
    checkpoint(run, 10, best=10)
    checkpoint(run, 20, best=10)
    with pytest.raises(TunebookError, match="no final weights") as error:
        plan(tmp_path, run)
    assert "checkpoint-10, checkpoint-20" in error.value.fix
    assert plan(tmp_path, run, checkpoint="best").inputs[0].step == 10
    assert plan(tmp_path, run, checkpoint="20").inputs[0].step == 20
    assert plan(tmp_path, f"{run}@20").inputs[0].step == 20
    assert plan(tmp_path, f"{run}@best").inputs[0].step == 10
    (run / "checkpoint-20" / "model.safetensors").write_bytes(b"")
    last = plan(tmp_path, run, checkpoint="last").inputs[0]
    assert last.step == 10
    assert "checkpoint-20 was passed over" in last.chosen
    with pytest.raises(TunebookError, match="is not whole"):
        plan(tmp_path, run, checkpoint="20")


def test_pickled_and_partitioned_weights_are_refused_with_the_way_out(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(TunebookError, match="pickled"):
        plan(tmp_path, folder)


def figures(**changed):
    found = {"finite": True, "difference": 0.1, "rounding": 0.05, "largest_logit": 10.0, "dtypes": ["BF16"]}
    found |= {"kl_mean": 0.0, "kl_max": 0.0, "top1": 1.0, "prompts": 4, "positions": 100, "effect": 3.0}
    return found | changed


@pytest.mark.parametrize(
    ("changed", "ok", "told"),
    [
        ({}, True, "within the tolerance of 0.2, 4 x the effect of rounding"),
        ({"difference": 0.21}, False, "ABOVE the tolerance"),
        ({"rounding": 0.0, "difference": 0.0006}, True, "within the tolerance of 0.00061, 2^-14"),
        ({"rounding": 0.0, "difference": 0.0007}, False, "ABOVE"),
        ({"effect": 0.1}, True, "cannot tell whether it was merged"),
        ({"finite": False}, False, "infinite or NaN"),
        ({"difference": float("nan")}, False, "ABOVE"),
    ],
)
def test_the_check_judges_by_the_rounding_that_was_measured(changed, ok, told):
    found = parity.verdict(figures(**changed))
    assert found["ok"] is ok
    assert told in " ".join(found["lines"])


def test_the_card_names_sources_and_holds_no_secret(base, tmp_path):
    adapter = make_adapter(tmp_path / "hf_abcdefghijklmnopqrstuvwxyz0123", base)
    found = plan(tmp_path, adapter)
    recorded = record.record(found, ["a note"], None)
    card = record.card(recorded, adapter=False)
    assert "hf_abc" not in card
    assert "hf_abc" not in json.dumps(recorded)
    assert "Not checked" in card
    assert "- a note" in card
    assert recorded["base"]["files"][0]["header_sha256"][:16] in card


def test_the_card_has_the_recipe_of_the_run(base, tmp_path):
    run = tmp_path / "run"
    adapter = checkpoint(run, 10)
    for file in adapter.glob("*.safetensors"):
        file.unlink()
    make_adapter(adapter, base)
    (run / "tunebook").mkdir()
    recipe = f"model_name_or_path: {base}\ndataset: plums\nlearning_rate: 1.0e-4\nhub_token: hf_{'x' * 20}\n"
    (run / "tunebook" / "recipe.yaml").write_text(recipe)
    card = record.card(record.record(plan(tmp_path, run, checkpoint="10"), [], None), adapter=False)
    assert "was trained with llamafactory: dataset plums, learning_rate 0.0001" in card
    assert "| 10 | the step asked for |" in card
    assert "hf_" not in card


def test_a_merged_models_contract_asks_for_no_adapter_and_no_quantisation(tmp_path):
    settings = {"template": "qwen3", "quantization_bit": 4, "finetuning_type": "lora", "lora_rank": 8}
    found = {"format": 1, "settings": settings, "adapter": {"r": 8, "lora_alpha": 16}}
    write_contract(tmp_path, found, None)
    made = json.loads((tmp_path / "tunebook_contract.json").read_text())
    assert (made["settings"], made["adapter"]) == ({"template": "qwen3"}, None)
    write_contract(tmp_path, found, {"r": 12, "lora_alpha": 12})
    made = json.loads((tmp_path / "tunebook_contract.json").read_text())
    assert (made["settings"], made["adapter"]) == (settings, {"r": 12, "lora_alpha": 12})


def test_a_dry_run_prints_the_plan_and_writes_nothing(base, tmp_path, monkeypatch):
    adapter = make_adapter(tmp_path / "adapter", base)
    monkeypatch.setattr("tunebook.cli.merge.find_environment", lambda plan, engine: Path("/env"))
    output = tmp_path / "out"
    done = CliRunner().invoke(cli, ["merge", str(adapter), "-o", str(output), "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert (told["changed_tensors"], told["tensors"]) == (2, 3)
    assert told["output_bytes"] == sum(file["bytes"] for file in told["files"])
    assert told["peak_bytes"] > told["working_bytes"] > 0
    assert not output.exists()
    output.mkdir()
    with pytest.raises(TunebookError, match="is there already"):
        CliRunner().invoke(
            cli, ["merge", str(adapter), "-o", str(output)], catch_exceptions=False, standalone_mode=False
        )


@pytest.mark.parametrize(
    "config",
    [
        {"r": "not a number"},
        {"lora_alpha": None},
        {"lora_alpha": float("nan")},
        {"rank_pattern": ["a"]},
        {"alpha_pattern": {"(": 4}},
        {"alpha_pattern": {"q_proj|k_proj|.*": "four"}},
    ],
)
def test_an_adapter_whose_settings_are_no_numbers_is_one_error(base, tmp_path, config):
    adapter = make_adapter(tmp_path / "adapter", base)
    values = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**values, **config}))
    with pytest.raises(TunebookError, match=f"adapter_config.json: {next(iter(config))}"):
        plan(tmp_path, adapter)


def test_an_adapter_that_names_another_base_than_its_contract_is_told(base, tmp_path):
    adapter = make_adapter(tmp_path / "adapter", base, base_model_name_or_path="/etc")
    (adapter / "tunebook_contract.json").write_text(
        json.dumps(whole_contract(base={"name_or_path": str(base)}))
    )
    (note,) = plan(tmp_path, adapter).base.notes
    assert f"the base is {base}, as the contract says; adapter_config.json names /etc" in note
