import json
import zipfile

import pytest

from tunebook.models.checkpoints import checkpoint_folders, fault, last_whole_checkpoint


def write_safetensors(path, tensor_bytes=64):
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [tensor_bytes // 4], "data_offsets": [0, tensor_bytes]}}
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(tensor_bytes))


def write_archive(path):
    # What torch.save writes: an uncompressed zip archive.
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"x" * 100)


def write_checkpoint(output_dir, step, *, weights="adapter_model.safetensors"):
    folder = output_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    write_safetensors(folder / weights)
    if weights.startswith("adapter"):
        (folder / "adapter_config.json").write_text("{}")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        write_archive(folder / name)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return folder


def cut(path, by=10):
    path.write_bytes(path.read_bytes()[:-by])


def test_a_whole_checkpoint_has_no_fault(tmp_path):
    assert fault(write_checkpoint(tmp_path, 10)) is None
    assert fault(write_checkpoint(tmp_path, 20, weights="model.safetensors")) is None


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda c: (c / "trainer_state.json").unlink(), "trainer_state.json is missing"),
        (lambda c: (c / "trainer_state.json").write_text('{"global_st'), "trainer_state.json is cut off"),
        (lambda c: (c / "trainer_state.json").write_text("[]"), "trainer_state.json is cut off"),
        (lambda c: (c / "trainer_state.json").write_text("{}"), "names no global_step"),
        (lambda c: cut(c / "adapter_model.safetensors"), "adapter_model.safetensors is cut off: "),
        (lambda c: (c / "adapter_model.safetensors").write_bytes(b"\xff" * 6), "cut off in its header"),
        (lambda c: (c / "adapter_model.safetensors").write_bytes(b""), "cut off in its header"),
        (lambda c: (c / "adapter_model.safetensors").unlink(), "there are no weights in it"),
        (lambda c: (c / "adapter_config.json").unlink(), "adapter_config.json is missing"),
        (lambda c: (c / "optimizer.pt").unlink(), "fresh optimizer"),
        (lambda c: cut(c / "optimizer.pt", 40), "optimizer.pt is cut off"),
        (lambda c: (c / "scheduler.pt").unlink(), "start the learning rate anew"),
        (lambda c: (c / "rng_state.pth").unlink(), "there is no rng_state"),
    ],
)
def test_each_damage_is_told(tmp_path, damage, reason):
    checkpoint = write_checkpoint(tmp_path, 10)
    damage(checkpoint)
    assert reason in (fault(checkpoint) or "")


def test_weights_alone_are_enough_where_nothing_is_resumed(tmp_path):
    checkpoint = write_checkpoint(tmp_path, 10)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (checkpoint / name).unlink()
    assert fault(checkpoint) is not None
    assert fault(checkpoint, to_resume=False) is None


def test_every_shard_of_an_index_must_be_there_and_whole(tmp_path):
    checkpoint = write_checkpoint(tmp_path, 10, weights="model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert fault(checkpoint) == "model-00002-of-00002.safetensors is missing"
    write_safetensors(checkpoint / "model-00002-of-00002.safetensors")
    assert fault(checkpoint) is None
    cut(checkpoint / "model-00002-of-00002.safetensors")
    assert "model-00002-of-00002.safetensors is cut off" in fault(checkpoint)


def deepspeed_checkpoint(output_dir, step, ranks=2):
    """The layout that DeepSpeed 0.18 leaves under the Trainer with ZeRO-3."""
    checkpoint = output_dir / f"checkpoint-{step}"
    states = checkpoint / f"global_step{step}"
    states.mkdir(parents=True)
    for rank in range(ranks):
        write_archive(states / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
        write_archive(states / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
        write_archive(checkpoint / f"rng_state_{rank}.pth")
    (checkpoint / "latest").write_text(f"global_step{step}")
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return checkpoint


def test_deepspeed_checkpoints_need_every_ranks_states(tmp_path):
    checkpoint = deepspeed_checkpoint(tmp_path, 4)
    assert fault(checkpoint) is None
    states = checkpoint / "global_step4" / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    cut(states, 40)
    assert "optim_states.pt is cut off" in fault(checkpoint)
    states.unlink()
    assert fault(checkpoint) == "global_step4 holds the optimizer states of 1 of 2 ranks"
    (checkpoint / "latest").write_text("global_step9")
    assert fault(checkpoint) == "there are no weights in it"


def test_the_last_whole_checkpoint_is_found_by_step_not_by_name(tmp_path):
    for step in (9, 10, 100):
        write_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-200").mkdir()
    (tmp_path / "checkpoint-best").mkdir()
    cut(tmp_path / "checkpoint-100" / "adapter_model.safetensors")
    found = last_whole_checkpoint(tmp_path)
    assert found.path == tmp_path / "checkpoint-10"
    assert [(item.path.name, item.reason.split(":")[0]) for item in found.passed_over] == [
        ("checkpoint-200", "trainer_state.json is missing"),
        ("checkpoint-100", "adapter_model.safetensors is cut off"),
    ]
    assert [path.name for path in checkpoint_folders(tmp_path)][-1] == "checkpoint-200"


def test_a_run_without_checkpoints_has_none(tmp_path):
    assert last_whole_checkpoint(tmp_path / "not yet") == (None, [])
