"""`tunebook doctor`: what its rules say of machines that are not here, and what its gatherers see of this one."""

import json
import os
import socket
from contextlib import closing
from dataclasses import asdict, replace

import pytest
from click.testing import CliRunner

from tunebook import paths
from tunebook.cli.doctor import doctor
from tunebook.cli.main import cli
from tunebook.doctor import environments, machine
from tunebook.doctor.facts import Environment, Facts, Flash, Gpu, Machine, Network
from tunebook.doctor.probe import MARK
from tunebook.doctor.rules_environment import (
    attention_in_use,
    cannot_run,
    has_kernels,
    install,
    is_published,
    wheel_name,
    wheel_url,
)
from tunebook.doctor.rules_machine import usable_gpus
from tunebook.doctor.run import judge, needs_of
from tunebook.recipes import catalog

GIB = 2**30
A100 = Gpu(name="NVIDIA A100-SXM4-80GB", memory=80 * GIB, used=0, capability=(8, 0))
T4 = Gpu(name="Tesla T4", memory=15 * GIB, used=0, capability=(7, 5))
NODE = Machine(
    system="Linux 6.1.0 x86_64",
    python="3.11.7",
    cpus=64,
    memory=1000 * GIB,
    memory_available=900 * GIB,
    disk_free=2000 * GIB,
    disk_folder="output",
    shared_memory=500 * GIB,
    driver="580.65.06",
    driver_cuda=(13, 0),
    gpus=(A100,) * 4,
    visible=None,
    nvcc=(12, 4),
    cuda_home="/usr/local/cuda",
    cuda_home_exists=True,
    compiler=True,
    open_files=65536,
    locked_memory=None,
    infiniband=True,
    tokens={"HF_TOKEN": True, "WANDB_API_KEY": True},
)
LAPTOP = replace(NODE, gpus=(), driver=None, driver_cuda=None, nvcc=None)
NET = Network(
    host="node0",
    addresses=("10.0.0.5",),
    interfaces={"eth0": "10.0.0.5"},
    default_interface="eth0",
    chosen={},
    busy_ports=(),
    free_port=40000,
    hub="https://huggingface.co",
    hub_error=None,
    offline=False,
)
VENV = Environment(
    name=".venv",
    path="/opt/.venv",
    engine="llamafactory",
    python="3.11.7",
    versions={"llamafactory": "0.9.5", "transformers": "5.5.4", "torch": "2.5.1"},
    tested={"transformers": "5.5.4"},
    hook=True,
    torch="2.5.1+cu124",
    cuda="12.4",
    abi=False,
    cuda_available=True,
    architectures=("sm_75", "sm_80", "sm_90"),
    bf16=True,
    tf32=True,
    flash=Flash(version="2.8.3", difference=0.004),
)
BARE = replace(VENV, flash=Flash(version=None))
CPU = replace(BARE, cuda_available=False, bf16=None, tf32=None)


def said(node=NODE, environment=VENV, net=NET, needs=None) -> dict[str, str]:
    """Severity by rule."""
    found = judge(Facts(machine=node, network=net, environments=(environment,), needs=needs))
    assert all(finding.fix and finding.message for finding in found)
    return {finding.rule: finding.severity for finding in found}


def one(rule, **parts):
    found = judge(
        Facts(
            machine=parts.get("node", NODE),
            network=parts.get("net", NET),
            environments=(parts.get("environment", VENV),),
            needs=parts.get("needs"),
        )
    )
    return next(finding for finding in found if finding.rule == rule)


def needs(name, gpus, **changes):
    recipe = catalog.find_recipe(name, paths.home() / "recipes")
    return needs_of(replace(recipe, values={**recipe.values, **changes}), gpus)


