"""`tunebook merge` against PEFT, torch and transformers, in LLaMA-Factory's environment."""

import json
from pathlib import Path

import merge_adapters as made
import pytest
import torch
from safetensors.torch import load_file

from tunebook.hooks import merge as merge_hook
from tunebook.merging import run
from tunebook.merging.plan import plan_merge

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def untied(tiny, tmp_path_factory) -> Path:
    """The tiny model with an output layer of its own, in three shards."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(tiny, tie_word_embeddings=False)
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("untied") / "model"
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder, max_shard_size="200KB")
    transformers.AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def in_process(monkeypatch):
    """Run what a merge starts in this process: torch is here already, and its import costs seconds."""
    from tunebook.hooks import merge_parity

    modules = {"tunebook.hooks.merge": merge_hook, "tunebook.hooks.merge_parity": merge_parity}

    def start(module, job, scratch, environment):
        file = scratch / "job.json"
        file.write_text(json.dumps(job))
        assert modules[module].main(str(file)) == 0
        torch.set_grad_enabled(True)

    monkeypatch.setattr(run, "_run", start)


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    in_process(monkeypatch)


def merged(arguments, output, **options):
    plan = plan_merge([str(argument) for argument in arguments], output, **options)
    return run.merge(plan, environment=Path("/"), check=True)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


@pytest.mark.parametrize("kind", made.KINDS)
@pytest.mark.parametrize("model", ["tiny", "untied"])
def test_an_adapter_is_merged_as_peft_computes_it(model, kind, request, tmp_path):
    base = request.getfixturevalue(model)
    adapter = made.make_adapter(base, tmp_path / "adapter", **made.KINDS[kind])
    outcome = merged([adapter], tmp_path / "merged", base=str(base))
    assert outcome.ok, outcome.record["parity"]
    expected = made.logits(made.with_adapter(base, adapter))
    found = made.logits(made.load(outcome.folder))
    assert torch.allclose(found, expected, atol=2e-4), (found - expected).abs().max()
    if model == "tiny" and kind in made.SHARED_GOES_WRONG:
        return
    peft = made.merged_by_peft(base, adapter)
    ours = tensors(outcome.folder)
    assert ours.keys() <= peft.keys()
    for name, tensor in ours.items():
        assert torch.allclose(tensor, peft[name], rtol=1e-5, atol=1e-6), name
