"""The contract that is saved with every model Axolotl trains with our plugin."""

import pytest
from axolotl_cases import state_of
from contract_cases import check_contract

from tunebook.runs import live

pytestmark = pytest.mark.axolotl


def test_every_model_and_checkpoint_has_a_contract_that_holds(axolotl_learned, tiny):
    best = state_of(axolotl_learned, 80)["best_global_step"]
    state = live.read_state(axolotl_learned.output)
    assert (state.life, state.by_engine, state.step) == ("finished", True, 80)
    found = check_contract(axolotl_learned, tiny, (20, 40, 60, 80)[-4:], best)
    assert found["engine"] == {"name": "axolotl", "version": "0.19.0"}
    assert found["template"]["chat_template_kwargs"] == {"enable_thinking": False}
    assert found["settings"]["chat_template_kwargs"] == {"enable_thinking": False}
    assert "output_dir" not in found["settings"]
    assert "dataset_prepared_path" not in found["settings"]
