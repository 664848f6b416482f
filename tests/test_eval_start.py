"""How an engine is started so that a long context fits."""

from pathlib import Path

import pytest

from tunebook.evaluation.job import EvalJob, read_job
from tunebook.evaluation.plan import EngineGroup, EvalUnit
from tunebook.evaluation.records import Candidate
from tunebook.evaluation.run import start_of


def group(tmp_path, engine, **options):
    candidate = Candidate(label="base", kind="full", path="some/model", base="some/model", run=None, step=0)
    unit = EvalUnit(candidate, "set", tmp_path / "journal", "name", {})
    job = EvalJob(
        folder=str(tmp_path / "job"), candidates=(candidate,), journals={"base": {"set": str(tmp_path)}},
        method=None, batch_size=None, batch_tokens=None, max_samples=None, **options,
    )  # fmt: skip
    key = {"llamafactory": "model_name_or_path", "axolotl": "base_model"}[engine]
    return EngineGroup(
        engine=engine, environment=Path("/env"), values={key: "some/model"}, sets=("set",),
        candidates=(candidate,), adapter=None, units=(unit,), job=job,
    )  # fmt: skip


def test_a_model_over_several_gpus_is_one_process(tmp_path):
    for engine in ("llamafactory", "axolotl"):
        each = start_of(group(tmp_path, engine), gpus=4)
        assert "4" in {each.command.env.get("NPROC_PER_NODE"), each.command.argv[-1][-1]}
        assert "device_map" not in each.values
        spread = start_of(group(tmp_path, engine, device_map="auto"), gpus=4)
        assert spread.command.env["NPROC_PER_NODE"] == "1"
        assert "4" not in "".join(spread.command.argv[3:])
    assert spread.values["device_map"] == "auto"  # Axolotl's own key; LLaMA-Factory has none


def test_a_users_number_of_processes_does_not_come_before_one_spread_model(tmp_path, monkeypatch):
    monkeypatch.setenv("NPROC_PER_NODE", "8")
    spread = start_of(group(tmp_path, "axolotl", device_map="auto"), gpus=8)
    assert "python" in spread.command.argv
    assert not any("nproc" in part for part in spread.command.argv)


@pytest.mark.parametrize("options", [{}, {"cache_on_host": True, "device_map": "auto"}])
def test_the_job_keeps_how_memory_is_to_be_used(tmp_path, options):
    job = group(tmp_path, "axolotl", **options).job
    job.write()
    assert read_job(job.path) == job
