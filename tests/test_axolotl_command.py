import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunebook.cli.axolotl import tunebook

INSTALLED = any(
    point.name == "tunebook" for point in importlib.metadata.entry_points(group="axolotl.cli_commands")
)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "Recipes, honest metrics and reports"),
        (["ls", "--engine", "axolotl"], 0, "axolotl/demo/full_sft_recommend"),
        (["show", "no/such/recipe"], 2, "fix: "),
        (["train", "--help"], 0, "--dry-run"),
    ],
)
def test_axolotl_hands_everything_on_to_our_command(monkeypatch, arguments, code, said):
    monkeypatch.setattr(sys, "argv", ["axolotl", "tunebook"])
    result = CliRunner().invoke(tunebook, arguments)
    assert result.exit_code == code
    assert said in result.output


@pytest.mark.axolotl
@pytest.mark.skipif(not INSTALLED, reason="the installed tunebook does not offer the entry point")
def test_axolotl_s_command_line_reaches_ours():
    axolotl = Path(sys.executable).parent / "axolotl"
    listed = subprocess.run([axolotl, "--help"], capture_output=True, text=True, check=True).stdout
    assert "Run tunebook: recipes, metrics and reports." in listed
    done = subprocess.run([axolotl, "tunebook", "ls"], capture_output=True, text=True, check=False)
    assert "axolotl/demo/full_sft_recommend" in done.stdout
