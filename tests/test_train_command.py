"""`tunebook train` from outside, with a stand-in for the engine: a script that notes how it was called.

What the real engine makes of it is tested in tests/engines.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from test_checkpoints import cut, write_checkpoint
from test_paths import make_environment
from tunebook import paths
from tunebook.errors import TunebookError
from tunebook.training.plan import TrainPlan, plan_training

CLI = [sys.executable, "-m", "tunebook.cli.main"]

# Notes its arguments, what it was given in the environment, and its recipe; then does as $STAND_IN says.
ENGINE = """#!/bin/sh
echo "$@" > {calls}/argv
env > {calls}/env
cp "$2" {calls}/recipe.yaml
eval "$STAND_IN"
"""


class Workplace:
    """A folder with a recipe, a registry, data, and an environment whose engine is a script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        self.calls.mkdir()
        self.environment = make_environment(folder / "env", "llamafactory==0.9.5", "torch==2.13.0")
        self.hook = self.environment / "lib/python3.11/site-packages" / paths.HOOK_FILE
        self.hook.touch()
        (self.environment / "bin").mkdir()
        self.engine = self.environment / "bin" / "llamafactory-cli"
        self.engine.write_text(ENGINE.format(calls=self.calls))
        self.engine.chmod(0o755)
        (folder / "data").mkdir()
        self.registry = {
            "rec_train": {"file_name": "train.json"},
            "rec_test": {"file_name": "test.json", "metric": "yes_no"},
        }
        self.write_registry()
        rows = [{"instruction": "?", "input": "", "output": answer} for answer in ("Yes", "No")]
        (folder / "data" / "train.json").write_text(json.dumps(rows))
        (folder / "data" / "test.json").write_text(json.dumps(rows))
        self.write_recipe()

    def write_registry(self) -> None:
        (self.folder / "data" / "dataset_info.json").write_text(json.dumps(self.registry))

    def write_recipe(self, **changes) -> None:
        values = {
            "model_name_or_path": "some/model",
            "dataset_dir": "data",
            "dataset": "rec_train",
            "eval_dataset": "rec_test",
            "output_dir": "output/rec",
            "learning_rate": 1e-4,
            "do_train": True,
            "eval_strategy": "steps",
        }
        values |= changes
        text = yaml.safe_dump({key: value for key, value in values.items() if value is not None})
        (self.folder / "recipe.yaml").write_text("# purpose: a test\n\n" + text)

    def start(self, *arguments: str, does: str = "true", **env: str) -> subprocess.Popen:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("TUNEBOOK_")}
        clean |= {"TUNEBOOK_LLAMAFACTORY_ENV": str(self.environment), "STAND_IN": does}
        return subprocess.Popen(
            [*CLI, "train", "recipe.yaml", *arguments],
            cwd=self.folder,
            env=clean | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts background jobs with SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str, does: str = "true", **env: str) -> subprocess.CompletedProcess:
        process = self.start(*arguments, does=does, **env)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    @property
    def output(self) -> Path:
        return self.folder / "output" / "rec"

    @property
    def started(self) -> bool:
        return (self.calls / "argv").exists()

    def ran(self) -> dict:
        """The recipe that the engine was given."""
        return yaml.safe_load((self.calls / "recipe.yaml").read_text())

    def record(self) -> dict:
        return json.loads((self.output / "tunebook" / "run.json").read_text())


