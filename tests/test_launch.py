"""What `tunebook launch` renders: current, readable by shellcheck, and proof against hostile names."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tunebook.engines.axolotl.engine import Axolotl
from tunebook.errors import TunebookError
from tunebook.launch import LAUNCHERS, StartOptions, all_files, load
from tunebook.launch.cluster import Cluster, Host, read_cluster, read_hosts
from tunebook.launch.plan import LaunchPlan, plan_launch
from tunebook.training.resolve import resolve_recipe
from tunebook.types import Recipe

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "scripts" / "cluster"
VARIANTS = {
    "plain": {},
    "joint": {"joint": True},
    "joint with port and interface": {
        "joint": True,
        "cluster": Cluster(master_port=29500, interface="eth0", gpus_per_node=4),
    },
    "container": {"cluster": Cluster(container="/images/a b.sqsh", container_mounts="/shared:/shared")},
    "joint in a container": {"joint": True, "cluster": Cluster(container="/images/a.sqsh")},
    "a command": {"cluster": Cluster(command=("apptainer", "exec", "--nv", "/images/a b.sif", "tunebook"))},
    "a joint command": {"joint": True, "cluster": Cluster(command=("tunebook",), modules=("cuda",))},
    "a site with wishes": {
        "cluster": Cluster(
            partition="gpu",
            account="me",
            qos="long",
            time="2-00:00:00",
            gres="gpu:a100:4",
            constraint="a100&nvlink",
            mem="0",
            cpus_per_task=16,
            exclusive=True,
            max_parallel=2,
            requeue=False,
            sbatch=("--mail-type=END",),
            modules=("cuda/12.4",),
            setup="source /shared/venv/bin/activate\n",
            ssh=("-oProxyJump=login",),
        )
    },
}


def job(output: Path = Path("/shared/run"), **changes) -> LaunchPlan:
    recipe = Recipe(
        name="r", engine="llamafactory", path=Path("r.yaml"), values={}, header={"purpose": "a test"}
    )
    values = {
        "name": output.name,
        "recipe": recipe,
        "output": output,
        "project": output.parent,
        "tunebook": Path("/venv/bin/tunebook"),
        "node_recipes": tuple(
            {"model_name_or_path": "m", "output_dir": str(output / f"node_{i}")} for i in range(2)
        ),
        "joint": False,
        "hosts": (Host("a@node0", "10.0.0.1"), Host("node1", "node1")),
        "cluster": Cluster(),
    }
    return LaunchPlan(**values | changes)


def test_the_ready_made_files_are_what_is_rendered_today(tmp_path):
    script = ROOT / "scripts" / "snapshot_launch.py"
    subprocess.run([sys.executable, script, "-o", tmp_path], check=True, capture_output=True)
    for path in sorted(tmp_path.iterdir()):
        assert (EXAMPLES / path.name).read_text() == path.read_text(), (
            f"run scripts/snapshot_launch.py: {path.name}"
        )
    assert {path.name for path in EXAMPLES.iterdir()} == {path.name for path in tmp_path.iterdir()} | {
        "eval.slurm",
        "split.slurm",
    }


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_of_the_table_says_what_it_would_run(name):
    options = StartOptions(after="4711", parallel=None, fail_fast=False)
    commands = load(name).commands(job(), options)
    assert len(commands) == (1 if name == "slurm" else 2)
    assert all("/shared/run/launch/" in command for command in commands)


@pytest.mark.parametrize("variant", VARIANTS)
def test_bash_and_shellcheck_find_nothing_in_what_is_rendered(tmp_path, variant):
    made = all_files(job(**VARIANTS[variant]))
    for name, text in made.items():
        (tmp_path / name).write_text(text)
    scripts = [tmp_path / name for name in made if name.endswith((".sh", ".slurm"))]
    assert len(scripts) == 3
    for script in scripts:
        done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_directive_for_sbatch_holds_a_variable(variant):
    # sbatch reads these lines itself: a variable would be taken as it is written.
    directives = [
        line
        for line in all_files(job(**VARIANTS[variant]))["submit.slurm"].splitlines()
        if line.startswith("#SBATCH")
    ]
    assert directives
    assert not [line for line in directives if "$" in line or "`" in line]


HOSTILE = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/\0"), min_size=1, max_size=20
) | st.sampled_from(
    ["$(touch pwned)", "`touch pwned`", "'; touch pwned; '", '"; touch pwned; "', "a b", "-rf", "*", "~", "#"]
)


@given(HOSTILE, HOSTILE)
@settings(max_examples=60)
def test_a_hostile_name_stays_a_name(output, host):
    made = all_files(job(Path("/shared") / output))
    for name in ("launch_node.sh", "submit.slurm", "launch_all_nodes.sh"):
        lines = made[name].splitlines()
        (assigned,) = [line for line in lines if line.startswith(("output=", "launch="))][:1]
        done = subprocess.run(
            ["bash", "-c", f'{assigned}\nprintf %s "${{{assigned.split("=")[0]}}}"'], capture_output=True
        )
        expected = str(Path("/shared") / output) + ("" if name == "launch_node.sh" else "/launch")
        assert done.stdout.decode() == expected
        assert len([line for line in lines if line.startswith("#SBATCH --job-name=")]) == (
            name == "submit.slurm"
        )
        assert not [
            line
            for line in lines
            if line.startswith("#SBATCH --job-name=") and set(line[20:]) & set(" $`'\"\\")
        ]


def test_launch_node_hands_on_its_recipe_whole_and_the_exit_status(tmp_path):
    folder = tmp_path / "it's $HOME `x` run"
    recorder = tmp_path / "bin" / "tunebook"
    recorder.parent.mkdir()
    recorder.write_text(
        f'#!/bin/bash\nprintf "%s\\n" "$@" "$PWD" "$TUNEBOOK_LOG" >{tmp_path}/called\nexit 7\n'
    )
    recorder.chmod(0o755)
    made = job(folder, tunebook=recorder, project=tmp_path)
    (folder / "launch").mkdir(parents=True)
    script = folder / "launch" / "launch_node.sh"
    script.write_text(all_files(made)["launch_node.sh"])
    for arguments in (["1"], ["--attended", "1"]):
        process = subprocess.Popen(
            ["bash", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        out = process.stdout.readline()
        assert process.wait(timeout=20) == 7
        process.communicate()
        assert (tmp_path / "called").read_text().splitlines() == [
            "train",
            str(folder / "launch" / "node_1.yaml"),
            str(tmp_path),
            str(folder / "logs" / "node_1.log"),
        ]
        assert "node 1 on " in out
        (tmp_path / "called").unlink()


@pytest.mark.parametrize("rank", ["", "2", "-1", "x", "1; touch pwned"])
def test_launch_node_refuses_a_rank_that_is_none(tmp_path, rank):
    script = tmp_path / "launch_node.sh"
    script.write_text(all_files(job(tmp_path / "run"))["launch_node.sh"])
    done = subprocess.run(["bash", script, rank], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "RANK from 0 to 1" in done.stderr
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("partiton: gpu", "partiton: no such key; did you mean partition?"),
        ("time: 24:00:00", "put it in quotes"),
        ('time: "soon"', "is not a time limit"),
        ('partition: "gpu\\n#SBATCH --uid=0"', "cannot be written into a line for sbatch"),
        ('account: "a b"', "cannot be written into a line for sbatch"),
        ('sbatch: ["--mail-type=END; rm -rf /"]', "holds something that is not an option of sbatch"),
        ('sbatch: ["-p gpu"]', "holds something that is not an option of sbatch"),
        ("cpus_per_task: 0", "is not a whole number above 0"),
        ("exclusive: maybe", "is neither true nor false"),
        ('interface: "eth0; reboot"', "is not a network interface"),
        ("- a list", "must hold keys and values"),
        ("a: [", "not YAML"),
    ],
)
def test_a_wrong_cluster_file_is_told_by_key_and_value(tmp_path, text, problem):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(TunebookError) as caught:
        read_cluster(path)
    assert problem.partition(";")[0] in f"{caught.value}"
    assert problem.partition("; ")[2] in f"{caught.value}"


def test_all_faults_of_a_cluster_file_are_told_together(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text('gpus: 4\nmem: 500\nqos: "a b"\n')
    with pytest.raises(TunebookError) as caught:
        read_cluster(path)
    assert all(key in str(caught.value) for key in ("gpus", "mem", "qos"))


@pytest.mark.parametrize("line", ["-oProxyCommand=touch", "node0;reboot", "node 0 0", "$(x)", "a@b@c"])
def test_a_line_that_is_no_host_is_refused(tmp_path, line):
    path = tmp_path / "hosts"
    path.write_text(f"node9 # fine\n{line}\n")
    with pytest.raises(TunebookError, match=r":2: .*is not a host"):
        read_hosts(path)


def test_hosts_may_have_a_user_an_address_and_comments(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("# ours\nann@gpu-0 10.0.0.4\ngpu-1\n\n")
    assert read_hosts(path) == (Host("ann@gpu-0", "10.0.0.4"), Host("gpu-1", "gpu-1"))
    path.write_text("gpu-1\ngpu-1\n")
    with pytest.raises(TunebookError, match="names gpu-1 twice"):
        read_hosts(path)


TUNEBOOK = [sys.executable, "-m", "tunebook.cli.main"]


@pytest.fixture
def split(tmp_path, monkeypatch) -> Path:
    """A finished split of a registry with one entry into two parts, and a recipe of either engine beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    rows = [{"instruction": "?", "input": "", "output": "Yes"}] * 4
    (tmp_path / "data" / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}))
    split_rows = ["data", "split", "rows", "--nodes", "2", "-o", "split", "--dataset-dir", "data"]
    subprocess.run([*TUNEBOOK, *split_rows], check=True, capture_output=True)
    lf = {"model_name_or_path": "m", "dataset_dir": "data", "dataset": "rows", "output_dir": "out"}
    (tmp_path / "lf.yaml").write_text(yaml.safe_dump(lf))
    block = {"path": "data/rows.json", "split": "train", "type": "tunebook.hooks.axolotl_alpaca"}
    ax = {
        "base_model": "m",
        "datasets": [block],
        "test_datasets": [block],
        "plugins": ["tunebook.hooks.axolotl.TunebookPlugin"],
        "tunebook_dataset_dir": "data",
        "tunebook_eval_datasets": ["rows"],
        "eval_steps": 2,
        "learning_rate": 1e-4,
        "output_dir": "out",
    }
    (tmp_path / "ax.yaml").write_text(yaml.safe_dump(ax))
    return tmp_path / "split"


