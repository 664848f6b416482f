"""The contract that is saved with every model LLaMA-Factory trains."""

import pytest
from contract_cases import check_contract, read_contract

pytestmark = pytest.mark.engine


def test_every_model_and_checkpoint_has_a_contract_that_holds(learned, tiny):
    best = learned.state()["best_global_step"]
    found = check_contract(learned, tiny, (20, 40, 60, 80), best)
    assert found["engine"] == {"name": "llamafactory", "version": "0.9.5"}
    assert found["template"]["name"] == "qwen3"
    assert found["adapter"] is None
    assert found["settings"]["finetuning_type"] == "full"
    assert "output_dir" not in found["settings"]


def test_an_adapter_without_any_metric_has_one_too(recipe, train_many):
    values = recipe(
        finetuning_type="lora",
        lora_rank=4,
        lora_target="q_proj,v_proj",
        template="qwen3_nothink",
        default_system="Be brief.",
        eval_dataset=None,
        eval_strategy=None,
        eval_steps=None,
        max_steps=2,
        save_steps=2,
    )
    (run,) = train_many([values])
    assert run.code == 0, run.log[-2000:]
    found = read_contract(run.output)
    assert read_contract(run.output / "checkpoint-2") == found
    assert found["adapter"]["r"] == 4
    assert found["adapter"]["target_modules"] == ["q_proj", "v_proj"]
    assert found["template"]["enable_thinking"] is None, "a template that does not think"
    assert found["template"]["default_system"] == "Be brief."