@pytest.mark.parametrize(
    ("torch", "cuda", "abi", "python", "version", "name"),
    [
        ("2.5.1+cu124", "12.4", False, "3.11.7", "2.8.3",
         "flash_attn-2.8.3+cu12torch2.5cxx11abiFALSE-cp311-cp311-linux_x86_64.whl"),
        ("2.8.0", "12.9", True, "3.12", "2.8.3",
         "flash_attn-2.8.3+cu12torch2.8cxx11abiTRUE-cp312-cp312-linux_x86_64.whl"),
        ("2.10.0+cu130", "13.0", True, "3.13.1", "2.8.3",
         "flash_attn-2.8.3+cu13torch2.10cxx11abiTRUE-cp313-cp313-linux_x86_64.whl"),
        ("2.4.0", "11.8", False, "3.9.19", "2.7.4.post1",
         "flash_attn-2.7.4.post1+cu11torch2.4cxx11abiFALSE-cp39-cp39-linux_x86_64.whl"),
    ],
)  # fmt: skip
def test_the_wheel_of_flash_attn_is_named_as_its_releases_are(torch, cuda, abi, python, version, name):
    assert wheel_name(torch, cuda, abi=abi, python=python, version=version) == name
    assert wheel_url(name).endswith(f"/releases/download/v{version}/{name}")


@pytest.mark.parametrize(
    ("torch", "cuda", "seen"),
    [("2.5.1", "12.4", True), ("2.10.0", "12.8", False), ("2.10.0", "13.0", True), ("2.8.0", "13.0", False),
     ("2.3.1", "12.1", False), ("2.5.1", "11.8", False), ("2.5.1", None, False)],
)  # fmt: skip
def test_a_wheel_is_proposed_only_where_one_was_seen(torch, cuda, seen):
    assert is_published(torch, cuda) is seen


def test_a_version_that_cannot_be_read_is_no_wheel():
    with pytest.raises(ValueError, match="no version: 'cu124'"):
        wheel_name("cu124", "12.4", abi=True, python="3.11")


def test_a_node_with_a100s_and_all_in_place_is_healthy():
    assert said() == {}
    assert attention_in_use(VENV, NODE, "flash").kind == "flash"


def test_a_t4_cannot_run_flash_attn_nor_bf16():
    node = replace(NODE, gpus=(T4,))
    assert said(node, BARE) == {"no-bf16": "hint", "flash-unfit": "hint"}
    assert cannot_run(BARE, node) == "Tesla T4 has compute capability 7.5; it needs 8.0 (Ampere)"
    recipe = needs("llamafactory/qwen3-0.6b/qlora_sft_movielens", 1, flash_attn="fa2", bf16=True)
    assert recipe.attention == "flash"
    assert said(node, BARE, needs=recipe)["flash-unfit"] == "warning"
    assert one("bf16", node=node, environment=BARE, needs=recipe).fix == "set bf16: false and fp16: true"


def test_a_machine_without_a_gpu_is_told_so_and_is_healthy():
    assert said(LAPTOP, CPU) == {"no-gpu": "hint", "flash-unfit": "hint"}
    assert attention_in_use(CPU, LAPTOP, "auto").kind == "sdpa"
    # LLaMA-Factory takes PyTorch's attention then; Axolotl stops.
    assert attention_in_use(CPU, LAPTOP, "flash").kind == "sdpa"
    assert attention_in_use(replace(CPU, engine="axolotl"), LAPTOP, "flash").kind == "none"


def test_flash_attn_that_is_missing_comes_with_its_wheel_and_the_environments_own_installer():
    fix = one("flash-missing", environment=BARE).fix
    assert fix.startswith("uv pip install --python /opt/.venv/bin/python https://github.com/Dao-AILab/")
    assert fix.endswith("flash_attn-2.8.3+cu12torch2.5cxx11abiFALSE-cp311-cp311-linux_x86_64.whl")
    assert "-m pip install https" in one("flash-missing", environment=replace(BARE, has_pip=True)).fix