def plan(recipe: str, **options) -> LaunchPlan:
    given_ = {"split": None, "nodes": None, "joint": False, "hosts": (), "cluster": Cluster()}
    return plan_launch(recipe, (), (), **given_ | options)


def test_each_node_of_llamafactory_reads_its_own_part(split):
    planned = plan("lf.yaml", split=split)
    assert [values["dataset_dir"] for values in planned.node_recipes] == [
        str(split / f"node_{i}") for i in range(2)
    ]
    assert [Path(values["output_dir"]).name for values in planned.node_recipes] == ["node_0", "node_1"]


def test_each_node_of_axolotl_reads_its_own_part(split):
    planned = plan("ax.yaml", split=split)
    for rank, values in enumerate(planned.node_recipes):
        (block,) = values["datasets"]
        assert Path(block["path"]) == split / f"node_{rank}" / "rows.json"
        assert block["type"] == "tunebook.hooks.axolotl_alpaca"
        assert values["tunebook_dataset_dir"] == str(split / f"node_{rank}")
        assert Path(block["path"]).is_file()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "the number of nodes is not given"),
        ({"nodes": 2}, "would each train the same thing on the same data"),
        ({"split": "split", "nodes": 3}, "has 2 parts, not 3"),
        ({"split": "data"}, "holds no finished split"),
        ({"joint": True, "nodes": 3, "hosts": (Host("a", "a"),)}, "3 nodes, but 1 hosts"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(split, options, problem):
    if "split" in options:
        options = {**options, "split": Path(options["split"])}
    with pytest.raises(TunebookError, match=problem):
        plan("lf.yaml", **options)


def test_faults_of_the_recipe_and_of_the_plan_are_named_in_one_start(split):
    recipe = yaml.safe_load(Path("lf.yaml").read_text()) | {"model_name_or_path": "./no_model"}
    Path("lf.yaml").write_text(yaml.safe_dump(recipe | {"dataset": "nosuch", "learing_rate": 1.0}))
    with pytest.raises(TunebookError) as caught:
        plan("lf.yaml", nodes=2)
    assert len(caught.value.faults) == 4
    for part in ("./no_model", "no dataset 'nosuch'", "learing_rate: no such key", "the same thing on the"):
        assert sum(part in fault.problem for fault in caught.value.faults) == 1, caught.value
        assert all(fault.fix for fault in caught.value.faults)


WRONG_KINDS = (5, -1, True, "abc", "", [], {}, [1, 2], {"a": 1}, "a,b", [{}], [{"path": 3}], "/nowhere/x")


@pytest.mark.parametrize("file", ["lf.yaml", "ax.yaml"])
def test_a_value_of_the_wrong_kind_is_a_fault_and_no_crash(split, file):
    recipe = yaml.safe_load(Path(file).read_text()) | {"flash_attn": "auto", "max_samples": 2}
    for key in recipe:
        for value in WRONG_KINDS:
            Path("changed.yaml").write_text(yaml.safe_dump({**recipe, key: value}))
            with suppress(TunebookError):
                resolve_recipe("changed.yaml", (), ())


@pytest.mark.parametrize("recipe", ["lf.yaml", "ax.yaml"])
def test_a_split_of_other_data_is_refused(split, recipe):
    registry = {name: {"file_name": f"{name}.json"} for name in ("rows", "more")}
    Path("data/dataset_info.json").write_text(json.dumps(registry))
    Path("data/more.json").write_text(Path("data/rows.json").read_text())
    subprocess.run(
        [*TUNEBOOK, "data", "split", "more", "--nodes", "2", "-o", "of_more", "--dataset-dir", "data"],
        check=True,
    )
    for names, too in ((["rows"], ""), (["rows", "more"], " too")):
        values = yaml.safe_load(Path(recipe).read_text())
        if recipe == "lf.yaml":
            values["dataset"] = ",".join(names)
        else:
            values["datasets"] = [{**values["datasets"][0], "path": f"data/{name}.json"} for name in names]
        Path(recipe).write_text(yaml.safe_dump(values))
        with pytest.raises(
            TunebookError, match=f"is a split of 'more', and the recipe trains on 'rows'{too}: each"
        ):
            plan(recipe, split=Path("of_more"))
    assert plan(recipe, split=Path("of_more"), joint=True, nodes=2).joint
    node = resolve_recipe("lf.yaml", (), ["dataset_dir=of_more/node_0"])
    assert [note for note in node.notes if "each node would train on all of it" in note]
    node = resolve_recipe("lf.yaml", (), ["dataset_dir=split/node_0", "dataset=rows"])
    assert not [note for note in node.notes if "split of" in note]


def test_the_site_s_lines_may_read_unset_variables(tmp_path):
    (tmp_path / "activate.sh").write_text('echo "prompt was $PS1"\nconda() { :; }\n')
    cluster = Cluster(setup=f"source {tmp_path}/activate.sh", command=("echo", "started"))
    planned = job(tmp_path / "run", cluster=cluster)
    (tmp_path / "launch_node.sh").write_text(all_files(planned)["launch_node.sh"])
    bare = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["bash", tmp_path / "launch_node.sh", "0"], env=bare, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = (tmp_path / "run" / "logs" / "node_0.log").read_text()
    assert said == f"started train {tmp_path}/run/launch/node_0.yaml\n"


def test_a_folder_that_is_not_on_the_node_leaves_a_trace(tmp_path):
    planned = job(Path("/proc/nowhere/run"))
    (tmp_path / "submit.slurm").write_text(all_files(planned)["submit.slurm"])
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/told\n')
    (tmp_path / "scontrol").chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "0",
        "TMPDIR": str(tmp_path),
    }
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(["bash", tmp_path / "submit.slurm"], env=slurm | path).returncode == 1
    for place in ("told", "tunebook_7.out"):
        assert (
            "cannot write to /proc/nowhere/run/launch: is the shared folder" in (tmp_path / place).read_text()
        )


