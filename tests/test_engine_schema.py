"""The snapshot of an engine's keys is chosen by the version that is installed."""

from pathlib import Path

import pytest

from tunebook import paths
from tunebook.checks.names import slip
from tunebook.checks.run import check_recipe
from tunebook.engines import schema


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        ("0.10.0", "0.10.0"),
        ("0.9.5", "0.9.5"),
        ("0.9.5+cu128", "0.9.5"),
        ("0.10", "0.10.0"),
        ("0.9.6.dev0", "0.9.5"),
        ("0.11.0rc1", "0.10.0"),
        ("0.9.4", "0.9.5"),  # older than all: the oldest is the nearest
        (None, "0.10.0"),
    ],
)
def test_the_same_version_or_the_next_one_below_is_chosen(installed, chosen):
    # In alphabetical order 0.9.5 comes last.
    assert schema.nearest_version(["0.9.5", "0.10.0"], installed) == chosen
    assert schema.nearest_version(["0.9.5", "0.9.6.dev0"], None) == "0.9.5"


def environment(folder: Path, **versions: str) -> Path:
    for name, version in versions.items():
        info = folder / "lib" / "python3.11" / "site-packages" / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Makes an environment with these versions, which has no engine in it."""

    def make(engine: str, **versions: str):
        monkeypatch.setenv(f"TUNEBOOK_{engine.upper()}_ENV", str(environment(tmp_path / "env", **versions)))
        return schema.load_schema(engine)

    return make


@pytest.mark.parametrize(
    ("versions", "held_against", "fits"),
    [
        ({"llamafactory": "0.9.4", "transformers": "4.57.1"}, "LLaMA-Factory 0.9.4 with transformers 4.57", True),
        ({"llamafactory": "0.9.5", "transformers": "4.57.6"}, "LLaMA-Factory 0.9.5 with transformers 4.57", True),
        ({"llamafactory": "0.9.5", "transformers": "5.5.4"}, "LLaMA-Factory 0.9.5 with transformers 5.5", True),
        ({"llamafactory": "0.9.6.dev0", "transformers": "5.8.0"}, "LLaMA-Factory 0.9.6.dev0 with transformers 5.8", False),
        ({"llamafactory": "0.9.3", "transformers": "4.52.4"}, "LLaMA-Factory 0.9.4 with transformers 4.55", False),
        ({"llamafactory": "0.9.5", "transformers": "5.12.0"}, "LLaMA-Factory 0.9.5 with transformers 5.8", False),
        ({"axolotl": "0.16.1", "transformers": "5.5.0"}, "Axolotl 0.16.1", True),
        ({"axolotl": "0.20.0", "transformers": "5.20.0"}, "Axolotl 0.19.0", False),
    ],
)  # fmt: skip
def test_the_environment_that_would_train_decides(installed, versions, held_against, fits):
    found = installed(next(iter(versions)), **versions)
    assert (found["held_against"], found["fits"]) == (held_against, fits)


def test_a_key_is_there_in_the_versions_that_have_it(installed):
    older = installed("llamafactory", llamafactory="0.9.4", transformers="4.57.1")
    assert {"group_by_length", "ray_run_name", "save_safetensors"} <= set(older["keys"])
    assert "preserve_thinking" not in older["keys"]
    assert older["keys"]["warmup_steps"]["types"] == ["integer"]
    assert older["keys"]["seed"]["groups"] == ["training", "evaluation"]
    assert "baichuan2" in older["templates"]


def test_with_no_engine_the_pinned_pair_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_LLAMAFACTORY_ENV", str(tmp_path))
    found = schema.load_schema("llamafactory")
    assert (found["held_against"], found["fits"]) == ("LLaMA-Factory 0.9.5 with transformers 5.5", True)
    assert "installed" in found
    assert found["installed"] == ""


def test_nothing_that_another_version_may_take_is_an_error_or_fixed(installed, tmp_path, monkeypatch):
    installed("llamafactory", llamafactory="0.9.6.dev0", transformers="5.9.0")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model_name_or_path: a/b\ntemplate: qwen3_x\nstage: sft\ndo_train: true\ndataset_dir: ONLINE\ndataset: one\n"
        "output_dir: out\nleraning_rate: 1.0e-4\nkt_thing: 1\noptim: adamw_new\n"
    )
    monkeypatch.chdir(tmp_path)
    result = check_recipe("recipe.yaml", paths.home()).result
    assert result.errors == ()
    assert all(finding.edit is None for finding in result.findings)
    told = {finding.rule: finding.severity for finding in result.findings}
    assert told["unknown-key"] == told["unknown-template"] == told["bad-choice"] == "warning"
    said = next(finding.message for finding in result.findings if finding.rule == "other-version")
    assert "LLaMA-Factory 0.9.6.dev0 with transformers 5.8" in said
    assert "not in the range: transformers 5.9.0 (made for >=4.57,<5.9)" in said


SLIPS = {
    "leraning_rate": "learning_rate", "learning-rate": "learning_rate", "LearningRate": "learning_rate",
    "rate_learning": "learning_rate", "learning_rates": "learning_rate", "dataste": "dataset",
}  # fmt: skip
NO_SLIPS = (
    "qwen3_think",
    "chatglm2",
    "flash_attn_fuse_qkv",
    "trackio_static_space_id",
    "eval_loss",
    "lr",
    "adam_beta3",
)
KNOWN = (
    *("learning_rate", "dataset", "qwen3_nothink", "chatglm3", "flash_attn_fuse_mlp", "trackio_space_id"),
    *("eval_steps", "r", "adam_beta1", "adam_beta2"),
)


def test_a_name_is_meant_only_where_it_was_a_slip():
    assert {name: slip(name, KNOWN) for name in SLIPS} == SLIPS
    assert {name: slip(name, KNOWN) for name in NO_SLIPS} == dict.fromkeys(NO_SLIPS)
    assert slip("adam_bet", ["adam_beta", "adam_best"]) is None  # either may be meant