def test_a_torch_newer_than_any_wheel_is_sent_to_the_releases_page_and_to_a_build():
    finding = one("flash-missing", environment=replace(BARE, torch="2.13.0+cu130", cuda="13.0", abi=True))
    assert "torch 2.9 to 2.10 with CUDA 13; here is torch 2.13.0+cu130" in finding.message
    assert "flash-attn --no-build-isolation" in finding.fix


@pytest.mark.parametrize(
    ("flash", "rule"),
    [
        (Flash(version="2.8.3", error="ImportError: undefined symbol: _ZN3c105ErrorC2E"), "flash-load"),
        (Flash(version="2.8.3", forward_error="RuntimeError: no kernel image"), "flash-forward"),
        (Flash(version="2.8.3", difference=0.4), "flash-differs"),
        (Flash(version="2.8.3", difference=float("nan")), "flash-differs"),
    ],
)
def test_flash_attn_that_is_there_and_does_not_work_is_an_error(flash, rule):
    assert said(environment=replace(VENV, flash=flash))[rule] == "error"


@pytest.mark.parametrize(
    ("rule", "severity", "node", "environment"),
    [
        ("cpu-torch", "error", NODE, replace(CPU, torch="2.5.1+cpu", cuda=None)),
        ("driver", "error", replace(NODE, driver_cuda=(12, 2)), replace(CPU, cuda="13.0")),
        ("cuda", "error", NODE, CPU),
        ("no-kernels", "error", replace(NODE, gpus=(replace(T4, name="P100", capability=(6, 0)),)), BARE),
        ("torch-import", "error", NODE, replace(CPU, torch=None, torch_error="OSError: libcudart.so.12")),
        ("environment", "error", NODE, replace(CPU, torch=None, error="its Python does not start")),
        ("python", "error", NODE, replace(VENV, python="3.10.12")),
        ("requirement", "error", NODE, replace(VENV, unmet=("peft 0.20.0, not <=0.18.1,>=0.18.0",))),
        ("bad-versions", "warning", NODE, replace(VENV, versions={"transformers": "5.6.0"})),
        ("bad-versions", "warning", NODE,
         replace(VENV, versions={"torch": "2.5.1+cu124", "torchaudio": "2.5.1+cu118"})),
        ("out-of-range", "warning", NODE, replace(VENV, versions={"transformers": "4.56.2"}, tested={})),
        ("untested-versions", "hint", NODE, replace(VENV, versions={"transformers": "5.5.3"})),
        ("hook", "warning", NODE, replace(VENV, hook=False)),
        ("tf32", "hint", NODE, replace(VENV, tf32=False)),
        ("nvcc-version", "hint", replace(NODE, nvcc=(13, 0)), VENV),
        ("no-nvcc", "hint", replace(NODE, nvcc=None), VENV),
        ("no-compiler", "warning", replace(NODE, compiler=False), VENV),
        ("cuda-home", "warning", replace(NODE, cuda_home_exists=False), VENV),
        ("gpus-hidden", "error", replace(NODE, visible=""), VENV),
        ("gpu-busy", "warning", replace(NODE, gpus=(replace(A100, used=9 * GIB),)), VENV),
        ("mixed-gpus", "warning", replace(NODE, gpus=(A100, replace(A100, memory=40 * GIB))), VENV),
        ("shared-memory", "warning", replace(NODE, shared_memory=64 * 2**20), VENV),
        ("open-files", "hint", replace(NODE, open_files=1024), VENV),
        ("locked-memory", "warning", replace(NODE, locked_memory=65536), VENV),
        ("disk-low", "warning", replace(NODE, disk_free=5 * GIB), VENV),
    ],
)  # fmt: skip
def test_each_fault_of_a_machine_is_found_and_alone(rule, severity, node, environment):
    found = said(node, environment)
    assert found.pop(rule) == severity
    graver = {other for other, what in found.items() if what != "hint"}
    assert not graver