@pytest.mark.parametrize("recipe", ["lf.yaml", "ax.yaml"])
def test_of_a_split_only_the_parts_have_to_be_there(split, recipe):
    Path("data/rows.json").unlink()
    if recipe == "ax.yaml":
        # Axolotl's blocks name files; the registry says which entry each is.
        Path("data/rows.json").touch()
    assert plan(recipe, split=split).nodes == 2
    (split / "node_0" / "rows.json").unlink()
    with pytest.raises(TunebookError, match=r"rows\.json"):
        plan(recipe, split=split)


def test_axolotls_nodes_are_told_where_to_meet():
    environ = {
        "NNODES": "2",
        "NODE_RANK": "1",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "29501",
        "NPROC_PER_NODE": "4",
    }
    command = Axolotl().train(Path("r.yaml"), {}, environment=Path("/env"), gpus=0, environ=environ)
    assert command.argv[3:] == (
        *("--launcher", "torchrun", "--", "--nproc_per_node=4", "--nnodes=2", "--node_rank=1"),
        *("--master_addr=10.0.0.1", "--master_port=29501"),
    )


def test_a_dry_run_prints_everything_and_writes_nothing(split):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tunebook.cli.main",
            "launch",
            "lf.yaml",
            "--via",
            "slurm",
            "--split",
            "split",
            "--dry-run",
        ],
        capture_output=True,
        text=True,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr
    for name in ("launch_node.sh", "submit.slurm", "node_0.yaml", "node_1.yaml"):
        assert f"# would write {split.parent}/out/launch/{name}" in done.stdout
    assert f"# would run: sbatch --parsable {split.parent}/out/launch/submit.slurm" in done.stdout
    assert not (split.parent / "out").exists()


@pytest.mark.parametrize("name", ["eval.slurm", "split.slurm"])
def test_shellcheck_finds_nothing_in_our_own_jobs(name):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", EXAMPLES / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("count", "share"), [("1", []), ("4", ["--shard", "2/4"])])
def test_an_evaluation_s_job_takes_its_share_of_the_array(tmp_path, count, share):
    told = tmp_path / "tunebook"
    told.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    told.chmod(0o755)
    done = subprocess.run(
        [EXAMPLES / "eval.slurm", "-o", "results", "my run", "--base"],
        env={
            "PATH": "/usr/bin:/bin",
            "TUNEBOOK": str(told),
            "SLURM_ARRAY_TASK_ID": "2",
            "SLURM_ARRAY_TASK_COUNT": count,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["eval", "-o", "results", "my run", "--base", *share]
