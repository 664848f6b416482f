"""`tunebook merge` against PEFT, torch and transformers, in LLaMA-Factory's environment."""

import json
from pathlib import Path

import merge_adapters as made
import pytest
import torch
from safetensors.torch import load_file

from tunebook.errors import TunebookError
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


@pytest.fixture(scope="module")
def bf16(untied, tmp_path_factory) -> Path:
    import transformers

    folder = tmp_path_factory.mktemp("bf16") / "model"
    made.load(untied, torch.bfloat16).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(untied).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pair(bf16, tmp_path_factory) -> list[Path]:
    """Two adapters of one base, of different ranks and scales."""
    folder = tmp_path_factory.mktemp("pair")
    one = made.make_adapter(bf16, folder / "one", seed=1, target_modules="all-linear", use_rslora=True)
    two = made.make_adapter(bf16, folder / "two", seed=2, target_modules="all-linear", r=8)
    return [one, two]


def changes(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """What PEFT adds to each weight, in fp32."""
    merged = made.merged_by_peft(base, adapter)
    return {name: merged[name] - tensor.float() for name, tensor in tensors(base).items()}


def test_the_change_is_rounded_once(bf16, pair, tmp_path):
    outcome = merged(pair[:1], tmp_path / "merged")
    assert outcome.ok
    change = changes(bf16, pair[0])
    found = tensors(outcome.folder)
    for name, tensor in tensors(bf16).items():
        assert found[name].dtype == torch.bfloat16
        expected = (tensor.float() + change[name]).bfloat16()
        # Where the sum lies within an fp32 rounding of the middle of two bf16 numbers, either is right.
        off = (found[name] != expected).float().mean().item()
        assert off < 1e-3, (name, off)


@pytest.mark.parametrize("planted", ["scale", "forgotten layer", "other layer"])
def test_a_wrong_merge_is_caught_and_called_failed(planted, pair, tmp_path, monkeypatch):
    job = run.tensors_job

    def wrong(shards, folder):
        made = job(shards, folder)
        terms = [t["terms"][0] for shard in made["shards"] for t in shard["tensors"] if not t["copy"]]
        if planted == "scale":
            for term in terms:
                term["low_rank"]["scale"] *= 1.2
        elif planted == "forgotten layer":
            terms[0]["low_rank"] = None
        else:
            alike = [t for t in terms if t["source"]["shape"] == terms[0]["source"]["shape"]]
            alike[0]["low_rank"], alike[1]["low_rank"] = alike[1]["low_rank"], alike[0]["low_rank"]
        return made

    monkeypatch.setattr(run, "tensors_job", wrong)
    outcome = merged(pair[:1], tmp_path / "merged")
    assert not outcome.ok
    assert outcome.folder.name == "merged.failed"
    assert not (tmp_path / "merged").exists()
    assert "ABOVE the tolerance" in (outcome.folder / "README.md").read_text()


def test_a_check_that_cannot_tell_says_so(untied, tmp_path):
    adapter = made.make_adapter(untied, tmp_path / "adapter", size=1e-6, target_modules=["q_proj"])
    outcome = merged([adapter], tmp_path / "merged", base=str(untied))
    assert "cannot tell" in outcome.record["parity"]["lines"][-1]


def test_two_adapters_become_one_that_computes_their_weighted_sum(bf16, pair, tmp_path):
    outcome = merged(pair, tmp_path / "soup", weights=[0.25, 0.75])
    assert outcome.ok
    assert json.loads((outcome.folder / "adapter_config.json").read_text())["r"] == 12
    one, two, soup = (changes(bf16, adapter) for adapter in (*pair, outcome.folder))
    for name, change in soup.items():
        assert torch.allclose(change, 0.25 * one[name] + 0.75 * two[name], atol=1e-5), name
    # As a model, the same change is rounded once.
    model = merged(pair, tmp_path / "model", weights=[0.25, 0.75], as_kind="model")
    assert model.ok
    assert model.record["parity"]["figures"]["effect"] > 1
    base = tensors(bf16)
    for name, tensor in tensors(model.folder).items():
        assert torch.allclose(tensor.float(), base[name].float() + soup[name], rtol=2**-8, atol=1e-5), name


def test_an_average_of_one_model_is_that_model_and_of_two_their_mean(pair, untied, tmp_path):
    one, two = (merged([a], tmp_path / a.name, base=str(untied)).folder for a in pair)
    same = merged([one, one, one], tmp_path / "same")
    assert same.ok
    for name, tensor in tensors(same.folder).items():
        assert torch.equal(tensor, tensors(one)[name]), name
    both = merged([one, two], tmp_path / "both", weights=[0.3, 0.7])
    assert both.ok
    first, second = tensors(one), tensors(two)
    for name, tensor in tensors(both.folder).items():
        expected = (0.3 * first[name].double() + 0.7 * second[name].double()).float()
        assert torch.equal(tensor, expected), name
    assert sorted(p.name for p in both.folder.glob("*.safetensors")) == sorted(
        p.name for p in untied.glob("*.safetensors")
    )


def test_dora_adapters_are_summed_in_the_base_only(bf16, tmp_path):
    settings = made.KINDS["dora"]
    pair = [made.make_adapter(bf16, tmp_path / str(n), seed=n, **settings) for n in (1, 2)]
    with pytest.raises(TunebookError, match="use_dora cannot become one adapter"):
        merged(pair, tmp_path / "soup")
    outcome = merged(pair, tmp_path / "model", as_kind="model")
    assert outcome.ok
    one, two, base = changes(bf16, pair[0]), changes(bf16, pair[1]), tensors(bf16)
    for name, tensor in tensors(outcome.folder).items():
        expected = base[name].float() + 0.5 * one[name] + 0.5 * two[name]
        assert torch.allclose(tensor.float(), expected, rtol=2**-8, atol=1e-5), name


def test_layers_that_are_stored_the_other_way_round_are_merged_so(tmp_path):
    import transformers

    settings = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 64, "n_positions": 64}
    base = tmp_path / "gpt2"
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings)).save_pretrained(base)
    for dora in (False, True):
        adapter = made.make_adapter(
            base,
            tmp_path / f"adapter-{dora}",
            target_modules=["c_attn", "c_proj"],
            fan_in_fan_out=True,
            use_dora=dora,
        )
        outcome = merged([adapter], tmp_path / f"merged-{dora}", base=str(base))
        assert outcome.ok, outcome.record["parity"]
        peft = made.merged_by_peft(base, adapter)
        for name, tensor in tensors(outcome.folder).items():
            assert torch.allclose(
                tensor,
                peft[f"transformer.{name}".replace("transformer.transformer", "transformer")],
                rtol=1e-5,
                atol=1e-6,
            ), name