@pytest.mark.parametrize(
    ("rule", "severity", "net"),
    [
        ("own-name", "hint", replace(NET, addresses=("127.0.1.1",))),
        ("own-name", "hint", replace(NET, addresses=())),
        ("interface", "error", replace(NET, chosen={"NCCL_SOCKET_IFNAME": "ib0"})),
        ("ports", "warning", replace(NET, busy_ports=(29500,))),
        ("ports", "hint", replace(NET, busy_ports=(29502,))),
        ("hub", "warning", replace(NET, hub_error="timed out")),
    ],
)
def test_each_fault_of_the_network_is_found_and_alone(rule, severity, net):
    assert said(net=net) == {rule: severity}


def test_a_driver_of_the_same_major_version_runs_a_newer_cuda():
    assert said(replace(NODE, driver_cuda=(12, 2))) == {}


def test_a_card_that_is_hidden_does_not_count():
    two = (T4, A100)
    assert said(replace(NODE, gpus=two))["mixed-gpus"] == "warning"
    assert said(replace(NODE, gpus=two, visible="1")) == {}
    assert usable_gpus(replace(NODE, gpus=two, visible="1,0")) == (A100, T4)
    assert usable_gpus(replace(NODE, gpus=two, visible="GPU-8932f937")) == (T4,)
    assert usable_gpus(replace(NODE, gpus=two, visible="-1")) == ()


def test_an_own_name_on_the_loopback_is_mended_by_the_interface_of_the_default_route():
    fix = one("own-name", net=replace(NET, addresses=("127.0.1.1",))).fix
    assert "GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0" in fix


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((8, 6), ("sm_80",), True),
        ((8, 0), ("sm_86",), False),
        ((9, 0), ("sm_80",), False),
        ((9, 0), ("sm_80", "compute_80"), True),
        ((12, 0), ("sm_120",), True),
        ((9, 0), ("sm_90a",), True),
        ((7, 0), ("sm_75", "sm_80"), False),
    ],
)
def test_machine_code_runs_within_its_major_version_and_portable_code_later(capability, architectures, runs):
    assert has_kernels(capability, architectures) is runs


def test_the_32b_recipe_fits_a_node_of_four_a100s_and_no_smaller_one():
    recipe = needs("llamafactory/qwen3-32b/full_sft_csv_chat", 4)
    fitting = said(needs=recipe)
    assert fitting == {}
    assert 500 * GIB < recipe.host_bytes < 640 * GIB
    # Two checkpoints of 66 GB and the one that is being written.
    assert 180e9 < recipe.disk_bytes < 220e9
    small = replace(NODE, memory=256 * GIB, disk_free=100 * GIB, nvcc=None, gpus=(T4,) * 4)
    found = said(small, BARE, needs=recipe)
    assert {"host-memory", "disk", "memory", "offload-compiler", "bf16"} <= {
        rule for rule, severity in found.items() if severity == "error"
    }


def test_a_recipe_without_its_engine_its_tokens_or_its_models_config_is_told():
    gemma = needs("llamafactory/gemma-2b-it/lora_sft_gsm8k", 1, report_to="wandb")
    bare = replace(NODE, tokens={"HF_TOKEN": False, "WANDB_API_KEY": False})
    found = said(bare, replace(VENV, engine="axolotl", hook=False), needs=gemma)
    assert (found["no-engine"], found["hub-token"], found["wandb-key"]) == ("error", "warning", "warning")
    unknown = needs("llamafactory/gemma-2b-it/lora_sft_gsm8k", 1, model_name_or_path="nobody/nothing")
    assert said(needs=unknown)["no-estimate"] == "hint"


def test_cards_of_nvidia_smi_are_read_and_what_it_does_not_say_is_none():
    text = "NVIDIA A100-SXM4-80GB, 81920, 3, 8.0, 550.54.15\nNVIDIA GB10, [N/A], [N/A], 12.1, 550.54.15\n"
    gpus, driver = machine.parse_gpus(text)
    assert driver == "550.54.15"
    assert gpus[0] == Gpu(name=A100.name, memory=80 * GIB, used=3 * 2**20, capability=(8, 0))
    assert (gpus[1].memory, gpus[1].capability) == (None, (12, 1))
    assert machine.parse_gpus("No devices were found\n") == ((), None)


