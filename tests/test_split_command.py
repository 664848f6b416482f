"""The command: bad input ends in one clear error with nothing left over; a kill leaves nothing half done."""

import errno
import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from split_cases import csv_text, job, split_file
from tunebook.cli.data_split import split as command
from tunebook.errors import TunebookError
from tunebook.splits import run as split_run
from tunebook.splits.write import PartWriter


def fail(folder: Path, source: Path, *options: str) -> str:
    """What the command says of `source`, which must be an error for the user, with nothing left over."""
    before = sorted(folder.rglob("*"))
    done = CliRunner().invoke(command, [str(source), "-o", str(folder / "out"), *options])
    assert isinstance(done.exception, TunebookError), done.output
    assert sorted(folder.rglob("*")) == before
    return str(done.exception)


@pytest.mark.parametrize(
    ("name", "text", "options", "problem"),
    [
        ("d.csv", "a,b\n1,2\n3\n4,5\n", (), "d.csv, line 3: a row of 1 field under a header of 2"),
        ("d.csv", 'a,b\n"x\ny",2\n3,4,5\n', (), "d.csv, line 4: a row of 3 fields under a header of 2"),
        ("d.csv", 'a,b\n1,2\n"3,4\n', (), "d.csv, line 3: a quote is opened and never closed"),
        ("d.csv", 'a,b\nx "y", z\n1\n', (), "d.csv, line 3: a row of 1 field under a header of 2"),
        ("d.csv", "a,b\n", (), "holds no rows"),
        ("d.csv", "", (), "is empty"),
        ("d.csv", "\n\n", (), "has no header"),
        ("d.csv", "a\n1\n2\n", ("--nodes", "3"), "cannot split 2 rows between 3 nodes"),
        ("d.csv", "a\n1\n2\n", ("--eval", "2"), "cannot hold out 2 of 2 rows"),
        ("d.csv", "a\n1\n2\n", ("--group-by", "b"), "there is no column 'b'"),
        ("d.csv", "a\n1\n1\n", ("--nodes", "2", "--group-by", "a"), "cannot split 1 groups of 'a'"),
        ("d.jsonl", '{"a": 1}\n{"a": }\n', (), "d.jsonl, line 2: is no JSON"),
        ("d.jsonl", '{"a": 1}\n\n{"a": 1\n', (), "d.jsonl, line 3: is no JSON"),
        ("d.jsonl", '{"a": 1}\n{"a": 1\n', ("--check-json", "braces"), "d.jsonl, line 2: is no JSON"),
        ("d.jsonl", '{"a": 1}\n[1]\n', (), "d.jsonl, line 2: is no JSON object: it begins with '[1]'"),
        ("d.jsonl", '{"a": 1}\n{"b": 1}\n', ("--group-by", "a"), "d.jsonl, row 2: there is no column 'a'"),
        ("d.jsonl", "\n \n", (), "holds no rows"),
        ("d.json", '[\n{"a": 1},\n{"a": }\n]', (), "d.json, line 3: is no JSON"),
        ("d.json", '[{"a": 1},\n{"a": 1}', (), "d.json, line 2: the file ends after row 2"),
        ("d.json", '[{"a": 1}\n{"a": 1}]', (), "a comma is missing"),
        ("d.json", '[{"a": 1}, 7, {"a": 1}]', (), "d.json, line 1: is no list of JSON objects"),
        ("d.json", '[{"a": 1}] more', (), "text after the end of the array"),
        ("d.json", "[]", (), "holds no rows"),
        ("d.parquet", "PAR1 no", (), "is no Parquet file"),
        ("d.txt", "a", (), "ends in '.txt'"),
        ("d.csv", "a\n1\n", ("--balance", "tokens"), "needs a tokenizer"),
        ("d.csv", "a\n1\n", ("--memory", "1MB"), "too little"),
        ("d.csv", "a\n1\n", ("--shard", "0/2"), "tasks keep the order"),
    ],
)
def test_bad_input_is_one_clear_error_and_leaves_nothing(tmp_path, name, text, options, problem):
    (tmp_path / name).write_text(text)
    nodes = () if "--nodes" in options else ("--nodes", "1")
    assert problem in fail(tmp_path, tmp_path / name, *nodes, *options)


