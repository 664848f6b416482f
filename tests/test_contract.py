"""What a contract keeps, and when it is refused."""

import json
import struct

import pytest

from tunebook.errors import TunebookError
from tunebook.models import contract, safetensors

WHOLE = {
    "format": 1,
    "engine": {"name": "llamafactory", "version": "0.9.5"},
    "versions": {},
    "base": {"name_or_path": "/models/base", "revision": "main", "model_type": "qwen3"},
    "template": {"name": "qwen3", "enable_thinking": False, "chat_template_kwargs": {}},
    "rope": {},
    "dtype": {"weights": "float32", "compute": "float32"},
    "tokens": {"stop": [], "vocabulary": 7},
    "settings": {},
}


def whole_contract(**parts):
    """A contract as training writes it, with some parts changed."""
    return {
        **WHOLE,
        **{k: {**WHOLE.get(k, {}), **v} if isinstance(v, dict) else v for k, v in parts.items()},
    }


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, shape in tensors.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))


def test_settings_are_kept_by_name_and_hold_no_secret():
    values = {
        "template": "qwen3",
        "default_system": "Log in with hf_abcdefghijklmnopqrstuvwx",
        "hf_hub_token": "hf_abcdefghijklmnopqrstuvwx",
        "output_dir": "out",
        "enable_thinking": False,
        "rope_scaling": None,
    }
    kept = contract.kept_settings("llamafactory", values)
    assert kept == {"template": "qwen3", "default_system": "Log in with [redacted]", "enable_thinking": False}


def test_axolotls_special_tokens_are_no_secrets():
    values = {"special_tokens": {"eos_token": "<|im_end|>"}, "tokens": ["<a>"], "wandb_api_key": "x" * 40}
    kept = contract.kept_settings("axolotl", values)
    assert kept == {"special_tokens": {"eos_token": "<|im_end|>"}, "tokens": ["<a>"]}


def test_a_folder_without_a_contract_has_none(tmp_path):
    assert contract.read(tmp_path) is None


@pytest.mark.parametrize("text", ['{"format": 2}', "[]", "{"])
def test_a_contract_that_cannot_be_understood_is_refused(tmp_path, text):
    (tmp_path / contract.FILE).write_text(text)
    with pytest.raises(TunebookError, match=contract.FILE) as raised:
        contract.read(tmp_path)
    assert "--recipe" in raised.value.fix


@pytest.mark.parametrize(
    "parts",
    [
        {"engine": 7},
        {"engine": {"name": None}},
        {"base": {"name_or_path": 5}},
        {"base": {"fingerprint": "x"}},
        {"template": {"chat_template_kwargs": []}},
        {"template": {"enable_thinking": "no"}},
        {"rope": {"theta": "big"}},
        {"rope": []},
        {"tokens": {"stop": {"id": 1}}},
        {"tokens": {"stop": [7]}},
        {"tokens": {"stop": [{"id": "a", "text": "b"}]}},
        {"settings": None},
        {"adapter": [1]},
        {"max_tokens": True},
        {"quantization": json.loads("[" * 900 + "]" * 900)},
    ],
)
def test_a_contract_of_another_shape_is_refused(tmp_path, parts):
    (tmp_path / contract.FILE).write_text(json.dumps(whole_contract()))
    assert contract.read(tmp_path)["base"]["commit"] is None
    (tmp_path / contract.FILE).write_text(json.dumps(whole_contract(**parts)))
    with pytest.raises(
        TunebookError, match=f"{contract.FILE}: {next(iter(parts))}.* which tunebook has not written"
    ):
        contract.read(tmp_path)


def test_nesting_without_end_is_one_error(tmp_path):
    (tmp_path / contract.FILE).write_text("[" * 100_000)
    with pytest.raises(TunebookError, match="nested too deeply"):
        contract.read(tmp_path)


@pytest.mark.parametrize(
    "offsets", [[(0, 16), (0, 16)], [(0, 16), (12, 28)], [(0, 16), (20, 36)], [(0, 16), (16, 8)], [(4, 20)]]
)
def test_tensors_that_overlap_or_leave_a_gap_are_damage(tmp_path, offsets):
    header = {f"t{n}": {"dtype": "F32", "shape": [4], "data_offsets": pair} for n, pair in enumerate(offsets)}
    text = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(40))
    with pytest.raises(safetensors.DamagedHeaderError, match="overlap, or a gap"):
        safetensors.read(tmp_path / "x.safetensors")


def test_the_fingerprint_tells_shapes_and_configuration_apart(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    write_safetensors(tmp_path / "model.safetensors", {"a": [2, 3]})
    first = contract.fingerprint(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", {"a": [3, 2]})
    second = contract.fingerprint(tmp_path)
    assert first["config_sha256"] == second["config_sha256"]
    assert first["weight_headers_sha256"] != second["weight_headers_sha256"]
    assert contract.fingerprint(tmp_path / "none") == {"config_sha256": None, "weight_headers_sha256": None}


def test_padding_is_no_part_of_a_tokenizer():
    tokenizer = {"model": {"vocab": {"a": 0}}, "padding": None, "truncation": None}
    same = contract.tokenizer_sha256(tokenizer)
    assert contract.tokenizer_sha256({**tokenizer, "padding": {"length": 8}}) == same
    assert contract.tokenizer_sha256({**tokenizer, "model": {"vocab": {"b": 0}}}) != same


def test_headers_of_all_files_of_a_folder_are_read(tmp_path):
    write_safetensors(tmp_path / "model-1.safetensors", {"a": [2, 3]})
    write_safetensors(tmp_path / "model-2.safetensors", {"b": [4]})
    found = safetensors.tensors(tmp_path)
    assert {name: tensor["shape"] for name, tensor in found.items()} == {"a": [2, 3], "b": [4]}
    (tmp_path / "model-3.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(TunebookError, match=r"model-3\.safetensors"):
        safetensors.tensors(tmp_path)
