"""A full disk, a name too long, a link to itself: one error, no traceback, no half of a file."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from token_files import byte_level
from tunebook.files import open_atomic, temporary_beside

WRITERS = {
    "lengths": ["data", "lengths", "x", "--dataset-dir", ".", "--chars", "--html", "OUT/page.html"],
    "score": ["score", "yes_no", "a.jsonl", "--records", "OUT/records.jsonl"],
    "cp": ["cp", "llamafactory/demo/full_sft_recommend", "OUT/recipe.yaml"],
    "split": ["data", "split", "x", "--dataset-dir", ".", "--nodes", "2", "-o", "OUT/split"],
    "filter": ["data", "filter", "x", "--dataset-dir", ".", "--max-chars", "9", "-o", "OUT/filter"],
    "chunk": ["data", "chunk", "x", "--dataset-dir", ".", "--max-tokens", "64", "--tokenizer", "tokenizer.json", "-o", "OUT/c"],
    "compare": ["compare", "a.jsonl", "b.jsonl", "--metric", "yes_no", "-o", "OUT/compare"],
    "report": ["report", "run", "-o", "OUT/report"],
}  # fmt: skip
READERS = ["check", "show", "status", "data check", "estimate", "train", "launch"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"instruction": f"q{n}", "input": "", "output": "Yes"} for n in range(300)]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    (tmp_path / "dataset_info.json").write_text(
        json.dumps({"x": {"file_name": "x.json", "metric": "yes_no"}})
    )
    for name, said in (("a", "Yes"), ("b", "No")):
        lines = [json.dumps({"prompt": f"q{n}", "predict": said, "label": "Yes"}) + "\n" for n in range(300)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    (tmp_path / "run").mkdir()
    state = {
        "global_step": 2,
        "max_steps": 2,
        "log_history": [{"loss": 1.0, "step": 1}, {"loss": 0.5, "step": 2}],
    }
    (tmp_path / "run" / "trainer_state.json").write_text(json.dumps(state))
    byte_level(tmp_path / "tokenizer.json")
    return tmp_path


def tunebook(arguments, *, file_bytes=None, stdout=subprocess.PIPE):
    def limit():
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    program = "from tunebook.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        stdout=stdout, stderr=subprocess.PIPE, text=True, preexec_fn=limit, timeout=60, check=False,
    )  # fmt: skip


def is_one_error(done):
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error: ") == 1
    assert done.stderr.count("fix: ") == 1


@pytest.mark.parametrize("command", WRITERS)
def test_a_full_disk_is_one_error_and_leaves_nothing(place, command):
    # Python reports a file that grows beyond a limit as it reports a full disk.
    (place / "out").mkdir()
    done = tunebook([word.replace("OUT", "out") for word in WRITERS[command]], file_bytes=100)
    is_one_error(done)
    assert list((place / "out").rglob("*")) == []


@pytest.mark.parametrize("command", WRITERS)
def test_a_name_that_is_too_long_is_one_error(place, command):
    is_one_error(tunebook([word.replace("OUT/", "y" * 300) for word in WRITERS[command]]))
    assert not list(place.glob("*yyy*"))


@pytest.mark.parametrize("command", READERS)
def test_a_name_that_is_too_long_cannot_be_read(place, command):
    more = ["--dataset-dir", "."] if command == "data check" else []
    more += ["--via", "slurm", "--nodes", "2"] if command == "launch" else []
    is_one_error(tunebook([*command.split(), "z" * 300, *more]))


@pytest.mark.parametrize("command", ["split", "filter", "chunk", "compare", "report"])
def test_a_link_to_itself_is_one_error(place, command):
    (place / "self").symlink_to("self")
    is_one_error(tunebook([*WRITERS[command][:-1], "self"]))
    assert str(Path("self").readlink()) == "self"


@pytest.mark.parametrize(
    "arguments", [["ls"], ["--help"], ["score", "yes_no", "a.jsonl"], ["data", "ls", "--dataset-dir", "."]]
)
def test_an_output_that_takes_nothing_is_one_error(place, arguments):
    with Path("/dev/full").open("w") as full:
        is_one_error(tunebook(arguments, stdout=full))


def test_what_a_killed_process_left_is_deleted_and_another_one_s_stays(tmp_path):
    target = tmp_path / ("n" * 250)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ours = temporary_beside(target).name
    left = tmp_path / ours.replace(f"-{os.getpid()}.tmp", f"-{dead.pid}.tmp")
    alive = tmp_path / ours.replace(f"-{os.getpid()}.tmp", f"-{os.getppid()}.tmp")
    elsewhere = tmp_path / ours.replace(os.uname().nodename, "another").replace(
        f"-{os.getpid()}.tmp", f"-{dead.pid}.tmp"
    )
    for path in (left, alive, elsewhere):
        path.write_text("half")
    with open_atomic(target) as stream:
        stream.write("whole")
    assert target.read_text() == "whole"
    assert sorted(tmp_path.iterdir()) == sorted([alive, elsewhere, target])


def test_a_report_may_go_into_a_linked_folder(place):
    (place / "scratch").mkdir()
    (place / "link").symlink_to("scratch")
    for _ in range(2):
        assert tunebook(["report", "run", "-o", "link"]).returncode == 0
        assert (place / "link").is_symlink()
        assert (place / "scratch" / "report.html").is_file()
    assert not list(place.glob(".*"))
