"""What a contract keeps, and when it is refused."""

import json
import struct

import pytest

from tunebook.errors import TunebookError
from tunebook.models import contract, safetensors


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
