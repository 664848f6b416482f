import hashlib
import json
import subprocess
import sys

import pytest

from tunebook import files


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "report.json"
    files.write_atomic(path, "old")
    with pytest.raises(TypeError):
        files.write_atomic(path, 3)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_makes_its_folder_and_obeys_the_umask(tmp_path):
    path = tmp_path / "a" / "b.txt"
    files.write_atomic(path, "ä")
    assert path.read_bytes() == "ä".encode()
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_lines_of_two_processes_do_not_mix(tmp_path):
    path = tmp_path / "records.jsonl"
    script = (
        "import sys; from pathlib import Path; from tunebook import files\n"
        "for i in range(200): files.append_jsonl(Path(sys.argv[1]), {'who': sys.argv[2], 'text': 'x' * 3000})\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path), who]) for who in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(row["who"] for row in rows) == ["a"] * 200 + ["b"] * 200


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "data").write_bytes(b"abc" * 1_000_000)
    assert files.sha256_of(tmp_path / "data") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_free_space_is_asked_of_the_nearest_folder_there_is(tmp_path):
    assert files.free_bytes(tmp_path / "not" / "yet" / "there") > 0