def test_text_in_another_encoding_is_named(tmp_path):
    (tmp_path / "d.csv").write_bytes("a,b\n1,2\n".encode("utf-16"))
    assert "UTF-16" in fail(tmp_path, tmp_path / "d.csv", "--nodes", "1")
    (tmp_path / "d.csv").write_bytes(b"a,b\n\xff,2\n")
    assert "not UTF-8" in fail(tmp_path, tmp_path / "d.csv", "--nodes", "1", "--group-by", "a")


def test_an_output_that_is_there_is_kept(tmp_path):
    (tmp_path / "d.csv").write_text("a\n1\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert "is there already" in fail(tmp_path, tmp_path / "d.csv", "--nodes", "1")


def test_a_full_disk_is_reported_before_anything_is_written(tmp_path, monkeypatch):
    (tmp_path / "d.csv").write_text(csv_text([("a", "b", "c")] * 100))
    monkeypatch.setattr("tunebook.splits.run.files.free_bytes", lambda path: 500)
    assert "0.00 GB are free" in fail(tmp_path, tmp_path / "d.csv", "--nodes", "2")


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch, shuffle):
    (tmp_path / "d.csv").write_text(csv_text([("a", "b" * 1000, "c")] * 1000))
    written = PartWriter.write
    room = [100_000]

    def write(self, rows):
        room[0] -= sum(map(len, rows))
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(self, rows)

    monkeypatch.setattr(PartWriter, "write", write)
    monkeypatch.setattr("tunebook.splits.write._BLOCK_BYTES", 10_000)
    with pytest.raises(TunebookError, match="no space is left"):
        split_file(tmp_path / "d.csv", tmp_path / "out", shuffle=shuffle)
    assert [path.name for path in tmp_path.iterdir()] == ["d.csv"]
    held = [str(link.resolve()) for link in Path("/proc/self/fd").iterdir()]
    assert not [name for name in held if "unfinished" in name]


def test_a_source_that_changes_meanwhile_is_noticed(tmp_path):
    source = tmp_path / "d.csv"
    source.write_text(csv_text([("a", "b", "c")] * 10))
    work = job(source, tmp_path / "out")
    source.write_text(csv_text([("a", "b", "d")] * 10))
    with pytest.raises(TunebookError, match="was changed"):
        split_run.split(work)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.csv"]


def test_bad_rows_are_left_out_counted_and_listed_on_request(tmp_path):
    (tmp_path / "d.csv").write_text("a,b\n1,2\n3\n4,5\n6,7,8\n")
    done = CliRunner().invoke(
        command, [str(tmp_path / "d.csv"), "--nodes", "2", "-o", str(tmp_path / "out"), "--skip-bad"]
    )
    assert done.exit_code == 0, done.output
    assert "left out: 2 bad rows" in done.output
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [(bad["line"], bad["problem"]) for bad in manifest["skipped"]] == [
        (3, "a row of 1 field under a header of 2"),
        (5, "a row of 3 fields under a header of 2"),
    ]
    assert manifest["rows"] == 2
    assert not (tmp_path / "out" / "joint").exists()  # the source still holds the bad rows