def test_driver_cards_and_compiler_are_asked_of_their_programs(tmp_path, monkeypatch):
    programs = {
        "nvidia-smi": 'case "$1" in --query*) echo "Tesla T4, 15360, 0, 7.5, 550.54.15";; '
        '*) echo "| NVIDIA-SMI 550.54.15    Driver Version: 550.54.15    CUDA Version: 12.4     |";; esac',
        "nvcc": 'echo "Cuda compilation tools, release 12.1, V12.1.105"',
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    found = machine.gather_machine(tmp_path)
    assert (found.driver, found.driver_cuda, found.nvcc) == ("550.54.15", (12, 4), (12, 1))
    assert found.gpus == (T4,)


def test_this_machine_is_gathered_and_no_token_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_mine")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = machine.gather_machine(tmp_path / "not" / "there")
    assert found.tokens == {"HF_TOKEN": True, "WANDB_API_KEY": False}
    assert found.memory > found.memory_available > 0
    assert found.disk_free > 0
    assert "hf_secret_of_mine" not in json.dumps(asdict(found))


def test_a_port_that_is_listened_on_is_in_use_and_a_hub_that_refuses_is_told(monkeypatch):
    with closing(socket.socket()) as listener:
        listener.bind(("", 0))
        listener.listen()
        port = listener.getsockname()[1]
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        found = machine.gather_network(range(port, port + 1))
        assert found.busy_ports == (port,)
        assert (found.offline, found.hub_error) == (True, None)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    refused = machine.gather_network(range(port, port + 1))
    assert refused.busy_ports == ()
    assert "refused" in refused.hub_error


def pretend(folder, script: str) -> Environment:
    """An environment whose Python is a shell script."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return replace(CPU, path=str(folder), torch=None)


def test_an_environment_that_tells_nothing_is_an_error_with_its_last_words(tmp_path):
    broken = environments.ask(pretend(tmp_path / "a", "echo noise; echo 'Illegal instruction' >&2; exit 132"))
    assert broken.error == "its Python ended with 132: Illegal instruction"
    slow = environments.ask(pretend(tmp_path / "b", "exec sleep 20"), timeout=0.2)
    assert slow.error == "its Python had not imported torch after 0.2 s"
    gone = environments.ask(replace(CPU, path=str(tmp_path / "c")))
    assert gone.error.startswith("its Python does not start")


def test_the_answer_is_found_among_what_packages_print(tmp_path):
    answer = {"python": "3.11.7", "unmet": [], "has_pip": True, "flash": {"version": None}, "torch": "2.5.1"}
    script = f"echo 'a banner'\necho '{MARK}{json.dumps(answer)}'\necho bye"
    found = environments.ask(pretend(tmp_path / "a", script))
    assert (found.torch, found.has_pip, found.error) == ("2.5.1", True, None)
    assert environments._MARK == MARK


def test_reinstalling_is_spelled_as_the_installer_spells_it():
    assert install(VENV, "--reinstall torch").endswith(
        "install --python /opt/.venv/bin/python --reinstall torch"
    )
    assert install(replace(VENV, has_pip=True), "--reinstall torch").endswith(
        "pip install --force-reinstall torch"
    )


def test_an_environment_variable_that_names_no_environment_is_wrong_use(monkeypatch, tmp_path):
    monkeypatch.setenv("TUNEBOOK_LLAMAFACTORY_ENV", str(tmp_path))
    result = CliRunner().invoke(doctor, ["--json"])
    assert "llamafactory is not installed there" in str(result.exception)


def test_the_verb_is_listed():
    assert "doctor" in cli.list_commands(None)
