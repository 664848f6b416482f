"""`tunebook merge` on a run of the real Axolotl, in its own environment with its own PEFT."""

import subprocess
import sys

import merge_adapters as made
import pytest
import torch
from axolotl_cases import LORA, run_many
from safetensors.torch import load_file

pytestmark = pytest.mark.axolotl


def test_an_adapter_that_axolotl_trained_is_merged_and_read_back(tiny, axolotl_recipe, tmp_path):
    recipe = axolotl_recipe("like_train", "like_eval", **LORA, max_steps=6, eval_steps=3, save_steps=3)
    (run,) = run_many(tmp_path, [{"verb": "train", "recipe": recipe}])
    assert run.code == 0, run.log[-3000:]
    output = tmp_path / "merged"
    done = subprocess.run(
        [sys.executable, "-m", "tunebook.cli.main", "merge", f"{run.output}@last", "-o", output],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "within the tolerance" in done.stdout
    peft = made.merged_by_peft(tiny, run.output)
    for name, tensor in load_file(output / "model.safetensors").items():
        assert torch.allclose(tensor, peft[name], rtol=1e-5, atol=1e-6), name
    expected = made.logits(made.with_adapter(tiny, run.output))
    assert torch.allclose(made.logits(made.load(output)), expected, atol=2e-4)
    assert not torch.allclose(made.logits(made.load(tiny)), expected, atol=2e-3)