def test_bad_json_rows_are_left_out_too(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"a": 1}\nnonsense\n{"a": 2}\n{"a": \n')
    manifest = split_file(tmp_path / "d.jsonl", tmp_path / "out", skip_bad=True)
    assert (manifest["rows"], [bad["line"] for bad in manifest["skipped"]]) == (2, [2, 4])
    (tmp_path / "d.json").write_text('[{"a": 1}, {"a": }, 7, {"a": 2}]')
    manifest = split_file(tmp_path / "d.json", tmp_path / "out2", skip_bad=True)
    assert (manifest["rows"], manifest["skipped_rows"]) == (2, 2)


def test_a_quote_inside_a_field_is_read_the_slow_way_and_said(tmp_path):
    (tmp_path / "d.csv").write_text('a,b\nan 8" pipe,"x\ny"\n1,2\n')
    done = CliRunner().invoke(
        command, [str(tmp_path / "d.csv"), "--nodes", "1", "-o", str(tmp_path / "out"), "--no-shuffle"]
    )
    assert done.exit_code == 0, done.output
    assert "d.csv, line 2: a quote inside an unquoted field" in done.output
    assert (tmp_path / "out" / "node_0" / "d.csv").read_text() == (tmp_path / "d.csv").read_text()


def test_figures_are_printed_for_programs(tmp_path):
    (tmp_path / "d.csv").write_text(csv_text([("a", "b", "c")] * 10))
    arguments = [str(tmp_path / "d.csv"), "--nodes", "3", "-o", str(tmp_path / "out"), "--json"]
    planned = json.loads(CliRunner().invoke(command, [*arguments, "--dry-run"]).stdout)
    assert not (tmp_path / "out").exists()
    made = json.loads(CliRunner().invoke(command, arguments).stdout)
    assert [part["rows"] for part in planned["parts"]] == [part["rows"] for part in made["nodes"]]
    assert made == json.loads((tmp_path / "out" / "manifest.json").read_text())


@pytest.mark.parametrize("options", [{"shuffle": False}, {"eval_rows": 7, "names": {"joint": True}}])
def test_a_kill_at_any_moment_leaves_nothing_that_looks_finished(tmp_path, options):
    source = tmp_path / "d.jsonl"
    rows = ({"instruction": f"{number}" + "x" * 3000, "output": "y"} for number in range(8000))
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    began = time.monotonic()
    whole = split_file(source, tmp_path / "whole", **options)
    seconds = time.monotonic() - began
    rng = random.Random(0)
    killed = 0
    for attempt in range(5):
        out = tmp_path / f"out{attempt}"
        process = os.fork()
        if not process:
            split_file(source, out, **options)
            os._exit(0)
        time.sleep(rng.uniform(0.05, 0.9) * seconds)
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        killed += os.WIFSIGNALED(status)
        assert not out.exists() or json.loads((out / "manifest.json").read_text()) == whole
        assert split_file(source, out, **options) == whole
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
        shutil.rmtree(out)
    assert killed


def test_a_split_that_was_cut_off_starts_again_and_gives_the_same_bytes(tmp_path, monkeypatch):
    source = tmp_path / "d.csv"
    source.write_text(csv_text([(str(number), '"q"\n' * 50, "r") for number in range(3000)]))
    monkeypatch.setattr("tunebook.splits.write._BLOCK_BYTES", 20_000)
    monkeypatch.setattr("tunebook.splits.shuffle._BYTES_PER_ROW", 500_000)
    for number, options in enumerate(({"shuffle": False}, {"eval_rows": 50, "names": {"joint": True}})):
        whole = split_file(source, tmp_path / f"whole{number}", nodes=4, **options)
        for stop_at in (1, 20, 50):
            out = tmp_path / f"out{number}.{stop_at}"
            with monkeypatch.context() as patched:
                cut_off(patched, stop_at)
                with pytest.raises(KeyboardInterrupt):
                    split_file(source, out, nodes=4, **options)
            assert not out.exists()
            # Other options do not meet what was left, either.
            other = split_file(source, out, nodes=3, **options)
            assert len(other["nodes"]) == 3
            shutil.rmtree(out)
            assert split_file(source, out, nodes=4, **options) == whole
            assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def cut_off(patched, stop_at: int) -> None:
    """Interrupt the split after its `stop_at`-th write of rows, which are on disk by then."""
    written = PartWriter.write
    count = 0

    def write(self, rows):
        nonlocal count
        written(self, rows)
        count += 1
        if count >= stop_at:
            self._stream.flush()
            raise KeyboardInterrupt

    patched.setattr(PartWriter, "write", write)


def test_a_second_process_is_refused_while_the_first_works(tmp_path):
    source = tmp_path / "d.csv"
    source.write_text(csv_text([("a", "b", "c")] * 10))
    work = job(source, tmp_path / "out")
    with work.staging().opened(), pytest.raises(TunebookError, match="another process"):
        split_run.split(work)


def test_help_shows_an_example():
    text = CliRunner().invoke(command, ["--help"]).output
    assert re.search(r"tunebook data split \S+ --nodes 4", text)


def test_tokens_are_counted_with_the_tokenizer_that_is_named(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.save(str(tmp_path / "tokenizer.json"))
    rows = [("not counted " * 9, "one two", "three " * (number % 30)) for number in range(600)]
    (tmp_path / "d.csv").write_text(csv_text(rows, header=["other", "question", "answer"]))
    arguments = [str(tmp_path / "d.csv"), "--nodes", "4", "-o", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(command, [*arguments, "--balance", "tokens", "--tokenizer", str(tmp_path)])
    assert done.exit_code == 0, done.output
    manifest = json.loads(done.stdout)
    assert sum(part["tokens"] for part in manifest["nodes"]) == sum(2 + number % 30 for number in range(600))
    assert manifest["spread"]["tokens"] < 0.01


def test_what_a_split_left_in_its_last_moment_is_not_published_by_another(tmp_path):
    (tmp_path / "d.csv").write_text(csv_text([("a", "b", "c")] * 10))
    left = job(tmp_path / "d.csv", tmp_path / "out").staging().folder
    (left / "node_7").mkdir(parents=True)
    (left / "manifest.json").write_text("{}")
    split_file(tmp_path / "d.csv", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "joint",
        "manifest.json",
        "node_0",
        "node_1",
    ]


def test_media_that_are_looked_for_in_dataset_dir_are_named(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"a": 1}\n' * 4)
    entry = {"file_name": "d.jsonl", "columns": {"prompt": "a", "images": "images"}}
    (tmp_path / "dataset_info.json").write_text(
        json.dumps({"d": entry, "later": {"file_name": "later.json"}})
    )
    arguments = ["d", "--dataset-dir", str(tmp_path), "--nodes", "2", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(command, arguments)
    assert f"set media_dir={tmp_path}" in done.output
    info = json.loads((tmp_path / "out" / "node_0" / "dataset_info.json").read_text())
    assert info["later"]["file_name"] == str(tmp_path / "later.json")


def test_a_job_array_is_run_by_the_command(tmp_path):
    (tmp_path / "d.jsonl").write_text("".join(json.dumps({"a": number}) + "\n" for number in range(50)))
    arguments = [str(tmp_path / "d.jsonl"), "--nodes", "3", "-o", str(tmp_path / "out"), "--no-shuffle"]
    error = CliRunner().invoke(command, [*arguments, "--merge", "2"]).exception
    assert "tasks 0, 1 of 2 have not finished" in str(error)
    for task in range(2):
        done = CliRunner().invoke(command, [*arguments, "--shard", f"{task}/2"])
        assert done.exit_code == 0, done.output
        assert f"task {task} of 2 is done, {task + 1} in all" in done.output
        assert not (tmp_path / "out").exists()
    assert "other options" in str(CliRunner().invoke(command, arguments).exception)
    assert CliRunner().invoke(command, [*arguments, "--merge", "2"]).exit_code == 0
    rows = [
        [
            json.loads(line)["a"]
            for line in (tmp_path / "out" / f"node_{node}" / "d.jsonl").read_text().splitlines()
        ]
        for node in range(3)
    ]
    assert rows == [list(range(node, 50, 3)) for node in range(3)]


@pytest.mark.parametrize("wrong", ["3/3", "1", "-1/2", "a/b"])
def test_a_task_that_is_none_is_refused(tmp_path, wrong):
    (tmp_path / "d.csv").write_text("a\n1\n")
    arguments = [str(tmp_path / "d.csv"), "--nodes", "1", "-o", str(tmp_path / "out"), "--shard", wrong]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2
    assert "is no task" in done.output