@pytest.fixture
def place(tmp_path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture
def plan(place, monkeypatch):
    """Plans a start of the workplace's recipe in this process, which is all that a start's checks need."""
    monkeypatch.chdir(place.folder)
    monkeypatch.setenv("TUNEBOOK_LLAMAFACTORY_ENV", str(place.environment))
    monkeypatch.delenv("TUNEBOOK_HOOK", raising=False)

    def plan(*overrides: str) -> TrainPlan:
        return plan_training("recipe.yaml", (), overrides)

    return plan


def test_the_engine_is_started_on_the_resolved_recipe_in_its_own_environment(place):
    (place.folder / "overlays").mkdir()
    (place.folder / "overlays" / "smoke.yaml").write_text("max_steps: 2\n")
    done = place.run("-o", "smoke", "learning_rate=2e-5")
    assert done.returncode == 0, done.stderr
    assert (place.calls / "argv").read_text() == "train output/rec/tunebook/recipe.yaml\n"
    assert place.ran()["learning_rate"] == 2e-5
    assert place.ran()["max_steps"] == 2
    env = dict(line.split("=", 1) for line in (place.calls / "env").read_text().splitlines() if "=" in line)
    assert env["PATH"].startswith(f"{place.environment}/bin:")
    assert "FORCE_TORCHRUN" not in env
    assert "tunebook report output/rec" in done.stderr


def test_run_json_says_where_the_run_comes_from(place):
    done = place.run("learning_rate=2e-5", SOME_API_KEY="do-not-write-me-down")
    assert done.returncode == 0, done.stderr
    record = place.record()
    assert record["format"] == 1
    assert record["recipe"]["name"] == "recipe.yaml"
    assert record["recipe"]["engine"] == "llamafactory"
    assert record["recipe"]["overlays"] == ["learning_rate=2e-5"]
    assert record["recipe"]["header"] == {"purpose": "a test"}
    assert record["datasets"]["rec_test"]["rows"] == 2
    assert set(record["datasets"]) == {"rec_train", "rec_test"}
    assert record["versions"]["llamafactory"] == "0.9.5"
    assert record["command"] == [str(place.engine), "train", "output/rec/tunebook/recipe.yaml"]
    assert record["resumed_from"] is None
    assert "do-not-write-me-down" not in json.dumps(record)


def test_a_dry_run_prints_everything_and_writes_nothing(place):
    before = sorted(place.folder.rglob("*"))
    done = place.run("--dry-run", "learning_rate=2e-5")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["learning_rate"] == 2e-5
    assert f"{place.engine} train output/rec/tunebook/recipe.yaml" in done.stdout
    assert sorted(place.folder.rglob("*")) == before


def test_the_engines_own_exit_status_is_ours(place):
    done = place.run(does="exit 7")
    assert done.returncode == 7
    assert "the engine ended with status 7; its own message is above" in done.stderr
    assert not (place.output / "tunebook" / "finished.json").exists()


@pytest.mark.parametrize(
    ("arguments", "change", "problem"),
    [
        (["eval_dataset=rec_tset"], lambda p: None, "no dataset 'rec_tset'"),
        ([], lambda p: (p.folder / "data" / "train.json").unlink(), "train.json is missing"),
        ([], lambda p: p.registry["rec_test"].update(metric="yes_know"), "there is no metric 'yes_know'"),
        (
            [],
            lambda p: p.registry["rec_test"].update(metric={"name": "yes_no", "mod": 1}),
            "unknown option 'mod'",
        ),
        (
            [],
            lambda p: (p.registry["rec_test"].pop("metric"), p.registry["rec_test"].update(metrics="yes_no")),
            'nothing reads the key "metrics"',
        ),
        (
            [],
            lambda p: (p.folder / "data" / "test.json").write_text(
                '[{"instruction": "?", "input": "", "output": "Yes"},'
                ' {"instruction": "?", "input": "", "output": "Maybe"}]'
            ),
            "test.json, row 2: yes_no cannot use the reference 'Maybe'",
        ),
        ([], lambda p: p.hook.unlink(), "would not be measured"),
        (["dataset_dir=nowhere"], lambda p: None, "dataset_dir: there is no nowhere"),
        (["deepspeed=no.json"], lambda p: None, "deepspeed: there is no file no.json"),
        (
            ["model_name_or_path=no/such/model"],
            lambda p: None,
            "model_name_or_path: there is no folder no/such/model",
        ),
        (["output_dir=data/train.json"], lambda p: None, "data/train.json is a file"),
        (["hf_hub_token=abcdefgh"], lambda p: None, "would keep a copy of this secret"),
        (["resume_from_checkpoint=output/old/checkpoint-5"], lambda p: None, "there is no such folder"),
    ],
)
def test_a_fault_stops_the_start_and_nothing_is_written(place, plan, arguments, change, problem):
    change(place)
    place.write_registry()
    with pytest.raises(TunebookError) as error:
        plan(*arguments)
    assert problem in error.value.problem
    assert error.value.fix
    assert not (place.folder / "output").exists()


def test_a_fault_is_two_lines_and_exit_status_2(place):
    done = place.run("-o", "smoke")
    assert done.returncode == 2
    error, fix = done.stderr.splitlines()
    assert error.startswith("error: no overlay 'smoke'")
    assert fix.startswith("fix: ")
    assert not place.started


def test_faults_of_several_datasets_are_named_together(place, plan):
    (place.folder / "data" / "train.json").unlink()
    (place.folder / "data" / "test.json").write_text('[{"instruction": "?", "input": "", "output": 1}]')
    with pytest.raises(TunebookError, match="2 faults") as error:
        plan()
    assert "train.json is missing" in error.value.problem
    assert "test.json: output holds 1, which is no text" in error.value.problem


def test_faults_of_every_kind_are_named_in_one_start_each_above_its_fix(place):
    # Of a path, of the registry, of the keys, of the data, of the environment and of the folder.
    place.write_recipe(
        model_name_or_path="./no_model", dataset="nosuch", learing_rate=1e-4, output_dir="data/train.json"
    )
    place.hook.unlink()
    place.registry["rec_test"]["metric"] = "yes_know"
    place.write_registry()
    done = place.run()
    assert done.returncode == 2
    first, *lines = done.stderr.splitlines()
    assert first == "error: 6 faults:"
    problems, fixes = lines[::2], lines[1::2]
    assert all(line.startswith("   fix: ") for line in fixes)
    assert [line.partition(". ")[0] for line in problems] == list("123456")
    for part in (
        *("no folder ./no_model", "no dataset 'nosuch'", "learing_rate: no such key", "train.json is a file"),
        *("there is no metric 'yes_know'", "would not be measured"),
    ):
        assert sum(part in line for line in problems) == 1, done.stderr
    assert not place.started


def test_an_unreadable_reference_in_training_data_alone_is_no_fault(place, plan):
    (place.folder / "data" / "train.json").write_text(
        '[{"instruction": "?", "input": "", "output": "Maybe"}]'
    )
    assert plan().notes == ()


def test_only_rows_that_the_engine_takes_are_read(place, plan):
    rows = [{"instruction": "?", "input": "", "output": answer} for answer in ("Yes", "Maybe")]
    (place.folder / "data" / "test.json").write_text(json.dumps(rows))
    assert plan("max_samples=1").notes == ()


def test_too_little_space_on_disk_is_found_before_the_start(place, plan):
    (place.folder / "model").mkdir()
    (place.folder / "model" / "model.safetensors").touch()
    os.truncate(place.folder / "model" / "model.safetensors", 1 << 42)  # sparse: takes no room itself
    with pytest.raises(TunebookError, match="not enough space on disk"):
        plan("model_name_or_path=model", "finetuning_type=full")
    plan("model_name_or_path=model", "finetuning_type=lora")


def test_a_recipe_from_another_folder_uses_tunebooks_own_data_and_says_so(place, plan):
    place.write_recipe(
        dataset_dir="datasets_info", dataset=None, eval_dataset=None, do_train=None, eval_strategy=None
    )
    found = plan()
    assert found.notes[0] == f"dataset_dir: {paths.home() / 'datasets_info'}"
    assert found.recipe.values["dataset_dir"] == str(paths.home() / "datasets_info")
    (place.folder / "datasets_info").mkdir()
    assert not any(note.startswith("dataset_dir") for note in plan().notes)
    assert plan().recipe.values["dataset_dir"] == "datasets_info"


def test_the_hook_may_be_switched_off_in_so_many_words(place, plan, monkeypatch):
    place.hook.unlink()
    monkeypatch.setenv("TUNEBOOK_HOOK", "0")
    assert plan().notes == ("TUNEBOOK_HOOK=0: the metrics of rec_test are not measured",)


def test_deepspeed_and_several_processes_are_started_through_torchrun(place, plan, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("FORCE_TORCHRUN", "NPROC_PER_NODE", "NNODES", "USE_RAY"):
        monkeypatch.delenv(name, raising=False)
    assert set(plan().command.env) == {"PATH"}
    (place.folder / "z3.json").write_text("{}")
    env = plan("deepspeed=z3.json").command.env
    assert (env["FORCE_TORCHRUN"], env["NPROC_PER_NODE"]) == ("1", "1")
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    env = plan().command.env
    assert (env["FORCE_TORCHRUN"], env["NPROC_PER_NODE"]) == ("1", "2")
    monkeypatch.delenv("NPROC_PER_NODE")
    monkeypatch.setenv("NNODES", "2")
    assert plan().command.env["NPROC_PER_NODE"] == "1"
    with pytest.raises(TunebookError, match="cannot hand a path with a space to torchrun"):
        plan("output_dir=output/with space")


def test_the_same_recipe_finished_is_not_run_again(place):
    trains = """echo '{"best_model_checkpoint": "output/rec/checkpoint-4", "best_metric": 0.75}' > output/rec/trainer_state.json"""
    assert place.run(does=trains).returncode == 0
    (place.calls / "argv").unlink()
    done = place.run("run_name=other")
    assert done.returncode == 0
    assert "already holds this run, finished" in done.stderr
    assert "best checkpoint: output/rec/checkpoint-4 (loss 0.7500)" in done.stderr
    assert not place.started


def test_another_recipes_run_is_not_touched(place, plan):
    assert place.run(does="touch output/rec/trainer_log.jsonl").returncode == 0
    (place.calls / "argv").unlink()
    done = place.run("learning_rate=5e-5", "max_steps=3")
    assert done.returncode == 2
    assert (
        "holds the run of another recipe; it differs in learning_rate 0.0001 -> 5e-05, max_steps None -> 3"
        in done.stderr
    )
    assert not place.started


def test_a_run_that_tunebook_did_not_start_is_not_touched(place, plan):
    write_checkpoint(place.output, 4)
    with pytest.raises(TunebookError, match="holds a run that tunebook did not start"):
        plan()
    assert not (place.output / "tunebook").exists()


def test_overwriting_moves_the_old_folder_aside(place):
    assert place.run(does="touch output/rec/trainer_log.jsonl").returncode == 0
    (place.folder / "output" / "rec.replaced-1").mkdir()
    done = place.run("overwrite_output_dir=true", "learning_rate=5e-5")
    assert done.returncode == 0, done.stderr
    assert "moved the old folder to output/rec.replaced-2" in done.stderr
    assert (place.folder / "output" / "rec.replaced-2" / "trainer_log.jsonl").exists()
    assert not (place.output / "trainer_log.jsonl").exists()
    assert "overwrite_output_dir" not in place.ran()


def test_a_start_that_failed_before_training_is_not_in_the_way(place):
    assert place.run("learning_rate=7", does="exit 1").returncode == 1
    assert place.run().returncode == 0
    assert json.loads((place.output / "tunebook" / "run-1.json").read_text())["recipe"]["overlays"] == [
        "learning_rate=7"
    ]


def test_an_unfinished_run_goes_on_from_the_last_whole_checkpoint(place):
    assert place.run(does="exit 1").returncode == 1
    for step in (10, 20, 30):
        write_checkpoint(place.output, step)
    cut(place.output / "checkpoint-30" / "adapter_model.safetensors")
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert "skipping output/rec/checkpoint-30: adapter_model.safetensors is cut off" in done.stderr
    assert "resuming from output/rec/checkpoint-20" in done.stderr
    assert place.ran()["resume_from_checkpoint"] == "output/rec/checkpoint-20"
    assert place.record()["resumed_from"] == "checkpoint-20"


def test_a_run_does_not_go_on_with_other_data_unless_told(place):
    assert place.run(does="exit 1").returncode == 1
    write_checkpoint(place.output, 10)
    with (place.folder / "data" / "train.json").open("a") as stream:
        stream.write("\n")
    refused = place.run()
    assert refused.returncode == 2
    assert "rec_train: its data has changed since output/rec was started" in refused.stderr
    told = place.run("--changed-data")
    assert told.returncode == 0, told.stderr
    assert "resuming from output/rec/checkpoint-10" in told.stderr


def test_an_unfinished_run_without_a_whole_checkpoint_starts_anew_beside_the_old(place):
    assert place.run(does="exit 1").returncode == 1
    (place.output / "checkpoint-10").mkdir()
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert "skipping output/rec/checkpoint-10: trainer_state.json is missing" in done.stderr
    assert "moved the old folder to output/rec.replaced-1" in done.stderr
    assert "resume_from_checkpoint" not in place.ran()


# An engine whose worker has a session of its own and does not hear SIGINT, as torchrun's do when the
# launcher is interrupted.
WORKER = "sh -c 'trap \"\" INT; echo $$ > {calls}/worker; sleep 60 & wait; sleep 60'"
LAUNCHER = f"setsid {WORKER} & sleep 60"


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists() or not path.read_text().strip():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_no_process_behind(place, number, status):
    process = place.start(does=LAUNCHER.format(calls=place.calls))
    wait_for(place.calls / "worker")
    worker = int((place.calls / "worker").read_text())
    process.send_signal(number)
    time.sleep(0.3)
    process.send_signal(number)  # do not wait for the worker's grace
    _, err = process.communicate(timeout=30)
    assert process.returncode == status, err
    assert "Traceback" not in err
    assert "stopped by" in err
    assert "starts from the beginning" in err
    assert not alive(worker)
    assert (place.output / "tunebook" / "run.json").exists()
    assert not (place.output / "tunebook" / "finished.json").exists()


def test_workers_that_outlive_a_failed_launcher_are_ended(place):
    worker = "trap '' HUP; echo $$ > {calls}/worker; sleep 60"
    process = place.start(does=f'setsid sh -c "{worker}" & sleep 0.5; exit 3'.format(calls=place.calls))
    wait_for(place.calls / "worker")
    pid = int((place.calls / "worker").read_text())
    process.communicate(timeout=30)
    assert process.returncode == 3
    assert not alive(pid)


def test_an_engine_ends_when_tunebook_is_killed(place):
    process = place.start(does=f"echo $$ > {place.calls}/engine; exec sleep 60")
    wait_for(place.calls / "engine")
    engine = int((place.calls / "engine").read_text())
    process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 5
    while alive(engine) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(engine)


def test_two_starts_into_one_folder_do_not_meet(place):
    process = place.start(does=f"touch output/rec/trainer_log.jsonl; echo 1 > {place.calls}/engine; sleep 60")
    wait_for(place.calls / "engine")
    second = place.run()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert second.returncode == 2
    assert f"is being trained into right now by process {process.pid}" in second.stderr
    assert not (place.folder / "output" / "rec.replaced-1").exists()


# An engine that does as our hook does inside a real one: looks for the request, saves, and says so.
OBEDIENT = """
echo up > {calls}/engine
while [ ! -e "$TUNEBOOK_STOP_FILE" ]; do sleep 0.02; done
echo checkpoint-7 > "$(dirname "$TUNEBOOK_STOP_FILE")/stopped"
"""


def test_sigusr1_asks_the_engine_for_a_checkpoint_and_is_not_sent_to_it(place):
    process = place.start(does=OBEDIENT.format(calls=place.calls))
    wait_for(place.calls / "engine")
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGUSR1, err
    assert "stopped as asked" in err
    folder = place.output / "tunebook"
    assert not (folder / "finished.json").exists()
    assert not (folder / "stop").exists()
    record = json.loads((folder / "process.json").read_text())
    assert (record["exit_status"], record["stopped_by"]) == (138, "request")


def test_an_engine_that_reaches_its_end_all_the_same_has_finished(place):
    process = place.start(does=f"echo up > {place.calls}/engine; sleep 1")
    wait_for(place.calls / "engine")
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert (place.output / "tunebook" / "finished.json").exists()


def test_a_request_of_an_earlier_start_does_not_stop_the_next(place):
    assert place.run(does="exit 1").returncode == 1
    (place.output / "tunebook" / "stop").touch()
    assert place.run(does='test ! -e "$TUNEBOOK_STOP_FILE"').returncode == 0


def test_a_run_in_the_background_returns_at_once_and_is_watched_and_stopped(place):
    started = time.monotonic()
    done = place.run("--background", does=OBEDIENT.format(calls=place.calls) + "echo said by the engine")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 10
    wait_for(place.calls / "engine")
    pid = int((place.output / "tunebook" / "run.pid").read_text())
    assert f"started as process {pid}; its output goes to output/rec/train.log" in done.stderr
    assert alive(pid)
    assert os.getsid(pid) == pid or os.getsid(pid) != os.getsid(0)
    shown = subprocess.run([*CLI, "status"], cwd=place.folder, capture_output=True, text=True)
    assert "output/rec" in shown.stdout
    assert "starting" in shown.stdout
    second = place.run()
    assert "is being trained into right now" in second.stderr
    stopped = subprocess.run([*CLI, "stop", "output/rec"], cwd=place.folder, capture_output=True, text=True)
    assert stopped.returncode == 0, stopped.stderr
    assert not alive(pid)
    log = (place.output / "train.log").read_text()
    assert "said by the engine" in log
    assert "tunebook: stopped as asked" in log


def test_a_fault_is_told_before_the_run_goes_to_the_background(place):
    done = place.run("--background", "dataset=rec_trian")
    assert done.returncode == 2
    assert "rec_train" in done.stderr
    assert not place.output.exists()
