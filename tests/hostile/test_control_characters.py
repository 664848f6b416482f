"""A prediction or a server's error gives no command to the reader's terminal."""

import json

import click
import pytest
from click.testing import CliRunner

from tunebook.cli import main
from tunebook.cli.compare import compare
from tunebook.cli.parts import print_finding
from tunebook.errors import TunebookError
from tunebook.text import without_controls

BAD = "Yes\x1b]0;title\x07\x1b[2J\x9b31m\rhidden\x00"


def test_control_characters_are_written_out():
    assert without_controls(BAD) == "Yes\\x1b]0;title\\x07\\x1b[2J\\x9b31m\\x0dhidden\\x00"
    assert without_controls({"a": ["x\ty\n", BAD[:4]]}) == {"a": ["x\ty\n", "Yes\\x1b"]}


def harmless(text):
    return not any(
        (ord(character) < 32 and character not in "\n\t") or 127 <= ord(character) < 160 for character in text
    )


def test_compare_shows_no_command_in_the_terminal_or_its_files(tmp_path):
    for name, said in (("a", "No"), ("b", BAD)):
        rows = [{"prompt": f"{BAD} {n}", "predict": said, "label": "Yes"} for n in range(12)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    done = CliRunner().invoke(compare, [*files, "--metric", "yes_no", "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "\\x1b[2J" in done.output
    assert harmless(done.output)
    for file in (tmp_path / "out").iterdir():
        assert harmless(file.read_text(encoding="utf-8")), file


def test_an_error_and_a_finding_show_none(monkeypatch, capsys):
    @click.command("bad")
    def bad():
        raise TunebookError(f"the server says {BAD}", fix="none")

    monkeypatch.setattr(main, "cli", bad)
    monkeypatch.setattr("sys.argv", ["tunebook"])
    with pytest.raises(SystemExit):
        main.main()
    print_finding(BAD, "error", "rule", BAD, BAD)
    shown = capsys.readouterr()
    assert "\\x1b[2J" in shown.err
    assert harmless(shown.err)
    assert harmless(click.unstyle(shown.out))
